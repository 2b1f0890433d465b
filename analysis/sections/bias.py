"""The report on bias: slopes, agreement with theory, null controls."""

import pandas as pd

from analysis import text
from analysis.labels import label
from analysis.rows import Results
from analysis.sections.section import Illustration, Section, missing
from analysis.tables.bias import FAR, bias_table, slopes, slopes_table
from zobench.figures import panels
from zobench.figures.bias import bias_figure, is_null

TITLE = "Bias against ε"
CAPTION = (
    "The vertical axis shows the norm of the bias of each method, divided by the norm of the gradient. Lines show "
    "the prediction of theory; the lines marked ε² and ε⁴ show these two slopes for comparison. Filled points are "
    "measured with a control variate. Hollow points are plain samples, which cannot show a bias below their floor "
    "√(tr Cov / samples). The floor is grey: dark below the floors of all methods, light up to the largest floor. "
    "Bars are 95 % intervals; an interval that contains 0 runs to the axis. A pale point lies below three times "
    "its own floor and shows the noise of sampling only. Hollow and pale points are shifted by up to 6 % in ε so "
    "that they do not overlap. A logarithmic axis has no place for 0: a prediction of 0 has no line, and a "
    "measurement of 0 (up to rounding) is a triangle at the bottom. The table has the fitted slopes."
)
ALT = (
    "Norm of the bias divided by the norm of the gradient, against epsilon, on logarithmic axes. Each problem has "
    "a panel and each method a colour: measured points with intervals lie over the lines that theory predicts."
)


def section(results: Results) -> Section:
    """Figure 1 with its tables."""
    rows = results.of("bias")
    if rows.empty:
        return missing("bias", TITLE, "bias")
    frame = label(rows, [*panels.PANEL, "sampling"], [])
    figure = bias_figure(frame)
    shown = [Illustration("bias", figure, CAPTION, ALT)]
    return Section("bias", TITLE, sentences(frame), shown, [slopes_table(frame), bias_table(frame)])


def sentences(frame: pd.DataFrame) -> list[str]:
    """Sentences on fitted powers, null controls and agreement, in that order."""
    lines = [sentence for title, rows in panels.split(frame) for sentence in _powers(title, rows)]
    return [*lines, *_agreement(frame)]


def _powers(title: str, rows: pd.DataFrame) -> list[str]:
    if is_null(rows):
        line = f"{title} is a null control, where theory predicts no bias for any method"
        groups = rows.groupby("sampling", sort=False)
        counts = (_null(str(sampling), points) for sampling, points in groups)
        return ["; ".join([line, *counts]) + "."]
    fits = slopes(rows)
    best = {slope.label: slope for slope in sorted(fits, key=lambda slope: slope.sampling == "controlled")}
    powers = [
        f"{name} {text.slope(slope.law.slope)} (theory {text.fixed(slope.law.predicted, 3)})"
        for name, slope in best.items()
        if slope.law and not slope.unbiased
    ]
    unbiased = [name for name, slope in best.items() if slope.unbiased]
    sentence = (
        f"{title}: fitted power of ε: {'; '.join(powers)}." if powers else f"{title}: no slope could be resolved."
    )
    return [sentence + (f" Theory predicts no bias for {text.listed(unbiased)}." if unbiased else "")]


def _null(sampling: str, rows: pd.DataFrame) -> str:
    seen = rows[~panels.zero(rows, "bias") & (rows["floor"] > 0)]
    if seen.empty:
        return f"all {len(rows)} {sampling} measurements are 0 up to rounding"
    largest = text.fixed((seen["bias"] / seen["floor"]).max())
    return f"the largest of {len(rows)} {sampling} measurements is {largest} floors"


def _agreement(frame: pd.DataFrame) -> list[str]:
    frame = frame.assign(deviation=panels.deviation(frame))
    known = frame[frame["deviation"].notna()]
    if known.empty:
        return []
    within = int((known["deviation"] <= FAR).sum())
    worst = known.loc[known["deviation"].idxmax()]
    panel, epsilon = panels.title(worst["problem"], worst["dim"], worst["noise"]), text.number(worst["epsilon"])
    return [
        f"{within} of {len(known)} measured bias vectors lie within {FAR:g} floors of the predicted one, "
        f"or no farther than rounding; the farthest is {worst['label']} on {panel} at ε = {epsilon} "
        f"({worst['sampling']} sampling), {text.fixed(worst['deviation'])} floors away."
    ]
