"""The report on the mean squared error of one estimate."""

import pandas as pd

from analysis import text
from analysis.labels import label
from analysis.rows import Results
from analysis.sections.section import Illustration, Section, missing
from analysis.statistics import Z
from analysis.tables.bias import mse_table
from zobench.figures import panels, style
from zobench.figures.estimate import mse_figure

TITLE = "Mean squared error against ε"
CAPTION = (
    "The vertical axis shows the mean of |g − ∇f|², divided by |∇f|², for a single estimate g from plain samples. "
    "Points are measured, with 95 % intervals, and lines are predicted. Points are shifted by up to 6 % in ε so "
    "that they do not overlap. The value 1 is the error of the estimate 0. Methods need different numbers of loss "
    "evaluations for one estimate; the table has these numbers."
)
ALT = (
    "Mean squared error of one estimate, divided by the squared norm of the gradient, against epsilon. Each "
    "problem has a panel and each method a colour: measured points lie over predicted lines."
)
REFERENCE = "mezo"


def section(results: Results) -> Section:
    """Figure 2 with its table."""
    rows = results.of("bias")
    rows = rows[rows["mse"].notna()]
    if rows.empty:
        return missing("mse", TITLE, "bias")
    frame = label(rows, [*panels.PANEL, "sampling"], [])
    shown = [Illustration("mse", mse_figure(frame), CAPTION, ALT)]
    return Section("mse", TITLE, sentences(frame), shown, [mse_table(frame)])


def sentences(frame: pd.DataFrame) -> list[str]:
    """Each method's MSE in units of MeZO's at the smallest epsilon, then agreement with theory."""
    lines = [sentence for title, rows in panels.split(frame) for sentence in _relative(title, rows)]
    known = frame[frame["predicted_mse"].notna() & (frame["mse_error"] > 0)]
    if len(known):
        inside = ((known["mse"] - known["predicted_mse"]).abs() <= Z * known["mse_error"]).sum()
        lines.append(f"{inside} of {len(known)} measured errors have the predicted one inside their 95 % interval.")
    return lines


def _relative(title: str, rows: pd.DataFrame) -> list[str]:
    smallest = rows[rows["epsilon"] == rows["epsilon"].min()].groupby("label")["mse"].mean()
    if REFERENCE not in smallest or len(smallest) < 2:
        return []
    others = [name for name in style.in_order(smallest.index) if name != REFERENCE]
    ratios = (f"{name} {text.number(smallest[name] / smallest[REFERENCE])}" for name in others)
    return [
        f"{title}: at ε = {text.number(rows['epsilon'].min())} the error in units of {REFERENCE}'s is "
        f"{text.listed(ratios)}."
    ]
