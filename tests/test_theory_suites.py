"""The suites that rest on theory, end to end, in small: phase maps and descent."""

import math

import pytest
from test_suites import rows

from synthetic.__main__ import main

pytestmark = pytest.mark.usefixtures("one_thread")


def test_phase_rows_agree_with_what_is_sampled_and_a_second_call_measures_nothing(tmp_path, capsys):
    command = [
        "phase",
        "--methods",
        "mezo,kerzoo,forward,central4",
        "--dims",
        "4",
        "--bends",
        "0,1",
        "--noises",
        "1e-3,1",
    ]
    command += ["--evaluations", "4,16", "--epsilons", "0.3", "--entries", "2e4", "--out", str(tmp_path / "p")]
    assert main(command) == 0
    found = rows(tmp_path / "p", "phase")
    assert len(found) == 2 * 2 * 2 * 3 * 4
    sampled = [row for row in found if "measured_mse" in row]
    assert {row["method"] for row in sampled} >= {"mezo", "kerzoo"}
    for row in sampled:
        for what in ("mse", "decrease"):
            if row[f"predicted_{what}"] is not None:
                off = abs(row[f"measured_{what}"] - row[f"predicted_{what}"])
                assert off < 5 * row[f"measured_{what}_error"], row
    assert any(  # planted: the prediction 10 % off
        abs(row["measured_mse"] - 1.1 * row["predicted_mse"]) > 5 * row["measured_mse_error"] for row in sampled
    )
    for row in found:
        rivals = [r for r in found if all(r[k] == row[k] for k in ("map", "dim", "bend", "noise", "evaluations"))]
        assert row["least_mse"] == (row["predicted_mse"] == min(r["predicted_mse"] for r in rivals))
    before = (tmp_path / "p/rows.jsonl").read_bytes()
    capsys.readouterr()
    assert main(command) == 0
    assert (tmp_path / "p/rows.jsonl").read_bytes() == before
    assert "KerZOO over MeZO" in capsys.readouterr().out


def test_each_ones_own_epsilon_is_never_worse_than_a_common_one(tmp_path):
    command = ["phase", "--methods", "mezo,kerzoo", "--dims", "4", "--bends", "1", "--noises", "0.01"]
    assert main([*command, "--evaluations", "8", "--entries", "2e3", "--out", str(tmp_path)]) == 0
    found = rows(tmp_path, "phase")
    for method in ("mezo", "kerzoo"):
        own = next(r for r in found if r["method"] == method and r["map"] == "own, by mse")
        common = [r for r in found if r["method"] == method and r["map"] == "common"]
        assert len(common) == 3 and all(own["predicted_mse"] <= r["predicted_mse"] * (1 + 1e-9) for r in common)


def test_descent_takes_the_gains_it_predicts(tmp_path, capsys):
    command = ["descent", "--methods", "mezo,kerzoo,optimal", "--problem", "quadratic", "--dim", "6", "--seeds", "6"]
    assert main([*command, "--evaluations", "200", "--noise", "0.01", "--out", str(tmp_path)]) == 0
    found = rows(tmp_path, "descent")
    assert len(found) == 3 * 2 * 6 and all(row["evaluations"] == 200 for row in found)
    for method in ("mezo", "kerzoo", "optimal"):
        for rate in ("own best", "equal"):
            mine = [row for row in found if (row["method"], row["rate"]) == (method, rate)]
            assert abs(sum(row["z"] for row in mine) / math.sqrt(len(mine))) < 5
    own = {m: [r for r in found if r["method"] == m and r["rate"] == "own best"] for m in ("mezo", "kerzoo")}
    assert sum(r["final_gap"] for r in own["kerzoo"]) > 2 * sum(r["final_gap"] for r in own["mezo"])
    assert "slower" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["phase", "--methods", "kerzoo"], "mezo is missing, with which the others are compared"),
        (["phase", "--methods", "mezo,kerzoo-code"], "kerzoo-code changes from step to step"),
        (["phase", "--noises", "0"], "give positive noises"),
        (["phase", "--evaluations", "2"], "costs 4"),
        (["phase", "--epsilons", "-1"], "epsilon is -1"),
        (["descent", "--methods", "kerzoo"], "mezo is missing, with which the others are compared"),
        (["descent", "--problem", "cubic"], "no known minimum"),
        (["descent", "--seeds", "0"], "seeds 0"),
        (["descent", "--methods", "mezo,kerzoo-code"], "kerzoo-code changes from step to step"),
    ],
)
def test_bad_input_is_one_line_before_long_work(argv, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*argv, "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
