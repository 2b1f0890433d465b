"""synthetic claims and llm errors: the rows of the ledger, in small."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from llm.__main__ import main as llm
from llm.studies.errors import nodes
from synthetic import problems
from synthetic.__main__ import main as synthetic
from synthetic.claims import cost, interval, tensors
from synthetic.problems.mlp import MLP
from zobench.kernels import legendre

Row = dict[str, Any]
FAR = 5.0


def z(row: Row) -> float:
    return abs(row["measured"] - row["predicted"]) / row["measured_error"]


def test_costs_of_kernels_agree_with_samples() -> None:
    rows = list(cost.rows(20_000, 0))
    assert len(rows) == 16
    assert all(z(row) < FAR for row in rows if row["measured_error"])
    exact = {(row["method"], row["quantity"]): row["predicted"] for row in rows}
    assert exact["order 3", "second moment"] == 6.25 and exact["order 3", "noise variance"] == 18.75
    assert exact["order 3", "uphill share"] == pytest.approx(1 - (5 / 7) ** 0.5, abs=1e-4)
    assert exact["order 5 as printed", "mean step"] == pytest.approx(13 / 7)
    planted = [row | {"predicted": 1.2 * row["predicted"]} for row in rows if row["quantity"] == "second moment"]
    assert all(z(row) > FAR for row in planted)


def test_the_mean_step_of_a_shrinking_interval_is_m() -> None:
    rows = list(interval.rows(10_000, 0))
    steps = {row["scale"]: row for row in rows if row["method"] == "unscaled" and row["quantity"] == "mean step"}
    for s, row in steps.items():
        assert row["predicted"] == pytest.approx(15 * (5 * s**2 / 3 - 7 * s**4 / 5))
    assert steps[math.sqrt(25 / 42)]["predicted"] == pytest.approx(625 / 84)
    assert all(z(row) < FAR for row in rows if row["measured_error"] > 1e-9)
    left = [row for row in rows if row["quantity"] == "bias against MeZO's"]
    assert max(abs(row["measured"]) for row in left if row["method"] == "rescaled") < 1e-12
    assert max(row["measured"] for row in left if row["method"] == "unscaled") > 0.2


def test_a_third_of_the_bias_across_tensors_stays() -> None:
    """On f = x y^2 + x^3 / 3 with x and y in two tensors: 2, 0 and 1/3 in units of e^2 along x."""
    point = torch.tensor([0.3, -0.7], dtype=torch.float64)
    predicted = tensors.predictions(tensors.TwoTensors(), point, {"x": (1,), "y": (1,)})
    along = {name: float(bias[0]) / tensors.EPSILON**2 for name, bias in predicted.items()}
    assert along == pytest.approx({"MeZO": 2, "shared r": 0, "one r a tensor": 1 / 3, tensors.ACROSS: 1}, abs=1e-12)


def test_a_module_has_the_bias_that_its_layout_predicts() -> None:
    """Each method's draws have the mean predicted along MeZO's bias, and not that of another method."""
    problem = problems.make("mlp")
    assert isinstance(problem, MLP)
    x = problems.start(problem)
    predicted = tensors.predictions(problem, x, tensors.SHAPES)
    unit = predicted["MeZO"] / predicted["MeZO"].square().sum()
    assert float(predicted["shared r"] @ unit) == pytest.approx(0, abs=1e-9)
    module = tensors.Network(problem, x)
    assert float(module().detach()) == pytest.approx(float(problem(x)), rel=1e-12)
    draws = tensors.module_bias(module, tensors.METHODS["MeZO"], problem.gradient(x), 1500, 0) @ unit
    error = float(draws.std()) / math.sqrt(len(draws))
    assert abs(float(draws.mean()) - 1) < FAR * error < 0.9
    assert abs(float(draws.mean())) > FAR * error / 2  # the kernel's bias is none
    assert torch.equal(torch.nn.utils.parameters_to_vector(module.parameters()).detach(), x)


def test_the_quadrature_over_r_is_exact() -> None:
    r, mass, value = nodes(legendre(3), 4)
    moments = [float((mass * value * r**j).sum()) for j in (1, 3, 5)]
    assert moments == pytest.approx([1.0, 0.0, -5 / 21], abs=1e-12)
    assert float((mass * value.square() * r.square()).sum()) == pytest.approx(6.25)
    assert len(nodes(legendre(3), 0)[0]) == 0


def test_the_command_writes_each_part_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["claims", "--parts", "cost", "--samples", "1000", "--out", str(tmp_path)]
    assert synthetic(command) == 0
    before = (tmp_path / "rows.jsonl").read_bytes()
    assert synthetic(command) == 0 and (tmp_path / "rows.jsonl").read_bytes() == before
    with pytest.raises(SystemExit):
        synthetic(["claims", "--parts", "costs", "--out", str(tmp_path / "other")])
    assert "Did you mean" in capsys.readouterr().err and not (tmp_path / "other").exists()


@pytest.mark.usefixtures("one_thread")
def test_errors_of_a_model_have_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["errors", "--batch", "2", "--lines", "4", "--max-tokens", "16", "--epsilons", "1e-3,1e-2"]
    found = {}
    for dtype in ("float64", "bfloat16"):
        out = tmp_path / dtype
        assert llm([*common, "--dtype", dtype, "--nodes", "2", "--adapter", "lora", "--out", str(out)]) == 0
        before = (out / "rows.jsonl").read_bytes()
        assert llm([*common, "--dtype", dtype, "--nodes", "2", "--adapter", "lora", "--out", str(out)]) == 0
        assert (out / "rows.jsonl").read_bytes() == before
        rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
        found[dtype] = {row["epsilon"]: row for row in rows if row["kind"] == "error-parts"}
    exact, rounded = found["float64"], found["bfloat16"]
    assert all(row["rounding"] == 0 for row in exact.values())
    assert rounded[1e-3]["rounding"] > rounded[1e-2]["rounding"] > exact[1e-3]["truncation"]
    row = exact[1e-3]
    assert row["error"] == pytest.approx(row["parameters"] * row["second_moment"], rel=0.01)
    assert row["removable"] == pytest.approx(row["truncation"] / row["error"])
    assert exact[1e-2]["truncation"] > row["truncation"] > 0


def test_bad_input_of_errors_is_told_before_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        llm(["errors", "--lines", "1", "--out", str(tmp_path / "out")])
    assert "lines 1" in capsys.readouterr().err and not (tmp_path / "out").exists()
