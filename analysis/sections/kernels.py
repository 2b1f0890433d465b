"""The report on smoothing kernels."""

import pandas as pd

from analysis import text
from analysis.figures.kernels import curve, is_misprint, kernels_figure, roots, uphill_share, worded
from analysis.rows import Results
from analysis.sections.section import Illustration, Section, missing
from analysis.tables.kernels import kernels_table

TITLE = "Kernels"
CAPTION = (
    "The first panel shows the kernel K(r) for r from −1 to 1: a method evaluates the loss at r ε along the "
    "direction u and multiplies it by K(r). The second panel shows r K(r), the step along u in units of the slope, "
    "for an f that is straight; where r K(r) is below 0, the step goes uphill. If the rows hold a kernel with a "
    "misprint, the figure also shows the kernel of the same order with the right E[rK]."
)
ALT = (
    "Kernels K(r) and steps r K(r) against r from −1 to 1, with a curve for each kernel. Where r K(r) is below 0, "
    "a step goes uphill."
)


def section(results: Results) -> Section:
    """Figure 3 with its table."""
    frame = results.of("kernel").drop_duplicates("name")
    if frame.empty:
        return missing("kernels", TITLE, "kernel")
    shown = [Illustration("kernels", kernels_figure(frame), CAPTION, ALT)]
    return Section("kernels", TITLE, sentences(frame), shown, [kernels_table(frame)])


def sentences(frame: pd.DataFrame) -> list[str]:
    """Uphill shares, variance factors and misprints."""
    lines = []
    for _, row in frame.iterrows():
        if is_misprint(row):
            lines.append(
                f"{worded(row['name'])}: E[rK] = {text.number(row['first_moment'], 5)} where the constant is "
                f"{text.number(row['constant'])}."
            )
            continue
        r, values = curve(row)
        uphill = uphill_share(r, values)
        if uphill > 0:
            last = roots(r, values)[-1]
            lines.append(
                f"{worded(row['name'])}: {100 * uphill:.1f} % of draws step uphill (the last change of sign is at "
                f"|r| = {last:.3f}); "
                f"the estimate's second moment grows by {text.number(row['second_moment_r2k2'])}, "
                f"the variance from loss noise by {text.number(row['second_moment_k2'])}."
            )
    return lines
