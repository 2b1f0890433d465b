"""Slopes of bias against epsilon, fitted only where the bias was resolved and the power law is straight."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis.statistics import Interval, Z
from zobench.figures.bias import RESOLVED

RELATIVE = 1e-3  # relative error granted to points that claim a smaller one, lest rounding decide where a line bends
FEWEST = 3

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PowerLaw:
    """bias ~ epsilon^slope over [low, high]: `used` of `points` points; `straight` unless even these bend."""

    slope: Interval
    predicted: float
    low: float
    high: float
    used: int
    points: int
    straight: bool


@dataclass(frozen=True)
class _Line:
    slope: float
    error: float
    chi2: float
    freedom: int

    @property
    def straight(self) -> bool:
        return bool(stats.chi2.sf(self.chi2, self.freedom) > 0.05)

    @property
    def interval(self) -> Interval:
        half = Z * self.error * max(1.0, math.sqrt(self.chi2 / self.freedom))
        return Interval(self.slope, self.slope - half, self.slope + half)


def power_law(frame: pd.DataFrame) -> PowerLaw | None:
    """Fit log bias on log epsilon, for rows of one method, problem and sampling.

    Points below RESOLVED floors are left out: they measure the floor. Of the rest, the fit takes the longest
    run from the smallest epsilon that chi-square does not tell from a straight line (p > 0.05), because at
    large epsilon the next order of the expansion bends the curve. Weights are the errors of log bias; if even
    the first FEWEST points bend, their interval is widened by sqrt(chi2 / freedom).

    Returns:
        The fit, or None where fewer than FEWEST epsilons are resolved.
    """
    points = _pooled(frame)
    kept = points[points.bias > RESOLVED * points.floor]
    if len(kept) < FEWEST:
        return None
    x, y = np.log(kept.epsilon.to_numpy()), np.log(kept.bias.to_numpy())
    sigma = np.maximum((kept.bias_error / kept.bias).fillna(0.0).to_numpy(), RELATIVE)
    lines = {used: _line(x[:used], y[:used], sigma[:used]) for used in range(FEWEST, len(kept) + 1)}
    used = max((count for count, line in lines.items() if line.straight), default=FEWEST)
    return PowerLaw(
        slope=lines[used].interval,
        predicted=_predicted_slope(kept.iloc[:used], sigma[:used]),
        low=float(kept.epsilon.iloc[0]),
        high=float(kept.epsilon.iloc[used - 1]),
        used=used,
        points=len(points),
        straight=lines[used].straight,
    )


def _pooled(frame: pd.DataFrame) -> pd.DataFrame:
    """One point for each epsilon: the mean of repeats, with its error; the floor is not lowered."""
    frame = frame.assign(floor=frame.floor.fillna(frame.bias_error))
    groups = frame.groupby("epsilon", sort=True)
    pooled = groups[["bias", "floor", "predicted_bias"]].mean()
    pooled["bias_error"] = groups.bias_error.agg(lambda errors: math.hypot(*errors) / len(errors))
    return pooled.reset_index()


def _predicted_slope(kept: pd.DataFrame, sigma: Array) -> float:
    predicted = kept.predicted_bias.to_numpy()
    if not (predicted > 0).all():
        return math.nan
    return _line(np.log(kept.epsilon.to_numpy()), np.log(predicted), sigma).slope


def _line(x: Array, y: Array, sigma: Array) -> _Line:
    weight = sigma**-2.0
    x_mean, y_mean = np.average(x, weights=weight), np.average(y, weights=weight)
    spread = float((weight * (x - x_mean) ** 2).sum())
    slope = float((weight * (x - x_mean) * (y - y_mean)).sum() / spread)
    residual = y - y_mean - slope * (x - x_mean)
    return _Line(slope, spread**-0.5, float((weight * residual**2).sum()), len(x) - 2)
