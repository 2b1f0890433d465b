"""Fine-tuning a language model: dev loss and accuracy against forward passes, and where the runs ended."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from numpy.typing import NDArray

from analysis import style
from analysis.statistics import t_interval
from analysis.style import FIRST_ORDER, GREY, Look

Array = NDArray[np.float64]
LINES = {"chance": (GREY, (0, (5, 2, 1, 2))), "calibrated zero-shot": ("#000000", (0, (8, 3)))}


@style.styled
def curves_figure(evaluations: pd.DataFrame, baselines: pd.DataFrame) -> Figure:
    """Mean over seeds with its 95 % t-interval, a row of two panels for each task of one model.

    `evaluations` are rows of that kind with the label and status of their run, `baselines` rows of that kind.
    """
    tasks = sorted(evaluations["task"].unique())
    looks = style.looks(evaluations["label"].unique())
    figure, axes = style.panels(2 * len(tasks), 2, (5.4, 3.9))
    for place, task in enumerate(tasks):
        rows = evaluations[evaluations["task"] == task]
        loss, accuracy = axes[2 * place : 2 * place + 2]
        _curves(loss, rows, "dev_loss", looks)
        _curves(accuracy, rows, "dev_accuracy", looks)
        loss.set(ylabel="dev loss (nats per example)", title=f"{rows['model'].iloc[0]}, {task}")
        accuracy.set_ylabel("dev accuracy")
        _baselines(accuracy, baselines[baselines["task"] == task])
        _legends(loss, accuracy)
    return figure


def _legends(loss: Axes, accuracy: Axes) -> None:
    style.legend_below(loss, *loss.get_legend_handles_labels())
    known = [handle for handle in accuracy.get_lines() if handle.get_label() in LINES]
    if known:
        style.legend_below(accuracy, known, [str(handle.get_label()) for handle in known])


def _curves(axes: Axes, rows: pd.DataFrame, value: str, looks: dict[str, Look]) -> None:
    axes.set_xlabel("forward passes")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    bounded = value == "dev_accuracy"  # a diverged loss would squeeze all other curves into a line
    kept = rows.loc[np.isfinite(rows[value]) & (bounded | (rows["status"] != "diverged")), value]
    if len(kept):
        margin = 0.06 * (kept.max() - kept.min()) + 1e-3
        axes.set_ylim(kept.min() - margin, kept.max() + margin)
    for place, label in enumerate(label for label in looks if label in set(rows["label"])):
        _method(axes, rows[rows["label"] == label], value, looks[label], place)


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
        label=_entry(rows),
        **marks,
    )
    if first_order:
        axes.axhline(mean[-1], color=look.colour, linestyle=":", linewidth=0.8, zorder=1)


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
    figure, axes = style.panels(len(cells), 2, (5.2, 1.5 + 0.36 * methods))
    for panel, (model, task) in zip(axes, cells, strict=True):
        chosen = [frame[(frame["model"] == model) & (frame["task"] == task)] for frame in (accuracies, ends, baselines)]
        _dots(panel, chosen[0], chosen[1], chosen[2], looks)
        panel.set(title=f"{model}, {task}", xlabel="test accuracy")
    lines = {line.get_label(): line for panel in axes for line in panel.get_lines() if line.get_label() in LINES}
    if lines:
        figure.legend(handles=list(lines.values()), loc="outside lower center", ncols=len(lines))
    return figure


def _dots(axes: Axes, rows: pd.DataFrame, ends: pd.DataFrame, baselines: pd.DataFrame, looks: dict[str, Look]) -> None:
    labels = [label for label in looks if label in set(rows["label"])]
    for height, label in enumerate(labels):
        row, look = rows[rows["label"] == label].iloc[0], looks[label]
        seeds = ends.loc[ends["label"] == label, "test_accuracy"]
        axes.plot(seeds, [height - 0.27] * len(seeds), "|", color=GREY, markersize=6, markeredgewidth=1.0)
        if not np.isnan(row["low"]):
            axes.plot([row["low"], row["high"]], [height, height], color=look.colour, linewidth=1.8)
        axes.plot([row["accuracy"]], [height], marker=look.marker, color=look.colour, markersize=7, linestyle="none")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.6)
    axes.grid(axis="y", visible=False)
    for name, (colour, dash) in LINES.items():
        values = baselines.loc[baselines["name"] == name, "test_accuracy"].dropna()
        if len(values):
            axes.axvline(values.mean(), color=colour, linestyle=dash, linewidth=1.1, label=name, zorder=1)
