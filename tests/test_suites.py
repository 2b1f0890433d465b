"""The synthetic suites end to end, in small: rows with predictions, resumption, bad input."""

import json

import pytest

from analysis.__main__ import main as analysis_main
from synthetic import problems
from synthetic.__main__ import main
from synthetic.converge import ConvergeOptions, descend
from zobench import methods

pytestmark = pytest.mark.environment


def rows(folder, kind):
    lines = (folder / "rows.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def test_bias_rows_agree_with_theory_and_a_second_call_measures_nothing(tmp_path, capsys):
    command = ["bias", "--methods", "mezo,kerzoo,forward", "--problem", "quadratic,sextic", "--epsilons", "0.1,0.2"]
    command += ["--dim", "6", "--samples", "2e4", "--controlled-samples", "5e3", "--out", str(tmp_path / "b")]
    assert main(command) == 0
    found = rows(tmp_path / "b", "bias")
    assert len(found) == 3 * 2 * 2 * 2
    for row in found:
        assert row["bias_deviation"] < 3 or row["bias"] < 1e-13, row  # which is rounding
        if row["sampling"] == "plain":
            z = (row["covariance_trace"] - row["predicted_covariance_trace"]) / row["covariance_trace_error"]
            assert abs(z) < 5, row
            if row["method"] == "mezo" and row["problem"] == "quadratic":  # a linear f for central differences
                z, planted = ((row["cosine"] - c) / row["cosine_error"] for c in (row["predicted_cosine"], 8**-0.5))
                assert abs(z) < 5 < abs(planted) and 0 < row["mean_cosine"] < row["cosine"]
    assert analysis_main(["figure", "cosine", str(tmp_path / "b"), "--out", str(tmp_path / "cosine.svg")]) == 0
    biased = {
        (r["method"], r["epsilon"]): r["bias"]
        for r in found
        if (r["problem"], r["sampling"]) == ("sextic", "controlled")
    }
    assert 3 < biased["mezo", 0.2] / biased["mezo", 0.1] < 5.5
    assert 12 < biased["kerzoo", 0.2] / biased["kerzoo", 0.1] < 20
    null = [r for r in found if (r["problem"], r["sampling"]) == ("quadratic", "controlled")]
    assert all(r["predicted_bias"] == 0 and r["bias"] < 1e-12 for r in null)
    before = (tmp_path / "b/rows.jsonl").read_bytes()
    assert main(command) == 0
    assert (tmp_path / "b/rows.jsonl").read_bytes() == before


def test_adding_a_method_changes_no_other_methods_numbers(tmp_path):
    common = ["bias", "--epsilons", "0.1", "--problem", "quartic", "--dim", "4", "--samples", "1000"]
    main([*common, "--methods", "mezo", "--out", str(tmp_path / "one")])
    main([*common, "--methods", "richardson,mezo", "--out", str(tmp_path / "two")])
    strip = lambda row: {k: v for k, v in row.items() if k != "seconds"}  # noqa: E731
    alone = [strip(r) for r in rows(tmp_path / "one", "bias")]
    assert alone == [strip(r) for r in rows(tmp_path / "two", "bias") if r["method"] == "mezo"]


def test_convergence_spends_equal_evaluations_and_counts_divergence(tmp_path):
    folder = tmp_path / "c"
    command = [
        "converge",
        "--methods",
        "mezo,richardson",
        "--problem",
        "quadratic",
        "--dim",
        "4",
        "--evaluations",
        "400",
    ]
    assert main([*command, "--rates", "0.05,100", "--seeds", "5", "--points", "10", "--out", str(folder)]) == 0
    first, final = {}, {}
    for row in rows(folder, "converge"):
        first.setdefault((row["method"], row["seed"]), row)
        final[row["method"], row["seed"]] = row
    assert len(final) == 10 and {row["evaluations"] for row in final.values()} == {400}
    assert all(row["gap"] < 0.5 * first[run]["gap"] for run, row in final.items())
    tuned = {(row["method"], row["lr"]): row["status"] for row in rows(folder, "tune")}
    assert tuned == {
        ("mezo", 0.05): "ok",
        ("mezo", 100): "diverged",
        ("richardson", 0.05): "ok",
        ("richardson", 100): "diverged",
    }


def test_kernel_rows_show_the_misprint(tmp_path):
    assert main(["kernels", "--out", str(tmp_path)]) == 0
    moments = {row["name"]: row["first_moment"] for row in rows(tmp_path, "kernel")}
    assert moments["legendre(5)"] == pytest.approx(1.0)
    assert moments["kerzoo5_as_printed()"] == pytest.approx(13 / 7)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["bias", "--methods", "kerzo"], "Did you mean 'kerzoo'"),
        (["bias", "--methods", "kerzoo:ordr=3"], "Did you mean 'order'"),
        (["bias", "--problem", "sextik"], "Did you mean 'sextic'"),
        (["bias", "--epsilons", "0"], "epsilon is 0"),
        (["bias", "--dim", "0"], "dim is 0"),
        (["bias", "--epsilons", "0.1,1e-20"], "below the resolution"),
        (["bias", "--samples", "0"], "samples is 0"),
        (["bias", "--samples", "inf"], "'inf' is no whole number"),
        (["converge", "--problem", "cubic"], "has no known minimum"),
        (["converge", "--seeds", "0"], "--seeds"),
        (["kernels", "--orders", "2"], "give an odd order"),
        (["bench", "--repetitions", "0"], "repetitions is 0"),
    ],
)
def test_bad_input_is_one_line_before_long_work(argv, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*argv, "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_divergence_at_every_rate_is_told(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["converge", "--rates", "1e9", "--methods", "mezo", "--evaluations", "40", "--out", str(tmp_path)])
    assert "diverged at every rate" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["random-search", "zo-sgd-conservative"])
def test_an_estimator_that_chooses_a_point_is_told_the_rate_of_the_suite(method):
    """Steps of a search have their own size; losses of a conservative step never rise, whatever the rate."""
    options = ConvergeOptions(evaluations=200)
    problem, estimator = problems.make("quadratic", 4), methods.make(method, epsilon=0.1)
    curves = [
        [float(reached.losses[0]) for reached in descend(estimator, problem, options, lr, [0])] for lr in (0.3, 0.003)
    ]
    assert all(curve == sorted(curve, reverse=True) for curve in curves)
    assert (curves[0] == pytest.approx(curves[1])) is (method == "random-search")
