"""The share of a step that remains after rounding, in numbers."""

import pandas as pd

from analysis import text
from analysis.machines import where
from analysis.tables.table import Table, table


def rounding_table(motion: pd.DataFrame) -> Table:
    """A row for each rounding of each place: medians over steps, then the last step."""
    rows = []
    for _, line in motion.groupby(["place", "name"], sort=False):
        first, last = line.iloc[0], line.iloc[-1]
        rows.append(
            {"place": where(first), "rate": first["rate"], "rounding": first["rounding"], "engine": first["engine"]}
            | {"steps": f"{first['step']:g} to {last['step']:g}", "measured": str(len(line))}
            | {"moved": text.number(line["moved"].median()), "cosine": text.number(line["cosine"].median())}
            | {"length": text.number(line["length"].median())}
            | {"moved, last": text.number(last["moved"]), "cosine, last": text.number(last["cosine"])}
        )
    note = (
        "Moved: share of weights that a step changes. Cosine: of the step that was intended and the one that the "
        "stored weights made. Length: of the step made over that intended. Medians over the steps measured."
    )
    return table(rows, "What rounding leaves of a step", note)
