"""Moments of directions with independent entries of any symmetric law, by the cumulants of one entry.

With V = v . u and W = w . u the cumulants of (V, W) are K_{s,t} = kappa_{s+t} sum_i v_i^s w_i^t. Two more factors u_i
u_l: both in one block of a partition, which is there for i = l alone, or in two. So

    E[V^a W^b u_i u_l] = sum C(a, s) C(b, t) kappa_{s+t+1} C(a-s, p) C(b-t, q) kappa_{p+q+1} v_i^s w_i^t v_l^p w_l^q M
                       + delta_il sum C(a, s) C(b, t) kappa_{s+t+2} v_i^s w_i^t M

with M the moment of the factors that are left. For i = l both sums are one, over S = s + p and T = t + q: Vandermonde's
identity makes its factor lambda_n = kappa_{n+2} + sum_{r odd} C(n, r) kappa_{r+1} kappa_{n-r+1}, n = S + T.
"""

from collections.abc import Callable, Mapping
from functools import cache, partial, singledispatch
from math import comb

import torch
from torch import Tensor

from zobench.law import Isotropic, Rademacher, RandomMask, Uniform
from zobench.theory.ridge_moments import SignMoments

HIGHEST = 14
"""The order of D_6 D_6 |u|^2."""
BERNOULLI = {2: 1 / 6, 4: -1 / 30, 6: 1 / 42, 8: -1 / 30, 10: 5 / 66, 12: -691 / 2730, 14: 7 / 6}
Cumulants = Mapping[int, float]


@singledispatch
def entry_cumulants(law: Isotropic) -> Cumulants:
    """Return the cumulants of one entry, of even orders 2 to 14.

    Raises:
        TypeError: the entries of the law are not independent, or it is not registered.
    """
    raise TypeError(f"no cumulants of an entry of {law!r} are registered: theory.independent.entry_cumulants")


@entry_cumulants.register
def _(law: Uniform) -> Cumulants:
    """(2 sqrt(3))^n B_n / n, B_n the numbers of Bernoulli: those of a uniform on (-sqrt(3), sqrt(3))."""
    return {n: 12.0 ** (n // 2) * b / n for n, b in BERNOULLI.items()}


@entry_cumulants.register
def _(law: RandomMask) -> Cumulants:
    """Those of v / sqrt(p) with probability p, else 0: E u^n = p^(1 - n/2) E v^n."""
    signs = isinstance(law.law, Rademacher)
    moments = {n: law.density ** (1 - n / 2) * (1 if signs else _double_factorial(n)) for n in BERNOULLI}
    return _of_moments({0: 1.0, **moments})


def _double_factorial(n: int) -> int:
    """1 * 3 * ... * (n - 1): E z^n of a standard normal."""
    return 1 if n < 2 else (n - 1) * _double_factorial(n - 2)


def _of_moments(moments: Mapping[int, float]) -> Cumulants:
    """kappa_n = m_n - sum_{k < n} C(n-1, k-1) kappa_k m_{n-k}."""
    found: dict[int, float] = {}
    for n in BERNOULLI:
        found[n] = moments[n] - sum(comb(n - 1, k - 1) * kappa * moments[n - k] for k, kappa in found.items())
    return found


class IndependentMoments(SignMoments):
    """M_{a,b} = E[V^a W^b], and with a quadratic form of u beside them."""

    def contract_with(self, weight: Tensor, left: Tensor, a: int, b: int, right: Tensor) -> float:
        """Return sum_jk left_j E[(v_j . u)^a (w_k . u)^b u^T `weight` u] right_k, weight (d, d) symmetric.

        Cost: a product (m, d) x (d, l) for each pair of powers; (m, l, d) numbers where weight is not diagonal.
        """
        diagonal = weight.diagonal()
        apart = weight - torch.diag(diagonal)
        total = self._on_diagonal(diagonal, a, b)
        if bool(apart.any()):
            total = total + self._off_diagonal(apart, a, b)
        return float(left @ total.expand(len(left), len(right)) @ right)

    def _on_diagonal(self, diagonal: Tensor, a: int, b: int) -> Tensor:
        total = torch.zeros_like(self.left[:1, :1])
        for s in range(a + 1):
            for t in range(s % 2, b + 1, 2):
                sums = (self.left**s * diagonal) @ (self.right**t).T
                factor = comb(a, s) * comb(b, t) * paired(self.table, s + t)
                total = total + factor * sums * self.moment(a - s, b - t)
        return total

    def _off_diagonal(self, apart: Tensor, a: int, b: int) -> Tensor:
        total = torch.zeros_like(self.left[:1, :1])
        one_sided = [(s, t) for s in range(a + 1) for t in range(b + 1) if (s + t) % 2]
        for s, t in one_sided:
            pressed = self._entries(s, t) @ apart
            for p, q in one_sided:
                if s + p > a or t + q > b:
                    continue
                ways = comb(a, s) * comb(b, t) * comb(a - s, p) * comb(b - t, q)
                factor = ways * self.table[s + t + 1] * self.table[p + q + 1]
                total = total + factor * (pressed * self._entries(p, q)).sum(-1) * self.moment(a - s - p, b - t - q)
        return total

    def _entries(self, s: int, t: int) -> Tensor:
        """v_i^s w_i^t, (m, l, d)."""
        return (self.left**s)[:, None] * (self.right**t)[None]


def paired(table: Cumulants, n: int) -> float:
    """Return lambda_n, the factor of u_i^2 with n further factors joined to it."""
    return table[n + 2] + sum(comb(n, r) * table[r + 1] * table[n - r + 1] for r in range(1, n, 2))


@cache
def moments_of(law: Isotropic) -> Callable[[Tensor, Tensor], IndependentMoments]:
    """Return what makes the joint moments of a law: one function a law, so that they are shared."""
    return partial(IndependentMoments, table=entry_cumulants(law))
