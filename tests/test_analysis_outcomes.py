"""analysis: which runs count, under which label, and what is compared with what."""

import math
from pathlib import Path

import numpy as np
import pytest
from fabricated import every_kind, folder, training, training_rows
from scipy import stats

from analysis.figures.convergence import aligned, band
from analysis.figures.kernels import roots, uphill_share
from analysis.labels import label
from analysis.outcomes import outcomes, trajectories
from analysis.rows import read
from analysis.sections import convergence
from analysis.statistics import Comparison
from analysis.tables.convergence import finals, tuning_table
from analysis.tables.finetuning import accuracies
from analysis.tables.pairs import pairs
from zobench.figures.style import looks

pytestmark = pytest.mark.environment


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return every_kind(tmp_path / "runs")


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
