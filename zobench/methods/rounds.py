"""Methods whose steps take several rounds, closures or earlier steps."""

from zobench.estimator import Estimator, LineEstimator
from zobench.estimators import SPSA, SVRG, Conservative, DiZO, Guided, RandomSearch, RankSearch, Residual
from zobench.law import Gaussian, Law, Rademacher
from zobench.methods.row import Method
from zobench.rule import Gains
from zobench.stencil import CentralStencil


def _conservative(epsilon: float = 1e-3, n: int = 1, law: Law = Gaussian(), lr: float = 1e-3) -> Estimator:
    return Conservative(LineEstimator(law, CentralStencil(), epsilon, n), lr)


def _residual(epsilon: float = 1e-3, n: int = 1, law: Law = Gaussian()) -> Estimator:
    return Residual(law, epsilon, n)


def _svrg(
    epsilon: float = 1e-3,
    n: int = 1,
    law: Law = Gaussian(),
    every: int = 2,
    whole: str = "whole",
    boost: float = 1.0,
) -> Estimator:
    return SVRG(LineEstimator(law, CentralStencil(), epsilon, n), every, whole, boost)


def _dizo(
    epsilon: float = 1e-3,
    n: int = 1,
    law: Law = Gaussian(),
    every: int = 50,
    reach: float = 0.1,
    rate: float = 1.0,
    bound: float = 0.1,
    lr: float = 1e-3,
) -> Estimator:
    return DiZO(LineEstimator(law, CentralStencil(), epsilon, n), every, reach, rate, bound, lr)


def _guided(epsilon: float = 1e-3, n: int = 2, law: Law = Gaussian(), remember: bool = True) -> Estimator:
    return Guided(law, epsilon, n, remember)


def _ranked(
    epsilon: float = 1e-3,
    n: int = 10,
    law: Law = Gaussian(),
    top: int = 3,
    step: float = 1e-2,
    decay: float = 0.5,
    averaged: int = 10,
    lr: float = 1e-3,
) -> Estimator:
    return RankSearch(law, epsilon, n, top, step, decay, averaged, lr)


def _spall(
    epsilon: float = 1e-2, n: int = 1, law: Law = Rademacher(), gamma: float = 0.101, calibrate: int = 0
) -> Estimator:
    return SPSA(law, epsilon, n, gamma, calibrate)


def _random(epsilon: float = 1e-3, n: int = 1, law: Law = Gaussian(), lr: float = 1e-3) -> Estimator:
    return RandomSearch(law, epsilon, n, lr)


ROWS = (
    Method(
        "zo-sgd-conservative",
        "the best of x, x - lr g and x + lr g, g of mezo",
        "2 n + 3",
        "Zhang et al. 2024, arXiv 2402.11592",
        _conservative,
    ),
    Method(
        "one-point-residual",
        "[f_t(x_t+eu_t) - f_(t-1)(x_(t-1)+eu_(t-1))] / e u_t",
        "n",
        "Zhang, Zhou, Ji and Zavlanos 2022",
        _residual,
        memory="1 loss",
    ),
    Method(
        "mezo-svrg",
        "g_B(x) - g_B(y) + g(y), y a snapshot of x, g_B and g of mezo on the minibatch and on all examples",
        "3 n",
        "Gautam et al. 2024",
        _svrg,
        memory="a copy of the weights; n scalars and a key",
    ),
    Method(
        "dizo",
        "mezo; each 50th step x_m <- y_m + (1 + s_m) (x_m - y_m), y the start, s = -clip(df/ds) of mezo, one a tensor",
        "2 n",
        "DiZO 2025, code at Skilteee/DiZO",
        _dizo,
        memory="2 copies of the weights",
    ),
    Method(
        "mezo-gv",
        "[f(x+ev) - f(x-ev)] / (2e) v, v = u of the lower of two probes f(x+eu) - u of the higher",
        "n + 2",
        "MeZO-GV, arXiv 2601.04710",
        _guided,
        memory="1 key",
    ),
    Method(
        "zo-ranksgd",
        "the best of x, x + eu_b and x - s 2^-j g, g = (1/n) sum_i w_(rank of f(x+eu_i)) u_i",
        "2 n",
        "Tang et al. 2024, arXiv 2303.03751",
        _ranked,
        memory="10 n keys and scalars",
    ),
    Method("random-search", "the best of x and x + eu_i, i = 1 ... n", "n + 1", "Rastrigin 1963", _random),
    Method(
        "spall",
        "[f(x+c_k u) - f(x-c_k u)] / (2c_k) u, c_k = e / (k + 1)^0.101, rate lr / (100 + k + 1)^0.602",
        "2 n",
        "Spall 1992 and 1998",
        _spall,
        memory="2 numbers",
        rate=Gains,
    ),
)
