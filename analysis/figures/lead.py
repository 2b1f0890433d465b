"""The figure that a report leads with: bias on its predicted lines, and accuracies beside the untrained model."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from analysis import text
from analysis.outcomes import metric_name
from analysis.statistics import Z
from zobench.figures import panels, style
from zobench.figures.style import GREY

UNTRAINED = {"chance": "chance", "zero-shot": "zero-shot", "calibrated zero-shot": "calibrated"}
_DASHES = dict(zip(UNTRAINED, ((0, (1.2, 1.4)), (0, (5, 2, 1, 2)), (0, (8, 3))), strict=True))
SIZE = (5.6, 3.9)


@style.styled
def lead_figure(bias: pd.DataFrame, scores: pd.DataFrame, baselines: pd.DataFrame, columns: int = 2) -> Figure:
    """One panel for bias rows of one problem, one for accuracies of one model and task; either may be empty."""
    drawn = [part for part in (bias, scores) if len(part)]
    height = max(SIZE[1] if len(bias) else 0.0, 1.7 + 0.36 * len(scores))
    across = min(columns, len(drawn))
    figure, axes = style.panels(len(drawn), columns, height, width=SIZE[0] * across)
    if len(bias):
        _bias(axes[0], bias)
    if len(scores):
        _accuracies(axes[-1], scores, baselines)
    return figure


def _bias(axes: Axes, rows: pd.DataFrame) -> None:
    looks = style.looks(rows["label"].unique())
    for name, look in looks.items():
        mine = rows[rows["label"] == name]
        predicted = mine[~panels.zero(mine, "predicted_bias")].drop_duplicates("epsilon").sort_values("epsilon")
        axes.plot(predicted["epsilon"], predicted["predicted_bias"], color=look.colour, linestyle=look.dash)
        controlled = mine[mine["sampling"] == "controlled"]
        points = controlled if len(controlled) else mine
        points = points[~panels.zero(points, "bias") & (points["bias"] > points["floor"])]
        error = np.minimum((Z * points["bias_error"]).fillna(0.0), points["bias"] * (1 - 1e-9))
        axes.errorbar(points["epsilon"], points["bias"], error, fmt=look.marker, color=look.colour)
    axes.set(yscale="log", ylabel="norm of the bias", title=f"Bias, {panels.split(rows)[0][0]}")
    panels.epsilon_axis(axes, rows)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda height, _: text.power(height)))
    handles = [panels.line_handle(look) for look in looks.values()]
    axes.legend(handles, list(looks), loc="upper left")


def _accuracies(axes: Axes, scores: pd.DataFrame, baselines: pd.DataFrame) -> None:
    looks = style.looks(scores["label"])
    for height, (name, look) in enumerate(looks.items()):
        row = scores[scores["label"] == name].iloc[0]
        low, middle, high = (100 * row[column] for column in ("low", "accuracy", "high"))
        axes.plot([low, high], [height, height], color=look.colour, linewidth=1.8)
        axes.plot([middle], [height], marker=look.marker, color=look.colour, markersize=7, linestyle="none")
    axes.set_yticks(range(len(looks)), list(looks))
    axes.set_ylim(len(looks) - 0.5, -0.6)
    axes.grid(axis="y", visible=False)
    for name, words in UNTRAINED.items():
        level = baselines.loc[baselines["name"] == name, "test_accuracy"].mean()
        if not np.isnan(level):
            axes.axvline(100 * level, color=GREY, linestyle=_DASHES[name], linewidth=1.1, label=words, zorder=1)
    name = metric_name(scores["metric"])
    title = f"{name.capitalize()}, {scores['model'].iloc[0]}, {scores['task'].iloc[0]}"
    axes.set(xlabel=f"test {name} (%)", title=title)
    known = [line for line in axes.get_lines() if line.get_label() in UNTRAINED.values()]
    if known:
        style.legend_below(axes, known, [str(line.get_label()) for line in known])
