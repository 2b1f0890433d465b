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
    "Excess error of central differences, beyond exact directional derivatives along the same lines, over that of the "
    "best ε of a fine grid, for each problem (bold), standard deviation of the noise of one evaluation (relative to "
    "|f(x)|) and rounding of the losses. 1 is as good as the best. Filled: ε chosen from a handful of evaluations, "
    "the median choice, with a line to the worst one. Hollow: the same ε everywhere."
)
ALT = (
    "Excess error over that of the best epsilon, a line for each problem and noise level: the epsilon that chooses "
    "itself and a fixed one."
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
    found = [
        f"The chosen ε is within a factor {WITHIN:g} of the best in {good} of {count} cells ({100 * good / count:.0f} "
        f"%); the farthest is {_place(worst)}, {text.number(worst['ratio'])} times."
    ]
    if frame["within"].notna().any():
        found[0] += f" Of single choices {100 * frame['within'].mean():.0f} % are."
    return [*found, *_fixed(frame), *_cost(frame)]


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
