"""Methods that differ by where they look on a line."""

from functools import partial

from zobench import kernels
from zobench.estimator import Estimator, LineEstimator, Shrinking
from zobench.forward_gradient import ForwardGradient
from zobench.kernels import Kernel
from zobench.law import Coordinate, Gaussian, Law, Orthogonal
from zobench.methods.row import Method, along_lines
from zobench.numbers import flag
from zobench.stencil import (
    CentralStencil,
    ForwardStencil,
    KernelStencil,
    OnePointStencil,
    RichardsonStencil,
    TelescopingStencil,
    least_noise,
)


def _kerzoo(
    epsilon: float = 1e-3,
    n: int = 1,
    law: Law = Gaussian(),
    order: int | None = None,
    kernel: Kernel | None = None,
    constant: float = 1.0,
    interval: float = 1.0,
    unscaled: bool = False,
) -> Estimator:
    """`interval` is s in r ~ Uniform[-s, s], under the kernel rescaled to it or, `unscaled`, under that of [-1, 1]."""
    if kernel is not None and (order is not None or constant != 1.0):
        raise ValueError(f"order is {order}, constant {constant} and kernel {kernel!r}: give the kernel or the others")
    if kernel is None:
        kernel = kernels.legendre(3 if order is None else order, constant)
    scale = kernels.shrunk if flag("unscaled", unscaled) else kernels.rescaled
    return LineEstimator(law, KernelStencil(scale(kernel, interval)), epsilon, n)


def _kerzoo_code(
    epsilon: float = 1e-3,
    n: int = 3,
    law: Law = Gaussian(),
    order: int = 3,
    constant: float = 4.0,
    steps: int = 4000,
    least: float = 1e-4,
    unscaled: bool = True,
    per_tensor: bool = True,
) -> Estimator:
    """KerZOO as a third-party port of its code seems to be: C = 4, one r for each tensor, r's interval shrinking as
    max(1 - step / 4000, 1e-4) under the kernel of [-1, 1].

    Each part is an option; `least` = 1 keeps the interval. The clip of each tensor's estimate to norm 4e5 and the
    second copy of the weights are its rule, see `Interpolated`; b_k = 100 there, `growing=true` is the other guess.
    """
    kernel = kernels.legendre(order, constant)
    return Shrinking(law, kernel, epsilon, n, steps, least, unscaled, per_tensor)


def _optimal(
    epsilon: float = 1e-3, n: int = 1, law: Law = Gaussian(), order: int = 3, noise_to_gradient: float = 1.0
) -> Estimator:
    return LineEstimator(law, KernelStencil(kernels.optimal(order, noise_to_gradient)), epsilon, n)


def _chebyshev(epsilon: float = 1e-3, n: int = 1, law: Law = Gaussian(), order: int = 3) -> Estimator:
    return LineEstimator(law, KernelStencil(kernels.chebyshev(order)), epsilon, n)


def _telescoping(
    epsilon: float = 1e-3,
    n: int = 1,
    law: Law = Gaussian(),
    decay: float = 0.5,
    depth: int = 20,
    by_parts: bool = False,
) -> Estimator:
    return LineEstimator(law, TelescopingStencil(decay, depth, by_parts), epsilon, n)


def _orthogonal(epsilon: float = 1e-3, n: int = 1) -> Estimator:
    return LineEstimator(Orthogonal(), CentralStencil(), epsilon, n)


def _coordinate(epsilon: float = 1e-3, n: int = 1, replace: bool = True) -> Estimator:
    return LineEstimator(Coordinate(replace), CentralStencil(), epsilon, n)


def _forward_gradient(n: int = 1, law: Law = Gaussian()) -> Estimator:
    return ForwardGradient(law, n)


DIFFERENCE = "f(x+eru) - f(x-eru)"

ROWS = (
    Method(
        "mezo",
        "[f(x+eu) - f(x-eu)] / (2e) u",
        "2 n",
        "Malladi et al. 2023, arXiv 2305.17333",
        along_lines(CentralStencil),
    ),
    Method(
        "n-spsa",
        "(1/n) sum_i [f(x+eu_i) - f(x-eu_i)] / (2e) u_i",
        "2 n",
        "Spall 1992; Malladi et al. 2023",
        along_lines(CentralStencil, lines=8),
    ),
    Method("kerzoo", f"K(r) [{DIFFERENCE}] / (2e) u", "2 n", "Mi et al. 2025, arXiv 2505.18886", _kerzoo),
    Method(
        "kerzoo-code",
        "K(r_l) [f(x+er.u) - f(x-er.u)] / (2e) u_l, r_l of tensor l, its interval shrinking",
        "2 n",
        "third-party port of the code of arXiv 2505.18886",
        _kerzoo_code,
        "interpolated:most=4e5",
        "1 number a weight",
    ),
    Method("optimal", f"K(r) [{DIFFERENCE}] / (2e) u, r and K of least second moment", "2 n", "Elfving 1952", _optimal),
    Method("chebyshev", f"±q [{DIFFERENCE}] / (2e) u, r at Chebyshev extrema", "2 n", "Elfving 1952", _chebyshev),
    Method("one-point", "f(x+eu) / e u", "n", "Flaxman, Kalai and McMahan 2005", along_lines(OnePointStencil)),
    Method("forward", "[f(x+eu) - f(x)] / e u", "n + 1", "Nesterov and Spokoiny 2017", along_lines(ForwardStencil)),
    Method("richardson", "4/3 central(e) - 1/3 central(2e)", "4 n", "Richardson 1911", along_lines(RichardsonStencil)),
    Method(
        "central4",
        "sum_k A_k central(r_k e), m_3 = 0, least noise",
        "4 n",
        "least_noise(4)",
        along_lines(partial(least_noise, 4)),
    ),
    Method(
        "central6",
        "sum_k A_k central(r_k e), m_3 = m_5 = 0, least noise",
        "6 n",
        "least_noise(6)",
        along_lines(partial(least_noise, 6)),
    ),
    Method(
        "telescoping",
        "[central(2^-k e) - central(2^(1-k) e)] / p_k, k random",
        "4 n",
        "Ma and Huang 2025, arXiv 2510.19953",
        _telescoping,
    ),
    Method("orthogonal", "mezo along orthogonal directions", "2 n", "Kozak et al. 2023", _orthogonal),
    Method("coordinate", "d [f(x+e_i e) - f(x-e_i e)] / (2e) e_i", "2 n", "Kiefer and Wolfowitz 1952", _coordinate),
    Method("forward-gradient", "<grad f(x), u> u", "3 n", "Baydin et al. 2022, arXiv 2202.08587", _forward_gradient),
)
