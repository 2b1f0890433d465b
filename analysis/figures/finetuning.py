"""Fine-tuning a language model: dev loss and accuracy against forward passes, and where the runs ended."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter, StrMethodFormatter
from numpy.typing import NDArray

from analysis.labels import labelled
from analysis.outcomes import metric_name
from analysis.rows import tidy
from analysis.statistics import t_interval
from zobench.figures import panels, style
from zobench.figures.style import FIRST_ORDER, GREY, Look

Array = NDArray[np.float64]
BESIDE = 16  # characters of a label that leaves room for two panels
EARLY = 0.2  # share of the axis below which a curve is a line at its left edge
LEVEL: dict[str, Any] = {"linestyle": ":", "linewidth": 1.0}
LINES = {"chance": (GREY, (0, (5, 2, 1, 2))), "calibrated zero-shot": ("#000000", (0, (8, 3)))}


@style.styled
def curves_figure(
    evaluations: pd.DataFrame, baselines: pd.DataFrame | None = None, axes: Sequence[Axes] | None = None
) -> Figure:
    """Dev loss and accuracy against forward passes: mean over seeds with its 95 % t-interval.

    Args:
        evaluations: rows of kind "evaluation" of one model (docs/figures.md has the columns); a column `label` names
            the lines, else the methods do; `status` is "diverged" where the run did, `metric` that of dev_accuracy.
        baselines: rows of kind "baseline", whose levels are drawn.
        axes: two for each task, loss and accuracy, to draw in; None makes a figure.

    Raises:
        ReadError: a column is missing.
        ValueError: another number of axes.
    """
    evaluations = labelled(evaluations, "evaluation", ["model", "task"])
    for column, usual in (("status", "ok"), ("metric", "accuracy")):
        evaluations = evaluations if column in evaluations else evaluations.assign(**{column: usual})
    levels = tidy(pd.DataFrame(columns=["model", "task", "name"]) if baselines is None else baselines, "baseline")
    tasks = sorted(evaluations["task"].unique())
    looks = style.looks(evaluations["label"].unique())
    figure, panes = style.panels(2 * len(tasks), 2, 2.9, axes=axes)
    for place, task in enumerate(tasks):
        rows = evaluations[evaluations["task"] == task]
        loss, accuracy = panes[2 * place : 2 * place + 2]
        _curves(loss, rows, "dev_loss", looks)
        _curves(accuracy, rows, "dev_accuracy", looks)
        loss.set_ylabel("dev loss, nats per example")
        metric = metric_name(rows["metric"])
        accuracy.set_ylabel(f"dev {metric}")
        accuracy.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        model = rows["model"].iloc[0]
        style.title(loss, f"{model}, {task}: loss")
        style.title(accuracy, f"{model}, {task}: {metric}")
        _baselines(accuracy, levels[levels["task"] == task])
    style.legend(figure, _key(evaluations, looks, panes), axes=axes)
    return figure


def _key(evaluations: pd.DataFrame, looks: dict[str, Look], axes: list[Axes]) -> list[Line2D]:
    """Every method and every level once, with what dotted levels and crosses are where there are any."""
    lines = {str(line.get_label()): line for panel in axes for line in panel.get_lines()}
    methods = [
        panels.line_handle(look, _entry(evaluations[evaluations["label"] == label])) for label, look in looks.items()
    ]
    levels = [lines[name] for name in LINES if name in lines]
    if evaluations["method"].isin(FIRST_ORDER).any():
        levels.append(Line2D([], [], color=GREY, label="level where a first-order run ended", **LEVEL))
    if (evaluations["status"] == "diverged").any():
        levels.append(Line2D([], [], color=GREY, linewidth=0.9, marker="x", label="one diverged run, to its end"))
    return [*methods, *levels]


def _curves(axes: Axes, rows: pd.DataFrame, value: str, looks: dict[str, Look]) -> None:
    _passes_axis(axes, rows)
    bounded = value == "dev_accuracy"  # a diverged loss would squeeze all other curves into a line
    kept = rows.loc[np.isfinite(rows[value]) & (bounded | (rows["status"] != "diverged")), value]
    if len(kept):
        margin = 0.06 * (kept.max() - kept.min()) + 1e-3
        axes.set_ylim(kept.min() - margin, kept.max() + margin)
    for place, label in enumerate(label for label in looks if label in set(rows["label"])):
        _method(axes, rows[rows["label"] == label], value, looks[label], place)


def _passes_axis(axes: Axes, rows: pd.DataFrame) -> None:
    """Forward passes, on a square-root scale where some label ends so early that it would be a line at the left."""
    ends, name = rows.groupby("label")["forward_passes"].max(), "forward passes"
    if ends.min() < EARLY * ends.max():
        axes.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
        axes.set_xlim(0, 1.03 * ends.max())
        axes.set_xticks([round(float(f"{share * ends.max():.1g}")) for share in (0, 0.02, 0.1, 0.3, 0.6, 1)])
        name += " (square-root scale)"
    axes.set_xlabel(name)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _method(axes: Axes, rows: pd.DataFrame, value: str, look: Look, place: int) -> None:
    """Mean of the seeds that did not diverge, as far as all go; diverged seeds thin, ending in a cross."""
    lost = rows["status"] == "diverged"
    for _, run in rows[lost & np.isfinite(rows[value])].groupby(["run", "seed"]):
        _diverged(axes, run["forward_passes"].to_numpy(), run[value].to_numpy(), look)
    table = rows[~lost].pivot_table(index="forward_passes", columns=["run", "seed"], values=value).dropna()
    if table.empty:
        return
    mean, low, high = np.array([t_interval(row) for row in table.to_numpy()]).T
    axes.fill_between(table.index, low, high, color=look.colour, alpha=0.14, linewidth=0)
    first_order = rows["method"].iloc[0] in FIRST_ORDER
    marks: dict[str, Any] = {"marker": look.marker, "markevery": (0.03 * place, 0.14), "markersize": 4.5}
    width = 1.1 if first_order else 1.7
    axes.plot(
        table.index,
        mean,
        color=look.colour,
        linestyle=look.dash,
        linewidth=width,
        **marks,
    )
    if first_order:
        axes.axhline(mean[-1], color=look.colour, zorder=1, **LEVEL)


def _diverged(axes: Axes, passes: Array, values: Array, look: Look) -> None:
    """One seed up to where it leaves the frame that the others need."""
    low, high = axes.get_ylim()
    outside = np.flatnonzero((values < low) | (values > high))
    if len(outside) and outside[0] > 0:
        end = outside[0]
        edge = low if values[end] < low else high
        share = (edge - values[end - 1]) / (values[end] - values[end - 1])
        exit_ = passes[end - 1] + share * (passes[end] - passes[end - 1])
        passes, values = np.append(passes[:end], exit_), np.append(values[:end], edge)
    axes.plot(passes, values, color=look.colour, linewidth=0.9)
    cross: dict[str, Any] = {"marker": "x", "markersize": 7, "linestyle": "none", "clip_on": False}
    axes.plot(passes[-1:], values[-1:], color=look.colour, **cross)


def _entry(rows: pd.DataFrame) -> str:
    lost = rows.loc[rows["status"] == "diverged", ["run", "seed"]].drop_duplicates().shape[0]
    seeds = rows[["run", "seed"]].drop_duplicates().shape[0]
    backward = rows["backward_passes"].max()
    passes = f", {backward:,.0f} backward" if backward > 0 else ""
    return f"{rows['label'].iloc[0]}, n = {seeds}{passes}" + (f", {lost} diverged" if lost else "")


def _baselines(axes: Axes, baselines: pd.DataFrame) -> None:
    for name, (colour, dash) in LINES.items():
        values = baselines.loc[baselines["name"] == name, "dev_accuracy"].dropna()
        if len(values):
            level = values.mean()
            axes.axhline(level, color=colour, linestyle=dash, linewidth=1.1, label=name, zorder=1)
            low, high = axes.get_ylim()
            axes.set_ylim(min(low, level - 0.03 * (high - low)), max(high, level + 0.03 * (high - low)))


@style.styled
def accuracies_figure(accuracies: pd.DataFrame, ends: pd.DataFrame, baselines: pd.DataFrame) -> Figure:
    """Test accuracies as dots with 95 % intervals, every seed as a tick, a panel for each model and task."""
    cells = sorted(map(tuple, accuracies[["model", "task"]].drop_duplicates().to_numpy().tolist()))
    looks = style.looks(accuracies["label"].unique())
    methods = accuracies.groupby(["model", "task"])["label"].nunique().max()
    columns = 2 if max(map(len, looks)) <= BESIDE else 1
    figure, axes = style.panels(len(cells), columns, 0.75 + 0.32 * methods)
    for panel, (model, task) in zip(axes, cells, strict=True):
        chosen = [frame[(frame["model"] == model) & (frame["task"] == task)] for frame in (accuracies, ends, baselines)]
        _dots(panel, chosen[0], chosen[1], chosen[2], looks)
        style.title(panel, f"{model}, {task}")
        panel.set(xlabel=f"test {metric_name(chosen[0]['metric'])}", ylabel="method")
        panel.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    lines = {str(line.get_label()): line for panel in axes for line in panel.get_lines()}
    levels = [lines[name] for name in LINES if name in lines]
    seed = Line2D([], [], color=GREY, marker="|", markersize=6, linestyle="none", label="one seed")
    mean = Line2D([], [], color=GREY, marker="o", label="mean, 95 % interval")
    style.legend(figure, [mean, seed, *levels])
    return figure


def _dots(axes: Axes, rows: pd.DataFrame, ends: pd.DataFrame, baselines: pd.DataFrame, looks: dict[str, Look]) -> None:
    labels = [label for label in looks if label in set(rows["label"])]
    for height, label in enumerate(labels):
        row, look = rows[rows["label"] == label].iloc[0], looks[label]
        seeds = ends.loc[ends["label"] == label, "test_accuracy"]
        axes.plot(seeds, [height - 0.27] * len(seeds), "|", color=GREY, markersize=6, markeredgewidth=1.0)
        if not np.isnan(row["low"]):
            axes.plot(np.clip([row["low"], row["high"]], 0.0, 1.0), [height, height], color=look.colour, linewidth=1.8)
        axes.plot([row["accuracy"]], [height], marker=look.marker, color=look.colour, markersize=7, linestyle="none")
    axes.set_yticks(range(len(labels)), list(map(style.wrapped, labels)))
    axes.set_ylim(len(labels) - 0.5, -0.6)
    axes.grid(axis="y", visible=False)
    for name, (colour, dash) in LINES.items():
        values = baselines.loc[baselines["name"] == name, "test_accuracy"].dropna()
        if len(values):
            axes.axvline(values.mean(), color=colour, linestyle=dash, linewidth=1.1, label=name, zorder=1)
