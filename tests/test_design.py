"""The design suite: rows that agree with one another, and bad input."""

import json
import math

import pytest

from synthetic.__main__ import main
from zobench import kernels

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("design")
    command = ["design", "--orders", "1,3,5", "--depths", "2", "--points", "11", "--out", str(folder)]
    assert main(command) == 0
    before = (folder / "rows.jsonl").read_bytes()
    assert main(command) == 0
    assert (folder / "rows.jsonl").read_bytes() == before  # a second call adds nothing
    return [json.loads(line) for line in before.splitlines()]


def test_optimal_rows_reach_the_bound_and_no_row_is_below(rows):
    designs = [row for row in rows if row["kind"] == "design" and "bound" in row]
    assert {row["family"] for row in designs} == {"optimal", "chebyshev", "legendre", "floored"}
    for row in designs:
        assert row["second_moment"] >= row["bound"] * (1 - 1e-12), row["name"]
        if row["family"] in ("optimal", "floored") or (
            row["noise_to_gradient"] is None and row["family"] == "chebyshev"
        ):
            assert row["second_moment"] == pytest.approx(row["bound"], rel=1e-9), row["name"]
        if row["family"] == "optimal" and row["order"] >= 3:
            assert row["second_moment"] < 0.5 * row["legendre_second_moment"]


def test_rows_hold_what_they_name(rows):
    """Nodes, probabilities and values of a discrete kernel give its second moment and moments again."""
    for row in rows:
        if row["kind"] != "design" or row["probabilities"] is None:
            continue
        triples = list(zip(row["probabilities"], row["nodes"], row["values"], strict=True))
        noise = sum(p * k**2 for p, _, k in triples)
        slope = sum(p * (r * k) ** 2 for p, r, k in triples)
        t = row["noise_to_gradient"]
        assert row["second_moment"] == pytest.approx(noise if t is None else slope + t * noise, rel=1e-12)
        assert row["noise_second_moment"] == pytest.approx(noise / 2, rel=1e-12)
        for j in (1, 3, 5):
            assert row[f"m{j}"] == pytest.approx(sum(p * r**j * k for p, r, k in triples), abs=1e-13)
        assert eval(row["name"], dict(vars(kernels))).nodes == tuple(row["nodes"])


def test_the_shrinking_interval(rows):
    shrunk = {row["scale"]: row for row in rows if row["family"] == "shrunk"}
    assert shrunk[0.5]["m1"] == pytest.approx(4.9375) and shrunk[0.1]["m1"] == pytest.approx(0.25, abs=5e-3)
    assert all(row["m1"] == 4.0 and row["m3"] == 0.0 for row in rows if row["family"] == "rescaled")
    assert max(map(abs, shrunk[0.5]["nodes"])) == 0.5


def test_roads_at_equal_evaluations(rows):
    roads = {(row["name"], row["noise_to_gradient"]): row for row in rows if row["kind"] == "road"}
    for (name, t), row in roads.items():
        assert row["cost"] == pytest.approx(row["second_moment"] * row["evaluations"] / 2)
        assert row["m1"] == pytest.approx(1.0)
        rivals = [r for r in roads.values() if r["noise_to_gradient"] == t and r["order"] == row["order"]]
        if name.startswith("optimal"):
            assert all(row["cost"] <= r["cost"] * (1 + 1e-12) for r in rivals if "Richardson 1, 2" not in r["name"])
    assert roads["central", 1.0]["cost"] == 2.0
    assert roads["telescoping 2, by parts", 1.0]["cost"] < roads["telescoping 2", 1.0]["cost"]
    assert math.inf not in {t for _, t in roads}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--orders=2", "give an odd order"),
        ("--ratios=0", "is not attained"),
        ("--ratios=-1", "noise_to_gradient is -1"),
        ("--scales=0", "scale is 0"),
        ("--least=1", "least is 1"),
        ("--depths=0", "depth is 0"),
    ],
)
def test_bad_input_is_one_line_before_a_folder_is_made(option, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["design", option, "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
