"""The report on optimisation of synthetic problems."""

import pandas as pd

from analysis import text
from analysis.figures.convergence import band_name, convergence_figure
from analysis.labels import label
from analysis.rows import Results
from analysis.sections.section import Illustration, Section, missing
from analysis.statistics import Comparison
from analysis.tables.convergence import CELL, REFERENCE, faults, finals, finals_table, ratio_text, tuning_table
from analysis.tables.table import Table
from zobench.figures import panels

TITLE = "Convergence on synthetic problems"
ALT = (
    "Loss above the minimum against loss evaluations, with a panel for each problem and a line with a band for "
    "each method."
)
CAPTION = (
    "Lines show the median over seeds; bands show {bands} over seeds (quartiles from 8 seeds on). A diverged seed "
    "counts as infinite from the step at which it diverged. A curve ends at the step from which its median is "
    "infinite."
)


def section(results: Results) -> Section:
    """Figure 4 with its tables."""
    rows, tune = results.of("converge"), results.of("tune")
    tuning: list[Table] = [tuning_table(tune)] if len(tune) else []
    if rows.empty and tuning:
        return Section(
            "convergence", TITLE, ["Learning rates were tried; no run at the best one is kept."], tables=tuning
        )
    if rows.empty:
        return missing("convergence", TITLE, "converge")
    frame = label(rows, CELL, ["lr", "epsilon"])
    wrong = faults(frame, tune)
    drawn = frame[[not wrong[problem] for problem in zip(frame["problem"], frame["dim"], strict=True)]]
    shown = []
    if len(drawn):
        bands = sorted(drawn.groupby([*CELL, "label"])["seed"].nunique().map(band_name).unique())
        caption = CAPTION.format(bands=text.listed(bands))
        shown.append(Illustration("convergence", convergence_figure(drawn), caption, ALT))
    return Section("convergence", TITLE, sentences(frame, tune), shown, [finals_table(frame, tune), *tuning])


def sentences(frame: pd.DataFrame, tune: pd.DataFrame) -> list[str]:
    """Gaps at equal evaluations relative to MeZO, or the reason for no comparison; then the number of diverged runs."""
    ends, wrong = finals(frame, tune), faults(frame, tune)
    lines = []
    for (problem, dim), cell in ends.groupby(CELL):
        title = panels.title(problem, dim)
        ratios = [f"{end.label} {ratio_text(end)}" for end in cell.itertuples() if isinstance(end.ratio, Comparison)]
        if wrong[problem, dim]:
            lines.append(f"{title}: not comparable: {text.listed(wrong[problem, dim])}. Widen --rates.")
        elif ratios:
            where = f"{title}: after {cell['budget'].iloc[0]:,.0f} evaluations"
            floors = text.listed(cell.loc[cell["floor"], "label"])
            flat = f" No longer falling: {floors}; ratios with them compare floors, not speeds." if floors else ""
            lines.append(
                f"{where} the {cell['measure'].iloc[0]} in units of {REFERENCE}'s is {'; '.join(ratios)}.{flat}"
            )
    lines.append(f"{text.count(int(ends['diverged'].sum()), 'run')} of {int(ends['seeds'].sum())} diverged.")
    return lines
