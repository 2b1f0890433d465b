"""The report on what decides speed: gains of SGD steps predicted before they are taken."""

import pandas as pd

from analysis import slowness, text
from analysis.figures.descent import descent_figure, rate_name
from analysis.labels import label
from analysis.rows import Results
from analysis.sections.section import Illustration, Section, missing
from analysis.tables.descent import descent_table
from zobench.figures import panels

TITLE = "Speed, predicted and measured"
CAPTION = (
    "The horizontal axis shows how many times slower SGD descends with each estimate than with MeZO's, for each loss "
    "evaluation. The bar is predicted from the first step alone, and the triangle is predicted at every step along "
    "the run. The point is measured over the run, with its 95 % interval over seeds. Some panels give each estimate "
    "its own best rate; the others give all estimates one small rate. The mean squared error does not enter these "
    "predictions."
)
ALT = (
    "Slowness relative to MeZO, with a line for each estimate and a panel for each problem and rate: two "
    "predictions, and the measured value with its interval."
)
FAR = 5.0


def section(results: Results) -> Section:
    """Slowness of each method against MeZO."""
    rows = results.of("descent")
    rows = rows[rows["predicted_share"].notna() & rows["realised_share"].notna()]
    if rows.empty:
        return missing("descent", TITLE, "descent")
    runs = slowness.speeds(label(rows, slowness.PANEL, ["epsilon"]))
    frame = slowness.slowness(runs)
    lines = sentences(frame, runs)
    if frame.empty:
        return Section("descent", TITLE, lines)
    shown = [Illustration("descent", descent_figure(frame), CAPTION, ALT)]
    return Section("descent", TITLE, lines, shown, [descent_table(frame)])


def sentences(frame: pd.DataFrame, runs: pd.DataFrame) -> list[str]:
    """KerZOO's slowness on each panel, how many predictions hold, and the deviations of single runs."""
    lines = []
    for _, row in frame.iterrows():
        if row["label"] == "kerzoo":
            panel = f"{panels.title(row['problem'], row['dim'], row['noise'])}, {rate_name(row['rate'])}"
            start, along, measured = (row[kind] for kind in slowness.KINDS)
            bounds = "" if pd.isna(measured.low) else f" [{text.number(measured.low)}, {text.number(measured.high)}]"
            lines.append(
                f"{panel}: KerZOO is predicted to be {text.number(start.estimate)} times slower than MeZO from the "
                f"first step and {text.number(along.estimate)} along the run; measured {text.number(measured.estimate)}"
                f"{bounds} over {text.count(int(row['seeds']), 'seed')}."
            )
    others = frame[frame["label"] != slowness.REFERENCE] if len(frame) else frame
    known = [held for _, row in others.iterrows() if (held := slowness.inside(row)) is not None]
    if known:
        lines.append(
            f"{sum(known)} of {len(known)} measured slownesses have the one predicted along the run inside their 95 % "
            "interval."
        )
    z = runs["z"].abs()
    lines.append(
        f"{(z <= FAR).sum()} of {text.count(len(z), 'run')} gained what was predicted to within {FAR:g} standard "
        f"errors; the farthest is {text.number(z.max())} away."
    )
    return lines
