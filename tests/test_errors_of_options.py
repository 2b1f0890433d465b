"""Mistakes that are told as what they are, before any work."""

import pytest

from llm.__main__ import main as llm
from llm.loop.divergence import Divergence
from llm.loop.reports import SINKS
from llm.loop.step_rows import StepRows
from llm.model import loading
from llm.steppers.taken import Taken
from synthetic.__main__ import main as synthetic
from zobench import methods
from zobench.naming import UnknownNameError
from zobench.run.journal import Record
from zobench.space.motion import Motion

MISTAKES = {
    ("train", "--train", "0"): "train is 0: each split needs at least one example",
    ("train", "--dev", "-1"): "dev is -1: each split needs at least one example",
    ("train", "--test", "0", "--dry-run"): "test is 0: each split needs at least one example",
    ("study", "--rates", "0"): "a rate of --rates is 0.0: give learning rates above 0",
    ("study", "--first-order-rates", "0.1,-1"): "a rate of --first-order-rates is -1.0",
    ("rounding", "--rates", "0"): "give learning rates above 0",
    ("train", "--device", "gpu"): "unknown device 'gpu': Did you mean 'cuda'? Give cpu, cuda, cuda:1 or mps",
    ("noise", "--device", "tpu"): "unknown device 'tpu'",
    ("train", "--method", "mezo:law=normal"): "Did you mean 'gaussian'?",
    ("journal", "show", "runs/nowhere"): "runs/nowhere: no such folder",
    ("journal", "verify", "runs/nowhere"): "runs/nowhere: no such folder",
    ("export", "runs/nowhere", "--to", "x"): "model 'runs/nowhere': no such folder",
    ("evaluate", "--model", "runs/nowhere"): "model 'runs/nowhere': no such folder",
    ("train", "--model", "runs/nowhere"): "model 'runs/nowhere': no such folder",
}


@pytest.mark.parametrize("words", MISTAKES, ids=" ".join)
def test_a_mistake_is_told_in_one_line_before_work(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(llm(list(words)))
    shown = capsys.readouterr()
    assert ended.value.code == 2 and MISTAKES[words] in shown.err and shown.err.count("\n") == 1
    assert not shown.out and not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["converge", "smoke"])
def test_a_rate_of_0_is_refused_by_the_suites(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        synthetic([command, "--rates", "0.1,0"])
    assert "give learning rates above 0" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_folder_of_a_run_without_a_model_says_how_its_weights_are_written(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/rows.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"has no model: .* python -m llm export"):
        loading.load(str(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"no such folder\. Did you mean 'run'\?"):
        loading.load(str(tmp_path / "rum"))


OTHER_WORDS = {"normal": "gaussian", "bernoulli": "rademacher", "lowrank": "low-rank"}


@pytest.mark.parametrize(("word", "ours"), OTHER_WORDS.items())
def test_another_word_for_a_law_is_answered_with_ours(word, ours):
    with pytest.raises(UnknownNameError, match=f"unknown law '{word}'. Did you mean '{ours}'"):
        methods.make("mezo", law=word)


def test_the_list_of_methods_shows_their_axes(capsys):
    assert llm(["list", "--methods"]) == 0
    shown = capsys.readouterr().out
    assert "Gaussian x Central x Identity x sgd" in shown and "epsilon=0.001, n=1" in shown and "zero-shot" in shown
    assert "tasks" not in shown.split("\n")[0]


class Log:
    """What StepRows needs of a log."""

    def __init__(self):
        self.journal, self.kept = None, []

    def measured(self, kind, **_):
        return [row for row in self.kept if row["kind"] == kind]

    def keep(self, row):
        self.kept.append(row)


class Costs:
    """No costs."""

    def __init__(self):
        self.row = {}


def told(loss, capsys, skipped=""):
    divergence = Divergence(1.0, 10, 5.0, 1)
    rows = StepRows(Log(), {}, Costs(), divergence)
    record = Record(0, 1, (loss,), 1e-4, skipped=skipped)
    rows.on_step(Taken(record, loss, motion=Motion(0.5, 0.0, 1.0)))
    return capsys.readouterr().err, divergence


def test_no_run_is_told_to_raise_and_to_lower_its_rate(capsys):
    sound, _ = told(0.7, capsys)
    assert "raise --lr, or use a wider --dtype" in sound
    for loss in (6.0, float("nan")):
        bad, divergence = told(loss, capsys)
        assert "use a wider --dtype" in bad and "raise" not in bad
    assert "lower --lr" in divergence.warning(noise=False)
    assert "--lr" not in divergence.warning(noise=True) and "wider --dtype" in divergence.warning(noise=True)


def test_every_place_to_report_to_is_in_the_help(capsys):
    with pytest.raises(SystemExit):
        llm(["train", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert ", ".join(SINKS) in shown
