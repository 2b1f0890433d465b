"""Mean squared error of one estimate against epsilon, measured over predicted."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import style, ticks
from analysis.figures import panels
from analysis.style import Look

COLUMNS = ("mse", "mse_error")


@style.styled
def mse_figure(frame: pd.DataFrame) -> Figure:
    """E|g - grad f|^2 / |grad f|^2 of one estimate, logarithmic, for rows of kind "bias" that carry an `mse`."""
    groups = panels.split(panels.relative(frame, [*COLUMNS, "predicted_mse"], power=2))
    looks = style.looks(frame["label"].unique())
    figure, axes = style.panels(len(groups), 2, 3.0)
    for panel, (title, rows) in zip(axes, groups, strict=True):
        _panel(panel, title, rows, looks)
    handles = [panels.line_handle(look, name, hollow=True) for name, look in looks.items()]
    style.legend(figure, handles, "points: measured; lines: predicted")
    return figure


def _panel(axes: Axes, title: str, rows: pd.DataFrame, looks: dict[str, Look]) -> None:
    axes.set_ylabel("mean squared error / |∇f|²")
    ticks.logarithmic(axes, "y", 5)
    panels.epsilon_axis(axes, rows)
    style.title(axes, title)
    labels = [label for label in looks if label in set(rows["label"])]
    for label, nudge in panels.nudges(labels).items():
        points, look = rows[rows["label"] == label], looks[label]
        predicted = points[points["predicted_mse"] > 0].drop_duplicates("epsilon").sort_values("epsilon")
        axes.plot(predicted["epsilon"], predicted["predicted_mse"], color=look.colour, linestyle=look.dash, zorder=2)
        panels.measured(axes, points, COLUMNS, look, hollow=True, nudge=nudge)
