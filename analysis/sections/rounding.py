"""The report on what rounding leaves of a step."""

import pandas as pd

from analysis import machines, speeds, text
from analysis.figures.rounding import rounding_figure, title
from analysis.rows import Results
from analysis.sections.section import Illustration, Section, missing
from analysis.tables.rounding import rounding_table

TITLE = "Rounding of steps in 16 bits"
CAPTION = (
    "Each line is a way of rounding updates to the stored weights. The first panel shows the share of weights that "
    "a step changes. The second panel shows the cosine between the intended step and the step that the stored "
    "weights made; the value 1 means that rounding loses nothing. Pale points are single steps, and a full point "
    "is their median. “in-place” perturbs the stored weights themselves; the other ways perturb the weights "
    "while a layer reads them."
)
ALT = (
    "Share of weights that moved, and cosine between the intended and the realised step, with a line for each way "
    "of rounding and a band for each model and rate."
)


def section(results: Results) -> Section:
    """Share moved and cosine against the step, by rounding."""
    motion = speeds.motion(results)
    if motion.empty:
        return missing("rounding", TITLE, "motion")
    shown = [Illustration("rounding", rounding_figure(motion), CAPTION, ALT)]
    return Section("rounding", TITLE, sentences(motion, results), shown, [rounding_table(motion)])


def sentences(motion: pd.DataFrame, results: Results) -> list[str]:
    """The machine, then for each setting the share of a step that remains after each kind of rounding."""
    lines = [machines.sentence([motion], results)]
    for rows in speeds.places(motion):
        parts = [
            f"{name}: {100 * line['moved'].median():.3g} % of the weights move, cosine "
            f"{text.fixed(line['cosine'].median(), 3)}"
            for name, line in rows.groupby("name", sort=False)
        ]
        lines.append(f"{title(rows.iloc[0])}, medians over steps: {'; '.join(parts)}.")
    return lines
