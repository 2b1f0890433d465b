"""Methods that differ by what is made of the slopes of a step."""

from zobench.law import Gaussian, LowRank, Rademacher
from zobench.maps import CurvatureWeight, LossSpread, PairSpread, Sign, ZScore
from zobench.methods.row import Method, along_lines
from zobench.stencil import CentralStencil, ForwardStencil, OnePointStencil, ThreePointStencil

ROWS = (
    Method(
        "zo-sgd-sign",
        "sign(s) u, s the slope of mezo",
        "2 n",
        "Zhang et al. 2024, arXiv 2402.11592",
        along_lines(CentralStencil, Sign()),
    ),
    Method(
        "fzoo",
        "(1/n) sum_i [f(x+eu_i) - f(x)] / std f(x+eu) u_i",
        "n + 1",
        "Dang et al. 2025, arXiv 2506.09034",
        along_lines(ForwardStencil, LossSpread(), Rademacher(), lines=8, reach=1e-4),
    ),
    Method(
        "spsa-1.5",
        "s / max(1, |c|^0.1) u, s and c the slope and the curvature along u",
        "2 n + 1",
        "Chaubard, Kochenderfer and Re 2026",
        along_lines(ThreePointStencil, CurvatureWeight(), Rademacher(), lines=160, reach=5e-4),
    ),
    Method(
        "es",
        "(1/n) sum_i z-score(f(x+eu_i)) u_i",
        "n",
        "Qiu et al. 2025, arXiv 2509.24372",
        along_lines(OnePointStencil, ZScore(), Gaussian(), lines=30),
    ),
    Method(
        "eggroll",
        "(1/n) sum_i [f(x+eu_i) - f(x-eu_i)] / (2 std f) u_i, u of rank 1",
        "2 n",
        "Sarkar et al. 2025, arXiv 2511.16652",
        along_lines(CentralStencil, PairSpread(), LowRank(1), lines=16),
    ),
)
