"""Exports of streamed runs: the files that a run in memory gives, from weights that stay on disk."""

from pathlib import Path

import pytest
import torch
from test_streamed import contents_of, options

from llm.__main__ import main
from llm.export import command
from llm.loop.loop import Loop
from llm.loop.train import train
from llm.model import loading
from llm.model.mapped import blocks_of
from tests.interrupted import gone

pytestmark = pytest.mark.usefixtures("one_thread")

ENGINES = ("in-forward", "streamed")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of both engines that ended, dense and quantised, and one of each that was killed."""
    place = tmp_path_factory.mktemp("runs")
    quick = {"steps": 4, "eval_every": 2, "checkpoint_every": 2}
    for engine in ENGINES:
        train(options("tiny-opt", place / f"{engine}-dense", engine=engine, **quick))
        train(options("tiny-opt", place / f"{engine}-int4", engine=engine, quantize="int4", lr=1e-4, **quick))
        gone(Loop.of(options("tiny-opt", place / f"{engine}-killed", engine=engine, **quick)), stop=3)
    return place


def files_of(folder):
    return {f.name: f.read_bytes() for f in sorted(Path(folder).iterdir()) if f.name in ("config.json", WEIGHTS)}


WEIGHTS = "model.safetensors"


@pytest.mark.parametrize(
    ("run", "given"),
    [
        ("dense", []),
        ("dense", ["--dtype", "bfloat16"]),
        pytest.param("dense", ["--source", "journal"], marks=pytest.mark.exhaustive),
        ("dense", ["--source", "checkpoint"]),
        ("killed", []),
        ("int4", []),
        ("int4", ["--dtype", "float16", "--source", "journal"]),
    ],
)
def test_an_export_has_the_bytes_of_that_of_a_run_in_memory(runs, run, given, tmp_path, monkeypatch):
    saved, usual = [], loading.save

    def save(language_model, folder):
        blocks = blocks_of(language_model.model)
        saved.append(blocks is not None and {t.data_ptr() for file in blocks.all for t in file.tensors.values()})
        assert not saved[-1] or all(p.data_ptr() in saved[-1] for p in language_model.model.parameters())
        usual(language_model, folder)

    monkeypatch.setattr(command.loading, "save", save)
    before = contents_of(runs / f"streamed-{run}" / "model") if run != "killed" else {}
    for engine in ENGINES:
        assert main(["export", str(runs / f"{engine}-{run}"), "--to", str(tmp_path / engine), *given]) == 0
    found, wanted = (files_of(tmp_path / engine) for engine in reversed(ENGINES))
    assert found == wanted and WEIGHTS in found
    assert saved[0] is False and saved[1]  # all weights were in mapped files until they were written
    assert sorted(f.name for f in tmp_path.iterdir()) == sorted(ENGINES)
    assert run == "killed" or contents_of(runs / f"streamed-{run}" / "model") == before
    loaded = loading.load(str(tmp_path / "streamed"), dtype=loading.dtype_of(str(tmp_path / "streamed"))).model
    assert all(torch.isfinite(p).all() for p in loaded.parameters())
