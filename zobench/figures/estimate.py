"""One estimate against epsilon, measured over predicted: its mean squared error, and its cosine with the gradient."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zobench.figures import panels, style, ticks
from zobench.figures.frame import labelled
from zobench.figures.style import Look


@style.styled
def mse_figure(frame: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Figure:
    """E|g - grad f|^2 / |grad f|^2 of one estimate, logarithmic, for rows of kind "bias" that carry an `mse`.

    Arguments and errors as of `bias`.
    """
    frame = panels.relative(labelled(frame), ["mse", "mse_error", "predicted_mse"], power=2)
    figure, places = _figure(frame, "mse", axes)
    for panel in places:
        panel.set_ylabel("mean squared error / |∇f|²")
        ticks.logarithmic(panel, "y", 5)
    return figure


@style.styled
def cosine_figure(frame: pd.DataFrame, axes: Sequence[Axes] | None = None) -> Figure:
    """Root mean square of the cosine of g and grad f, for rows of kind "bias" that carry a `cosine`.

    It is sqrt(n / (n + d - 1)) for differences along n Gaussian directions on a linear f. Arguments and errors as of
    `bias`.
    """
    figure, places = _figure(labelled(frame), "cosine", axes)
    for panel in places:
        panel.set_ylabel("cosine with ∇f (root mean square)")
        panel.set_ylim(0.0, 1.05 * panel.get_ylim()[1])
    return figure


def _figure(frame: pd.DataFrame, value: str, axes: Sequence[Axes] | None) -> tuple[Figure, list[Axes]]:
    frame = frame[frame[value].notna()]
    groups, looks = panels.split(frame), style.looks(frame["label"].unique())
    figure, places = style.panels(len(groups), 2, 3.0, axes=axes)
    for panel, (title, rows) in zip(places, groups, strict=True):
        style.title(panel, title)
        _lines(panel, rows, value, looks)
    handles = [panels.line_handle(look, name, hollow=True) for name, look in looks.items()]
    style.legend(figure, handles, "points: measured; lines: predicted", axes)
    return figure, places


def _lines(axes: Axes, rows: pd.DataFrame, value: str, looks: dict[str, Look]) -> None:
    panels.epsilon_axis(axes, rows)
    labels, prediction = [label for label in looks if label in set(rows["label"])], f"predicted_{value}"
    for label, nudge in panels.nudges(labels).items():
        points, look = rows[rows["label"] == label], looks[label]
        line = points[points[prediction] > 0].drop_duplicates("epsilon").sort_values("epsilon")
        drawn: dict[str, Any] = {"color": look.colour, "linestyle": look.dash, "zorder": 2}
        axes.plot(line["epsilon"], line[prediction], **drawn)
        panels.measured(axes, points, (value, f"{value}_error"), look, hollow=True, nudge=nudge)
