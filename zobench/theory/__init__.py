"""Theory: what an estimator does on a problem, predicted before any run.

`error` has bias, variance and mean squared error; `descent` the expected gain of a step; `best_epsilon` where either is
best; `budget` estimators side by side. `laws` holds what a law of directions brings in, `lines` what a problem does,
`series` puts both together with a stencil.
"""

from zobench.theory.best_epsilon import best_epsilon
from zobench.theory.budget import Forecast, equal_budget, spend
from zobench.theory.cosine import cosine, mean_cosine
from zobench.theory.descent import DescentStep, best_lr, descent
from zobench.theory.error import bias, covariance_trace, coverage, mse, second_moment
from zobench.theory.laws import curved, odd_mean, product, quartic
from zobench.theory.linear_step import LinearStep, linear_step
from zobench.theory.lines import Lines
from zobench.theory.noise import Noise
from zobench.theory.series import Series

__all__ = [
    "DescentStep",
    "Forecast",
    "LinearStep",
    "Lines",
    "Noise",
    "Series",
    "best_epsilon",
    "best_lr",
    "bias",
    "cosine",
    "covariance_trace",
    "coverage",
    "curved",
    "descent",
    "equal_budget",
    "linear_step",
    "mean_cosine",
    "mse",
    "odd_mean",
    "product",
    "quartic",
    "second_moment",
    "spend",
]  # fmt: skip
