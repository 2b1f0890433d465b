"""The noise report and the bench, in small, on real models."""

import json

import pytest
import torch
from torch import nn

from llm.__main__ import main
from zobench import Combination, Gaussian, InForwardSpace, ModuleSpace, Term

pytestmark = pytest.mark.usefixtures("one_thread")


def rows(folder, kind):
    lines = (folder / "rows.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def test_the_noise_report_of_tiny_opt(tmp_path, capsys):
    command = ["noise", "--batch", "4", "--lines", "6", "--epsilons", "1e-3,3e-2", "--max-tokens", "32"]
    assert main([*command, "--out", str(tmp_path)]) == 0
    (level,), found = rows(tmp_path, "noise-level"), rows(tmp_path, "noise-report")
    assert {row["epsilon"] for row in found} == {1e-3, 3e-2, level["epsilon"]}
    by_epsilon = {row["epsilon"]: row["relative_error"] for row in found}
    assert by_epsilon[1e-3] < 0.2 < 3 * by_epsilon[3e-2]
    assert by_epsilon[level["epsilon"]] < by_epsilon[3e-2]
    assert level["slope"] == pytest.approx(found[0]["gradient_norm"], rel=0.7)
    before = (tmp_path / "rows.jsonl").read_bytes()
    assert main([*command, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "rows.jsonl").read_bytes() == before
    assert "the bias that a kernel could remove is at most" in capsys.readouterr().out


def test_dot_is_the_inner_product_with_the_gradient():
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    model(torch.ones(3, 5, dtype=torch.float64)).square().sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    combination = Combination((Term(Gaussian(), 7, torch.tensor([2.0, -1.0])),))
    for space in (ModuleSpace(model), InForwardSpace(model)):
        assert space.dot(combination) == pytest.approx(float(space.dense(combination) @ gradient), rel=1e-12)
        assert space.dot(combination * 1.01) != pytest.approx(float(space.dense(combination) @ gradient), rel=1e-3)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["noise", "--lines", "1"], "lines 1"),
        (["noise", "--epsilons", "0"], "positive ones"),
        (["noise", "--model", "no-such-model"], "no-such-model"),
        (["bench", "--size", "opt-2m"], "Did you mean"),
        (["bench", "--repetitions", "0"], "repetitions"),
        (["bench", "--parts", "step"], "Did you mean"),
        (["profile", "--engines", "in-forward, paired"], "engine of one thread"),
    ],
)
def test_bad_input_is_one_line_before_long_work(argv, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*argv, "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
