"""The contract of a kernel."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor

from zobench.numbers import count, real
from zobench.random.streams import Shape


class Rule(NamedTuple):
    """A quadrature rule in r: E h(r, K) = sum_q p_q h(r_q, K(r_q)), probabilities, nodes and values all (Q,)."""

    probabilities: Tensor
    nodes: Tensor
    values: Tensor


class Kernel(ABC):
    """A law of r, symmetric about 0 and on [-1, 1] unless it was rescaled, and an odd function K of it: the estimate is
    K(r) [f(x + e r u) - f(x - e r u)] / (2 e) u.

    r and K are numbers without a unit: e r is the displacement along u. Cost: 2 loss evaluations a direction, whatever
    the kernel.
    """

    @abstractmethod
    def draw(self, key: int, shape: Shape) -> tuple[Tensor, Tensor]:
        """Return independent nodes r and K(r), both float64 of `shape`; equal keys and shapes give equal nodes."""

    @abstractmethod
    def quadrature(self, degree: int) -> Rule:
        """Return a rule that integrates r^i K(r)^j exactly for i <= degree and j <= 2."""

    @abstractmethod
    def moment(self, j: int) -> float:
        """Return E[r^j K(r)]."""

    @abstractmethod
    def second_moment(self, noise_to_gradient: float = 0.0) -> float:
        """Return E[r^2 K^2] + t E[K^2]: the second moment of the estimate against that of r = K = 1, times 1 + t.

        Args:
            noise_to_gradient: t = d s^2 / (2 e^2 c_d |grad f|^2), with s the standard deviation of one evaluation and
                c_d the law's fourth moment: 0 without noise, infinite where noise is all.

        Raises:
            ValueError: t is negative or NaN.
        """

    @abstractmethod
    def rescaled(self, scale: float) -> "Kernel":
        """Return K(r / s) / s under the law of s r: see `zobench.kernels.rescaled`."""


def require_order(order: int) -> int:
    """Return the order as an int.

    Raises:
        ValueError: it is not an odd positive integer.
    """
    advice = "give an odd order 1, 3, 5, ...; even moments vanish by symmetry"
    whole = count("kernel order", order, advice)
    if whole % 2 != 1:
        raise ValueError(f"kernel order is {order!r}: {advice}")
    return whole


def require_scale(scale: float) -> float:
    """Return the scale as a float.

    Raises:
        ValueError: it is not positive and finite.
    """
    return real("scale", scale, "give the factor of the interval of r, such as 0.5", lambda s: s > 0)


def require_ratio(noise_to_gradient: float) -> float:
    """Return t as a float, which may be infinite.

    Raises:
        ValueError: it is negative or NaN.
    """
    advice = "give t = d s^2 / (2 e^2 c_d |grad f|^2), 0 or more"
    return real("noise_to_gradient", noise_to_gradient, advice, lambda t: t >= 0, finite=False)
