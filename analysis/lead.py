"""The lead of the report: at most three sentences and one figure that summarise the runs."""

import math
from collections.abc import Sequence

import pandas as pd

from analysis import rates, text
from analysis.figures.lead import lead_figure
from analysis.labels import label
from analysis.outcomes import CELL, levels, metric_name, outcomes
from analysis.rows import Results
from analysis.sections.section import Illustration, Section
from analysis.statistics import Interval
from analysis.tables import convergence
from analysis.tables.bias import FAR, slopes
from analysis.tables.finetuning import accuracies
from zobench.figures import panels
from zobench.figures.bias import is_null

TITLE = "What these runs show"
MOST = 3
NAMED = 4  # methods of one sentence
COMPARED = ("mezo", "kerzoo")
UNTRAINED = {"chance": "by chance", "zero-shot": "zero-shot", "calibrated zero-shot": "calibrated"}
BIAS = "{problem}: norm of the bias of one gradient estimate, measured (points) and predicted (lines)."
DOTS = (
    "{place}: test {metric} with its 95 % interval; vertical lines: the same model untrained, as it answers by itself "
    "(zero-shot) and with its preference for one answer taken out (calibrated), and chance."
)


def lead(results: Results, sections: Sequence[Section]) -> Section:
    """Sentences and a figure from rows of bias, convergence and fine-tuning, else the first ones of the sections."""
    bias, descended, ends = _bias(results), results.of("converge"), outcomes(results)
    baselines, scores = levels(results), pd.DataFrame()
    said = {"bias": _powers(bias)} if len(bias) else {}
    if len(descended):
        said["convergence"] = _gaps(label(descended, convergence.CELL, ["lr", "epsilon"]), results.of("tune"))
    if len(ends):
        scores = _cell(accuracies(ends, baselines))
        baselines = baselines[(baselines[CELL] == scores[CELL].iloc[0]).all(axis=1)]
        ended = bool(scores["n"].sum())
        said["finetuning"] = _accuracies(scores, baselines) if ended else _unended(scores, results)
        if wrong := list(dict.fromkeys(filter(None, rates.at_edge(ends, rates.training(results))))):
            said["finetuning"] += f" The methods are not comparable: {text.listed(wrong)}."
    said |= {one.key: one.sentences[0] for one in sections if one.sentences and one.key not in said}
    shown = scores[scores["n"] > 0] if len(scores) else scores
    shown_figures = [] if bias.empty and shown.empty else [_illustration(bias, shown, baselines)]
    return Section("lead", TITLE, list(said.values())[:MOST], shown_figures)


def _illustration(bias: pd.DataFrame, scores: pd.DataFrame, baselines: pd.DataFrame) -> Illustration:
    problem = panels.split(bias)[-1][0] if len(bias) else ""
    setting = ", ".join(scores[CELL].iloc[0]) if len(scores) else ""
    metric = metric_name(scores["metric"]) if len(scores) else ""
    parts = [BIAS.format(problem=problem)] * bool(problem) + [DOTS.format(place=setting, metric=metric)] * bool(setting)
    alt = " and ".join(["bias of estimates against epsilon"] * bool(problem) + [f"test {metric}"] * bool(setting))
    wide, narrow = (lead_figure(bias, scores, baselines, columns) for columns in (2, 1))
    return Illustration("lead", wide, " ".join(parts), alt.capitalize(), narrow if len(parts) > 1 else None)


def _bias(results: Results) -> pd.DataFrame:
    """Bias rows of the problem of highest degree on which theory predicts a bias."""
    frame = label(results.of("bias"), [*panels.PANEL, "sampling"], [])
    biased = [rows for _, rows in panels.split(frame) if not is_null(rows)] if len(frame) else []
    return biased[-1] if biased else frame.iloc[:0]


def _powers(rows: pd.DataFrame) -> str:
    """The power of epsilon with which each bias falls, and how many of the measured biases are as predicted."""
    best = {slope.label: slope for slope in sorted(slopes(rows), key=lambda slope: slope.sampling == "controlled")}
    powers = [
        f"{name}'s as ε^{text.fixed(slope.law.slope.estimate)}"
        for name, slope in best.items()
        if slope.law and not slope.unbiased and name.split(" ")[0] in COMPARED
    ]
    deviations = panels.deviation(rows).dropna()
    agree = f"{int((deviations <= FAR).sum())} of {len(deviations)} measured biases are as theory predicts"
    fall = f"; with the displacement ε the bias falls, {text.listed(powers)}" if powers else ""
    return f"Gradient estimates from losses alone are biased. On {panels.split(rows)[0][0]}, {agree}{fall}."


def _gaps(frame: pd.DataFrame, tune: pd.DataFrame) -> str:
    """The gaps of the methods to the minimum at equal loss evaluations, or the reason why they cannot be compared."""
    ends = convergence.finals(frame, tune)
    place, cell = next(iter(ends.groupby(convergence.CELL)))
    where = f"Minimising {panels.title(*place)}, {cell['budget'].iloc[0]:,.0f} loss evaluations each"
    if wrong := convergence.faults(frame, tune)[place]:
        return f"{where}: not comparable: {text.listed(wrong)}."
    gaps = text.listed(f"{text.number(row['median'])} with {row['label']}" for _, row in cell.iterrows())
    above = {"gap": "loss above the minimum", "loss": "loss"}[cell["measure"].iloc[0]]
    return f"{where}: the median {above} at the end is {gaps}."


def _cell(scores: pd.DataFrame) -> pd.DataFrame:
    """The model and task with most live runs, or else with most methods."""
    live = scores["provenance"].str.contains("live") * scores["runs"]
    order = scores.assign(live=live).groupby(CELL, sort=False).agg(live=("live", "sum"), methods=("label", "nunique"))
    model, task = order.sort_values(["live", "methods"], ascending=False, kind="stable").index[0]
    return scores[(scores["model"] == model) & (scores["task"] == task)]


def _accuracies(scores: pd.DataFrame, baselines: pd.DataFrame) -> str:
    """Test accuracies of the live runs, or of all where none is, beside those of the untrained model."""
    ended = scores[scores["n"] > 0]
    live = ended[ended["provenance"].str.contains("live")]
    chosen = live if len(live) else ended
    named_rows, more = chosen.iloc[:NAMED], len(chosen) - NAMED
    model, task = named_rows[CELL].iloc[0]
    counts = set(named_rows["n"])
    mean = f", mean of {counts.pop()} runs" if len(counts) == 1 and counts != {1} else ""
    named = text.listed(f"{_accuracy(row, counted=bool(mean))} with {row['label']}" for _, row in named_rows.iterrows())
    reached = {name: baselines.loc[baselines["name"] == name, "test_accuracy"].mean() for name in UNTRAINED}
    known = [
        f"{text.percent(Interval(level, math.nan, math.nan))} {UNTRAINED[name]}"
        for name, level in reached.items()
        if not math.isnan(level)
    ]
    others = f" ({text.count(more, 'more setting')} below)" if more > 0 else ""
    without = f"; the untrained model reaches {text.listed(known)}" if known else ""
    lost = int(scores["diverged"].sum())
    diverged = f" {text.count(lost, 'run')} of {int(scores['runs'].sum())} diverged." if lost else ""
    name = metric_name(scores["metric"])
    return f"Fine-tuning {model} on {task}: test {name}{mean}: {named}{others}{without}.{diverged}"


def _accuracy(row: pd.Series, counted: bool) -> str:
    shown = text.percent(Interval(row["accuracy"], row["low"], row["high"]))
    return f"{shown} (mean of {row['n']} runs)" if row["n"] > 1 and not counted else shown


def _unended(scores: pd.DataFrame, results: Results) -> str:
    """The progress of runs without a test metric."""
    model, task = scores[CELL].iloc[0]
    runs = text.count(int(scores["runs"].sum()), "run")
    rows = results.of("evaluation")
    rows = rows[(rows["model"] == model) & (rows["task"] == task) & (rows["seed"] >= 0)]
    last = rows.sort_values("step", kind="stable")["dev_accuracy"].dropna()
    name = metric_name(scores["metric"])
    dev = f"; the last dev {name} is {text.percent(Interval(last.iloc[-1], math.nan, math.nan))}" if len(last) else ""
    return f"Fine-tuning {model} on {task}: {runs}, none with a test {name} yet{dev}. The same command continues a run."
