"""The winner of each cell, KerZOO against MeZO cell by cell, and the errors of predictions."""

import pandas as pd

from analysis import phases, text
from analysis.statistics import Z
from analysis.tables.table import Table, table
from zobench.figures import style

FAR = 5.0


def winners_table(cells: pd.DataFrame) -> Table:
    """Cells won by each method, a row for each map and goal."""
    names = style.in_order(cells["winner"].dropna().unique())
    rows = []
    for (name, epsilon, goal), mine in phases.split(cells, ["map", "common_epsilon", "goal"]):
        counts = mine["winner"].value_counts()
        won = {method: str(counts.get(method, 0)) for method in names}
        rows.append(_place(name, epsilon, goal) | {"cells": str(len(mine))} | won)
    note = "Predicted winners, at equal loss evaluations; a method without a column wins nowhere."
    return table(rows, "Cells that each method wins", note)


def duel_table(cells: pd.DataFrame) -> Table:
    """KerZOO against MeZO over the cells of each map and goal."""
    rows = []
    for (name, epsilon, goal), mine in phases.split(cells, ["map", "common_epsilon", "goal"]):
        ratios, verdicts = mine["advantage"].dropna(), phases.verdicts(mine)
        counts = verdicts.value_counts()
        measured = mine.loc[verdicts.isin(["better", "worse"]), "measured"]
        rows.append(
            _place(name, epsilon, goal)
            | {"better in": f"{(ratios > 1).sum()} of {len(ratios)}", **_spread(ratios, "")}
            | {"measured": str(verdicts.notna().sum())}
            | {f"measured {verdict}": str(counts.get(verdict, 0)) for verdict in ("better", "worse", "undecided")}
            | _spread(measured, ", measured")
        )
    note = (
        "How many times better than MeZO KerZOO is: MeZO's mean squared error over KerZOO's, or KerZOO's expected gain "
        "of one step at its best rate over MeZO's; below 1 it is worse. Cells where either gains nothing have no "
        "ratio. Measured: better or worse where the 95 % interval of the sampled ratio lies on one side of 1; best, "
        "median and worst are over those."
    )
    return table(rows, "KerZOO against MeZO, predicted and measured", note)


def _spread(ratios: pd.Series, suffix: str) -> dict[str, str]:
    values = (ratios.max(), ratios.median(), ratios.min()) if len(ratios) else (float("nan"),) * 3
    return {
        f"{name}{suffix}": text.number(value) for name, value in zip(("best", "median", "worst"), values, strict=True)
    }


def _place(name: str, epsilon: float, goal: str) -> dict[str, str]:
    return {"ε": phases.where(name, epsilon), "by": phases.GOALS[goal]}


def agreement_table(frame: pd.DataFrame) -> Table:
    """The distance of measurements from predictions, for rows that `phases.sampled` returned."""
    rows = []
    for (name, epsilon, goal), mine in phases.split(frame, ["map", "common_epsilon", "goal"]):
        z = mine["z"].abs()
        row = _place(name, epsilon, goal) | {"measurements": str(len(mine))}
        row |= {f"|z| > {bound:.3g}": f"{100 * (z > bound).mean():.1f} %" for bound in (Z, FAR)}
        row["largest |z|"] = text.fixed(z.max())
        row["measured / predicted, median"] = text.fixed((mine["measured"] / mine["predicted"]).median(), 3)
        row["of f itself"] = text.fixed(realised(mine).median(), 3) if goal == "descent" else text.NONE
        rows.append(row)
    note = (
        f"z: measured minus predicted in standard errors; if all predictions are right, 5 % lie beyond {Z:.3g} and "
        f"none beyond {FAR:g}. Of f itself: the gain of f over the predicted one, which leaves out orders beyond the "
        f"second in the rate, where its sampling error is below {100 * RESOLVED:g} %."
    )
    return table(rows, "Predicted against measured", note)


RESOLVED = 0.1


def realised(frame: pd.DataFrame) -> pd.Series:
    """The gain of f itself over the predicted one, where sampling resolves the gain to RESOLVED."""
    known = frame[(frame["goal"] == "descent") & (frame["error"] < RESOLVED * frame["predicted"])]
    return (known["realised_decrease"] / known["predicted"]).dropna()


def cells_table(cells: pd.DataFrame) -> Table:
    """Every cell of every map: its winner, and KerZOO against MeZO."""
    verdicts = phases.verdicts(cells)
    rows = [
        _place(cell.map, cell.common_epsilon, cell.goal)
        | {"bend": text.number(cell.bend), "noise": text.number(cell.noise), "d": f"{cell.dim:g}"}
        | {"evaluations": f"{cell.evaluations:,.0f}", "winner": cell.winner if isinstance(cell.winner, str) else ""}
        | {"KerZOO's ε": text.number(cell.kerzoo_epsilon), "MeZO's ε": text.number(cell.mezo_epsilon)}
        | {"times better": text.number(cell.advantage) + (" !" if cell.advantage > 1 else "")}
        | {"measured": text.number(cell.measured), "95 %": verdict or text.NONE}
        for cell, verdict in zip(cells.itertuples(), verdicts, strict=True)
    ]
    note = (
        "Times better: KerZOO against MeZO, predicted; ! above 1. 95 %: what the interval of the measured ratio says."
    )
    return table(rows, "Every cell of the maps", note, long=True)
