"""Bias against epsilon: what was measured over what theory predicts, one panel for each problem."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from zobench.figures import panels, style, ticks
from zobench.figures.frame import labelled
from zobench.figures.style import GREY, Look

RESOLVED = 3.0  # the norm of pure noise is about one floor, so three floors add 5 % of noise to a norm at most
FLOOR = "#ececec"
EDGE: dict[str, Any] = {"color": "#9a9a9a", "linewidth": 0.8, "linestyle": (0, (2, 2)), "zorder": 1}
COLUMNS = ("bias", "bias_error")
ZERO: dict[str, Any] = {"markersize": 4.5, "markerfacecolor": "none"}


@style.styled
def bias_figure(frame: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Figure:
    """Norm of the bias over that of the gradient on logarithmic axes, a panel for each problem.

    Filled points were measured with a control variate, hollow ones by plain sampling, which sees nothing
    below its floor (grey); lines are predictions.

    Args:
        frame: rows of kind "bias" (docs/figures.md has the columns); a column `label` names the lines, else the
            methods do.
        axes: one for each problem, to draw in; None makes a figure.

    Raises:
        ReadError: a column is missing.
        ValueError: another number of axes.
    """
    frame = labelled(frame)
    groups = panels.split(panels.relative(frame, [*COLUMNS, "predicted_bias", "floor"]).assign(gradient_norm=1.0))
    looks = style.looks(frame["label"].unique())
    figure, places = style.panels(len(groups), 2, 3.3, axes=axes)
    for panel, (title, rows) in zip(places, groups, strict=True):
        _panel(panel, title, rows, looks)
    style.legend(figure, [*(panels.line_handle(look, name) for name, look in looks.items()), *_key(frame)], axes=axes)
    return figure


def is_null(rows: pd.DataFrame) -> bool:
    """Whether theory predicts no bias at all, for any method: a null control."""
    return bool(panels.zero(rows, "predicted_bias").all())


def _panel(axes: Axes, title: str, rows: pd.DataFrame, looks: dict[str, Look]) -> None:
    methods = {label: rows[rows["label"] == label] for label in looks if label in set(rows["label"])}
    axes.set_ylabel("norm of the bias / of the gradient")
    ticks.logarithmic(axes, "y")
    panels.epsilon_axis(axes, rows)
    style.title(axes, f"{title}: null control" if is_null(rows) else title)
    for label, nudge in panels.nudges(list(methods)).items():
        _method(axes, methods[label], looks[label], nudge)
    _limits(axes, rows)
    _floor(axes, rows)
    if is_null(rows):
        note = "predicted bias 0 for every method: no lines;\npoints must stay at the floor or below"
        axes.text(0.5, 0.98, note, transform=axes.transAxes, ha="center", va="top", fontsize=style.SMALL)
    else:
        _guides(axes)


def _method(axes: Axes, rows: pd.DataFrame, look: Look, nudge: float) -> None:
    predicted = rows[~panels.zero(rows, "predicted_bias")].drop_duplicates("epsilon").sort_values("epsilon")
    axes.plot(predicted["epsilon"], predicted["predicted_bias"], color=look.colour, linestyle=look.dash)
    zero, plain = panels.zero(rows, "bias"), rows["sampling"] == "plain"
    noise = _lost(rows)
    panels.measured(axes, rows[plain & ~zero], COLUMNS, look, hollow=True, nudge=nudge)
    panels.measured(axes, rows[~plain & ~noise & ~zero], COLUMNS, look, hollow=False)
    pale = replace(look, colour=_pale(look.colour))
    panels.measured(axes, rows[noise & ~zero], COLUMNS, pale, hollow=False, nudge=nudge)
    for epsilon in rows.loc[zero, "epsilon"].unique():
        axes.plot(
            [epsilon * nudge], [0.03], marker="v", color=look.colour, transform=axes.get_xaxis_transform(), **ZERO
        )


def _limits(axes: Axes, rows: pd.DataFrame) -> None:
    """Axes that hold all points and lines, with room above for what is written there."""
    columns = ("bias", "predicted_bias")
    shown = [rows.loc[~panels.zero(rows, column), column] for column in columns]
    values = pd.concat([*shown, rows.loc[rows["sampling"] == "plain", "floor"]])
    values = values[values > 0]
    low, high = (values.min(), values.max()) if len(values) else (1e-6, 1.0)
    room = max(high / low, 1e3) ** 0.24
    axes.set_ylim(low / room**0.45, high * room)
    axes.set_xlim(rows["epsilon"].min() / 1.35, rows["epsilon"].max() * 1.35)


def _floor(axes: Axes, rows: pd.DataFrame) -> None:
    plain = rows[(rows["sampling"] == "plain") & (rows["floor"] > 0)]
    if plain.empty:
        return
    bottom, frame = axes.get_ylim()[0], axes.get_xlim()
    floor = plain.groupby("epsilon")["floor"].agg(["min", "max"])
    floor = floor.reindex([frame[0], *floor.index, frame[1]]).bfill().ffill()
    axes.fill_between(floor.index, bottom, floor["max"], color=FLOOR, alpha=0.55, linewidth=0, zorder=0)
    axes.fill_between(floor.index, bottom, floor["min"], color=FLOOR, linewidth=0, zorder=0)
    for edge in ("min", "max"):
        axes.plot(floor.index, floor[edge], **EDGE)


def _guides(axes: Axes) -> None:
    """Two segments from one point, rising as epsilon^2 and epsilon^4, in the corner that data leave empty."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    height = top / bottom
    run = height ** (0.15 / 4)
    start, base = left * (right / left) ** 0.04, top / height**0.18
    for power in (2, 4):
        end = (start * run, base * run**power)
        axes.plot([start, end[0]], [base, end[1]], color=GREY, linewidth=1.0, zorder=1)
        beside: dict[str, Any] = {"xytext": (3, -1), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"ε$^{power}$", end, color=GREY, **beside)


def _lost(rows: pd.DataFrame) -> pd.Series:
    """Which controlled measurements their own sampling noise explains."""
    return (rows["sampling"] != "plain") & (rows["bias"] <= RESOLVED * rows["floor"])


def _pale(colour: str) -> str:
    red, green, blue = (1 - 0.5 * (1 - part) for part in to_rgb(colour))
    return to_hex((red, green, blue))


def _key(frame: pd.DataFrame) -> list[Line2D | Patch]:
    """The meaning of points and grey; kinds that this frame lacks are left out."""
    point: dict[str, Any] = {"linestyle": "none", "marker": "o"}
    zero, plain = panels.zero(frame, "bias"), frame["sampling"] == "plain"
    known: list[tuple[bool, Line2D | Patch]] = [
        (True, Line2D([], [], color=GREY, label="predicted")),
        (
            (plain & (frame["floor"] > 0)).any(),
            Patch(facecolor=FLOOR, edgecolor="#9a9a9a", linestyle="--", label="floor of plain sampling"),
        ),
        ((~plain & ~zero).any(), Line2D([], [], color=GREY, label="measured with control variate", **point)),
        (
            (_lost(frame) & ~zero).any(),
            Line2D([], [], color=_pale(GREY), label="with control variate, within its own noise", **point),
        ),
        (
            (plain & ~zero).any(),
            Line2D([], [], color=GREY, label="measured by plain sampling", markerfacecolor="white", **point),
        ),
        (
            zero.any(),
            Line2D(
                [], [], color=GREY, label="measured 0: off a logarithmic axis", linestyle="none", marker="v", **ZERO
            ),
        ),
    ]
    return [handle for present, handle in known if present]
