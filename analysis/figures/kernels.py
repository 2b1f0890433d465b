"""Smoothing kernels K(r) on [-1, 1], and what they do to a step along the direction that was drawn."""

import math
import re
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis import text
from zobench.figures import panels, style
from zobench.figures.style import GREY, Look

Array = NDArray[np.float64]
_PRINTED = {"kerzoo5_as_printed()": "KerZOO, order 5 as printed"}
SIGN_FLIP = math.sqrt(5 / 7)  # root of the order-3 Legendre kernel


def is_misprint(row: pd.Series) -> bool:
    """Whether E[rK] is not the kernel's own constant, so that gradients come out wrong by a factor."""
    return bool(abs(row["first_moment"] - row["constant"]) > 1e-6 * max(1.0, abs(row["constant"])))


def curve(row: pd.Series) -> tuple[Array, Array]:
    """The arrays r and K(r)."""
    return np.asarray(row["r"], dtype=float), np.asarray(row["values"], dtype=float)


def roots(r: Array, values: Array) -> Array:
    """Positive r at which K changes sign, interpolated between neighbours on the grid."""
    positive = r > 1e-9
    r, values = r[positive], values[positive]
    before = np.flatnonzero(values[:-1] * values[1:] < 0)
    return r[before] - values[before] * (r[before + 1] - r[before]) / (values[before + 1] - values[before])


def uphill_share(r: Array, values: Array) -> float:
    """P(r K(r) < 0) under the uniform law on [-1, 1]: how often one step climbs along its own direction."""
    edges = np.concatenate([[0.0], roots(r, values), [r.max()]])
    middles = (edges[:-1] + edges[1:]) / 2
    return float(np.diff(edges)[np.interp(middles, r, values) < 0].sum() / r.max())


def worded(name: str) -> str:
    """A kernel's name in words: `Legendre, order 3` for legendre(3)."""
    if name in _PRINTED:
        return _PRINTED[name]
    match = re.fullmatch(r"(\w+)\((\d+)\)", name)
    return f"{match[1].capitalize()}, order {match[2]}" if match else name.removesuffix("()").replace("_", " ")


@style.styled
def kernels_figure(frame: pd.DataFrame) -> Figure:
    """K(r), then r K(r), then misprints beside the kernel of the same order.

    r K(r) is the step along u in units of the slope, where f is straight along u.
    """
    wrong = frame.apply(is_misprint, axis=1)
    looks = style.sequence(frame["name"])
    figure, axes = style.panels(3 if wrong.any() else 2, 2, 3.0)
    _curves(axes[0], frame[~wrong], looks, weighted=False)
    style.title(axes[0], "kernel")
    _curves(axes[1], frame[~wrong], looks, weighted=True)
    style.title(axes[1], "step along u")
    _mark_flip(axes[1], frame[~wrong])
    if wrong.any():
        _misprint(axes[2], frame[wrong | frame["order"].isin(frame.loc[wrong, "order"])], looks)
    for panel in axes:
        panel.axhline(0.0, color=GREY, linewidth=0.8, zorder=1)
        panel.set(xlabel="r, displacement along u in units of ε", xlim=(-1.02, 1.02))
    style.legend(figure, [panels.line_handle(look, worded(name)) for name, look in looks.items()])
    return figure


def _curves(axes: Axes, frame: pd.DataFrame, looks: dict[str, Look], weighted: bool) -> None:
    for _, row in frame.iterrows():
        r, values = curve(row)
        look = looks[row["name"]]
        drawn = r * values if weighted else values
        every = max(1, len(r) // 10)
        marks: dict[str, Any] = {"marker": look.marker, "markevery": (every // 2, every), "markersize": 4}
        axes.plot(r, drawn, color=look.colour, linestyle=look.dash, **marks)
    axes.set_ylabel("step r K(r), in units of the slope" if weighted else "kernel K(r)")


def _mark_flip(axes: Axes, frame: pd.DataFrame) -> None:
    """Shade where the order-3 kernel steps uphill."""
    for _, row in frame[frame["order"] == 3].head(1).iterrows():
        flips = roots(*curve(row))
        if not len(flips):
            return
        exact = " = √(5/7)" if abs(flips[-1] - SIGN_FLIP) < 5e-3 else ""
        for side in (-1, 1):
            axes.axvspan(side * flips[-1], side * 1.0, color="#ececec", linewidth=0, zorder=0)
        share = f"{100 * uphill_share(*curve(row)):.1f} % of draws"
        note = f"grey: |r| > {flips[-1]:.3f}{exact}:\norder 3 steps uphill,\n{share}"
        axes.text(0.5, 0.98, note, transform=axes.transAxes, ha="center", va="top", fontsize=style.SMALL)
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.42 * (high - low))


def _misprint(axes: Axes, frame: pd.DataFrame, looks: dict[str, Look]) -> None:
    _curves(axes, frame, looks, weighted=False)
    style.title(axes, "misprint against original" if len(frame) > 1 else "misprint")
    moments = (f"{worded(row['name'])}: E[rK] = {text.number(row['first_moment'], 4)}" for _, row in frame.iterrows())
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.1 * (len(frame) + 1) * (high - low))
    below: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": style.SMALL}
    axes.text(0.5, 0.98, "\n".join(moments), transform=axes.transAxes, **below)
