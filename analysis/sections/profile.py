"""The report on where the time of a step goes."""

import pandas as pd

from analysis import machines, speeds, text
from analysis.figures.profile import profile_figure
from analysis.rows import Results
from analysis.sections.section import Illustration, Section, missing
from analysis.tables.profile import profile_table

TITLE = "Where the time of a step goes"
CAPTION = (
    "Seconds of one step by part, a bar for each engine, law of directions and choice of rows, with the share of the "
    "step in percent. Parts of the model (attention, MLP, embeddings and logits) leave out what is drawn and applied "
    "inside them."
)


def section(results: Results) -> Section:
    """A stacked bar and a line of the table for each configuration."""
    parts = speeds.profiles(results)
    if parts.empty:
        return missing("profile", TITLE, "profile")
    alt = "Seconds of a step by part, a stacked bar for each configuration"
    shown = [Illustration("profile", profile_figure(parts), CAPTION, alt)]
    return Section("profile", TITLE, sentences(parts, results), shown, [profile_table(parts)])


def sentences(parts: pd.DataFrame, results: Results) -> list[str]:
    """The machine, then for each place the slowest and the fastest step: what takes most, and what sweeps take."""
    found = [machines.sentence([parts], results)]
    for rows in speeds.places(parts):
        bars = sorted((bar for _, bar in rows.groupby("step")), key=lambda bar: -float(bar["seconds"].sum()))
        ends = [bars[0], bars[-1]] if len(bars) > 1 else bars
        found.append(f"{machines.where(rows.iloc[0])}: {'; '.join(map(_spent, ends))}.")
    return found


def _spent(bar: pd.DataFrame) -> str:
    most, sweep = bar.loc[bar["seconds"].idxmax()], bar[bar["part"].isin(["draw", "apply"])]
    own = f", {text.listed(sweep['part'])} {_percent(sweep['share'].sum())}" if len(sweep) else ""
    return (
        f"of the {text.number(bar['seconds'].sum())} s of {bar['name'].iloc[0]}, {most['part']} takes most, "
        f"{_percent(most['share'])}{own}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
