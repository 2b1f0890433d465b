"""The committed language model is what its record says, and `pretrain` makes such a model."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, OPTForCausalLM, PreTrainedTokenizerFast

from llm.pretraining.bpe import WHOLE_WORDS, train_tokenizer
from llm.pretraining.perplexity import perplexity, shuffled_words
from llm.pretraining.pretrain import PretrainConfig, pretrain
from llm.tasks import corpus

pytestmark = pytest.mark.environment

FOLDER = Path(corpus.__file__).parents[1] / "tiny_opt"
SMALL = PretrainConfig(steps=40, batch=8, length=32, layers=1, width=32, heads=2, vocabulary=400, warmup=5, threads=1)


@pytest.fixture(scope="module", autouse=True)
def _offline() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model() -> OPTForCausalLM:
    return AutoModelForCausalLM.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def record() -> dict[str, object]:
    return json.loads((FOLDER / "pretraining.json").read_text(encoding="utf-8"))


def test_it_is_small(model: OPTForCausalLM, record: dict[str, object]) -> None:
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == record["parameters"]
    assert 1_000_000 <= parameters <= 1_500_000
    assert (FOLDER / "model.safetensors").stat().st_size < 6_000_000
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_it_was_made_by_the_default_recipe(record: dict[str, object]) -> None:
    config = record["config"]
    assert isinstance(config, dict)
    default = asdict(PretrainConfig(out=Path("llm/tiny_opt")))
    assert {key: str(default[key]) for key in config} == {key: str(value) for key, value in config.items()}
    assert record["command"] == "python -m llm pretrain --out llm/tiny_opt"


def test_tokenizer_keeps_opts_conventions(tokenizer: PreTrainedTokenizerFast) -> None:
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2, 2)
    batch = tokenizer(["Hello world", "Hi"], padding=True)["input_ids"]
    assert [row[0] for row in batch] == [2, 2]
    assert batch[1][-1] == 1
    for word in WHOLE_WORDS:
        assert len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1


def test_tokenizer_round_trip(tokenizer: PreTrainedTokenizerFast) -> None:
    for text in [*corpus.held_out_texts()[::50], "naïve ☕ 語\n\ttabs"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_it_reads_held_out_text_as_well_as_recorded(
    model: OPTForCausalLM, tokenizer: PreTrainedTokenizerFast, record: dict[str, object]
) -> None:
    recorded = record["perplexity_per_token"]
    assert isinstance(recorded, dict)
    texts = corpus.held_out_texts()
    held = perplexity(model, tokenizer, texts)
    shuffled = perplexity(model, tokenizer, shuffled_words(texts))
    assert held == pytest.approx(recorded["held_out"], rel=1e-3)
    assert shuffled == pytest.approx(recorded["held_out_shuffled"], rel=1e-3)
    assert held < 0.5 * shuffled


def test_padding_changes_nothing(model: OPTForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["Call me later", "A much longer text than the first of the two"]
    alone = tokenizer(texts[:1], return_tensors="pt")
    beside = tokenizer(texts, padding=True, return_tensors="pt")
    length = alone["input_ids"].shape[1]
    with torch.no_grad():
        assert torch.allclose(model(**alone).logits[0], model(**beside).logits[0, :length], atol=1e-4)


def test_pretraining_lowers_the_loss_and_repeats_exactly(tmp_path: Path) -> None:
    records = [pretrain(replace(SMALL, out=tmp_path / name)) for name in ("one", "two")]
    losses = records[0]["losses"]
    assert isinstance(losses, dict)
    values = list(losses.values())
    assert values[-1] < values[0] - 0.3
    for key in ("losses", "perplexity_per_token"):
        assert records[0][key] == records[1][key]
    for file in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_pretraining_leaves_the_callers_randomness_alone(tmp_path: Path) -> None:
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    pretrain(replace(SMALL, out=tmp_path / "model", steps=2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads


def test_pretraining_never_overwrites(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="already exists: pretraining never overwrites"):
        pretrain(replace(SMALL, out=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_tokenizer_knows_no_held_out_text() -> None:
    """The committed vocabulary is the one trained on the texts outside the test pool, and on nothing else."""
    trained = train_tokenizer(corpus.pretraining_texts(), vocabulary=2000, positions=256)
    assert trained.get_vocab() == AutoTokenizer.from_pretrained(FOLDER).get_vocab()
