"""Mean squared error of one estimate against epsilon, measured over predicted."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import style
from analysis.figures import panels
from analysis.style import Look


@style.styled
def mse_figure(frame: pd.DataFrame) -> Figure:
    """E|g - grad f|^2 of one estimate on logarithmic axes, for rows of kind "bias" that carry an `mse`."""
    groups = panels.split(frame)
    looks = style.looks(frame["label"].unique())
    figure, axes = style.panels(len(groups), 2, (5.2, 3.9))
    for panel, (title, rows) in zip(axes, groups, strict=True):
        _panel(panel, title, rows, looks)
    handles = [panels.line_handle(look, hollow=True) for look in looks.values()]
    figure.legend(
        handles,
        list(looks),
        loc="outside lower center",
        ncols=min(len(looks), 5),
        title="points measured, lines predicted",
    )
    return figure


def _panel(axes: Axes, title: str, rows: pd.DataFrame, looks: dict[str, Look]) -> None:
    axes.set(yscale="log", ylabel="mean squared error of one estimate")
    panels.epsilon_axis(axes, rows)
    axes.set_title(title)
    labels = [label for label in looks if label in set(rows["label"])]
    for label, nudge in panels.nudges(labels).items():
        points, look = rows[rows["label"] == label], looks[label]
        predicted = points[points["predicted_mse"] > 0].drop_duplicates("epsilon").sort_values("epsilon")
        axes.plot(predicted["epsilon"], predicted["predicted_mse"], color=look.colour, linestyle=look.dash, zorder=2)
        panels.measured(axes, points, ("mse", "mse_error"), look, hollow=True, nudge=nudge)
