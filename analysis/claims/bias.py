"""Claims 1 and 2: the order of the bias, and none on quadratics."""

import math
from collections.abc import Callable, Iterator

import pandas as pd

from analysis import text
from analysis.claims import verdicts
from analysis.claims.claim import FAILS, HOLDS, OURS, PAPER, UNDECIDED, Claim
from analysis.fits import PowerLaw, power_law
from analysis.rows import Results
from zobench.figures import panels

ORDERS = {"mezo": 2.0, "kerzoo": 4.0}
SLACK = 0.15  # of a fitted power of epsilon: the next order bends the curve a little
FAR = 2.0  # floors
POLYNOMIALS, SMOOTH = ("cubic", "quartic", "sextic"), ("mlp", "logistic")
WORDS = "MeZO's bias is of order ε², the kernel's of order ε⁴"


def claims(results: Results) -> Iterator[Claim]:
    """On polynomials, on smooth functions, and on real models in float64; then on quadratics."""
    rows = results.of("bias")
    rows = rows[(rows["sampling"] == "controlled") & rows["method"].isin(ORDERS)]
    yield from _orders("1a", rows[rows["problem"] == "sextic"], "sextic, d = 16, exact gradient")
    for letter, problem in zip("bc", SMOOTH, strict=True):
        mine = rows[rows["problem"] == problem]
        what = {"mlp": "tanh network", "logistic": "logistic regression"}[problem]
        yield from _orders(f"1{letter}", mine, f"{what}, exact gradient")
    parts = results.of("error-parts")
    exact = parts[(parts["dtype"] == "float64") & parts["kernel_truncation"].notna()]
    for letter, ((model, trained), mine) in zip("defghi", _places(exact), strict=False):
        yield _model_order(f"1{letter}", f"{model}, {trained}", mine)
    yield from _quadratic(results.of("bias"))


def _places(frame: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    groups = frame.groupby(["model", "trained"], sort=False)
    return sorted(((str(key[0]), str(key[1])), rows) for key, rows in groups) if len(frame) else []


def _orders(number: str, rows: pd.DataFrame, where: str) -> Iterator[Claim]:
    """The fitted powers of MeZO's and KerZOO's bias."""
    fits = {method: power_law(mine) for method, mine in rows.groupby("method")}
    if set(fits) != set(ORDERS):
        return
    agree = panels.deviation(rows).dropna()
    right = verdicts.all_of([_order(fits[method], order) for method, order in ORDERS.items()])
    estimate = f"powers {_power(fits['mezo'])} and {_power(fits['kerzoo'])}"
    if rows["problem"].iloc[0] in POLYNOMIALS:
        estimate += f"; {int((agree <= FAR).sum())} of {len(agree)} as predicted"
    yield Claim(number, WORDS, PAPER, where, text.count(len(rows), "cell"), estimate, right)


def _order(law: PowerLaw | None, order: float) -> str:
    return verdicts.near(law.slope, order, SLACK) if law else UNDECIDED


def _power(law: PowerLaw | None) -> str:
    return text.slope(law.slope) if law else "not resolved"


def model_laws(rows: pd.DataFrame) -> dict[str, PowerLaw | None]:
    """The powers of epsilon of the root mean square truncation, which bounds the bias: of MeZO, and of the kernel."""
    return {"mezo": _law(rows, "truncation"), "kerzoo": _law(rows, "kernel_truncation")}


def _law(rows: pd.DataFrame, part: str) -> PowerLaw | None:
    """The fit over root mean squares below the gradient: beyond, no expansion is of use."""
    root: Callable[[pd.Series], pd.Series] = lambda squares: squares**0.5  # noqa: E731
    bias = root(rows[part])
    columns = {"bias": bias, "bias_error": rows[f"{part}_error"] / (2 * bias), "floor": 0.0, "predicted_bias": math.nan}
    return power_law(rows.assign(**columns)[bias < 1].sort_values("epsilon"))


def _model_order(number: str, where: str, rows: pd.DataFrame) -> Claim:
    """HOLDS where the bounds have the orders; where they have not, the bias may have them all the same."""
    laws = model_laws(rows)
    right = verdicts.all_of(_order(laws[method], order) for method, order in ORDERS.items())
    estimate = f"powers {_power(laws['mezo'])} and {_power(laws['kerzoo'])} of the bound on the bias"
    tested = f"{where}, float64 against its exact gradient"
    n = f"{int(rows['lines'].iloc[0])} lines × {len(rows)} ε"
    needs = {
        UNDECIDED: "more lines, or a smaller ε",
        FAILS: "the bias itself, which the spread of the lines hides; its bound falls more slowly than that",
    }.get(right, "")
    return Claim(number, WORDS, PAPER, tested, n, estimate, HOLDS if right == HOLDS else UNDECIDED, needs=needs)


def _quadratic(rows: pd.DataFrame) -> Iterator[Claim]:
    mine = rows[(rows["problem"] == "quadratic") & (rows["sampling"] == "controlled")]
    if mine.empty:
        return
    most = (mine["bias"] / mine["gradient_norm"]).max()
    resolved = int((~panels.zero(mine, "bias")).sum())
    verdict = HOLDS if not resolved else FAILS
    estimate = f"largest bias {text.number(most, 2)} of the gradient; {resolved} above rounding"
    words = "On a quadratic there is no bias to remove"
    yield Claim("2", words, OURS, "quadratic, d = 16, all methods", text.count(len(mine), "cell"), estimate, verdict)
