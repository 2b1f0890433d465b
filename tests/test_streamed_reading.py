"""Evaluations and predictions of streamed runs: those of a model in memory, from weights that stay on disk."""

import pytest
from test_streamed import contents_of, options

from llm.__main__ import main
from llm.loop.train import train
from llm.model.mapped import MappedBlocks, blocks_of
from llm.run import reading
from zobench.run.records import rows_now

pytestmark = pytest.mark.usefixtures("one_thread")

COSTS = ("seconds", "peak_mb")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Streamed runs, dense and quantised."""
    place = tmp_path_factory.mktemp("runs")
    quick = {"steps": 4, "eval_every": 4}
    train(options("tiny-opt", place / "dense", **quick))
    train(options("tiny-opt", place / "int4", quantize="int4", lr=1e-4, **quick))
    return place


@pytest.fixture
def seen(monkeypatch):
    """The models that were loaded, and the blocks that were fetched."""
    models, fetched = [], []
    load, fetch = reading.streaming.load_for, MappedBlocks.fetch

    def keep(*given):
        language_model = load(*given)
        models.append(language_model.model)
        if (mapped := blocks_of(language_model.model)) is not None:
            mapped.evict = True  # as for a model that is larger than the memory
        return language_model

    monkeypatch.setattr(reading.streaming, "load_for", keep)
    monkeypatch.setattr(MappedBlocks, "fetch", lambda self, k: (fetched.append(k), fetch(self, k)))
    return models, fetched


def is_mapped(model):
    places = {t.data_ptr() for file in blocks_of(model).all for t in file.tensors.values()}
    return all(p.data_ptr() in places for p in model.parameters())


@pytest.mark.parametrize("run", ["dense", "int4"])
def test_an_evaluation_is_that_of_the_model_in_memory_to_the_bit(runs, run, seen, tmp_path):
    models, fetched = seen
    before = contents_of(runs / run / "model")
    sizes = ["--task", "spam", "--train", "12", "--dev", "6", "--test", "6"]
    rows = []
    for engine, given in (("in-forward", runs / run), ("auto", runs / run), ("streamed", runs / run / "model")):
        out = tmp_path / engine
        assert main(["evaluate", "--model", str(given), "--engine", engine, "--out", str(out), *sizes]) == 0
        (row,) = (row for row in rows_now(out) if row["kind"] == "measurement")
        rows.append({name: value for name, value in row.items() if name not in (*COSTS, "model")})
    assert rows[0] == rows[1] == rows[2] and "test_loss" in rows[0]
    assert blocks_of(models[0]) is None and is_mapped(models[1]) and is_mapped(models[2])
    assert set(fetched) == {0, 1, 2, 3} and contents_of(runs / run / "model") == before
    assert not list(tmp_path.rglob(".streamed-*"))


def test_predictions_are_those_of_the_model_in_memory(runs, seen, tmp_path):
    (tmp_path / "new.csv").write_text("text\nWin a prize\nLunch at one?\n")
    for engine in ("in-forward", "auto"):
        given = ["--input", str(tmp_path / "new.csv"), "--out", str(tmp_path / f"{engine}.csv"), "--engine", engine]
        assert main(["predict", "--model", str(runs / "dense"), *given]) == 0
    one, other = ((tmp_path / f"{engine}.csv").read_text() for engine in ("in-forward", "auto"))
    assert one == other and one.count("\n") == 3 and is_mapped(seen[0][1]) and seen[1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--engine", "paired"], "engine"),
        (["--engine", "streamed", "--model", "somebody/model"], "on the hub"),
        (["--engine", "streamed", "--fake-quantize", "w8a8"], "takes no fake-quantised layers"),
    ],
)
def test_what_cannot_be_read_so_is_refused(given, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", "--task", "spam", "--train", "2", "--dev", "2", "--test", "2", *given])
    assert said in capsys.readouterr().err
