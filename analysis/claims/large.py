"""Claim 11: where a bias-correcting estimator wins, and how much the optimal kernel is better than the Legendre one."""

import math
from collections.abc import Iterator

import pandas as pd

from analysis import designs, phases, text
from analysis.claims.claim import FAILS, HOLDS, OURS, UNDECIDED, Claim
from analysis.rows import Results
from analysis.statistics import Interval, Z

CORRECTING = ("kerzoo", "optimal", "chebyshev", "central4")
NAMES = {"kerzoo": "KerZOO", "optimal": "the optimal kernel", "chebyshev": "Chebyshev's", "central4": "four points"}
BUDGET = ["problem", "noise", "evaluations"]


def claims(results: Results) -> Iterator[Claim]:
    """The phase map; a network with noisy losses; the two kernels of order 3."""
    yield from _phase(results.of("phase"))
    yield from _network(results.of("claim-large"))
    yield from _optimal(results)


def _phase(rows: pd.DataFrame) -> Iterator[Claim]:
    if rows.empty:
        return
    cells = phases.contests(phases.goals(rows))
    cells = cells[cells["goal"] == "mse"]
    own = cells[cells["map"] != phases.COMMON]
    common = cells[cells["map"] == phases.COMMON]
    for number, words, mine in (
        ("11a", "With each at its own best ε, KerZOO has a smaller error than MeZO somewhere", own),
        ("11b", "At one ε for both, KerZOO has a smaller error than MeZO where noise and ε are large", common),
    ):
        if mine.empty:
            continue
        ratios, found = mine["advantage"].dropna(), phases.verdicts(mine)
        better, worse = int((found == "better").sum()), int((found == "worse").sum())
        where = mine[found == "better"]
        at = f", all at ε = {text.number(where['common_epsilon'].min())} or more" if better and number == "11b" else ""
        estimate = (
            f"predicted better in {int((ratios > 1).sum())} of {len(ratios)} cells{at}; error at best "
            f"{text.number(1 / ratios.max(), 2)} of MeZO's; measured better in {better}, worse in {worse}"
        )
        verdict = HOLDS if better else FAILS if worse else UNDECIDED
        needs = "more samples of the cells" if verdict == UNDECIDED else ""
        tested = "phase map: sextics, d = 8 to 256"
        yield Claim(number, words, OURS, tested, f"{len(mine)} cells", estimate, verdict, needs=needs)


def ratio(rows: pd.DataFrame, method: str) -> Interval:
    """MeZO's mean squared error over a method's, with an interval by the delta method: above 1 the method is better."""
    one, two = (rows[rows["method"] == name].iloc[0] for name in ("mezo", method))
    value = one["mse"] / two["mse"]
    half = Z * math.hypot(one["mse_error"] / one["mse"], two["mse_error"] / two["mse"])
    return Interval(value, value * math.exp(-half), value * math.exp(half))


def best(rows: pd.DataFrame) -> pd.DataFrame:
    """Each method at its epsilon of least error, of those that were tried."""
    return rows.loc[rows.groupby("method")["mse"].idxmin()]


def _network(rows: pd.DataFrame) -> Iterator[Claim]:
    """A network of 37 weights: at the largest epsilon, and at each method's best."""
    if rows.empty:
        return
    groups = list(rows.groupby(BUDGET, sort=False))
    large = [mine[mine["epsilon"] == mine["epsilon"].max()] for _, mine in groups]
    at = text.number(rows["epsilon"].max())
    words = "On a small network a kernel has a smaller error than MeZO"
    yield _won("11c", f"{words}, at one large ε ({at})", large)
    yield _won("11d", f"{words}, each at its own best ε", [best(mine) for _, mine in groups])


def _won(number: str, words: str, cells: list[pd.DataFrame]) -> Claim:
    found = {method: [ratio(rows, method) for rows in cells] for method in ("kerzoo", "optimal")}
    parts = [
        f"{NAMES[method]} better in {sum(r.low > 1 for r in ratios)}, worse in {sum(r.high < 1 for r in ratios)} of "
        f"{len(ratios)} (error {_times(max(ratios))} to {_times(min(ratios))} of MeZO's)"
        for method, ratios in found.items()
    ]
    verdict = HOLDS if any(r.low > 1 for r in found["kerzoo"]) else FAILS
    if verdict == FAILS and any(r.low > 1 for r in found["optimal"]):
        verdict = f"{HOLDS} for the optimal kernel alone"
    budgets = sorted({int(rows["evaluations"].iloc[0]) for rows in cells})
    tested = f"tanh network, d = 37, noisy losses, {text.listed(f'{b:,}' for b in budgets)} evaluations a step"
    return Claim(number, words, OURS, tested, text.count(len(cells), "cell"), "; ".join(parts), verdict)


def _times(value: Interval) -> str:
    return text.number(1 / value.estimate, 2)


def _optimal(results: Results) -> Iterator[Claim]:
    design = results.of("design")
    mine = designs.with_ratio(design[(design["family"] == "optimal") & (design["order"] == 3)])
    if mine.empty:
        return
    cost = (mine["second_moment"] / mine["legendre_second_moment"]).dropna()
    rows = results.of("claim-large")
    measured = ""
    if len(rows):
        cells = [best(group) for _, group in rows.groupby(BUDGET, sort=False)]
        errors = [_error(cell, "optimal") / _error(cell, "kerzoo") for cell in cells]
        measured = f"; error on a network {text.number(min(errors), 2)} to {text.number(max(errors), 2)} of its"
    estimate = f"second moment {text.number(cost.min(), 3)} to {text.number(cost.max(), 3)} of Legendre's{measured}"
    words = "A kernel of the same order costs less than half of KerZOO's"
    verdict = HOLDS if cost.max() < 0.5 else FAILS
    tested = f"order 3, t = {text.number(mine['t'].min())} to {text.number(mine['t'].max())}"
    yield Claim("11e", words, OURS, tested, text.count(len(cost), "ratio"), estimate, verdict)


def _error(cell: pd.DataFrame, method: str) -> float:
    return float(cell.loc[cell["method"] == method, "mse"].iloc[0])
