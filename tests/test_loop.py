"""The loop around the steps: which weights are selected, when a run stops, and that no interruption changes either."""

import json

import pytest
import torch

from llm.training import checkpoint
from llm.training.options import TrainOptions
from llm.training.session import Session

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = {"steps": 12, "train": 20, "dev": 10, "test": 10, "max_tokens": 24, "batch": 4, "eval_every": 3, "lr": 3e-3}
"""Steps so large that the dev loss is least at step 3, of 4.6, 3.8, 8.4, 7.0, 6.5."""
WITHOUT_TIMES = ("evaluation", "final")


def options(tmp_path, **changes):
    return TrainOptions(**{**QUICK, "out": str(tmp_path / "run"), **changes})


def rows(folder, *kinds):
    lines = map(json.loads, (folder / "rows.jsonl").read_text().splitlines())
    return [row for row in lines if row["kind"] in kinds]


def what_counts(folder):
    """The rows without times, and the weights that were saved."""
    kept = [{k: v for k, v in row.items() if k not in ("seconds", "peak_mb")} for row in rows(folder, *WITHOUT_TIMES)]
    saved = folder / "model/model.safetensors"
    return kept, saved.read_bytes() if saved.exists() else None


def run(tmp_path, stop=None, **changes):
    """A run to its end, or one that is interrupted before step `stop`."""
    session = Session(options(tmp_path, **changes))
    take = session.trainer.step

    def interrupted(key, losses):
        if session.trainer.steps == stop:
            raise KeyboardInterrupt
        return take(key, losses)

    session.trainer.step = interrupted
    if stop is None:
        session.go()
    else:
        with pytest.raises(KeyboardInterrupt):
            session.go()
    return session


@pytest.mark.parametrize("journalled", [True, False])
def test_the_weights_of_the_lowest_dev_loss_are_tested_and_saved(journalled, tmp_path):
    run(tmp_path, journal=journalled)
    run(tmp_path, journal=journalled, out=str(tmp_path / "last"), select="last")
    run(tmp_path, journal=journalled, out=str(tmp_path / "short"), select="last", steps=3)
    (best,), (last,), (short,) = (rows(tmp_path / name, "final") for name in ("run", "last", "short"))
    assert (best["step"], best["selected_step"], best["best_step"], best["forward_passes"]) == (12, 3, 3, 24)
    assert (last["step"], last["selected_step"], last["best_step"]) == (12, 12, 3)
    measured = ("dev_loss", "dev_accuracy", "test_loss", "test_accuracy")
    assert [best[name] for name in measured] == [short[name] for name in measured]
    assert (
        best["test_loss"] != last["test_loss"]
        and last["dev_loss"] == rows(tmp_path / "last", "evaluation")[-1]["dev_loss"]
    )
    assert what_counts(tmp_path / "run")[1] == what_counts(tmp_path / "short")[1] != what_counts(tmp_path / "last")[1]
    assert not list(tmp_path.glob("*/best*"))


def test_selected_weights_are_tested_where_nothing_is_kept(tmp_path):
    session = run(tmp_path, journal=False, save=False)
    short = run(tmp_path, journal=False, save=False, out=str(tmp_path / "short"), select="last", steps=3)
    found = [checkpoint.weights(s.language_model.model) for s in (session, short)]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert sorted(p.name for p in (tmp_path / "run").iterdir() if p.name[0] != ".") == [
        "config.toml", "environment.json", "rows.jsonl"
    ]  # fmt: skip


def test_the_last_weights_are_selected_without_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "write", lambda *_: pytest.fail("nothing is to be written"))
    run(tmp_path, select="last", patience=2)
    assert rows(tmp_path / "run", "final")[0]["selected_step"] == 9


METHODS = [
    {},
    {"method": "adamw", "checkpoint_every": 2},
    {"journal": False},
    {"method": "sgd", "lr": 0.03, "steps": 15},
]


@pytest.mark.parametrize("changes", METHODS, ids=["mezo", "adamw", "no-journal", "sgd-from-0"])
@pytest.mark.parametrize("stop", [4, 8])
def test_a_continued_run_selects_and_stops_alike(changes, stop, tmp_path):
    changes = {"patience": 2, **changes}
    run(tmp_path, **changes, out=str(tmp_path / "whole"))
    (final,) = rows(tmp_path / "whole", "final")
    assert 0 < final["selected_step"] < final["step"] < changes.get("steps", 12)
    run(tmp_path, stop=stop, **changes)
    run(tmp_path, **changes)
    assert what_counts(tmp_path / "run") == what_counts(tmp_path / "whole")
