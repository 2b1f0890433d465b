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
    """The machine, then for each configuration the part that takes most and what drawing and applying take."""
    found = [machines.sentence([parts], results)]
    for _, bar in parts.groupby("step", sort=False):
        first, most = bar.iloc[0], bar.loc[bar["seconds"].idxmax()]
        sweep = bar[bar["part"].isin(["draw", "apply"])]
        sentence = (
            f"{machines.where(first)}; {first['name']}: of {text.number(bar['seconds'].sum())} s, {most['part']} takes "
            f"most, {_percent(most['share'])}"
        )
        own = f"; {text.listed(sweep['part'])} {_percent(sweep['share'].sum())}" if len(sweep) else ""
        found.append(f"{sentence}{own}.")
    return found


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
