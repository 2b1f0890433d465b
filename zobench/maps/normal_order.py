"""Moments of the order statistics of n standard normals, by quadrature."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, log_ndtr

Floats = npt.NDArray[np.float64]
END, POINTS, GAP, GAPS = 9.0, 361, 14.0, 140
LARGEST = 64
"""Lines up to which products of order statistics are computed; n^2 integrals over the plane."""


@lru_cache
def powers(n: int, degree: int) -> Floats:
    """Return E[t_(j)^degree], j = 1 ... n from the smallest."""
    t = np.linspace(-END, END, POINTS)
    below, above, density = log_ndtr(t), log_ndtr(-t), -t * t / 2 - np.log(2 * np.pi) / 2
    j = np.arange(1, n + 1)[:, None]
    logs = gammaln(n + 1) - gammaln(j) - gammaln(n - j + 1) + (j - 1) * below + (n - j) * above + density
    return np.asarray(np.exp(logs) @ t**degree * (t[1] - t[0]))


@lru_cache
def products(n: int) -> Floats:
    """Return E[t_(i) t_(j)], (n, n).

    Raises:
        ValueError: n is above 64.
    """
    if n > LARGEST:
        raise ValueError(f"n is {n}: products of order statistics are computed up to {LARGEST}")
    x = np.linspace(-END, END, POINTS)[:, None]
    nodes, masses = np.polynomial.legendre.leggauss(GAPS)
    y = x + (nodes + 1) * GAP / 2
    below, above = log_ndtr(x) + 0 * y, log_ndtr(-y)
    between = log_ndtr(-x) + np.log(-np.expm1(np.minimum(log_ndtr(-y) - log_ndtr(-x), -1e-300)))
    measure = (x[1] - x[0]) * masses * GAP / 2 * x * y * np.exp(-(x * x + y * y) / 2) / (2 * np.pi)
    found = np.diag(powers(n, 2))
    for i in range(1, n + 1):
        for j in range(i + 1, n + 1):
            constant = gammaln(n + 1) - gammaln(i) - gammaln(j - i) - gammaln(n - j + 1)
            density = np.exp(constant + (i - 1) * below + (j - i - 1) * between + (n - j) * above)
            found[i - 1, j - 1] = found[j - 1, i - 1] = (density * measure).sum()
    return found
