"""The time of a step by its parts, in numbers."""

import pandas as pd

from analysis import speeds, text
from analysis.machines import calls, where
from analysis.tables.table import Table, table


def profile_table(parts: pd.DataFrame) -> Table:
    """A row for each configuration: the whole, then seconds and share of every part."""
    names = speeds.parts(parts["part"])
    rows = []
    for _, bar in parts.groupby("step", sort=False):
        first, found = bar.iloc[0], bar.set_index("part")
        row = {"place": where(first), "configuration": first["name"], "step, s": text.number(bar["seconds"].sum())}
        cells = {name: _cell(found.loc[name]) if name in found.index else text.NONE for name in names}
        rows.append(row | cells | {"calls": calls(first)})
    return table(rows, "Seconds of one step, by part", "Medians over calls, and their share of the parts' sum.")


def _cell(part: pd.Series) -> str:
    return f"{text.number(part['seconds'])} ({100 * part['share']:.1f} %)"
