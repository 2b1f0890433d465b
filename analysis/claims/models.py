"""Claim 7: how much of the error of an estimate, on a real model, is bias that could be removed."""

import math
from collections.abc import Iterator

import pandas as pd

from analysis import text
from analysis.claims.claim import FAILS, HOLDS, PAPER, UNDECIDED, Claim
from analysis.rows import Results
from analysis.statistics import Z

COMMON = 1e-3  # the epsilon of MeZO's and KerZOO's commands
WORTH = 0.01  # of the squared error: less could not be seen in any curve
PLACE = ["model", "trained", "dtype"]
DTYPES = ("float64", "float32", "bfloat16", "float16")


def share(row: pd.Series, directions: float = 1.0) -> float:
    """The largest share of the squared error of a step of so many directions that is bias: |bias|^2 is at most the
    upper end of E[delta^2], and the rest of the error falls with the directions.
    """
    bias = row["truncation"] + Z * row["truncation_error"]
    rest = max(row["error"] - Z * row["error_error"], 0.0)
    return float(min(1.0, bias / (bias + rest / directions))) if bias > 0 else 0.0


def needed(row: pd.Series) -> float:
    """The directions a step has where at most half of its error is bias."""
    bias = row["truncation"] + Z * row["truncation_error"]
    return max(row["error"] - Z * row["error_error"], 0.0) / bias if bias > 0 else math.inf


def verdict(one: float, thousand: float) -> str:
    """Of the claim that bias is worth removing, by its share at 1 and at 1,000 directions."""
    return FAILS if thousand < WORTH else HOLDS if one >= WORTH else UNDECIDED


def places(results: Results) -> list[tuple[tuple[str, ...], pd.DataFrame]]:
    """Model, what is trained, dtype, and the rows of each epsilon."""
    rows = results.of("error-parts").drop_duplicates([*PLACE, "epsilon"], keep="last")
    groups = [(tuple(map(str, key)), mine.sort_values("epsilon")) for key, mine in rows.groupby(PLACE, sort=False)]
    return sorted(groups, key=lambda group: (*group[0][:2], DTYPES.index(group[0][2])))


def claims(results: Results) -> Iterator[Claim]:
    """The share at the usual epsilon, for each model, trained part and dtype."""
    for letter, ((model, trained, dtype), rows) in zip("abcdefghijklmnop", places(results), strict=False):
        row = rows.loc[(rows["epsilon"].map(math.log) - math.log(COMMON)).abs().idxmin()]
        one, thousand = share(row), share(row, 1000)
        right = verdict(one, thousand)
        rounding = f", rounding {_percent(row['rounding'])}" if dtype != "float64" else ""
        estimate = (
            f"bias ≤ {_percent(row['truncation'] + Z * row['truncation_error'])} of |∇f|{rounding}; at most "
            f"{text.number(one, 2)} of one estimate's squared error, {text.number(thousand, 2)} of 1,000's; half at "
            f"{text.number(needed(row), 2)} directions or more"
        )
        yield Claim(
            f"7{letter}",
            f"At ε = {text.number(row['epsilon'])} bias is a part of the error that is worth removing (1 %)",
            PAPER,
            f"{model}, {trained}, {dtype}, d = {int(row['parameters']):,}",
            text.count(int(row["lines"]), "line"),
            estimate,
            right,
            needs="a sharper bound on the bias; it could count at 1,000 directions" if right == UNDECIDED else "",
        )


def _percent(square: float) -> str:
    return f"{text.number(100 * math.sqrt(square), 2)} %"
