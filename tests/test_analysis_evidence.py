"""analysis: what counts as evidence, which intervals a metric has, and which p-values are adjusted."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from fabricated import Row, folder, training
from scipy import stats

from analysis import text
from analysis.labels import label
from analysis.lead import lead
from analysis.outcomes import levels, outcomes, trajectories
from analysis.rows import read
from analysis.sections import convergence, finetuning
from analysis.sections.section import Section
from analysis.statistics import holm, t_interval
from analysis.tables.convergence import finals, finals_table
from analysis.tables.finetuning import accuracies, accuracies_table
from analysis.tables.pairs import pairs

pytestmark = pytest.mark.environment


def changed(path: Path, kind: str, **values: object) -> None:
    """Put values into all rows of a kind."""
    file = path / "rows.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row | (values if row["kind"] == kind else {})) + "\n" for row in rows))


def with_metric(path: Path, metric: str) -> Path:
    """The run, its accuracies said to be another metric."""
    for kind in ("evaluation", "final"):
        changed(path, kind, metric=metric)
    return path


@pytest.mark.parametrize(("metric", "counted"), [("f1", False), ("macro-f1", False), ("exact-match", True)])
def test_one_run_of_a_mean_has_no_binomial_interval(tmp_path: Path, metric: str, counted: bool) -> None:
    results = read([with_metric(training(tmp_path, "mezo", 0, 0.7), metric)])
    scores = accuracies(outcomes(results), results.of("baseline"))
    row, table = scores.iloc[0], accuracies_table(scores)
    assert row["basis"] == ("Wilson, test examples" if counted else "")
    assert math.isnan(row["low"]) != counted and math.isnan(row["chance"].p) != counted
    assert row["chance"].difference.estimate == pytest.approx(0.2)
    assert table.caption == f"Final test {metric}" and f"test {metric} [95 %]" in table.frame
    assert f"tiny, sst2: test {metric}: mezo 70.0" in finetuning.section(results).sentences[0]
    shown = (finetuning.section(results), lead(results, ()))
    assert all("accuracy" not in words for section in shown for words in read_by_people(section))
    assert metric in shown[1].sentences[0]


def read_by_people(section: Section) -> list[str]:
    """Its sentences, captions, descriptions of figures, titles of axes, and tables with their notes."""
    axes = [panel for shown in section.illustrations for panel in shown.figure.axes]
    return [
        *section.sentences,
        *(words for shown in section.illustrations for words in (shown.caption, shown.alt)),
        *(words for panel in axes for words in (panel.get_title(), panel.get_xlabel(), panel.get_ylabel())),
        *(f"{table.caption} {table.note} {table.frame.to_string()}" for table in section.tables),
    ]


def test_the_metric_of_a_run_that_has_not_ended_is_that_of_its_evaluations(tmp_path: Path) -> None:
    """One that was measured nowhere takes that of its task; accuracy is named by no row."""
    with_metric(training(tmp_path, "mezo", 0, 0.7, status="unfinished"), "f1")
    assert "none with a test f1 yet; the last dev f1 is 70.0" in lead(read([tmp_path]), ()).sentences[0]
    with_metric(training(tmp_path, "mezo", 1, 0.7), "f1")
    failed = with_metric(training(tmp_path, "mezo", 2, 0.7, status="failed"), "f1")
    rows = [json.loads(line) for line in (failed / "rows.jsonl").read_text().splitlines()]
    kept = [row for row in rows if row["kind"] not in ("evaluation", "final")]
    (failed / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    results = read([tmp_path])
    ends = outcomes(results)
    assert len(ends) == 3 and set(ends["metric"]) == {"f1"}
    assert set(trajectories(results, ends)["metric"]) == {"f1"}
    training(tmp_path, "kerzoo", 0, 0.7)
    ended = outcomes(read([tmp_path])).query("status == 'ok'").set_index("method")
    assert ended["metric"].to_dict() == {"mezo": "f1", "kerzoo": "accuracy"}


def test_several_runs_of_a_mean_are_compared_over_seeds(tmp_path: Path) -> None:
    for seed, (first, second) in enumerate(((0.7, 0.6), (0.72, 0.66), (0.74, 0.69))):
        with_metric(training(tmp_path, "mezo", seed, first), "f1")
        with_metric(training(tmp_path, "kerzoo", seed, second), "f1")
    results = read([tmp_path])
    row = accuracies(outcomes(results), results.of("baseline")).set_index("label").loc["mezo"]
    assert (row["low"], row["high"]) == pytest.approx(t_interval([0.7, 0.72, 0.74])[1:]) and row["basis"] == "t, seeds"
    said = " ".join(finetuning.section(results).sentences)
    assert "kerzoo minus mezo in test f1" in said and "accuracy" not in said


def test_runs_that_chose_a_rate_are_no_evidence(tmp_path: Path) -> None:
    """A study's folder holds them beside the others, with baselines of their own split."""
    for seed, accuracy in ((-1, 0.1), (0, 0.70), (1, 0.72), (2, 0.77)):
        training(tmp_path, "mezo", seed, accuracy)
        training(tmp_path, "kerzoo", seed, accuracy - 0.02 * (seed + 2))
    changed(tmp_path / "mezo--1-0.001", "baseline", test_accuracy=0.0)
    results = read([tmp_path])
    ends = outcomes(results)
    scores = accuracies(ends, levels(results)).set_index("label")
    assert scores["n"].tolist() == [3, 3]
    assert scores.loc["mezo", "zero-shot"].difference.estimate == pytest.approx(0.73 - 0.55)
    assert set(levels(results)["seed"]) == {0, 1, 2}
    tested = pairs(ends, trajectories(results, ends)).set_index("quantity").loc["test accuracy", "comparison"]
    assert tested.pairs == 3 and tested.p == pytest.approx(stats.ttest_1samp([0.04, 0.06, 0.08], 0).pvalue)


def ended(gaps: dict[str, list[float]], half: float = 9.0) -> list[Row]:
    """Rows of methods whose seeds end with these gaps after 40 evaluations, and had `half` times them after 20."""
    common = {"kind": "converge", "problem": "quadratic", "dim": 10, "lr": 0.1, "epsilon": 1e-3, "status": "ok"}
    return [
        {**common, "method": method, "seed": seed, "step": evaluations, "evaluations": evaluations, "loss": gap * times}
        | {"gap": gap * times}
        for method, ends in gaps.items()
        for seed, gap in enumerate(ends)
        for evaluations, times in ((0, 100.0), (20, half), (40, 1.0))
    ]


def test_ratios_are_adjusted_and_say_how_many_seeds_they_have(tmp_path: Path) -> None:
    mezo, kerzoo, other = [1.0, 2.0, 1.5, 1.2], [2.0, 5.0, 2.5, 0.0], [3.0, 7.0, 4.0, 3.9]
    folder(tmp_path / "run", ended({"mezo": mezo, "kerzoo": kerzoo, "forward": other}))
    results = read([tmp_path])
    frame = finals(label(results.of("converge"), ["problem", "dim"], []), results.of("tune")).set_index("label")
    ps = [stats.ttest_rel(np.log(a), np.log(b)).pvalue for a, b in ((kerzoo[:3], mezo[:3]), (other, mezo))]
    assert frame.loc[["kerzoo", "forward"], "adjusted"].tolist() == pytest.approx(holm(ps))
    assert frame.loc["kerzoo", "ratio"].pairs == 3 and math.isnan(frame.loc["mezo", "adjusted"])
    assert not frame["floor"].any()
    shown = finals_table(label(results.of("converge"), ["problem", "dim"], []), results.of("tune"))
    cells = shown.frame.set_index("method")["gap / gap of mezo"]
    assert cells["kerzoo"].endswith(f"(Holm {text.p_value(holm(ps)[0])}), 3 of 4 seeds")
    assert cells["forward"].endswith(f"p = {text.p_value(ps[1])} (Holm {text.p_value(holm(ps)[1])})")
    assert "Holm" in shown.note and "0 or below" in shown.note


def test_ratios_of_floors_are_said_to_be(tmp_path: Path) -> None:
    flat = ended({"kerzoo": [3.0, 4.0, 5.0]}, half=1.0)
    folder(tmp_path / "run", ended({"mezo": [1.0, 2.0, 1.5]}) + flat)
    section = convergence.section(results := read([tmp_path]))
    assert "No longer falling: kerzoo; ratios with them compare floors, not speeds." in section.sentences[0]
    shown = finals_table(label(results.of("converge"), ["problem", "dim"], []), results.of("tune")).frame
    assert shown.set_index("method")["at the end"].to_dict() == {"mezo": "falls", "kerzoo": "floor"}
