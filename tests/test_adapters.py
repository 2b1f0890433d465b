"""Adapters of peft: what they compute, where they begin, how they are kept, and what bad ones are told."""

import copy
import json

import pytest
import tiny_models
import torch

from llm import models
from llm.__main__ import main
from llm.objective import Encoded, Objective
from llm.train import train
from llm.training.adapters import adapt
from llm.training.options import TrainOptions
from llm.training.session import Session

pytest.importorskip("peft", reason="adapters want peft")
pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = {"steps": 4, "train": 40, "dev": 10, "test": 10, "max_tokens": 24, "batch": 4, "eval_every": 2}
SPELLINGS = ("lora:r=2", "prefix:tokens=2", "prompt:tokens=2")
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


@pytest.mark.parametrize("engine", ["plain", "in-forward", "paired"])
@pytest.mark.parametrize("adapter", SPELLINGS)
def test_an_interrupted_run_ends_at_the_same_weights_and_its_journal_rebuilds_them(adapter, engine, tmp_path, capsys):
    chosen = {"adapter": adapter, "engine": engine, "lr": 1e-2, "epsilon": 1e-2, "select": "last"}
    whole = options(tmp_path / "whole", **chosen)
    train(whole)
    torch.manual_seed(7)  # the adapter begins as the seed of the run says
    broken = options(tmp_path / "broken", **chosen)
    session = Session(broken)
    session.minibatch = lambda step, usual=session.minibatch: usual(step) if step != 2 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        session.go()
    torch.manual_seed(8)
    train(broken)
    one, other = (models.load(f"{made.out}/model") for made in (whole, broken))
    start = adapt(models.load("tiny-opt"), adapter, 0)
    assert trained(one).keys() == trained(other).keys() == trained(start).keys()
    for name, p in trained(one).items():
        assert torch.equal(p, trained(other)[name])
        assert not torch.equal(p, trained(start)[name])
    assert main(["journal", "replay", broken.out]) == 0
    assert "equal to the bit" in capsys.readouterr().out
