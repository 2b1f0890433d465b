"""Phase rows -> who wins each cell of each map, KerZOO against MeZO there, and predictions beside measurements."""

from typing import Any

import numpy as np
import pandas as pd

from analysis import text
from analysis.statistics import Z

GOALS = {"mse": "mean squared error", "descent": "expected descent"}
COMMON = "common"
PLACE = ["dim", "bend", "noise", "evaluations"]
MAP = ["run", "map", "common_epsilon", "goal"]
FIRST, SECOND = "kerzoo", "mezo"
_VALUES = {"mse": "mse", "descent": "decrease"}
_WON = {"mse": "least_mse", "descent": "fastest"}


def goals(rows: pd.DataFrame) -> pd.DataFrame:
    """Every row once for each goal its map was drawn for: `predicted`, `measured` and `error` of that goal, `won`.

    A gain of null (the estimate points uphill, or the quadratic model has no bound) stays NaN.
    """
    rows = rows.drop_duplicates(["run", "map", "common_epsilon", *PLACE, "method"], keep="last")
    frames = []
    for goal, value in _VALUES.items():
        mine = rows[rows["map"].map(lambda name, goal=goal: name == COMMON or name.endswith(goal))]
        columns = {
            "predicted": f"predicted_{value}",
            "measured": f"measured_{value}",
            "error": f"measured_{value}_error",
        }
        values = {name: mine[column] for name, column in columns.items()}
        frames.append(mine.assign(goal=goal, won=mine[_WON[goal]] == 1, **values))
    return pd.concat(frames, ignore_index=True)


def contests(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each cell of `goals`: its `winner`, and how many times better than MeZO KerZOO is there.

    `advantage` is predicted, `measured` the ratio of what was sampled with `error`, the standard error of its logarithm
    (draws of the two taken as independent); above 1 KerZOO is better. NaN where either gains nothing or is missing.
    """
    keys = [*MAP, *PLACE]
    cells = frame[keys].drop_duplicates().reset_index(drop=True)
    winners = frame.loc[frame["won"], [*keys, "method"]].drop_duplicates(keys)
    cells = cells.merge(winners.rename(columns={"method": "winner"}), on=keys, how="left")
    for method in (FIRST, SECOND):
        columns = [*keys, "epsilon", "predicted", "measured", "error"]
        mine = frame.loc[frame["method"] == method, columns]
        cells = cells.merge(mine.rename(columns={c: f"{method}_{c}" for c in columns[-4:]}), on=keys, how="left")
    sign = np.where(cells["goal"] == "mse", -1.0, 1.0)
    cells["advantage"] = _ratio(cells, "predicted") ** sign
    cells["measured"] = _ratio(cells, "measured") ** sign
    relative = [cells[f"{method}_error"] / cells[f"{method}_measured"] for method in (FIRST, SECOND)]
    cells["error"] = np.hypot(*relative)
    return cells


def _ratio(cells: pd.DataFrame, value: str) -> pd.Series:
    one, two = (cells[f"{method}_{value}"] for method in (FIRST, SECOND))
    return one.where(one > 0) / two.where(two > 0)


def sampled(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `goals` that were measured, with `z`, measured minus predicted in standard errors."""
    known = frame[frame["predicted"].notna() & (frame["error"] > 0)]
    return known.assign(z=(known["measured"] - known["predicted"]) / known["error"])


def where(name: str, epsilon: float) -> str:
    """`common ε = 0.1`, or `own best ε`."""
    return f"common ε = {text.number(epsilon)}" if name == COMMON else "own best ε"


def split(frame: pd.DataFrame, keys: list[str]) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    """Groups of a frame by `keys`, of which the epsilon of a map may be null, in the order of the rows."""
    return list(frame.groupby(keys, dropna=False, sort=False))


def verdicts(cells: pd.DataFrame) -> pd.Series:
    """`better` or `worse` where the 95 % interval of the measured ratio lies on one side of 1, else `undecided`.

    Null where one of the two was not sampled.
    """
    known = cells["kerzoo_error"].notna() & cells["mezo_error"].notna()
    low, high = np.log(cells["measured"]) - Z * cells["error"], np.log(cells["measured"]) + Z * cells["error"]
    verdict = pd.Series("undecided", index=cells.index, dtype=object).mask(low > 0, "better").mask(high < 0, "worse")
    return verdict.where(known, None)
