"""The report on epsilon that chooses itself."""

import math

import pandas as pd

from analysis import text
from analysis.figures.epsilon import WITHIN, epsilon_figure
from analysis.rows import Results
from analysis.sections.section import Illustration, Section, missing
from analysis.tables.epsilon import cells, epsilon_table, shares_table

TITLE = "Epsilon that chooses itself"
CAPTION = (
    "The axis shows the excess error of central differences, divided by the excess error at the best ε of a fine "
    "grid. The excess error is the error beyond that of exact directional derivatives along the same lines. Each "
    "problem (bold) has a line for each standard deviation of the noise of one evaluation (relative to |f(x)|) and "
    "for each rounding of the losses. The value 1 is as good as the best ε. A filled point is the ε chosen from a "
    "handful of evaluations: the median choice, with a line to the worst choice. A hollow point is one fixed ε for "
    "all problems."
)
ALT = (
    "Excess error divided by the excess error at the best epsilon, with a line for each problem and noise level: "
    "the automatic choice of epsilon and a fixed epsilon."
)


def section(results: Results) -> Section:
    """Every cell, the share within the factor, and where a fixed epsilon fails."""
    rows = results.of("epsilon")
    if rows.empty:
        return missing("epsilon", TITLE, "epsilon")
    frame = cells(rows)
    shown = [Illustration("epsilon", epsilon_figure(frame), CAPTION, ALT)]
    return Section("epsilon", TITLE, sentences(frame), shown, [shares_table(frame), epsilon_table(frame)])


def sentences(frame: pd.DataFrame) -> list[str]:
    """The share of cells within the factor, the worst cell, where the fixed epsilon fails, and what choosing costs."""
    good, count = int((frame["ratio"] <= WITHIN).sum()), len(frame)
    worst = frame.loc[frame["ratio"].idxmax()]
    lines = [
        f"The chosen ε is within a factor {WITHIN:g} of the best in {good} of {count} cells ({100 * good / count:.0f} "
        f"%); the farthest is {_place(worst)}, {text.number(worst['ratio'])} times."
    ]
    if frame["within"].notna().any():
        lines[0] += f" Of single choices {100 * frame['within'].mean():.0f} % are."
    return [*lines, *_fixed(frame), *_cost(frame)]


def _place(cell: pd.Series) -> str:
    return f"{cell['problem']} in {cell['dtype']} at noise {text.number(cell['noise'])}"


def _fixed(frame: pd.DataFrame) -> list[str]:
    known = frame[frame["fixed_ratio"].notna()]
    if known.empty:
        return []
    epsilon = text.listed(text.number(value) for value in known["fixed_epsilon"].unique())
    failing = known[known["fixed_ratio"] > WITHIN]
    sentence = f"A fixed ε = {epsilon} is within that factor in {len(known) - len(failing)} of {len(known)} cells"
    if failing.empty:
        return [sentence + "."]
    worst = failing.loc[failing["fixed_ratio"].idxmax()]
    parts = [
        f"{(rows['fixed_ratio'] > WITHIN).sum()} of {len(rows)} in {dtype}"
        for dtype, rows in known.groupby("dtype", sort=False)
    ]
    lost = int((failing["fixed_excess"].fillna(math.inf) > failing["slope_square"]).sum())
    return [
        f"{sentence}; it fails in {text.listed(parts)}, by {text.number(failing['fixed_ratio'].median())} times at the "
        f"median and {text.number(worst['fixed_ratio'])} at most ({_place(worst)}). "
        f"In {lost} cells its excess is larger than the mean square of the derivative itself."
    ]


def _cost(frame: pd.DataFrame) -> list[str]:
    spent = frame["evaluations"].dropna()
    if spent.empty:
        return []
    return [
        f"One choice took {spent.min():.0f} to {spent.max():.0f} loss evaluations, means of cells (median "
        f"{spent.median():.0f})."
    ]
