"""Slowness against MeZO in numbers."""

import pandas as pd

from analysis import slowness, text
from analysis.statistics import Interval
from analysis.tables.table import Table, table
from zobench.figures import panels


def descent_table(frame: pd.DataFrame) -> Table:
    """Predicted and measured slowness of every method, for rows that `slowness.slowness` returned."""
    rows = [
        {
            "problem": panels.title(row["problem"], row["dim"], row["noise"]),
            "rate": row["rate"],
            "method": row["label"],
            "seeds": str(row["seeds"]),
            "predicted at the start": _shown(row["at start"], bounds=False),
            "predicted along the run": _shown(row["along the run"], bounds=False),
            "measured": _shown(row["measured"]),
            "inside": {True: "yes", False: "no !", None: text.NONE}[slowness.inside(row)],
            "z of all steps": text.fixed(row["z"], signed=True),
            "largest |z| of a run": text.fixed(row["worst"]),
        }
        for _, row in frame.iterrows()
    ]
    note = (
        "Times slower than MeZO at equal loss evaluations: MeZO's share of the gap to the minimum closed by one "
        "evaluation over the method's, means over seeds, with a 95 % interval over paired seeds (delta method on the "
        "logarithm). Inside: whether that interval holds the slowness predicted along the run. z: realised minus "
        "predicted gains of the steps, summed over runs, in standard errors. Methods and problems share starts and "
        "directions, so rows are not independent."
    )
    return table(rows, "Slowness against MeZO", note)


def _shown(value: Interval, bounds: bool = True) -> str:
    if not bounds or pd.isna(value.low):
        return text.number(value.estimate)
    return f"{text.number(value.estimate)} [{text.number(value.low)}, {text.number(value.high)}]"
