"""analysis: what is read, what is fitted and tested, and what the page says, on small fabricated folders."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.__main__ import main
from analysis.figures.convergence import aligned, band
from analysis.figures.kernels import roots, uphill_share
from analysis.fits import power_law
from analysis.labels import label
from analysis.outcomes import outcomes, trajectories
from analysis.rows import ReadError, read
from analysis.sections import convergence
from analysis.statistics import Comparison, against_chance, holm, paired, t_interval, two_proportions, wilson
from analysis.style import looks
from analysis.tables.convergence import finals, tuning_table
from analysis.tables.finetuning import accuracies
from analysis.tables.pairs import pairs

pytestmark = pytest.mark.environment

Row = dict[str, Any]
EPSILONS = (0.01, 0.03, 0.1, 0.3, 1.0)
ABSENT = [f"synthetic {name}" for name in ("design", "phase", "descent", "epsilon")]  # see test_analysis_theory
ABSENT += [f"llm {name}" for name in ("noise", "bench", "profile", "rounding")]  # and test_analysis_speed


def folder(path: Path, rows: list[Row], tail: str = "", **config: object) -> Path:
    """A run folder with these rows, and `tail` as a crash left it."""
    path.mkdir(parents=True)
    (path / "config.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in config.items()))
    (path / "environment.json").write_text(json.dumps({"python": "3.12", "commit": "abcdef0123456", "cores": 2}))
    (path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    return path


def bias_rows(method: str, power: float, problem: str = "sextic", scale: float = 1.0) -> list[Row]:
    rows: list[Row] = []
    for epsilon in EPSILONS:
        bias = scale * epsilon**power
        common: Row = {"kind": "bias", "method": method, "estimator": method, "problem": problem, "dim": 16}
        common |= {"epsilon": epsilon, "samples": 100, "queries": 2, "noise": 0.0, "gradient_norm": 1.0}
        common |= {"predicted_bias": bias, "bias_deviation": 1.0, "prediction_terms": "3, 5", "seconds": 0.1}
        tiny = max(bias * 1e-3, 1e-9)
        exact = {"sampling": "controlled", "bias": bias, "bias_error": tiny, "floor": tiny, "mse": None}
        seen = {"sampling": "plain", "bias": math.hypot(bias, 0.1), "bias_error": 0.03, "floor": 0.1}
        seen |= {"mse": 17.0, "mse_error": 0.2, "predicted_mse": 17.1, "covariance_trace": 17.0}
        rows += [common | exact, common | seen]
    return rows


def kernel_rows() -> list[Row]:
    r = np.linspace(-1, 1, 101)
    kinds = [("order 3", 15 / 4 * r * (5 - 7 * r**2), 1.0), ("misprint", 30 / 4 * r * (5 - 7 * r**2), 13 / 7)]
    return [
        {"kind": "kernel", "name": name, "order": 3, "constant": 1.0, "first_moment": moment, "note": ""}
        | {"r": r.tolist(), "values": values.tolist(), "moments": {"1": moment, "3": 0.0, "5": -0.238}}
        | {"second_moment_r2k2": 6.25, "second_moment_k2": 18.75}
        for name, values, moment in kinds
    ]


def converge_rows(method: str, rate: float, diverged_seed: int | None = None) -> list[Row]:
    rows: list[Row] = []
    for seed in range(4):
        for evaluations in range(0, 50, 10):
            gap = math.exp(-rate * evaluations / (10 + seed))
            lost = seed == diverged_seed and evaluations == 30
            rows.append(
                {
                    "kind": "converge",
                    "method": method,
                    "problem": "quadratic",
                    "dim": 10,
                    "seed": seed,
                    "lr": 0.1,
                }
                | {
                    "epsilon": 1e-3,
                    "step": evaluations,
                    "evaluations": evaluations,
                    "loss": None if lost else gap,
                }
                | {"gap": None if lost else gap, "status": "diverged" if lost else "ok"}
            )
            if lost:
                break
    return rows


def training_rows(method: str, seed: int, accuracy: float, status: str = "ok", passes: int = 200) -> list[Row]:
    name: Row = {"model": "tiny", "task": "sst2", "method": method, "estimator": method, "seed": seed}
    rows: list[Row] = [
        {"kind": "baseline", "name": baseline, "model": "tiny", "task": "sst2", "seed": seed}
        | {"dev_accuracy": level, "test_accuracy": level, "test_examples": 200}
        for baseline, level in (("chance", 0.5), ("zero-shot", 0.55), ("calibrated zero-shot", 0.6))
    ]
    rows += [
        {"kind": "evaluation", **name, "step": step, "forward_passes": 2 * step, "backward_passes": 0}
        | {
            "seconds": 1.0,
            "train_loss": None,
            "dev_loss": 1 - step / 400,
            "dev_accuracy": 0.5 + step / 500 + seed / 100,
        }
        for step in range(0, passes // 2 + 1, 50)
    ]
    if status in ("ok", "diverged", "interrupted"):
        rows.append(
            {
                "kind": "final",
                **name,
                "step": 100,
                "forward_passes": passes,
                "backward_passes": 0,
                "seconds": 2.0,
            }
            | {
                "test_loss": 0.6,
                "test_accuracy": accuracy,
                "test_examples": 200,
                "best_step": 100,
                "status": status,
            }
            | {"weights": "committed"}
        )
    elif status == "failed":
        rows.append({"kind": "failure", **name, "reason": "out of memory", "step": 50})
    return rows


def training(root: Path, method: str, seed: int, accuracy: float, status: str = "ok", **settings: Any) -> Path:
    passes = settings.pop("passes", 200)
    config = {"command": "train", "method": method, "seed": seed, "lr": 1e-3, "batch": 16} | settings
    lr = config["lr"]
    path = root / f"{method}-{seed}-{lr}"
    return folder(path, training_rows(method, seed, accuracy, status, passes), **config)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A parent folder with every kind of run."""
    root = tmp_path / "runs"
    folder(root / "bias", bias_rows("mezo", 2) + bias_rows("kerzoo", 4) + bias_rows("mezo", 2, "quadratic", 0.0))
    folder(root / "kernels", kernel_rows(), command="kernels")
    tune = [
        {
            "kind": "tune",
            "method": "mezo",
            "problem": "quadratic",
            "dim": 10,
            "lr": lr,
            "loss": loss,
            "status": "ok",
        }
        for lr, loss in ((0.1, 3.0), (0.2, 1.0), (0.4, 2.0))
    ]
    folder(root / "converge", converge_rows("mezo", 2.0) + converge_rows("kerzoo", 1.0, 2) + tune)
    for seed in range(3):
        training(root / "llm", "mezo", seed, 0.7 + 0.02 * seed)
        training(root / "llm", "kerzoo", seed, 0.66 + 0.03 * seed, "diverged" if seed == 2 else "ok")
    return root


# reading


def test_a_torn_last_line_is_dropped_with_a_warning(tmp_path: Path) -> None:
    results = read([folder(tmp_path / "torn", bias_rows("mezo", 2), '{"kind": "bias", "met')])
    assert len(results.of("bias")) == 2 * len(EPSILONS)
    assert any("rows.jsonl:11: dropped the last line" in warning for warning in results.warnings)


@pytest.mark.parametrize("broken", ['{"kind": "bi', "[1, 2]", '{"no": "kind"}'])
def test_a_broken_line_in_the_middle_is_an_error_with_file_and_line(tmp_path: Path, broken: str) -> None:
    rows = bias_rows("mezo", 2)
    path = folder(tmp_path / "broken", rows[:1], broken + "\n" + json.dumps(rows[1]) + "\n")
    with pytest.raises(ReadError, match=r"broken/rows\.jsonl:2: .* mend or remove the line"):
        read([path])


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    row = {key: value for key, value in bias_rows("mezo", 2)[0].items() if key != "epsilon"}
    with pytest.raises(ReadError, match=r"rows\.jsonl:1: a row of kind 'bias' lacks 'epsilon'"):
        read([folder(tmp_path / "short", [row])])


def test_text_where_a_number_belongs_is_named(tmp_path: Path) -> None:
    row = bias_rows("mezo", 2)[0] | {"epsilon": "large"}
    with pytest.raises(ReadError, match=r"kind 'bias'.*'epsilon'.*'large'"):
        read([folder(tmp_path / "wrong", [row])])


def test_missing_folders_and_folders_without_rows_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"no folder .*nowhere"):
        read([tmp_path / "nowhere"])
    with pytest.raises(ReadError, match=r"no rows\.jsonl in .*python -m synthetic bias"):
        read([tmp_path])


def test_a_parent_gives_each_run_once_and_unknown_kinds_are_noted(runs: Path) -> None:
    folder(runs / "speed", [{"kind": "speed"}] * 2)
    results = read([runs, runs / "bias"])
    assert sorted(run.name for run in results.runs)[:4] == ["bias", "converge", "kernels", "kerzoo-0-0.001"]
    assert len(results.runs) == 10
    assert any("ignored 2 rows of kind 'speed'" in warning for warning in results.warnings)


# slopes


def frame(power: float, floor: float, used: tuple[float, ...] = EPSILONS) -> pd.DataFrame:
    epsilon = np.array(used)
    exact = epsilon**power
    return pd.DataFrame(
        {
            "epsilon": epsilon,
            "bias": np.hypot(exact, floor),
            "bias_error": np.maximum(1e-3 * exact, floor / 4),
        }
        | {"floor": max(floor, 1e-12), "predicted_bias": exact}
    )


@pytest.mark.parametrize("power", [2.0, 4.0])
def test_an_exact_power_law_is_recovered(power: float) -> None:
    law = power_law(frame(power, 0.0))
    assert law is not None
    assert law.used == law.points == len(EPSILONS)
    assert law.straight
    assert law.slope.estimate == pytest.approx(power, abs=1e-9)
    assert law.predicted == pytest.approx(power, abs=1e-9)
    assert law.slope.low < power < law.slope.high


def test_points_at_the_floor_are_left_out_and_would_have_bent_the_slope() -> None:
    rows = frame(4.0, 1e-4, tuple(np.geomspace(0.01, 1.0, 13)))
    law = power_law(rows)
    assert law is not None
    assert law.used < law.points
    assert law.slope.estimate == pytest.approx(4.0, abs=0.1)
    assert np.polyfit(np.log(rows["epsilon"]), np.log(rows["bias"]), 1)[0] < 3.0


def test_the_fit_stops_where_the_next_order_bends_the_curve() -> None:
    rows = frame(2.0, 0.0, tuple(np.geomspace(0.001, 1.0, 13)))
    bent = rows["epsilon"] ** 2 + 30 * rows["epsilon"] ** 4
    law = power_law(rows.assign(bias=bent, bias_error=1e-3 * bent, predicted_bias=bent))
    assert law is not None
    assert law.used < law.points
    assert law.slope.estimate == pytest.approx(2.0, abs=0.01)


def test_fewer_than_three_resolved_points_have_no_slope() -> None:
    assert power_law(frame(2.0, 0.05)) is None


# statistics


def test_t_interval_agrees_with_scipy() -> None:
    values = [0.71, 0.74, 0.69, 0.73, 0.75]
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    interval = t_interval(values)
    assert interval == pytest.approx((np.mean(values), expected.low, expected.high), rel=1e-12)
    assert math.isnan(t_interval([0.7]).low)


def test_wilson_interval_solves_its_own_equation() -> None:
    accuracy, n, z = 0.62, 50, stats.norm.ppf(0.975)
    for bound in wilson(accuracy, n)[1:]:
        assert abs(accuracy - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / n), rel=1e-9)


def test_paired_agrees_with_scipy_and_claims_nothing_without_variation() -> None:
    first, second = [0.70, 0.73, 0.71, 0.76], [0.68, 0.72, 0.66, 0.71]
    result = paired(first, second)
    assert result.p == pytest.approx(stats.ttest_rel(first, second).pvalue, rel=1e-12)
    assert result.pairs == 4
    assert math.isnan(paired([0.5, 0.6], [0.4, 0.5]).p)
    assert math.isnan(paired([0.5], [0.4]).p)


def test_tests_over_examples_and_holm() -> None:
    assert against_chance(0.6, 0.5, 100).p == pytest.approx(stats.binomtest(60, 100, 0.5).pvalue)
    newcombe = two_proportions(0.56, 0.48, 100).difference
    assert newcombe.low < 0 < newcombe.high
    adjusted = holm([0.01, math.nan, 0.04, 0.03])
    assert adjusted[0] == pytest.approx(0.03)
    assert adjusted[2:] == pytest.approx([0.06, 0.06])
    assert math.isnan(adjusted[1])


# frames


def test_every_run_is_accounted_for(tmp_path: Path) -> None:
    for seed, status in enumerate(("ok", "diverged", "failed", "interrupted", "unfinished")):
        training(tmp_path, "mezo", seed, 0.7, status)
    results = read([tmp_path])
    row = accuracies(outcomes(results), results.of("baseline")).iloc[0]
    counts = {name: row[name] for name in ("runs", "n", "ok", "diverged", "failed", "interrupted", "unfinished")}
    assert counts == {"runs": 5, "n": 2} | dict.fromkeys(counts, 1) | {"runs": 5, "n": 2}


def test_a_repeated_seed_is_no_further_evidence(tmp_path: Path) -> None:
    training(tmp_path / "first", "mezo", 0, 0.7)
    training(tmp_path / "again", "mezo", 0, 0.7)
    ends = outcomes(read([tmp_path]))
    assert ends["repeat"].tolist() == [False, True]


def test_a_resumed_run_counts_once_with_its_last_end(tmp_path: Path) -> None:
    rows = training_rows("mezo", 0, 0.6, "interrupted") + training_rows("mezo", 0, 0.8)
    results = read([folder(tmp_path / "resumed", rows, command="train")])
    ends = outcomes(results)
    assert ends[["status", "test_accuracy"]].to_numpy().tolist() == [["ok", 0.8]]
    assert not trajectories(results, ends).duplicated("step").any()


def test_margins_are_paired_over_seeds_or_over_examples_for_one(runs: Path) -> None:
    results = read([runs])
    frame = accuracies(outcomes(results), results.of("baseline")).set_index("label")
    expected = stats.ttest_1samp([0.70, 0.72, 0.74], 0.6)
    assert frame.loc["mezo", "calibrated zero-shot"].p == pytest.approx(expected.pvalue)
    assert frame.loc["mezo", "basis"] == "t, seeds"
    one = read([runs / "llm" / "mezo-0-0.001"])
    single = accuracies(outcomes(one), one.of("baseline")).iloc[0]
    assert single["basis"] == "Wilson, test examples"
    assert single["chance"].p == pytest.approx(stats.binomtest(140, 200, 0.5).pvalue)


def test_kerzoo_and_mezo_are_paired_at_equal_passes(runs: Path) -> None:
    results = read([runs])
    ends = outcomes(results)
    table = pairs(ends, trajectories(results, ends)).set_index("quantity")
    expected = stats.ttest_rel([0.66, 0.69, 0.72], [0.70, 0.72, 0.74])
    assert table.loc["test accuracy", "comparison"].p == pytest.approx(expected.pvalue)
    assert table.loc["test accuracy", "passes"] == 200


def test_unequal_passes_leave_only_dev_measurements_at_the_common_budget(tmp_path: Path) -> None:
    for seed in range(3):
        training(tmp_path, "mezo", seed, 0.7)
        training(tmp_path, "kerzoo", seed, 0.7, passes=400)
    results = read([tmp_path])
    ends = outcomes(results)
    table = pairs(ends, trajectories(results, ends))
    assert table["quantity"].tolist() == ["dev accuracy", "dev loss"]
    assert set(table["passes"]) == {200.0}
    assert [comparison.difference.estimate for comparison in table["comparison"]] == pytest.approx([0.0, 0.0])


def test_settings_that_differ_split_a_method_and_others_do_not(tmp_path: Path) -> None:
    training(tmp_path, "mezo", 0, 0.7, device="cpu")
    training(tmp_path, "mezo", 1, 0.7, device="cuda")
    assert set(outcomes(read([tmp_path]))["label"]) == {"mezo"}
    training(tmp_path, "mezo", 0, 0.7, lr=1e-2)
    assert set(outcomes(read([tmp_path]))["label"]) == {"mezo lr=0.001", "mezo lr=0.01"}


def test_shipped_results_say_so_beside_live_ones_of_the_same_settings_only(tmp_path: Path) -> None:
    shipped = {"provenance": "shipped with the repository"}
    training(tmp_path / "old", "mezo", 0, 0.7, **shipped)
    training(tmp_path / "old", "adamw", 0, 0.7, **shipped)
    assert outcomes(read([tmp_path]))["label"].tolist() == ["adamw", "mezo"]
    training(tmp_path / "new", "mezo", 0, 0.7, select="last", objective="task", rates=[], trained=[])
    assert set(outcomes(read([tmp_path]))["label"]) == {"adamw", "mezo", "mezo (shipped)"}
    assert looks(["mezo (shipped)"])["mezo (shipped)"].colour == looks(["mezo"])["mezo"].colour


def test_a_diverged_seed_is_infinite_and_counted(runs: Path) -> None:
    rows = read([runs]).of("converge")
    table = aligned(rows[rows["method"] == "kerzoo"])
    assert np.isinf(table.loc[40, 2])
    assert np.isinf(band(table)[2].iloc[-1])
    inside = read([runs]).of("tune").iloc[:0]
    labelled = finals(label(rows, ["problem", "dim"], ["lr"]), inside).set_index("label")
    assert labelled.loc["kerzoo", "diverged"] == 1
    assert labelled.loc["kerzoo", "budget"] == 40
    ratio = labelled.loc["kerzoo", "ratio"]
    assert isinstance(ratio, Comparison)
    assert ratio.pairs == 3
    assert ratio.difference.estimate == pytest.approx(
        np.mean([4 / (10 + s) * 10 * math.log10(math.e) for s in (0, 1, 3)])
    )


def test_a_best_learning_rate_at_the_edge_is_named_and_nothing_is_compared(runs: Path) -> None:
    inside = read([runs])
    assert tuning_table(inside.of("tune")).frame["inside"].tolist() == ["yes"]
    assert convergence.section(inside).illustrations
    lost = {"kind": "tune", "method": "kerzoo", "problem": "quadratic", "dim": 10, "lr": 0.2, "loss": None}
    best = {**lost, "lr": 0.1, "loss": 1.0, "status": "ok"}
    folder(runs / "more", [{**lost, "status": "diverged"}, best])
    section = convergence.section(edge := read([runs]))
    assert tuning_table(edge.of("tune")).frame["inside"].tolist() == ["no !", "yes"]
    assert section.illustrations == []
    assert "not comparable: the best rate of kerzoo, 0.1, is the smallest tried" in section.sentences[0]
    assert finals(label(edge.of("converge"), ["problem", "dim"], []), edge.of("tune"))["ratio"].isna().all()


def test_the_order_3_kernel_goes_uphill_beyond_its_root() -> None:
    r = np.linspace(-1, 1, 401)
    values = 15 / 4 * r * (5 - 7 * r**2)
    assert roots(r, values) == pytest.approx([math.sqrt(5 / 7)], abs=1e-4)
    assert uphill_share(r, values) == pytest.approx(1 - math.sqrt(5 / 7), abs=1e-4)


# the page


def report(folders: list[Path], out: Path) -> str:
    assert main(["report", *map(str, folders), "--out", str(out)]) == 0
    return out.read_text(encoding="utf-8")


def test_the_page_has_all_sections_stands_alone_and_is_the_same_twice(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = report([runs], tmp_path / "one" / "report.html")
    assert str(tmp_path / "one" / "report.html") in capsys.readouterr().out
    for key in ("bias", "mse", "kernels", "convergence", "finetuning", "runs"):
        assert f'<section id="{key}">' in page
    assert re.findall(r"<code>python -m (.*?)</code>", page.split('id="absent"')[1]) == ABSENT
    assert "https://" not in page
    assert "http://" not in page
    assert "<script" not in page
    assert re.findall(r'(?:src|href)="(?!data:|#)', page) == []
    assert "kerzoo 4.000" in page
    assert "null control" in page
    report([runs], tmp_path / "two" / "report.html")
    names = sorted(file.relative_to(tmp_path / "one") for file in (tmp_path / "one").rglob("*.*"))
    stems = ("bias", "mse", "kernels", "convergence", "finetuning-tiny", "finetuning-accuracy", "lead", "lead-narrow")
    assert {name.name for name in names} == {
        "report.html",
        *(f"{stem}.{end}" for stem in stems for end in ("png", "svg", "pdf")),
    }
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_sections_without_rows_are_one_last_line_with_the_commands_that_make_them(runs: Path, tmp_path: Path) -> None:
    page = report([runs / "kernels"], tmp_path / "report.html")
    assert re.findall(r'<section id="([a-z]+)">', page) == ["lead", "kernels", "runs"]
    last = page.split('id="absent"')[1]
    for command in ("python -m synthetic bias", "python -m synthetic converge", "python -m llm train"):
        assert last.count(f"<code>{command}</code>") == 1


def test_figures_open_large_have_words_and_are_offered_as_pdf(runs: Path, tmp_path: Path) -> None:
    page = report([runs], tmp_path / "report.html")
    figures = re.findall(r"<figure.*?</figure>", page, re.DOTALL)
    assert len(figures) == page.count("<img") == 7
    for figure in figures:
        name = re.search(r'<figure id="(.*?)"', figure)[1]
        assert f'href="#{name}"' in figure
        assert re.search(r'alt="[^"]{10,}"', figure)
        assert "data:application/pdf;base64,JVBERi0" in figure


def test_what_rounding_leaves_of_no_bias_is_no_disagreement(tmp_path: Path) -> None:
    rows = bias_rows("mezo", 2, "quadratic", 0.0)
    for row in rows:
        if row["sampling"] == "controlled":
            row |= {"bias": 3e-15, "floor": 1e-16, "bias_deviation": 30.0}
    page = report([folder(tmp_path / "bias", rows)], tmp_path / "report.html")
    assert "all 5 controlled measurements are 0 up to rounding" in page
    assert "10 of 10 measured bias vectors" in page
    assert "30.00" not in page


def test_text_from_rows_is_escaped(tmp_path: Path) -> None:
    rows = [row | {"prediction_terms": "<script>alert(1)</script>"} for row in bias_rows("mezo", 2)]
    assert "<script" not in report([folder(tmp_path / "bias", rows)], tmp_path / "report.html")


def test_errors_end_with_status_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no folder")
    assert error.count("\n") == 1


def test_journal_rows_take_their_identity_from_the_runs_other_rows(tmp_path):
    name = {"model": "m", "task": "t", "method": "mezo", "estimator": "e", "seed": 3}
    rows = [
        {"kind": "evaluation", **name, "step": 0, "forward_passes": 0},
        {"kind": "step", "step": 0, "train_loss": 0.5},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"kind": "environment"}]))
    results = read([tmp_path])
    assert results.of("step").iloc[0][["model", "method", "seed"]].tolist() == ["m", "mezo", 3]
    assert not any("environment" in warning and "ignored" in warning for warning in results.warnings)
