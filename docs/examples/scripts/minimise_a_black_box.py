"""A black box of 30 variables and noise, minimised through SciPy."""

import numpy as np
from scipy.optimize import minimize

from zobench import methods
from zobench.integrations.scipy import zeroth_order

rng = np.random.default_rng(0)


def measured(x):
    """Return what an experiment would: a valley, and an error of 0.01."""
    return float(np.sum((x - 1.0) ** 2 * np.linspace(1, 5, len(x))) + 0.01 * rng.standard_normal())


options = {"estimator": methods.make("mezo", epsilon=0.1, n=4), "lr": 0.004, "maxiter": 400}
found = minimize(measured, np.zeros(30), method=zeroth_order, options=options)
print(f"{found.nfev} evaluations, largest distance from the minimum {np.abs(found.x - 1).max():.3f}")
