"""Bias and error of one estimate as numbers: measured, predicted, and how far apart."""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from analysis import text
from analysis.fits import PowerLaw, power_law
from analysis.tables.table import Table, table
from zobench.figures import panels, style
from zobench.figures.bias import RESOLVED

FAR = 2.0  # deviations are about 1 when theory holds, and seldom reach 2


@dataclass(frozen=True)
class Slope:
    """The power law (if one could be fitted) of one method on one problem under one sampling."""

    problem: str
    label: str
    sampling: str
    law: PowerLaw | None
    unbiased: bool
    prediction: str


def slopes(frame: pd.DataFrame) -> list[Slope]:
    """One slope for each problem, method and sampling, controlled sampling first."""
    made = []
    for title, rows in panels.split(frame):
        for label in style.in_order(rows["label"].unique()):
            for sampling, points in rows[rows["label"] == label].groupby("sampling"):
                terms = "; ".join(sorted(points["prediction_terms"].dropna().unique()))
                unbiased = bool(panels.zero(points, "predicted_bias").all())
                made.append(Slope(title, label, str(sampling), power_law(points), unbiased, terms))
    return made


def slopes_table(frame: pd.DataFrame) -> Table:
    """Fitted and predicted slopes side by side, over the same epsilons."""
    note = (
        "Slope of log bias on log ε with its 95 % interval, over the longest run of points from the "
        "smallest ε that lie above "
        f"{RESOLVED:g} floors and do not bend (χ², p > 0.05); * even three points bend, interval widened. "
        "Theory: the same fit through the predicted values. Where no bias is predicted and none resolved "
        "there is no row."
    )
    shown = [slope for slope in slopes(frame) if slope.law or not slope.unbiased]
    return table([_slope_row(slope) for slope in shown], "Fitted slopes of the bias", note)


def _slope_row(slope: Slope) -> dict[str, str]:
    law = slope.law
    row = {"problem": slope.problem, "method": slope.label, "sampling": slope.sampling}
    if law is None:
        measured = {"slope": "not resolved", "theory": text.NONE}
        span = {"ε from": text.NONE, "to": text.NONE, "points": "0"}
    else:
        measured = {
            "slope": text.slope(law.slope) + ("" if law.straight else "*"),
            "theory": "0 predicted" if slope.unbiased else text.fixed(law.predicted, 3),
        }
        span = {
            "ε from": text.number(law.low),
            "to": text.number(law.high),
            "points": f"{law.used} of {law.points}",
        }
    return row | measured | span | {"prediction": slope.prediction}


def bias_table(frame: pd.DataFrame) -> Table:
    """Every measured bias beside its prediction."""
    rows = [
        _bias_row(title, label, float(epsilon), at)
        for title, panel in panels.split(frame)
        for label in style.in_order(panel["label"].unique())
        for epsilon, at in panel[panel["label"] == label].groupby("epsilon")
    ]
    note = (
        "Norm of the bias ± standard error along its direction. Deviation: distance of the measured from "
        "the predicted "
        f"bias vector in floors of that sampling, about 1 when they agree; above {FAR:g} marked !."
    )
    return table(rows, "Bias, measured and predicted", note, long=True)


def _bias_row(title: str, label: str, epsilon: float, at: pd.DataFrame) -> dict[str, str]:
    row = {"problem": title, "method": label, "ε": text.number(epsilon)}
    row["predicted"] = text.number(at["predicted_bias"].iloc[0])
    for sampling in ("plain", "controlled"):
        points = at[at["sampling"] == sampling]
        row[sampling] = _joined(f"{text.number(p.bias)} ± {text.number(p.bias_error, 2)}" for p in points.itertuples())
        row[f"deviation, {sampling}"] = _joined(map(_deviation, panels.deviation(points)))
    return row


def _joined(parts: Iterable[str]) -> str:
    return "; ".join(parts) or text.NONE


def _deviation(value: float) -> str:
    return "rounding" if value == 0 else text.fixed(value) + (" !" if value > FAR else "")


def mse_table(frame: pd.DataFrame) -> Table:
    """Mean squared error and covariance trace of one estimate, measured and predicted."""
    rows = [
        {
            "problem": title,
            "method": row.label,
            "ε": text.number(row.epsilon),
            "queries": text.number(row.queries),
            "MSE": f"{text.number(row.mse)} ± {text.number(row.mse_error, 2)}",
            "MSE predicted": text.number(row.predicted_mse),
            "z": text.fixed(
                (row.mse - row.predicted_mse) / row.mse_error if row.mse_error else float("nan"), signed=True
            ),
            "tr Cov": f"{text.number(row.covariance_trace)} ± {text.number(row.covariance_trace_error, 2)}",
            "tr Cov predicted": text.number(row.predicted_covariance_trace),
        }
        for title, panel in panels.split(frame)
        for row in panel.sort_values(["label", "epsilon"]).itertuples()
    ]
    note = "± standard errors; z: measured minus predicted in standard errors."
    return table(rows, "Mean squared error of one estimate", note, long=True)
