"""Kernels that cost least: the law of r is chosen together with K, as a c-optimal design (Elfving 1952)."""

import math

from scipy.optimize import brentq

from zobench.kernels.discrete import DiscreteKernel
from zobench.kernels.kernel import require_order, require_ratio
from zobench.numbers import real


def optimal(order: int, noise_to_gradient: float) -> DiscreteKernel:
    """Return the law of r on [-1, 1] and the odd K that minimise E[r^2 K^2] + t E[K^2] subject to E[r K] = 1 and
    E[r^j K] = 0 for odd 3 <= j <= q, q = `order` and t = `noise_to_gradient` (defined at Kernel.second_moment).

    The minimum is V_q(t) = (sqrt(1 + t) + (q - 1) sqrt(t))^2, `least_second_moment`.

    Bound. Let Q be an odd polynomial of degree q with |Q(r)| <= sqrt(r^2 + t) on [-1, 1]. The conditions say E[K Q] =
    Q'(0), so that for any law of r
        E[K^2 (r^2 + t)] >= (E[|K| sqrt(r^2 + t)])^2 >= (E[K Q])^2 = Q'(0)^2.
    Certificate. Q = ±(a T_q + b T_(q-2)) with Chebyshev polynomials and a, b = (sqrt(1 + t) ± sqrt(t)) / 2: at r =
    cos(v), with q = (q - 1) + 1 and q - 2 = (q - 1) - 1,
        Q = sqrt(1 + t) cos((q - 1) v) cos(v) - sqrt(t) sin((q - 1) v) sin(v),
    which Cauchy and Schwarz bound by sqrt((1 + t) cos^2 v + t sin^2 v) = sqrt(r^2 + t); and |Q'(0)| = a q - b (q - 2) =
    sqrt(1 + t) + (q - 1) sqrt(t).
    Attained. |Q| touches the bound where (q - 1) v + arctan(sqrt(t / (1 + t)) tan(v)) = k pi, k = 0 ... (q - 1) / 2, at
    m = (q + 1) / 2 nodes r_k in (0, 1]. With A_k = prod_{j != k} r_j^2 / (r_j^2 - r_k^2), the Lagrange weights of
    extrapolation to 0 in r^2, node k played with probability proportional to |A_k| sqrt(1 + t / r_k^2) and K = A_k /
    (p_k r_k), the conditions hold, sign Q(r_k) = ± sign A_k alternates, and both inequalities are equalities.

    Args:
        order: q, odd; E[r^j K] is 0 for odd j from 3 to q, so that the bias is of order e^(q+1).
        noise_to_gradient: t, without a unit; the kernel is best at this ratio, and right at every other.

    Order 1 is r = K = 1 for every t: the central difference. Order 3 has r_1^2 = sqrt(t) (sqrt(1 + t) - sqrt(t)) / 2
    and r_2 = 1. t = inf gives `chebyshev(order)`. Against `legendre(order)` V is at most 12/25 at order 3, 64/147 at
    order 5 and less beyond.

    >>> kernel = optimal(3, noise_to_gradient=1.0)
    >>> round(kernel.second_moment(1.0), 6), round((2**0.5 + 2) ** 2, 6)
    (11.656854, 11.656854)

    Raises:
        ValueError: `order` is not odd and positive; t is negative or NaN; or t is 0 at order 3 or more, where the
            infimum 1 is not attained.
    """
    order, t = require_order(order), require_ratio(noise_to_gradient)
    if t == math.inf:
        return chebyshev(order)
    if t == 0 and order > 1:
        raise ValueError(
            f"noise_to_gradient is 0: without noise the infimum 1 of order {order} is not attained (nodes go to 0 and "
            "E[K^2] to infinity: the central difference at ever smaller epsilon); give t > 0, or floored(order, least)"
        )
    return _played(f"optimal({order}, {t!r})", _touching(order, t), t)


def chebyshev(order: int) -> DiscreteKernel:
    """Return the optimal kernel where noise dominates, t = inf: nodes at the positive extrema sin((i + 1/2) pi / q) of
    T_q, and the least E[K^2] of any kernel of this order, T_q'(0)^2 = q^2.

    At order 3: r = 1/2 or 1 with probabilities 8/9 and 1/9, K = 3 or -3, and V = 3 + 9 t, 12/25 of `legendre(3)` at
    every t.

    Raises:
        ValueError: `order` is not odd and positive.
    """
    order = require_order(order)
    return _played(f"chebyshev({order})", _touching(order, math.inf), math.inf)


def floored(order: int, least: float) -> DiscreteKernel:
    """Return the kernel of least E[r^2 K^2] whose nodes are in [`least`, 1]: `optimal` at t = 0, with a floor.

    Its nodes are the extrema of T_(m-1) in r^2, mapped to [least^2, 1], m = (q + 1) / 2. As T_(m-1) is the polynomial
    bounded by 1 there and largest at 0, E[r^2 K^2] = T_(m-1)((1 + least^2) / (1 - least^2))^2 = cosh^2((q - 1)
    artanh(least)): 1.01 at least = 0.1 / (q - 1).

    Raises:
        ValueError: `order` is not odd and positive, or `least` is not in (0, 1).
    """
    order = require_order(order)
    low = real("least", least, "give the smallest |r|, between 0 and 1", lambda r: 0 < r < 1)
    steps = (order - 1) // 2
    # cos^2(a) is 0 at one end and 1 at the other, so that both ends are exact
    squares = [low**2 + (1 - low**2) * math.cos(i * math.pi / (2 * steps)) ** 2 for i in range(steps, 0, -1)]
    return _played(f"floored({order}, {low!r})", [*map(math.sqrt, squares), 1.0], 0.0)


def on_nodes(nodes: tuple[float, ...], noise_to_gradient: float = 0.0) -> DiscreteKernel:
    """Return the kernel on given nodes |r|, of order 2 len(nodes) - 1, with the least E[r^2 K^2] + t E[K^2]:
    (sum_k |A_k| sqrt(1 + t / r_k^2))^2, with A_k as for `optimal`.

    Args:
        nodes: r_1 ... r_m, in any order; they may lie beyond 1.
        noise_to_gradient: t, as for `Kernel.second_moment`; it may be infinite.

    The masses A_k = p_k r_k K_k are determined by the conditions; by Cauchy and Schwarz the best p_k is proportional to
    |A_k| sqrt(1 + t / r_k^2).

    Raises:
        ValueError: nodes are not positive, finite and distinct, or t is negative or NaN.
    """
    reaches = sorted(real("a node", r, "give distinct positive |r|") for r in nodes)
    t = require_ratio(noise_to_gradient)
    shown = repr(t) if t < math.inf else "float('inf')"
    if not reaches or len(set(reaches)) < len(reaches) or not reaches[0] > 0:
        raise ValueError(f"nodes are {nodes!r}: give distinct positive |r|")
    return _played(f"on_nodes({tuple(reaches)!r}, {shown})", reaches, t)


def least_second_moment(order: int, noise_to_gradient: float) -> float:
    """Return V_q(t) = (sqrt(1 + t) + (q - 1) sqrt(t))^2: no kernel of order q on [-1, 1] has a smaller E[r^2 K^2] +
    t E[K^2].

    The proof is at `optimal`. At t = 0 and order 3 or more no kernel attains it.

    Raises:
        ValueError: `order` is not odd and positive, or t is negative or NaN.
    """
    order, t = require_order(order), require_ratio(noise_to_gradient)
    return (math.sqrt(1 + t) + (order - 1) * math.sqrt(t)) ** 2


def lagrange(nodes: list[float]) -> list[float]:
    """Return A_k = prod_{j != k} r_j^2 / (r_j^2 - r_k^2), one for each node: sum_k A_k p(r_k^2) = p(0) for
    polynomials p of degree below len(nodes). Nodes must be distinct.
    """
    return [
        math.prod(other**2 / ((other - r) * (other + r)) for j, other in enumerate(nodes) if j != k)
        for k, r in enumerate(nodes)
    ]


def _played(name: str, nodes: list[float], t: float) -> DiscreteKernel:
    noise, slope = (1.0, 0.0) if t == math.inf else (t / (1 + t), 1 / (1 + t))
    costs = [math.hypot(math.sqrt(slope), math.sqrt(noise) / r) for r in nodes]
    masses = lagrange(nodes)
    total = sum(abs(a) * cost for a, cost in zip(masses, costs, strict=True))
    probabilities = tuple(abs(a) * cost / total for a, cost in zip(masses, costs, strict=True))
    values = tuple(math.copysign(total / (cost * r), a) for a, cost, r in zip(masses, costs, nodes, strict=True))
    return DiscreteKernel(name, tuple(nodes), probabilities, values, 2 * len(nodes) - 1)


def _touching(order: int, t: float) -> list[float]:
    """The nodes of the certificate, ascending: r = sin(w), (q - 1) w + arctan(tan(w) sqrt((1 + t) / t)) = (i + 1/2)
    pi.
    """
    ratio = 1.0 if t == math.inf else math.sqrt(t / (1 + t))

    def angle(w: float) -> float:
        return (order - 1) * w + math.atan2(math.sin(w), ratio * math.cos(w))

    targets = [(i + 0.5) * math.pi for i in range((order - 1) // 2)]
    # at ratio 1 the root is target / order, and it falls with the ratio
    roots = [brentq(lambda w, a=a: angle(w) - a, 0.0, a / order * (1 + 1e-9), xtol=1e-200, rtol=1e-15) for a in targets]
    return [*map(math.sin, roots), 1.0]
