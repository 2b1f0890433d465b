"""Every architecture against one text at a time: scores, losses, generation, and the rules of each tokenizer."""

from pathlib import Path

import pytest
import tiny_models
import torch
from tiny_models import CAUSAL, MASKED, PACKING, language_model, reference_score, token_logs
from transformers import OPTConfig, OPTForCausalLM

from llm.model import loading
from llm.model.generation import greedy
from llm.model.language_model import LanguageModel
from llm.objective import AnswerObjective, Encoded, Encoder, Objective, candidate_scores, packing
from llm.objective.packing import can_pack
from llm.tasks import Example
from zobench import InForwardSpace, ModuleSpace, derive, methods

pytestmark = [pytest.mark.environment, pytest.mark.usefixtures("one_thread")]

OPT_TOKENIZER = Path(__file__).parents[2] / "shared/models/opt-tokenizer"
PROMPTS = [[2, 17, 4, 90], [2, 33], [2, *range(100, 120)], [2, 7, 7]]
CANDIDATES = [
    [(5, 6), (9,), (5, 8, 11)],
    [(40, 41, 42, 43), (44, 45)],
    [(9,), (10,)],
    [(8, 8), (9, 8, 9), (8, 9), (250, 3, 4)],
]


def reference(made, prompts, candidates):
    return [[reference_score(made, p, c) for c in cs] for p, cs in zip(prompts, candidates, strict=True)]


def worst(found, wanted):
    """The greatest difference; beyond an example's candidates stands -inf."""
    assert all((row[len(right) :] == -torch.inf).all() for row, right in zip(found, wanted, strict=True))
    pairs = zip(found, wanted, strict=True)
    return max(float((row[: len(right)].double() - torch.stack(right)).abs().max()) for row, right in pairs)


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("kind", CAUSAL)
@torch.no_grad()
def test_candidates_of_each_example_score_as_one_text_at_a_time(kind, pack):
    made = language_model(kind)
    assert can_pack(made, PROMPTS, CANDIDATES) == (kind in PACKING)
    wanted = reference(made.model, PROMPTS, CANDIDATES)
    spread = torch.stack(wanted[0]).std()
    assert spread > 0.05  # the scores differ by much more than the tolerance
    assert worst(candidate_scores(made, PROMPTS, CANDIDATES, pack=pack), wanted) < 1e-5


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_packed_rows_need_their_positions_and_their_mask(attention, monkeypatch):
    made = language_model("llama", attn_implementation=attention)
    wanted, right = reference(made.model, PROMPTS, CANDIDATES), packing._inputs
    assert worst(candidate_scores(made, PROMPTS, CANDIDATES), wanted) < 1e-5

    def in_order(model, texts, starts):
        along = [
            text._replace(positions=list(range(start, start + len(text.tokens))))
            for text, (_, start) in zip(texts, starts, strict=True)
        ]
        return right(model, along, starts)

    def seeing_other_candidates(model, texts, starts):
        return right(model, [text._replace(branches=[min(k, 1) for k in text.branches]) for text in texts], starts)

    def seeing_other_texts(model, texts, starts):
        inputs = right(model, [text._replace(branches=[0] * len(text.branches)) for text in texts], starts)
        mask = inputs["attention_mask"]
        return inputs | {"attention_mask": torch.full_like(mask, float(mask.min())).triu(1)}

    for planted in (in_order, seeing_other_candidates, seeing_other_texts):
        monkeypatch.setattr(packing, "_inputs", planted)
        assert worst(candidate_scores(made, PROMPTS, CANDIDATES), wanted) > 1e-3


@pytest.mark.parametrize(
    "lengths, shape", [((10, 5, 5, 4, 3, 3), (3, 10)), ((3, 9, 1), (2, 9)), ((7, 7), (2, 7)), ((4,), (1, 4))]
)
@pytest.mark.parametrize("kind", ["llama", "bloom"])
def test_texts_share_rows_no_longer_than_the_longest(kind, lengths, shape):
    inputs, starts = packing.arranged(language_model(kind), [packing.plain(range(3, 3 + n)) for n in lengths])
    ids = inputs["input_ids"]
    assert tuple(ids.shape) == (shape if kind == "llama" else (len(lengths), max(lengths)))
    assert all(
        ids[row, at : at + n].tolist() == list(range(3, 3 + n)) for n, (row, at) in zip(lengths, starts, strict=True)
    )
    assert int((ids != packing.padding(language_model(kind))).sum()) == sum(lengths)


@torch.no_grad()
def test_a_window_shorter_than_the_text_is_not_packed():
    made = language_model("mistral", sliding_window=8)
    assert not can_pack(made, PROMPTS, CANDIDATES)
    assert worst(candidate_scores(made, PROMPTS, CANDIDATES), reference(made.model, PROMPTS, CANDIDATES)) < 1e-5


@pytest.mark.parametrize("kind", CAUSAL)
@torch.no_grad()
def test_one_token_candidates_of_each_example_differ_by_the_normaliser_alone(kind):
    made = language_model(kind)
    candidates = [[(5,), (9,), (77,)], [(8,), (5,)], [(9,), (10,), (11,)], [(200,), (3,)]]
    wanted = reference(made.model, PROMPTS, candidates)
    logits = candidate_scores(made, PROMPTS, candidates)
    assert worst(logits - logits[:, :1], [[s - row[0] for s in row] for row in wanted]) < 1e-5
    assert worst(candidate_scores(made, PROMPTS, candidates, normalised=True), wanted) < 1e-5


@pytest.mark.parametrize("kind", CAUSAL)
@torch.no_grad()
def test_the_loss_of_an_answer_is_the_mean_over_its_tokens(kind):
    objective = AnswerObjective(language_model(kind), None, 64)
    answers = [(5, 6), (40, 41, 42, 43), (9,), (8, 9, 8)]
    batch = [Encoded(prompt, 0, (answer,)) for prompt, answer in zip(PROMPTS, answers, strict=True)]
    made = objective.language_model.model
    wanted = torch.stack([-reference_score(made, p, a) for p, a in zip(PROMPTS, answers, strict=True)])
    assert torch.allclose(objective.losses(batch).double(), wanted, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 2 * tiny_models.VOCABULARY])
@torch.no_grad()
def test_chunks_of_logits_change_nothing(chunk, monkeypatch):
    made = language_model("opt")
    monkeypatch.setattr("llm.model.logits.CHUNK", chunk)
    assert worst(candidate_scores(made, PROMPTS, CANDIDATES), reference(made.model, PROMPTS, CANDIDATES)) < 1e-5


def written(made, prompt, count):
    """Greedy generation of one text, read from its beginning for every token, without a cache."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(token_logs(made.model, ids)[-1].argmax()))
        if ids[-1] == made.tokenizer.eos_token_id or "\n" in made.tokenizer.decode([ids[-1]]):
            break
    text = made.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)
    return text.split("\n")[0].strip(), len(ids) - len(prompt)


@pytest.mark.parametrize("kind", CAUSAL)
def test_a_batch_writes_what_one_text_at_a_time_writes(kind):
    made = language_model(kind)
    prompts = [*PROMPTS, [2, 260, 261], [2, *range(30, 70)]]
    wanted = [written(made, prompt, 12) for prompt in prompts]
    assert len({text for text, _ in wanted}) > 2
    for cache in (True, False):
        assert greedy(made, prompts, 12, cache=cache) == [text for text, _ in wanted]


def test_answers_end_at_a_line_break_or_the_end_of_text_and_the_others_go_on():
    """The first token is the one whose answer the test wants to end: the output layer is made to say so."""
    made = language_model("llama")
    newline = made.tokenizer("\n", add_special_tokens=False)["input_ids"][0]
    first = [int(token_logs(made.model, prompt)[-1].argmax()) for prompt in PROMPTS]
    assert len(set(first)) > 2
    head = made.model.get_output_embeddings().weight.data
    for token, end in ((first[0], newline), (first[1], made.tokenizer.eos_token_id)):
        head[[token, end]] = head[[end, token]]
    lengths = [written(made, prompt, 10)[1] for prompt in PROMPTS]
    assert lengths[:2] == [1, 1] and max(lengths) > 1
    found = greedy(made, PROMPTS, 10)
    assert found[:2] == ["", ""] and found == [written(made, prompt, 10)[0] for prompt in PROMPTS]


def test_a_broken_model_writes_nothing():
    made = language_model("gpt2")
    with torch.no_grad():
        made.model.transformer.ln_f.weight.fill_(torch.nan)
    assert greedy(made, PROMPTS, 5) == [None] * len(PROMPTS)


@pytest.mark.parametrize("kind", MASKED)
@torch.no_grad()
def test_masked_models_fill_the_mask(kind):
    made = language_model(kind)
    examples = [
        Example("It was", 1, (" great", " terrible")),
        Example("a film that is great. It was", 0, (" great", " terrible")),
        Example("a<mask> film, yes or no?", 0, (" great", " terrible")),
    ]
    objective = Objective.of(made, (" great", " terrible"), 32)
    batch = objective.encode(examples)
    assert [made.tokenizer.decode(row.tokens) for row in batch[::2]] == [
        "<s>It was <mask>.</s>",
        "<s>a<mask> film, yes or no?</s>",
    ]
    mask, losses = made.tokenizer.mask_token_id, []
    for row in batch:
        logs = token_logs(made.model, row.tokens)[row.tokens.index(mask)]
        losses.append(-logs[[c for (c,) in objective.candidates]].log_softmax(-1)[row.label])
    assert torch.allclose(objective.losses(batch).double(), torch.stack(losses), atol=1e-5)
    whole = [-token_logs(made.model, r.tokens)[r.tokens.index(mask), objective.candidates[r.label][0]] for r in batch]
    found = AnswerObjective(made, objective.candidates, 32).judge(batch).losses
    assert torch.allclose(found.double(), torch.stack(whole), atol=1e-5)


def test_masked_models_refuse_what_they_cannot_fill():
    made = language_model("roberta")
    with pytest.raises(ValueError, match="but a mask stands for one token"):
        Objective.of(made, (" great", " terrible film"), 32)
    objective = Objective.of(made, (" great", " terrible"), 8)
    with pytest.raises(ValueError, match="has 0 masks in its last 8 tokens"):
        objective.encode([Example("It was<mask>: the quick brown fox jumps over the lazy dog", 0)])
    (row,) = objective.encode([Example("the quick brown fox jumps over the lazy dog. It was", 0)])
    assert len(row.tokens) == 8 and made.tokenizer.decode(row.tokens).startswith("<s>")
    assert made.tokenizer.decode(row.tokens).endswith("<mask>.</s>")
    with pytest.raises(ValueError, match="reads 2 to 126 tokens"):  # two of 128 positions are not for texts
        Objective.of(made, (" great", " terrible"), 127)


def test_a_folder_saved_as_masked_loads_as_masked(tmp_path):
    made = language_model("roberta")
    loading.save(made, tmp_path / "m")
    again = loading.load(str(tmp_path / "m"))
    assert again.masked and not loading.load("tiny-opt").masked
    assert again.tokenizer.mask_token == "<mask>"


@pytest.mark.parametrize(
    ("tokenizer", "leading"),
    [
        (tiny_models.byte_level(bos=True), [2]),
        (tiny_models.byte_level(bos=False), []),
        (tiny_models.byte_level(bos=True, eos=True), [2]),
        (tiny_models.metaspace(), [2]),
    ],
    ids=["opt", "gpt2", "with an end", "llama"],
)
def test_prompts_follow_the_rule_of_their_tokenizer(tokenizer, leading):
    text = "the quick brown fox jumps over the lazy dog. It was"
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    (row,) = Encoder(tokenizer, 100).prompts([text])
    assert row == leading + whole
    (cut,) = Encoder(tokenizer, 6).prompts([text])
    assert cut == leading + whole[len(leading) - 6 :] and len(cut) == 6
    (own,) = Encoder(tokenizer, 6, bos=0).prompts([text])
    assert own == [0] * len(leading) + cut[len(leading) :]


def test_continuations_have_the_tokens_they_have_in_a_text():
    byte_level, llama = tiny_models.byte_level(), tiny_models.metaspace()
    bare = lambda tokenizer, text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    for text in (" great", "Yes", " terrible film\n"):
        assert Encoder(byte_level, 9).continuations([text])[text] == tuple(bare(byte_level, text))
    (prompt,) = Encoder(llama, 99).prompts(["Was it great?\n"])
    for text in ("Yes", " great"):
        (inside,) = Encoder(llama, 9).continuations([text]).values()
        read = [llama.decode([*prompt, *ids], skip_special_tokens=True) for ids in (inside, bare(llama, text))]
        assert read[0] == f"Was it great?\n{text}"
        assert read[1] == "Was it great?\n " + text.strip()  # what tokenising it alone would give


@pytest.mark.skipif(not OPT_TOKENIZER.is_dir(), reason="needs ../shared/models/opt-tokenizer")
def test_opts_published_tokenizer(tmp_path):
    for file in ("vocab.json", "merges.txt"):
        (tmp_path / file).write_bytes((OPT_TOKENIZER / file).read_bytes())
    sizes = {"hidden_size": 16, "ffn_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    OPTForCausalLM(OPTConfig(**sizes, word_embed_proj_dim=16)).save_pretrained(tmp_path)
    made = loading.load(str(tmp_path))
    examples = [Example("a fine film It was", 1), Example("Hello world", 0)]
    objective = Objective.of(made, (" terrible", " great"), 32)
    assert objective.candidates == ((6587,), (372,)) and objective.encode(examples)[1].tokens == [2, 31414, 232]
    assert Objective.of(made, (" terrible", " great"), 32, bos=0).encode(examples)[1].tokens == [0, 31414, 232]
    for bos in (-1, 10**9):  # torch reads -1 as an index out of range, deep within the model
        with pytest.raises(ValueError, match=f"bos is {bos}: give the id of a token, from 0 to"):
            Objective.of(made, (" terrible", " great"), 32, bos=bos)


@pytest.mark.parametrize("kind", ["opt", "gpt2", "llama"])
def test_an_engine_that_perturbs_where_layers_read_sees_packed_rows_alike(kind):
    batch = [Encoded(p, 0, tuple(cs)) for p, cs in zip(PROMPTS, CANDIDATES, strict=True)]
    found = []
    for engine in (ModuleSpace, InForwardSpace):
        objective = Objective(language_model(kind), None, 64)
        space, estimator = engine(objective.language_model.model), methods.make("mezo", epsilon=1e-2)
        plan = estimator.ask(derive("packed", kind), estimator.init())
        found.append(space.losses(lambda o=objective: o.losses(batch), plan))
        space.settle_()
    assert torch.allclose(*found, rtol=1e-5) and float(found[0].flatten().diff().abs().max()) > 1e-3


@torch.no_grad()
def test_padding_is_seen_by_nobody():
    """The twin: a longer neighbour changes the padding of a row, and nothing else."""
    for kind in CAUSAL:
        made = language_model(kind)
        alone = candidate_scores(made, PROMPTS[:2], CANDIDATES[:2])
        beside = candidate_scores(made, [*PROMPTS[:2], [2] * 90], [*CANDIDATES[:2], [(5, 6), (7,)]])
        assert torch.allclose(alone, beside[:2], atol=1e-5), kind


def test_language_models_of_peft_are_unwrapped():
    class Wrapped(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.config, self.peft_config = inner, inner.config, {}

        def get_base_model(self):
            return self.inner

    made = language_model("opt")
    wrapped = LanguageModel("opt", Wrapped(made.model), made.tokenizer, "")
    wrapped.model.dtype = made.model.dtype
    assert not wrapped.masked
    with torch.no_grad():
        found, wanted = (candidate_scores(m, PROMPTS, CANDIDATES) for m in (wrapped, made))
    assert torch.equal(found, wanted)
