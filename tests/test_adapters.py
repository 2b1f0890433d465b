"""Adapters of peft: what they compute, where they begin, how they are kept, and what bad ones are told."""

import copy
import json
import math
from dataclasses import replace

import pytest
import tiny_models
import torch
from transformers import RobertaForMaskedLM

from llm.__main__ import main
from llm.export import ExportOptions, export
from llm.export.base_model import base_model
from llm.loop.loop import Loop
from llm.loop.train import train
from llm.model import loading
from llm.model.adapted import quietly
from llm.model.adapter_patterns import ways
from llm.model.adapters import adapt, drawn
from llm.model.generation import greedy
from llm.objective import Encoded, Objective
from llm.options.train import TrainOptions
from tests.interrupted import fail_at

peft = pytest.importorskip("peft", reason="adapters need peft")
pytestmark = [pytest.mark.environment, pytest.mark.usefixtures("one_thread")]

QUICK = {
    "steps": 4,
    "train": 40,
    "dev": 10,
    "test": 10,
    "max_tokens": 24,
    "batch": 4,
    "eval_every": 2,
    "select": "last",
}
BASES = ("tiny-opt", str(loading.TINY_OPT))
SPELLINGS = ("lora:r=2", "prefix:tokens=2", "prompt:tokens=2")
ENGINES = ("plain", "in-forward", "paired")
CAUSAL = ("opt", "gpt2", "llama", "qwen2", "qwen3", "mistral", "gpt_neox", "gemma2")
BATCH = [Encoded([2, 17, 4, 90], 0), Encoded([2, 33], 2), Encoded([2, *range(100, 112)], 1)]
CANDIDATES = ((5, 6), (9,), (5, 8, 11))


def options(tmp_path, **changes):
    return TrainOptions(**{**QUICK, "out": str(tmp_path / "run"), **changes})


def rows(folder, kind):
    lines = (folder / "rows.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def trained(made):
    return {name: p for name, p in made.model.named_parameters() if p.requires_grad}


def losses(made, prompts=None):
    batch = BATCH if prompts is None else [Encoded(p, row.label) for p, row in zip(prompts, BATCH, strict=True)]
    with torch.no_grad():
        return Objective(made, CANDIDATES, 64).losses(batch)


@pytest.mark.parametrize("kind", [*CAUSAL, "roberta"])
@torch.no_grad()
def test_lora_is_the_model_with_its_weights_merged(kind):
    base = tiny_models.language_model(kind)
    plain, untouched = copy.deepcopy(base), copy.deepcopy(base)
    made = adapt(base, "lora:r=2:alpha=6", 0)
    masked = kind == "roberta"
    batch = [Encoded([*row.tokens, 4] if masked else row.tokens, row.label) for row in BATCH]  # 4 is the mask

    def losses(model):
        return Objective(model, ((5,), (9,), (7,)) if masked else CANDIDATES, 64).losses(batch)

    assert torch.equal(losses(made), losses(untouched))  # B is zero
    for p in trained(made).values():
        p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) / 5)
    factors = {name.removeprefix("base_model.model."): p for name, p in trained(made).items()}
    merged = dict(plain.model.named_parameters())
    for name, a in factors.items():
        if "lora_A" in name:
            change = 6 / 2 * factors[name.replace("lora_A", "lora_B")] @ a
            merged[name.replace("lora_A.default.", "")].add_(change.T if kind == "gpt2" else change)
    assert (losses(made) - losses(plain)).abs().max() < 1e-5
    assert (losses(made) - losses(untouched)).abs().max() > 1e-2  # what the other comparison would see


@pytest.mark.parametrize(
    ("adapter", "engine"),
    [
        *zip(SPELLINGS, ENGINES, strict=True),
        *(
            pytest.param(adapter, engine, marks=pytest.mark.exhaustive)
            for adapter, usual in zip(SPELLINGS, ENGINES, strict=True)
            for engine in ENGINES
            if engine != usual
        ),
    ],
)
def test_an_interrupted_run_ends_at_the_same_weights_and_its_journal_rebuilds_them(adapter, engine, tmp_path, capsys):
    chosen = {"adapter": adapter, "engine": engine, "lr": 1e-2, "epsilon": 1e-2, "select": "last"}
    whole = options(tmp_path / "whole", **chosen)
    train(whole)
    torch.manual_seed(7)  # the adapter begins as the seed of the run says
    broken = options(tmp_path / "broken", **chosen)
    session = Loop.of(broken)
    fail_at(session, 2)
    with pytest.raises(ZeroDivisionError):
        session.go()
    torch.manual_seed(8)
    train(broken)
    one, other = (loading.load(f"{made.out}/model") for made in (whole, broken))
    start = adapt(loading.load("tiny-opt"), adapter, 0)
    assert trained(one).keys() == trained(other).keys() == trained(start).keys()
    for name, p in trained(one).items():
        assert torch.equal(p, trained(other)[name])
        assert not torch.equal(p, trained(start)[name])
    assert main(["journal", "replay", broken.out]) == 0
    assert "equal to the bit" in capsys.readouterr().out


@pytest.mark.parametrize("kind", CAUSAL)
@pytest.mark.parametrize("spelling", ["prefix:tokens=3", "prompt:tokens=3"])
@torch.no_grad()
def test_what_begins_as_real_tokens_is_a_prompt_preceded_by_them(kind, spelling):
    base = tiny_models.language_model(kind)
    tokens = drawn(base, 3, 5).tolist()
    after = [Encoded([*tokens, *row.tokens], row.label) for row in BATCH]
    plain = Objective(copy.deepcopy(base), CANDIDATES, 64).losses(after)
    untouched = Objective(copy.deepcopy(base), CANDIDATES, 64).losses(BATCH)
    found = Objective(adapt(base, spelling, 5), CANDIDATES, 64).losses(BATCH)
    assert torch.allclose(found, plain, atol=1e-5)
    assert (found - untouched).abs().max() > 1e-2


def test_answers_under_lora_are_written_with_a_cache(monkeypatch):
    made = adapt(tiny_models.language_model("llama"), "lora:r=4", 0)
    with torch.no_grad():
        for p in trained(made).values():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    prompts = [row.tokens for row in BATCH]
    whole = greedy(made, prompts, 8, cache=False)
    monkeypatch.setattr("llm.model.generation._Whole", lambda *_: pytest.fail("read again from the beginning"))
    assert greedy(made, prompts, 8) == whole != greedy(tiny_models.language_model("llama"), prompts, 8)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_peft_itself_reads_what_is_saved(spelling, tmp_path):
    made = adapt(tiny_models.language_model("llama"), spelling, 0)
    with torch.no_grad():
        for p in trained(made).values():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    loading.save(made, tmp_path)
    base = tiny_models.language_model("llama")
    with quietly():
        read = peft.PeftModel.from_pretrained(base.model, str(tmp_path)).eval()
    objectives = [Objective(each, CANDIDATES, 64) for each in (made, replace(base, model=read))]
    with torch.no_grad():
        one, other = (objective.losses(BATCH) for objective in objectives)
    assert torch.allclose(one, other, atol=1e-6)


def test_tokens_and_factors_are_those_of_the_seed():
    begun = [
        [p.detach().clone() for p in trained(adapt(loading.load("tiny-opt"), spelling, seed)).values()]
        for spelling in (*SPELLINGS, "prefix:init=random", "prompt:init=random")
        for seed in (0, 0, 1)
    ]
    for one, same, other in zip(begun[::3], begun[1::3], begun[2::3], strict=True):
        assert all(map(torch.equal, one, same)) and not all(map(torch.equal, one, other))


@pytest.mark.parametrize("method", ["sgd", "adamw", "kerzoo"])
def test_the_adapter_alone_is_trained_and_counted(method, tmp_path):
    session = Loop.of(options(tmp_path, adapter="lora", method=method, lr=1e-2, epsilon=1e-2))
    made = session.context.language_model
    frozen = {name: p.detach().clone() for name, p in made.model.named_parameters() if not p.requires_grad}
    began = {name: p.detach().clone() for name, p in trained(made).items()}
    assert sum(p.numel() for p in began.values()) == 2 * 8 * (128 + 128) * made.model.config.num_hidden_layers
    session.go()
    assert all(torch.equal(p, frozen[name]) for name, p in made.model.named_parameters() if name in frozen)
    assert any(not torch.equal(p, began[name]) for name, p in trained(made).items())
    assert rows(tmp_path / "run", "final")[0]["adapter"] == "lora"


@pytest.mark.parametrize("adapter", SPELLINGS)
def test_a_saved_adapter_is_trained_further_and_told_from_its_base(adapter, tmp_path):
    train(options(tmp_path, adapter=adapter))
    kept = tmp_path / "run/model"
    assert json.loads((kept / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny-opt"
    with pytest.raises(ValueError, match="has an adapter already"):
        Loop.of(options(tmp_path / "again", model=str(kept), adapter="lora"))
    train(options(tmp_path / "again", model=str(kept), lr=1e-2))
    again = loading.load(str(tmp_path / "again/run/model"))
    first = loading.load(str(kept))
    assert again.weights.startswith("committed tiny-opt") and trained(again).keys() == trained(first).keys()
    assert not any(map(torch.equal, trained(again).values(), trained(first).values()))


def test_a_base_in_a_folder_is_found_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loading.save(loading.load("tiny-opt"), tmp_path / "base")
    loading.save(adapt(loading.load("base"), "lora", 0), tmp_path / "tuned")
    monkeypatch.chdir("/")
    assert trained(loading.load(str(tmp_path / "tuned")))


def test_a_base_in_16_bits_has_its_adapter_in_32(tmp_path):
    train(options(tmp_path, adapter="lora", dtype="bfloat16", epsilon=1e-2, lr=1e-2))
    made = loading.load(str(tmp_path / "run/model"), dtype="bfloat16")
    assert {p.dtype for p in trained(made).values()} == {torch.float32}
    assert main(["journal", "replay", str(tmp_path / "run")]) == 0


def test_a_journal_of_another_base_is_not_replayed(tmp_path, capsys):
    loading.save(loading.load("tiny-opt"), tmp_path / "base")
    train(options(tmp_path, adapter="lora", model=str(tmp_path / "base"), save=False))
    other = loading.load("tiny-opt")
    with torch.no_grad():
        next(other.model.parameters()).add_(1e-3)
    loading.save(other, tmp_path / "base")
    assert main(["journal", "replay", str(tmp_path / "run")]) == 2
    assert "does not have the weights" in capsys.readouterr().err


def test_layers_that_are_read_again_have_no_prefix(tmp_path):
    with pytest.raises(ValueError, match="leave --gradient-checkpointing out"):
        Loop.of(options(tmp_path, adapter="prefix", method="sgd", gradient_checkpointing=True))
    kept, again = (
        train(options(tmp_path / str(g), adapter="lora", method="sgd", lr=1e-1, gradient_checkpointing=g))
        for g in (False, True)
    )
    assert kept["test_loss"] == pytest.approx(again["test_loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lorra", "Did you mean 'lora'"),
        ("lora:rank=2", "unknown option of adapter lora: 'rank'"),
        ("lora:r", "not option=value"),
        ("lora:r=2:r=3", "twice"),
        ("lora:r=2.5", "give a whole number"),
        ("lora:r=0", "1 or more"),
        ("lora:alpha=-1", "positive"),
        ("prefix:tokens=0", "1 or more"),
        ("prompt:init=reel", "Did you mean 'real'"),
    ],
)
def test_bad_spellings_are_told_before_anything_is_loaded(text, message, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "load", lambda *_: pytest.fail("the model was loaded"))
    with pytest.raises(ValueError, match=message):
        Loop.of(options(tmp_path, adapter=text))


def test_targets_are_layers_of_the_model():
    base = tiny_models.language_model("smollm3")
    with pytest.raises(ValueError, match=r"no default targets for smollm3: give --adapter lora:targets=.*q_proj"):
        adapt(base, "lora", 0)
    with pytest.raises(ValueError, match="Did you mean 'v_proj'"):
        adapt(base, "lora:targets=q_proj+v_prj", 0)
    assert {name.split(".")[-4] for name in trained(adapt(base, "lora:targets=o_proj", 0))} == {"o_proj"}


def test_masked_models_learn_no_prefix():
    with pytest.raises(ValueError, match="fills masks"):
        adapt(tiny_models.language_model("roberta"), "prefix", 0)


def test_an_adapter_of_a_masked_model_is_read_back_exported_and_rebuilt(tmp_path, capsys):
    loading.save(tiny_models.language_model("roberta"), tmp_path / "base")
    given = {"model": str(tmp_path / "base"), "adapter": "lora:r=2", "task": "sentences"}
    train(options(tmp_path, **given))
    made = loading.load(str(tmp_path / "run/model"))
    assert made.masked and len(trained(made)) == 8
    assert main(["journal", "replay", str(tmp_path / "run")]) == 0
    assert "equal to the bit" in capsys.readouterr().out
    export(ExportOptions(run=str(tmp_path / "run"), to=str(tmp_path / "copy")))
    said = (tmp_path / "copy/README.md").read_text()
    assert "fill-mask" in said and "text-generation" not in said and "AutoPeftModelForCausalLM" not in said
    with quietly():
        assert type(peft.AutoPeftModel.from_pretrained(tmp_path / "copy").get_base_model()) is RobertaForMaskedLM


def test_a_run_that_goes_on_with_an_adapter_is_exported_as_one_of_its_base(tmp_path):
    train(options(tmp_path, adapter="lora:r=2", out=str(tmp_path / "first"), lr=1e-2))
    again = {"model": str(tmp_path / "first/model"), "checkpoint_every": 2, "steps": 5, "lr": 1e-2}
    train(options(tmp_path, **again))
    last = trained(loading.load(str(tmp_path / "run/model")))
    for source, step in (("auto", 5), ("checkpoint", 4), ("journal", 5)):
        goal = tmp_path / source
        export(ExportOptions(run=str(tmp_path / "run"), to=str(goal), source=source))
        assert json.loads((goal / "adapter_config.json").read_text())["base_model_name_or_path"] in BASES
        assert "base_model: tiny-opt" in (goal / "README.md").read_text()
        found = trained(loading.load(str(goal)))
        assert all(torch.equal(found[name], last[name]) for name in last) is (step == 5)
    export(ExportOptions(run=str(tmp_path / "run"), to=str(tmp_path / "merged"), merge=True))
    assert not hasattr(loading.load(str(tmp_path / "merged")).model, "peft_config")


def test_an_adapter_whose_base_is_an_adapter_has_no_base_model(tmp_path):
    loading.save(adapt(loading.load("tiny-opt"), "lora", 0), tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": str(tmp_path)}))
    with pytest.raises(ValueError, match="is an adapter too"):
        base_model(str(tmp_path))


def test_a_quick_expression_is_read_as_peft_reads_it(tmp_path):
    made = adapt(loading.load("tiny-opt"), "lora:r=2", 0)
    loading.save(made, tmp_path)
    file = tmp_path / "adapter_config.json"
    config = json.loads(file.read_text())
    for text in (r".*self_attn\.(q_proj|v_proj)", r"model\.decoder\.layers\.\d+\.self_attn\.(?:q|v)_proj"):
        file.write_text(json.dumps(config | {"target_modules": text}))
        assert trained(loading.load(str(tmp_path))).keys() == trained(made).keys()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("q_proj", 1),
        ("q_proj|v_proj", 2),
        (r".*\.(a|b)(c|d|e)", 100 * 6),
        (".*(a|(b|c)?d)", math.inf),
        ("a?b*?", 200),
        ("(a(b|c)d+|e)x.+", (200 + 1) * 100),
        ("(a+)+", math.inf),
        ("(a", math.inf),
        ("a)", math.inf),
        (r"(a)\1", math.inf),
        ("a{2,9}", math.inf),
        ("(?i)a", math.inf),
        ("(?=a)", math.inf),
        ("", 1),
        ("(" * 5000 + ")" * 5000, 1),
    ],
)
def test_the_ways_of_an_expression_are_counted(text, wanted):
    assert ways(text) == wanted
    assert (
        ways("(a|a)" * 30) == 2**30 and ways(".*" * 4) == 100**4
    )  # exponential and polynomial without a repeated group


def test_folders_that_cannot_be_trusted_are_refused(tmp_path):
    loading.save(adapt(loading.load("tiny-opt"), "lora", 0), tmp_path)
    file = tmp_path / "adapter_config.json"
    config = json.loads(file.read_text())
    for change, message in (
        ({"peft_type": "LOHA"}, "unknown peft_type"),
        ({"megatron_config": {"a": 1}}, "not supported"),
        ({"auto_mapping": {"base_model_class": "X", "parent_library": "my_code"}}, "not supported"),
        ({"init_lora_weights": "pissa"}, "not supported"),
        ({"base_model_name_or_path": str(tmp_path)}, "is an adapter too"),
        ({"base_model_name_or_path": None}, "does not name its base"),
        ({"target_modules": "(([a-z_.0-9]+)+)+X"}, "target_modules is .* whose matching may not end"),
        ({"exclude_modules": "(a|a)*X"}, "exclude_modules is .* whose matching may not end"),
        ({"layers_to_transform": [0], "layers_pattern": ["layers", "(.*)*"]}, "layers_pattern is .* may not end"),
        ({"rank_pattern": {"q_proj": 2, "(.+)+X": 2}}, "rank_pattern is .* matching may not end"),
        ({"alpha_pattern": {"(?=(.+)+X)": 2}}, "alpha_pattern is .* matching may not end"),
        ({"r": 4}, "does not fit"),
        ({"target_modules": ["q_proj"]}, "does not fit"),
        ({"target_modules": ["q_proj", "v_proj", "k_proj"]}, "does not fit"),
    ):
        file.write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=message):
            loading.load(str(tmp_path))
    file.write_text(json.dumps(config))
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(ValueError, match="safetensors alone"):
        loading.load(str(tmp_path))
