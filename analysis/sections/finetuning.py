"""The report on fine-tuning language models."""

import re

import pandas as pd

from analysis import rates, text
from analysis.figures.finetuning import accuracies_figure, curves_figure
from analysis.outcomes import CELL, counted, levels, metric_name, outcomes, trajectories
from analysis.rows import Results
from analysis.sections.section import Illustration, Section, missing
from analysis.statistics import Interval
from analysis.tables.also import also_table, further
from analysis.tables.finetuning import (
    STATUSES,
    accuracies,
    accuracies_table,
    casualties_table,
    costs_table,
    margins_table,
    overview_table,
)
from analysis.tables.pairs import pairs, pairs_table
from zobench.figures.style import FIRST_ORDER

TITLE = "Fine-tuning language models"
CURVES = (
    "Lines show the mean over seeds with its 95 % t-interval, up to the last step that all seeds reached; n is the "
    "number of seeds. Methods with a backward pass have thinner lines and the number of their backward passes: at "
    "equal forward passes they did more work. A dotted line continues the level at which such a method ended. "
    "Where some runs end early, the axis of forward passes has a square-root scale. Diverged runs are thin lines "
    "that end at a cross, where the run ends or leaves the frame."
)
DOTS = (
    "Points show the mean test {metric} with its 95 % interval: a t-interval over seeds, or Wilson's interval over "
    "test examples if there is one seed and the metric is a share of right answers. Ticks show single seeds. "
    "Vertical lines show the baselines."
)
ALT = (
    "Dev loss and {metric} of {model} against forward passes, with a line and a band for each method, beside the "
    "levels of chance and of the calibrated zero-shot answer."
)
ALT_DOTS = "Mean test {metric} of each method with its 95 % interval, its seeds, and the levels of the baselines."


def section(results: Results) -> Section:
    """Figures 5 and 6 with their tables."""
    ends = outcomes(results)
    if ends.empty:
        return missing("finetuning", TITLE, "final")
    runs, baselines = trajectories(results, ends), levels(results)
    scores, edge = accuracies(ends, baselines), rates.at_edge(ends, rates.training(results))
    compared = pairs(ends[edge == ""], runs)
    compared = compared[compared["comparison"].map(lambda comparison: comparison.pairs > 1).astype(bool)]
    shown = [_curves(model, rows, baselines) for model, rows in runs.groupby("model")]
    scored = scores[scores["n"] > 0]
    if len(scored):
        figure = accuracies_figure(scored, counted(ends), baselines)
        caption, alt = (words.format(metric=metric_name(scored["metric"])) for words in (DOTS, ALT_DOTS))
        shown.append(Illustration("finetuning-accuracy", figure, caption, alt))
    tables = [overview_table(scores)] if scores["task"].nunique() > 1 else []
    if len(scored):
        margins = margins_table(scored)
        over = [margins] if any(column.startswith("over ") for column in margins.frame.columns) else []
        tables += [accuracies_table(scored), *over, costs_table(scored)]
    tables += [pairs_table(compared)] if len(compared) else []
    tables += [also_table(measured)] if len(measured := further(results.of("also"), ends)) else []
    casualties = casualties_table(ends)
    return Section(
        "finetuning",
        TITLE,
        sentences(scores, compared, list(dict.fromkeys(filter(None, edge)))),
        shown,
        tables + ([] if casualties.frame.empty else [casualties]),
    )


def _curves(model: str, rows: pd.DataFrame, baselines: pd.DataFrame) -> Illustration:
    stem = "finetuning-" + re.sub(r"[^A-Za-z0-9]+", "-", model).strip("-").lower()
    figure = curves_figure(rows, baselines[baselines["model"] == model])
    return Illustration(stem, figure, f"{model}. {CURVES}", ALT.format(model=model, metric=metric_name(rows["metric"])))


def sentences(scores: pd.DataFrame, compared: pd.DataFrame, faults: list[str]) -> list[str]:
    """Test metrics, the paired comparison or the reason for its absence, and the number of runs that failed."""
    lines = []
    for (model, task), cell in scores[scores["n"] > 0].groupby(CELL):
        named = (
            f"{row.label}{' (first order)' if row.label.split(' ')[0] in FIRST_ORDER else ''} "
            f"{text.percent(Interval(row.accuracy, row.low, row.high))} ({text.count(row.n, 'run')})"
            for row in cell.itertuples()
        )
        lines.append(f"{model}, {task}: test {metric_name(cell['metric'])}: {'; '.join(named)}.")
    if faults:
        lines.append(f"Not comparable: {text.listed(faults)}. Widen the grid of learning rates.")
    lines += _compared(compared[compared["quantity"] == "test accuracy"])
    statuses = [f"{int(scores[status].sum())} {status}" for status in STATUSES if scores[status].sum()]
    runs = text.count(int(scores["runs"].sum()), "run")
    lines.append(f"Of {runs}, {text.listed(statuses)}." if statuses else f"{runs.capitalize()} ended, none diverged.")
    return lines


def _compared(rows: pd.DataFrame) -> list[str]:
    return [
        f"{row.model}, {row.task}: {row.first} minus {row.second} in test {row.metric} after {row.passes:,.0f} "
        f"forward passes: {text.margin(row.comparison)} (points; {text.count(row.comparison.pairs, 'pair')} of seeds)."
        for row in rows.itertuples()
    ]
