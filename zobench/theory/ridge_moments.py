"""Moments of sums of powers of u . v, u with independent entries: normal, by Wick's theorem; signs, by cumulants.

Normal: E[(v . u)^a (w . u)^b] = sum_i C(a, i) C(b, i) i! (a-i-1)!! (b-i-1)!! (v . w)^i |v|^(a-i) |w|^(b-i), over the
number i of pairs across. Signs: the cumulants of (v . u, w . u) are K_{s,t} = kappa_{s+t} sum_i v_i^s w_i^t, since
those of independent entries add, and M_{a,b} = sum_{s < a, t <= b} C(a-1, s) C(b, t) K_{s+1,t} M_{a-1-s,b-t}.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import comb, factorial, prod

import torch
from torch import Tensor

from zobench.layout import CPU
from zobench.problem import Ridges

CUMULANTS = {2: 1.0, 4: -2.0, 6: 16.0, 8: -272.0, 10: 7936.0, 12: -353792.0}
"""Of a random sign: log cosh(s) = sum_k kappa_k s^k / k!."""


class JointMoments(ABC):
    """M_{a,b}[j, k] = E[(v_j . u)^a (w_k . u)^b], a + b even, for the rows v_j of `left` (m, d) and w_k of `right`
    (l, d).
    """

    def __init__(self, left: Tensor, right: Tensor) -> None:
        self.left, self.right = left, right

    @abstractmethod
    def contract(self, left: Tensor, a: int, b: int, right: Tensor) -> float:
        """Return sum_jk left_j M_{a,b}[j, k] right_k."""


class NormalMoments(JointMoments):
    """u ~ N(0, I). Cost: one product (m, d) x (d, l), then O(m l) for each moment."""

    def __init__(self, left: Tensor, right: Tensor) -> None:
        super().__init__(left, right)
        self._norms = left.norm(dim=1), right.norm(dim=1)
        self._powers = {1: left @ right.T}
        self._pressed: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def pressed(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return v_j^T W v_j (m,), v_j^T W w_k (m, l) and w_k^T W w_k (l,)."""
        if id(weight) not in self._pressed:
            left = self.left @ weight
            right = left if self.left is self.right else self.right @ weight
            diagonals = ((pressed * plain).sum(1) for pressed, plain in ((left, self.left), (right, self.right)))
            self._pressed[id(weight)] = (next(diagonals), left @ self.right.T, next(diagonals))
        return self._pressed[id(weight)]

    def contract(self, left: Tensor, a: int, b: int, right: Tensor, times: Tensor | None = None) -> float:
        """Return sum_jk left_j M_{a,b}[j, k] times[j, k] right_k."""
        total = 0.0
        for i in range(a % 2, min(a, b) + 1, 2):
            ways = comb(a, i) * comb(b, i) * factorial(i) * _double_factorial(a - i - 1) * _double_factorial(b - i - 1)
            c, e = left * self._norms[0] ** (a - i), right * self._norms[1] ** (b - i)
            if times is None:
                across = c @ self._power(i) @ e if i else c.sum() * e.sum()
            else:
                across = ((c @ (self._power(i) * times)) if i else c @ times) @ e
            total += ways * float(across)
        return total

    def _power(self, i: int) -> Tensor:
        if i not in self._powers:
            self._powers[i] = self._power(i - 1) * self._powers[1]
        return self._powers[i]


class SignMoments(JointMoments):
    """Independent entries with the cumulants of `table`, by default random signs. Cost: a product (m, d) x (d, l) for
    each cumulant, then O(m l).
    """

    def __init__(self, left: Tensor, right: Tensor, table: Mapping[int, float] = CUMULANTS) -> None:
        super().__init__(left, right)
        self.table = table
        self._cumulants: dict[tuple[int, int], Tensor] = {}
        self._moments: dict[tuple[int, int], Tensor] = {(0, 0): torch.ones(1, 1, dtype=torch.float64, device=CPU)}

    def contract(self, left: Tensor, a: int, b: int, right: Tensor) -> float:
        """Return sum_jk left_j M_{a,b}[j, k] right_k."""
        return float(left @ self.moment(a, b).expand(len(left), len(right)) @ right)

    def moment(self, a: int, b: int) -> Tensor:
        """Return M_{a,b}, broadcastable to (m, l)."""
        if (a, b) not in self._moments:
            self._moments[a, b] = self._recursion(a, b) if a else self._recursion_of_right(b)
        return self._moments[a, b]

    def _recursion(self, a: int, b: int) -> Tensor:
        total = torch.zeros(len(self.left), len(self.right) if b else 1, dtype=torch.float64, device=CPU)
        for s in range(1, a + 1):
            for t in range(s % 2, b + 1, 2):
                ways = comb(a - 1, s - 1) * comb(b, t)
                total.addcmul_(self._cumulant(s, t), self.moment(a - s, b - t), value=ways)
        return total

    def _recursion_of_right(self, b: int) -> Tensor:
        total = torch.zeros(1, 1, dtype=torch.float64, device=CPU)
        for t in range(2, b + 1, 2):
            total = total + comb(b - 1, t - 1) * self._cumulant(0, t) * self.moment(0, b - t)
        return total

    def _cumulant(self, s: int, t: int) -> Tensor:
        if (s, t) not in self._cumulants:
            self._cumulants[s, t] = self.table[s + t] * self._power_sums(s, t)
        return self._cumulants[s, t]

    def _power_sums(self, s: int, t: int) -> Tensor:
        """sum_i v_i^s w_i^t, broadcastable to (m, l)."""
        if not t:
            return (self.left**s).sum(1)[:, None]
        if not s:
            return (self.right**t).sum(1)[None]
        if s < t and self.left is self.right:
            return (self._cumulant(t, s) / self.table[s + t]).mT
        sums: Tensor = self.left**s @ (self.right**t).T
        return sums


class SignMomentsOnAxes(JointMoments):
    """Random signs along the axes themselves: u_i^a is u_i or 1."""

    def contract(self, left: Tensor, a: int, b: int, right: Tensor) -> float:
        """Return sum_i left_i right_i for odd a, else the product of the sums."""
        return float(left @ right) if a % 2 else float(left.sum() * right.sum())


def sign_moments(left: Tensor, right: Tensor) -> JointMoments:
    """Return the moments of signs, the short way where both sets of directions are the axes."""
    on_axes = left.shape == right.shape and left.shape[0] == left.shape[1]
    if on_axes and all(bool((m.diagonal() == 1).all()) and int(m.count_nonzero()) == len(m) for m in (left, right)):
        return SignMomentsOnAxes(left, right)
    return SignMoments(left, right)


def normal_odd_mean(ridges: Ridges, a: int) -> Tensor:
    """Return E[sum_j c_j (v_j . u)^a u], (d,), for odd a and normal u: a!! sum_j c_j |v_j|^(a-1) v_j."""
    c, v = ridges
    mean: Tensor = _double_factorial(a) * ((c * v.norm(dim=1) ** (a - 1)) @ v)
    return mean


def sign_odd_mean(ridges: Ridges, a: int, table: Mapping[int, float] = CUMULANTS) -> Tensor:
    """Return E[sum_j c_j (v_j . u)^a u], (d,), for odd a and random signs, or other independent entries with the
    cumulants of `table`: sum_s C(a, s) kappa_{s+1} M_{a-s} v^s.
    """
    c, v = ridges
    one = SignMoments(v, v[:1], table)
    total = torch.zeros(v.shape[1], dtype=torch.float64, device=CPU)
    for s in range(1, a + 1, 2):
        weights = c * one.moment(a - s, 0).expand(len(c), 1)[:, 0]
        total = total + comb(a, s) * table[s + 1] * (weights @ v**s)
    return total


def sign_mean(ridges: Ridges, a: int) -> float:
    """Return E[sum_j c_j (v_j . u)^a] for random signs, a even."""
    c, v = ridges
    return float(c @ SignMoments(v, v[:1]).moment(a, 0).expand(len(c), 1)[:, 0])


def sign_quadratic_mean(weight: Tensor, ridges: Ridges, a: int) -> float:
    """Return E[u^T W u sum_j c_j (v_j . u)^a] for random signs, a even, W (d, d) with an empty diagonal.

    sum_{s, t odd} C(a, s) C(a-s, t) kappa_{s+1} kappa_{t+1} M_{a-s-t} v^s W v^t, as u_l and u_m share no cumulant.
    """
    c, v = ridges
    one, total = SignMoments(v, v[:1]), 0.0
    for s in range(1, a, 2):
        pressed = v**s @ weight
        for t in range(1, a - s + 1, 2):
            ways = comb(a, s) * comb(a - s, t) * CUMULANTS[s + 1] * CUMULANTS[t + 1]
            rest = one.moment(a - s - t, 0).expand(len(c), 1)[:, 0]
            total += ways * float(c * rest @ (pressed * v**t).sum(1))
    return total


def normal_moment(a: int) -> int:
    """Return E[z^a] for a standard normal z, a even: 1 * 3 * ... * (a - 1)."""
    return _double_factorial(a - 1)


def _double_factorial(n: int) -> int:
    return prod(range(n, 0, -2))
