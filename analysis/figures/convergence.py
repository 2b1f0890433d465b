"""Optimisation on synthetic problems: loss gap against loss evaluations."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from analysis import text
from analysis.labels import labelled
from zobench.figures import panels, sheet, style, ticks
from zobench.figures.style import Look

QUARTILES_FROM = 8  # seeds; quartiles of fewer say less than their range


def aligned(rows: pd.DataFrame, value: str = "gap") -> pd.DataFrame:
    """Seeds as columns over evaluation counts: the last value seen; infinity from where a seed diverged."""
    table = rows.pivot_table(index="evaluations", columns="seed", values=value, aggfunc="last").sort_index()
    table = table.ffill()
    for seed, ends in rows[rows["status"] == "diverged"].groupby("seed")["evaluations"].min().items():
        table.loc[ends:, seed] = np.inf
    return table


def band(table: pd.DataFrame) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Median over seeds, with quartiles from QUARTILES_FROM seeds on and the range below that."""
    low, high = (0.25, 0.75) if table.shape[1] >= QUARTILES_FROM else (0.0, 1.0)
    values = table.to_numpy()
    quantiles = [np.quantile(values, q, axis=1, method="nearest") for q in (low, high)]
    median = np.quantile(values, 0.5, axis=1, method="nearest" if np.isinf(values).any() else "linear")
    lower, middle, upper = (pd.Series(q, table.index) for q in (quantiles[0], median, quantiles[1]))
    return lower, middle, upper


def band_name(seeds: int) -> str:
    """The meaning of the shaded band, for captions."""
    return "interquartile range" if seeds >= QUARTILES_FROM else "range"


def measure(rows: pd.DataFrame) -> str:
    """The column to draw: the gap to the known minimum, or the loss itself where no minimum is known."""
    return "gap" if rows["gap"].notna().any() else "loss"


@style.styled
def convergence_figure(frame: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Figure:
    """Median over seeds with a band against loss evaluations, one panel for each problem.

    Args:
        frame: rows of kind "converge" (docs/figures.md has the columns); a column `label` names the lines, else method,
            rate and epsilon do as far as they differ.
        axes: one for each problem, to draw in; None makes a figure.

    Raises:
        ReadError: a column is missing.
        ValueError: another number of axes.
    """
    frame = labelled(frame, "converge", ["problem", "dim"], ["lr", "epsilon"])
    groups = panels.split(frame.assign(noise=frame.get("noise", 0.0)))
    looks = style.looks(frame["label"].unique())
    figure, places = style.panels(len(groups), 1, 3.6, axes=axes)
    for panel, (title, rows) in zip(places, groups, strict=True):
        _panel(panel, title, rows, looks)
    return figure


def _panel(axes: Axes, title: str, rows: pd.DataFrame, looks: dict[str, Look]) -> None:
    value = measure(rows)
    name = "loss − minimum" if value == "gap" else "loss (no minimum known)"
    axes.set(xlabel="loss evaluations", ylabel=name)
    ticks.logarithmic(axes, "y")
    epsilons = rows["epsilon"].dropna().unique()
    style.title(axes, f"{title}, ε = {text.setting(float(epsilons[0]))}" if len(epsilons) == 1 else title)
    drawable = rows.loc[np.isfinite(rows[value]) & (rows[value] > 0), value]
    axes.set_ylim(drawable.min() / 1.8, drawable.max() * 1.8)
    labels = [label for label in looks if label in set(rows["label"])]
    for place, label in enumerate(labels):
        _method(axes, rows[rows["label"] == label], value, looks[label], place)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    handles, names = axes.get_legend_handles_labels()
    words = list(map(style.wrapped, names))
    if sheet.current().narrow:
        axes.legend(handles, words, loc="upper left", bbox_to_anchor=(0.0, -0.2), borderaxespad=0)
        return
    beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0}
    axes.legend(handles, words, **beside)


def _method(axes: Axes, rows: pd.DataFrame, value: str, look: Look, place: int) -> None:
    table = aligned(rows, value)
    bottom, top = axes.get_ylim()
    low, middle, high = band(table)
    above = 10 * top  # where infinite values go: out of sight, with the band still shaded up to the frame
    axes.fill_between(
        table.index,
        low.clip(bottom / 10, above),
        high.clip(bottom / 10, above),
        color=look.colour,
        alpha=0.14,
        linewidth=0,
    )
    middle = middle.where(middle > 0).clip(upper=above)
    marks: dict[str, Any] = {"marker": look.marker, "markevery": (0.025 * place, 0.14), "markersize": 4.5}
    axes.plot(table.index, middle, color=look.colour, linestyle=look.dash, label=_entry(rows), **marks)


def _entry(rows: pd.DataFrame) -> str:
    label, rates = rows["label"].iloc[0], rows["lr"].dropna().unique()
    rate = f", rate {text.rate(float(rates[0]))}" if len(rates) == 1 and "lr=" not in label else ""
    diverged = rows.loc[rows["status"] == "diverged", "seed"].nunique()
    lost = f", {diverged} diverged" if diverged else ""
    return f"{label}{rate}{lost}"
