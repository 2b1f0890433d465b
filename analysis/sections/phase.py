"""The report on who wins where: cells of noise, dimension, bend and evaluations."""

import pandas as pd

from analysis import phases, text
from analysis.figures.advantage import advantage_figure
from analysis.figures.agreement import agreement_figure
from analysis.figures.phase import phase_figure
from analysis.rows import Results
from analysis.sections.section import Illustration, Section, missing
from analysis.statistics import Z
from analysis.tables.phase import FAR, agreement_table, cells_table, duel_table, realised, winners_table

TITLE = "Who wins where"
READING = (
    "The colour and the letters of a cell name the estimator that is predicted to be best there at equal loss "
    "evaluations. The number in a cell is the predicted advantage of KerZOO over MeZO: below 1 KerZOO is worse, "
    "and a frame marks the cells where it is better. "
)
BENDING = (
    "bend, the scale of the terms beyond the quadratic ones (1/√bend is the length on which f stops being quadratic)"
)
BEND = (
    f"Columns are grouped by the {BENDING}; within a group they differ in the standard deviation of the noise of "
    "one evaluation. Rows are grouped by the number of loss evaluations of one step; within a group they differ in "
    "the dimension d."
)
ADVANTAGE = (
    "The axis shows the predicted advantage of KerZOO over MeZO: the value 2 means that KerZOO is twice as good. "
    "Each point is a cell of a map (a dimension and a number of evaluations). Each line has one value of the "
    f"{BENDING}; its noise levels lie above each other, with the smallest on top."
)
AGREEMENT = (
    "Predictions against measurements, with a column for each quantity and a point for each measurement; no point "
    "is left out. Top: both axes are in units of the standard error of the measurement; they are linear between −3 "
    "and 3 and logarithmic beyond, so that a gain that was measured below 0 has a place. The grey band contains 95 "
    "% of the points if the predictions are right. Middle: the deviation z = (measured − predicted) / standard "
    "error, along the same axis. Bottom: the number of points with each z. Maps and methods share their random "
    "draws, so the points are not independent."
)
ALT_ADVANTAGE = (
    "Predicted advantage of KerZOO over MeZO in every cell of every map: points on a logarithmic axis with a line "
    "at 1; left of this line KerZOO is worse."
)
ALT_MAP = (
    "Winners over noise, dimension, bend and evaluations{where}, as coloured cells. The number in a cell is the "
    "advantage of KerZOO over MeZO; {best} wins most of the cells."
)
ALT_AGREEMENT = (
    "Measured against predicted error and gain in units of the standard error, with a diagonal; below, the "
    "deviations of the same points; at the bottom, their distribution beside a standard normal."
)
NAMES = {"bend": "bend", "noise": "noise", "dim": "d =", "evaluations": "evaluations"}


def section(results: Results) -> Section:
    """The maps, KerZOO against MeZO over their cells, and how predictions fared."""
    rows = results.of("phase")
    if rows.empty:
        return missing("phase", TITLE, "phase")
    shown, lines, tables = [], [], []
    for run, mine in rows.groupby("run", sort=False):
        frame = phases.goals(mine)
        cells, measured = phases.contests(frame), phases.sampled(frame)
        suffix = "" if rows["run"].nunique() == 1 else f"-{run}".replace("/", "-")
        shown += illustrations(cells, measured, suffix)
        lines += sentences(cells, measured)
        tables += [winners_table(cells), *([duel_table(cells)] if cells["advantage"].notna().any() else [])]
        tables += [agreement_table(measured)] if len(measured) else []
        tables.append(cells_table(cells))
    return Section("phase", TITLE, lines, shown, tables)


def illustrations(cells: pd.DataFrame, measured: pd.DataFrame, suffix: str = "") -> list[Illustration]:
    """All ratios; a map for each common epsilon and one for own epsilons; predictions against measurements."""
    shown = []
    if cells["advantage"].notna().any():
        shown.append(Illustration(f"phase-kerzoo{suffix}", advantage_figure(cells), ADVANTAGE, ALT_ADVANTAGE))
    for epsilon, mine in cells.groupby("common_epsilon", dropna=False, sort=True):
        name = "own" if pd.isna(epsilon) else f"{epsilon:g}"
        title = "Each estimator at its own best ε. " if pd.isna(epsilon) else f"All at ε = {text.number(epsilon)}. "
        best = mine["winner"].dropna().mode()
        setting = ", each at its own best epsilon" if pd.isna(epsilon) else f", all at epsilon {epsilon:g}"
        alt = ALT_MAP.format(where=setting, best=best.iloc[0] if len(best) else "none")
        shown.append(Illustration(f"phase-{name}{suffix}", phase_figure(mine), title + READING + BEND, alt))
    if len(measured):
        figure = agreement_figure(measured)
        shown.append(Illustration(f"phase-measured{suffix}", figure, AGREEMENT, ALT_AGREEMENT))
    return shown


def sentences(cells: pd.DataFrame, measured: pd.DataFrame) -> list[str]:
    """The cells in which KerZOO beats MeZO or loses, with factors; the winners; the errors of predictions."""
    maps = phases.split(cells, ["map", "common_epsilon", "goal"])
    lines = [] if cells["advantage"].isna().all() else [_overall(cells)]
    lines += [
        _duel(name, epsilon, goal, mine) for (name, epsilon, goal), mine in maps if mine["advantage"].notna().any()
    ]
    lines += [_winners(goal, mine) for goal, mine in cells[cells["map"] != phases.COMMON].groupby("goal", sort=False)]
    return lines + (_agreement(measured) if len(measured) else [])


def _overall(cells: pd.DataFrame) -> str:
    known = cells[cells["advantage"].notna()]
    won = known[known["advantage"] > 1]
    if won.empty:
        return f"KerZOO is predicted to be behind MeZO in all {len(known)} cells of all maps."
    places = [
        f"{len(mine)} by {phases.GOALS[goal]} at {phases.where(name, epsilon)}"
        for (name, epsilon, goal), mine in phases.split(won, ["map", "common_epsilon", "goal"])
    ]
    return (
        f"KerZOO is predicted to beat MeZO in {len(won)} of {len(known)} cells of all maps: {text.listed(places)}. "
        f"All of these have {conditions(won, cells)}."
    )


def conditions(chosen: pd.DataFrame, among: pd.DataFrame) -> str:
    """The least and largest value of each coordinate of the chosen cells, where they are not those of all cells."""
    shared = []
    for column, name in NAMES.items():
        values, every = sorted(chosen[column].unique()), sorted(among[column].unique())
        if values != every:
            shared.append(f"{name} {text.listed(text.number(value, 4) for value in values)}")
    return "; ".join(shared) if shared else "nothing in common: they span all values"


def _duel(name: str, epsilon: float, goal: str, cells: pd.DataFrame) -> str:
    known = cells[cells["advantage"].notna()]
    won, lost = known[known["advantage"] > 1], known[known["advantage"] <= 1]
    setting = f"{phases.where(name, epsilon).capitalize()}, by {phases.GOALS[goal]}"
    behind = ""
    if len(lost):
        times = (1 / lost["advantage"]).quantile([0.0, 0.5, 1.0]).map(text.number).tolist()
        behind = f"MeZO is better in {len(lost)}, by {times[0]} to {times[2]} times (median {times[1]})"
    if won.empty:
        return f"{setting}: KerZOO wins none of {len(known)} cells; {behind}."
    low, high = (text.number(bound) for bound in (won["advantage"].min(), won["advantage"].max()))
    box = known
    for column in NAMES:
        box = box[box[column].isin(won[column])]
    ahead = f"KerZOO wins {len(won)} of {len(known)} cells, by {low} to {high} times"
    inside = f"{conditions(won, known)} (of all {len(box)} such cells it wins {len(won)})"
    return f"{setting}: {ahead}: {inside}{_measured(won)}" + (f"; {behind}." if behind else ".")


def _measured(won: pd.DataFrame) -> str:
    counts = phases.verdicts(won).value_counts()
    if counts.empty:
        return ""
    return f"; measured, it is ahead in {counts.get('better', 0)} of these and behind in {counts.get('worse', 0)}"


def _winners(goal: str, cells: pd.DataFrame) -> str:
    counts = cells["winner"].value_counts()
    names = text.listed(f"{name} in {count}" for name, count in counts.items())
    ratio = (cells["kerzoo_epsilon"] / cells["mezo_epsilon"])[cells["bend"] > 0]
    wide = (
        f" Where f bends, KerZOO's best ε is {text.number(ratio.median())} times MeZO's at the median."
        if ratio.notna().any()
        else ""
    )
    return f"Each at its own best ε, the best by {phases.GOALS[goal]} is {names} of {len(cells)} cells.{wide}"


def _agreement(measured: pd.DataFrame) -> list[str]:
    z = measured["z"].abs()
    worst = measured.loc[z.idxmax()]
    lines = [
        f"{len(measured):,} measured errors and gains: {(z > FAR).sum()} lie beyond {FAR:g} standard errors of the "
        f"prediction, {100 * (z > Z).mean():.1f} % beyond {Z:.3g} (5 % if all are right); the farthest is "
        f"{worst['method']} at bend {text.number(worst['bend'])}, noise {text.number(worst['noise'])}, d = "
        f"{worst['dim']:g}, {worst['evaluations']:,.0f} evaluations, {text.number(z.max())} away."
    ]
    parts = [
        f"{text.fixed(gains.median())} at bend {text.number(bend)}"
        for bend, rows in measured.groupby("bend")
        if len(gains := realised(rows))
    ]
    if parts:
        lines.append(f"The gain of f itself over that of its quadratic model, at the median: {text.listed(parts)}.")
    return lines
