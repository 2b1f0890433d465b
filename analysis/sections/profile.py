"""The report on where the time of a step goes."""

import pandas as pd

from analysis import machines, speeds, text
from analysis.figures.profile import profile_figure
from analysis.rows import Results
from analysis.sections.section import Illustration, Section, missing
from analysis.tables.profile import profile_table

TITLE = "Where the time of a step goes"
CAPTION = (
    "Each bar shows the shares of the parts of one step in percent, for one engine, law of directions and choice of "
    "rows. The parts of the model (attention, MLP, embeddings and logits) do not include the time to draw and apply "
    "directions inside them. The note after a bar has the seconds of the step and, where the step took longer than "
    "in the bench, the time of this step divided by its time in the bench: compare the shares of such a bar only."
)
ALT = (
    "Shares of a step by part: a stacked bar for each engine, law of directions and choice of rows, with the "
    "largest shares in percent."
)


def section(results: Results) -> Section:
    """A stacked bar and a line of the table for each configuration."""
    parts = speeds.profiles(results)
    if parts.empty:
        return missing("profile", TITLE, "profile")
    shown = [Illustration("profile", profile_figure(parts), CAPTION, ALT)]
    return Section("profile", TITLE, sentences(parts, results), shown, [profile_table(parts)])


def sentences(parts: pd.DataFrame, results: Results) -> list[str]:
    """The machine, then for each place the slowest and the fastest step: what takes most, and what sweeps take."""
    lines = [machines.sentence([parts], results)]
    for rows in speeds.places(parts):
        bars = sorted((bar for _, bar in rows.groupby("step")), key=lambda bar: -float(bar["seconds"].sum()))
        ends = [bars[0], bars[-1]] if len(bars) > 1 else bars
        lines.append(f"{machines.where(rows.iloc[0])}: {'; '.join(map(_spent, ends))}.")
    return lines + _slowed(parts)


def _slowed(parts: pd.DataFrame) -> list[str]:
    """Which steps took so much longer than in the bench that the machine was busy, and their seconds say nothing."""
    slow = parts[parts["of_bench"] > speeds.SLOWED].drop_duplicates("step")
    times = [f"{row['name']} ({text.fixed(row['of_bench'], 1)} times)" for _, row in slow.iterrows()]
    if not times:
        return []
    return [
        f"Longer than the same step in the bench, so that the machine was busy: {text.listed(times)}. Compare their "
        "shares, not their seconds, and measure them again: python -m llm profile."
    ]


def _spent(bar: pd.DataFrame) -> str:
    most, sweep = bar.loc[bar["seconds"].idxmax()], bar[bar["part"].isin(["draw", "apply"])]
    own = f", {text.listed(sweep['part'])} {_percent(sweep['share'].sum())}" if len(sweep) else ""
    return (
        f"of the {text.number(bar['seconds'].sum())} s of {bar['name'].iloc[0]}, {most['part']} takes most, "
        f"{_percent(most['share'])}{own}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
