"""Methods that differ by the law of their directions."""

from zobench.estimator import Estimator, LineEstimator
from zobench.law import BlockBandit, Blocks, Cone, Diagonal, LowRank, SmallWeights, Subspace
from zobench.methods.row import Method, along_lines
from zobench.refreshed import Adaptive, Refreshed
from zobench.stencil import CentralStencil, ForwardStencil, ThreePointStencil


def _lozo(epsilon: float = 1e-3, n: int = 1, rank: int = 2, every: int = 50, scaled: bool = True) -> Estimator:
    """LOZO holds V for 50 steps (100 for RoBERTa, at rank 4). Where `scaled`, its epsilon is `epsilon` / sqrt(rank) and
    its learning rate `lr` / rank in matrices.
    """
    return Refreshed(LineEstimator(LowRank(rank, scaled), CentralStencil(), epsilon, n), every)


def _subzero(epsilon: float = 1e-3, n: int = 1, rank: int = 24, every: int = 1000) -> Estimator:
    """SubZero takes rank 48 for OPT-13B."""
    return Refreshed(LineEstimator(Subspace(rank), CentralStencil(), epsilon, n), every)


def _zo_muon(epsilon: float = 1e-3, n: int = 4, rank: int = 64, every: int = 100, scaled: bool = True) -> Estimator:
    """ZO-Muon's readme has rank 64 and 1e-2 as the rate, its script rank 2 and 1e-5. Its P is drawn anew for each
    direction of a step that refreshes it; here all directions of a step share it. Where `scaled`, its epsilon is
    `epsilon` sqrt(rows / rank) in matrices; the step does not depend on that factor.
    """
    return Refreshed(LineEstimator(Subspace(rank, False, scaled), ForwardStencil(), epsilon, n), every)


def _zo_mopi(epsilon: float = 1e-3, n: int = 8, rank: int = 64, every: int = 500, scaled: bool = True) -> Estimator:
    """ZO-MOPI's command for OPT-13B on RTE."""
    return _zo_muon(epsilon, n, rank, every, scaled)


def _adalezo(
    epsilon: float = 1e-3, n: int = 1, by: str = "layer", explore: float = 0.2, rate: float = 0.1
) -> Estimator:
    law = BlockBandit(by=by, explore=explore, rate=rate)
    return Adaptive(LineEstimator(law, CentralStencil(), epsilon, n))


def _conmezo(epsilon: float = 1e-3, n: int = 1, theta: float = 1.35, beta: float = 0.99, warm: int = 2000) -> Estimator:
    """ConMeZO warms beta up in 2,000 of 20,000 steps, and takes 1.4 for theta in the paper, 1.35 in its scripts."""
    return Adaptive(LineEstimator(Cone(theta, beta, warm), CentralStencil(), epsilon, n))


def _hizoo(epsilon: float = 1e-3, n: int = 1, smooth: float = 1e-8) -> Estimator:
    """HiZOO's code evaluates 4 points and steps along another H than it perturbs along; here 3, and the same H."""
    return Adaptive(LineEstimator(Diagonal(smooth), ThreePointStencil(), epsilon, n))


ROWS = (
    Method(
        "lozo",
        "[f(x+eu) - f(x-eu)] / (2e) u, u = U V^T / sqrt(rank), V held for 50 steps",
        "2 n",
        "Chen et al. 2024, arXiv 2410.07698",
        _lozo,
    ),
    Method(
        "lozo-m",
        "x <- x - lr N V^T, N <- 0.9 N + 0.1 s U, s U V^T the estimate of lozo",
        "2 n",
        "Chen et al. 2024, arXiv 2410.07698",
        _lozo,
        "factor-momentum",
        "rank numbers a row of a matrix",
    ),
    Method(
        "subzero",
        "[f(x+eu) - f(x-eu)] / (2e) u, u = U Z V^T sqrt(d) / rank, U and V held for 1000 steps",
        "2 n",
        "Yu et al. 2024, arXiv 2410.08989",
        _subzero,
        memory="rank (rows + columns) numbers a matrix",
    ),
    Method(
        "zo-muon",
        "x <- x - lr P O(S), P S the mean of [f(x+eu) - f(x)] / e u, u = P Z sqrt(rows / r), P held for 100 steps",
        "n + 1",
        "ZO-Muon 2026, code at OPTML-Group/ZO-Muon",
        _zo_muon,
        "muon",
        "rank numbers a row of a matrix",
    ),
    Method(
        "zo-muon-normalised",
        "zo-muon with sqrt(r) S / |S| in place of O(S), its polar factor",
        "n + 1",
        "a control of zo-muon",
        _zo_muon,
        "normalised",
        "rank numbers a row of a matrix",
    ),
    Method(
        "zo-mopi",
        "zo-muon with U V^T of 32 directions of M <- 0.9 M + 0.1 S, V <- Q(M^T M V), P held for 500 steps",
        "n + 1",
        "ZO-MOPI 2026, code at MOFA-LAB/ZO-MOPI",
        _zo_mopi,
        "power-muon",
        "rank numbers a row, and rank + k a column of a matrix",
    ),
    Method(
        "sparse-mezo",
        "mezo in the quarter of smallest weights of each tensor, as they were before training",
        "2 n",
        "Liu et al. 2024, arXiv 2402.15751",
        along_lines(CentralStencil, directions=SmallWeights(share=0.25, fixed=True)),
        memory="1 bit a weight",
    ),
    Method(
        "blockwise",
        "B [f(x+ev) - f(x-ev)] / (2e) v, v in one of B blocks",
        "2 n",
        "Zhang et al. 2024, arXiv 2402.11592",
        along_lines(CentralStencil, directions=Blocks()),
    ),
    Method(
        "adalezo",
        "[f(x+ev) - f(x-ev)] / (2e p_l) v, v in block l, p_l learned from the slopes",
        "2 n",
        "Wang et al. 2026, arXiv 2604.18264",
        _adalezo,
        memory="1 number a block",
    ),
    Method(
        "conmezo",
        "[f(x+eu) - f(x-eu)] / (2e) u, u = sin(t) z + cos(t) sqrt(d) m / |m|, m the average estimate",
        "2 n",
        "ConMeZO 2025, arXiv 2511.02757",
        _conmezo,
        memory="1 number a weight",
    ),
    Method(
        "hizoo",
        "[f(x+eu) - f(x-eu)] / (2e) u, u = z / sqrt(H), H the average of curvature z^2",
        "2 n + 1",
        "Zhao et al. 2024, arXiv 2402.15173",
        _hizoo,
        memory="1 number a weight",
    ),
)
