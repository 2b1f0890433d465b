"""Claims 3 to 6: what the kernel costs, its misprint, its shrinking interval, and one r for each tensor."""

from collections.abc import Callable, Iterator

import pandas as pd

from analysis import text
from analysis.claims import verdicts
from analysis.claims.claim import CODE, FAILS, HOLDS, OURS, PAPER, README, Claim
from analysis.figures.kernels import curve, uphill_share
from analysis.rows import Results
from analysis.statistics import Interval, Z

HIGHER = 0.01  # what predictions of order e^2 leave out
MISPRINT = "kerzoo5_as_printed()"
COSTS = (  # number, quantity, words, value, what a row of kind "kernel" says of it
    ("3a", "second moment", "The kernel multiplies the second moment of an estimate by 6.25", 6.25),
    ("3b", "noise variance", "The kernel multiplies the variance from loss noise by 18.75", 18.75),
    ("3c", "uphill share", "15.5 % of one-direction steps go uphill", 1 - (5 / 7) ** 0.5),
)


def claims(results: Results) -> Iterator[Claim]:
    """Exact values from rows of kernels, and measured ones."""
    kernels, checks = results.of("kernel").drop_duplicates("name"), results.of("claim-check")
    yield from _costs(kernels.set_index("name"), checks)
    yield from _misprint(kernels.set_index("name"), checks)
    yield from _interval(checks[checks["part"] == "interval"])
    yield from _tensors(checks[checks["part"] == "tensors"])


def measured(rows: pd.DataFrame) -> str:
    """Return `6.24 [6.20, 6.28]`, of the first row."""
    row = rows.iloc[0]
    half = Z * row["measured_error"]
    return text.interval(Interval(row["measured"], row["measured"] - half, row["measured"] + half), 3)


def pairs(rows: pd.DataFrame) -> list[tuple[float, float, float]]:
    """Return predicted, measured and standard error of each row."""
    columns = rows[["predicted", "measured", "measured_error"]]
    return [(float(a), float(b), float(c)) for a, b, c in columns.itertuples(index=False)]


def agreement(rows: pd.DataFrame) -> str:
    """Return `14 of 14 as predicted`."""
    return f"{sum(verdicts.agrees(*pair) for pair in pairs(rows))} of {len(rows)} as predicted"


def _costs(kernels: pd.DataFrame, checks: pd.DataFrame) -> Iterator[Claim]:
    """The exact cost of the order-3 kernel against the claim, and its measurement against the exact one."""
    if "legendre(3)" not in kernels.index:
        return
    row = kernels.loc["legendre(3)"]
    exact: dict[str, Callable[[], float]] = {
        "second moment": lambda: float(row["second_moment_r2k2"]),
        "noise variance": lambda: float(row["second_moment_k2"]),
        "uphill share": lambda: uphill_share(*curve(row)),
    }
    for number, quantity, words, wanted in COSTS:
        value = exact[quantity]()
        mine = checks[(checks["quantity"] == quantity) & (checks["method"] == "order 3")]
        tolerance = 1e-3 if quantity == "uphill share" else 1e-9  # the share is read off a grid of r
        found = abs(value - wanted) <= tolerance * wanted
        verdict = verdicts.confirmed(pairs(mine)) if found else FAILS
        estimate = f"{text.number(value, 4)} exactly" + (f"; measured {measured(mine)}" if len(mine) else "")
        n = f"{int(mine['samples'].iloc[0]):,} estimates" if len(mine) else "exact"
        tested = "moments of the kernel" + ("; a quadratic and pure noise, d = 16" if len(mine) else "")
        yield Claim(number, words, OURS, tested, n, estimate, verdict)


def _misprint(kernels: pd.DataFrame, checks: pd.DataFrame) -> Iterator[Claim]:
    if MISPRINT not in kernels.index or "legendre(5)" not in kernels.index:
        return
    printed, right = kernels.loc[MISPRINT], kernels.loc["legendre(5)"]
    factor = float(printed["first_moment"])
    mine = checks[(checks["quantity"] == "mean step") & (checks["method"] == "order 5 as printed")]
    verdict = HOLDS if abs(factor - 1) < 1e-6 else FAILS
    second = printed["second_moment_r2k2"] / right["second_moment_r2k2"]
    estimate = (
        f"E[rK] = {text.number(factor, 4)} C = 13/7 C" + (f", measured {measured(mine)}" if len(mine) else "") + "; "
        f"steps are {text.number(factor, 4)} times as long, second moments {text.number(second, 4)} times as large: a "
        "learning rate that nobody set"
    )
    words = "The order-5 kernel as printed has E[rK] = C, as KerZOO's method needs"
    n = f"{int(mine['samples'].iloc[0]):,} estimates" if len(mine) else "exact"
    yield Claim("4", words, PAPER, "moments of the kernel", n, estimate, verdict)


def _interval(rows: pd.DataFrame) -> Iterator[Claim]:
    """The interval of r that shrinks under an unscaled kernel, and under a rescaled one."""
    if rows.empty:
        return
    unscaled, rescaled = (rows[rows["method"] == method] for method in ("unscaled", "rescaled"))
    steps = unscaled[unscaled["quantity"] == "mean step"]
    left = unscaled[unscaled["quantity"] == "bias against MeZO's"]
    verdict = HOLDS if verdicts.confirmed(pairs(steps)) == HOLDS and _spread(steps) > 1.01 else FAILS
    yield Claim(
        "5a",
        "Shrinking r's interval under the kernel of [−1, 1] is a hidden learning-rate schedule",
        CODE,
        "quadratic, d = 8, C = 4",
        text.count(len(steps), "interval"),
        f"mean step {_at(steps, 1)} at s = 1, {_at(steps, 0.77)} at 0.77, {_at(steps, 0.5)} at 0.5, "
        f"{_at(steps, 0.1)} at 0.1; {agreement(steps)}",
        verdict,
    )
    kept = HOLDS if left["predicted"].abs().max() < 1e-9 and verdicts.confirmed(pairs(left)) == HOLDS else FAILS
    yield Claim(
        "5b",
        "It keeps the bias at order ε⁴, as the README's advice to shrink the interval supposes",
        README,
        "cubic, d = 8",
        text.count(len(left), "interval"),
        f"{_at(left, 0.9)} of MeZO's bias is back at s = 0.9, {_at(left, 0.7)} at 0.7, {_at(left, 0.5)} at 0.5; "
        f"{agreement(left)}",
        kept,
    )
    right = rescaled[rescaled["quantity"].isin(["mean step", "bias against MeZO's"])]
    yield Claim(
        "5c",
        "Rescaled as K(r/s)/s it keeps the mean step and the order: it is ε shrinking to sε",
        OURS,
        "the same",
        text.count(len(right), "measurement"),
        f"{agreement(right)}; second moment 6.25 at every s",
        verdicts.confirmed(pairs(right)),
    )


def _spread(rows: pd.DataFrame) -> float:
    return float(rows["measured"].max() / rows["measured"].min())


def _at(rows: pd.DataFrame, scale: float) -> str:
    near = rows.loc[(rows["scale"] - scale).abs().idxmin()]
    return text.number(near["measured"], 3)


def _tensors(rows: pd.DataFrame) -> Iterator[Claim]:
    words = "One r for each tensor keeps a third of the bias across tensors"
    tested = {
        "x y^2 + x^3/3": "x y² + x³/3, x and y two tensors",
        "mlp": "tanh network of 4 tensors, as a function with a layout",
        "module": "the same network as a module",
    }
    for letter, (problem, mine) in zip("abc", rows.groupby("problem", sort=False), strict=False):
        own = mine[mine["method"] == "one r a tensor"]
        if own.empty:  # the rows of a measurement that goes on
            continue
        third = abs(own["predicted"].iloc[0] - 1 / 3) < 1e-6
        shares = "; ".join(f"{row['method']} {measured(mine.loc[[i]])}" for i, row in mine.iterrows())
        verdict = verdicts.confirmed(pairs(mine), HIGHER) if third else FAILS
        n = f"{int(mine['samples'].iloc[0]):,} estimates"
        yield Claim(f"6{letter}", words, OURS, tested.get(str(problem), str(problem)), n, shares, verdict)
