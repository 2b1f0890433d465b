"""Polynomials as sums of monomials."""

import math
import re
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import combinations_with_replacement, product

import torch
from torch import Tensor

from zobench.layout import CPU
from zobench.numbers import count, real, store
from zobench.problem import Ridges

Term = tuple[float, tuple[int, ...]]
"""A coefficient and the power of each variable."""
TERM = re.compile(r"\s*([+-]?)\s*([0-9.]+(?:e[+-]?[0-9]+)?)?((?:\s*\*?\s*x[0-9]+(?:\^[0-9]+)?)*)\s*", re.IGNORECASE)
FACTOR = re.compile(r"x([0-9]+)(?:\^([0-9]+))?")


@dataclass(frozen=True, repr=False)
class Polynomial:
    """f(x) = sum_t c_t prod_i x_i^(p_ti) in `dim` variables, batched: x (..., d) float64 -> (...).

    Every derivative is a polynomial again, so that all are exact to rounding. Cost of D^k f along a line: k^2 products
    a factor of each term. `repr` is an expression that makes the polynomial.

    Raises:
        ValueError: a coefficient is not finite, or a term has another number of powers than there are variables.
    """

    dim: int
    terms: tuple[Term, ...] = ()

    def __post_init__(self) -> None:
        dim = count("dim", self.dim)
        terms = tuple(
            (real("a coefficient", c), tuple(count("a power", p, least=0) for p in ps)) for c, ps in self.terms
        )
        store(self, dim=dim, terms=tuple((c, ps) for c, ps in terms if c))
        for _, powers in terms:
            if len(powers) != dim:
                raise ValueError(f"a term has the powers {powers}: give one for each of the {dim} variables")

    def __repr__(self) -> str:
        return f"polynomial({' '.join(map(_written, self.terms)).removeprefix('+ ') or '0'!r}, dim={self.dim})"

    @property
    def degree(self) -> int:
        """The largest sum of powers of a term."""
        return max((sum(powers) for _, powers in self.terms), default=0)

    def __call__(self, x: Tensor) -> Tensor:
        """Return f(x) (...)."""
        coefficients, powers = self._table
        values: Tensor = (x.double().unsqueeze(-2) ** powers).prod(-1) @ coefficients
        return values

    def value(self, x: Tensor) -> Tensor:
        """Return f(x) (...)."""
        return self(x)

    def gradient(self, x: Tensor) -> Tensor:
        """Return grad f(x) (..., d)."""
        return torch.stack([part(x) for part in self._partials], -1)

    def hessian(self, x: Tensor) -> Tensor:
        """Return D^2 f(x) (d, d)."""
        return torch.stack([part.gradient(x) for part in self._partials])

    def grad_laplacian(self, x: Tensor, order: int = 1) -> Tensor:
        """Return grad(Lap^order f)(x) (..., d)."""
        iterated = self
        for _ in range(order):
            iterated = iterated.laplacian
        return iterated.gradient(x)

    def derivative(self, x: Tensor, u: Tensor, order: int) -> Tensor:
        """Return D^order f(x)[u, ..., u] = order! times the coefficient of t^order in f(x + t u)."""
        x, u = torch.broadcast_tensors(x.double(), u.double())
        total = torch.zeros_like(x[..., 0])
        for coefficient, powers in self.terms:
            line = [torch.full_like(total, coefficient)] + [torch.zeros_like(total)] * order
            for i in (i for i, power in enumerate(powers) for _ in range(power)):
                before = [torch.zeros_like(total), *line]
                line = [c * x[..., i] + b * u[..., i] for c, b in zip(line, before, strict=False)]
            total = total + line[order]
        return math.factorial(order) * total

    def ridges(self, x: Tensor, order: int) -> Ridges:
        """Return D^order f(x) as a sum of powers, by polarisation: u_1 ... u_k = sum_s s_2 ... s_k (u_1 + s_2 u_2 +
        ... + s_k u_k)^k / (2^(k-1) k!) over signs s. Costs 2^(order - 1) directions for each mixed derivative that is
        not 0.
        """
        coefficients, rows = [], []
        for axes in combinations_with_replacement(range(self.dim), order):
            part = reduce(Polynomial.partial, axes, self)
            if part.terms:
                repeated = math.prod(math.factorial(axes.count(i)) for i in set(axes))
                value = float(part(x)) / (2 ** (order - 1) * repeated)
                for signs in product((1.0, -1.0), repeat=order - 1):
                    coefficients.append(value * math.prod(signs))
                    signed = list(zip(axes, (1.0, *signs), strict=True))
                    rows.append([sum(s for i, s in signed if i == axis) for axis in range(self.dim)])
        directions = torch.tensor(rows, dtype=torch.float64, device=CPU).view(-1, self.dim)
        return Ridges(torch.tensor(coefficients, dtype=torch.float64, device=CPU), directions)

    def partial(self, i: int) -> "Polynomial":
        """Return df/dx_i."""
        kept = ((c * p[i], (*p[:i], p[i] - 1, *p[i + 1 :])) for c, p in self.terms if p[i])
        return Polynomial(self.dim, tuple(kept))

    @cached_property
    def laplacian(self) -> "Polynomial":
        """Lap f = sum_i d^2 f / dx_i^2."""
        parts = [self.partial(i).partial(i).terms for i in range(self.dim)]
        return Polynomial(self.dim, tuple(term for part in parts for term in part))

    @cached_property
    def _table(self) -> tuple[Tensor, Tensor]:
        """Coefficients (T,) and powers (T, d), float64."""
        powers = torch.tensor([p for _, p in self.terms], dtype=torch.float64, device=CPU).view(-1, self.dim)
        return torch.tensor([c for c, _ in self.terms], dtype=torch.float64, device=CPU), powers

    @cached_property
    def _partials(self) -> list["Polynomial"]:
        return [self.partial(i) for i in range(self.dim)]


def polynomial(text: str, dim: int | None = None) -> Polynomial:
    """Return the polynomial of a text such as "0.5 x0^2 + 3 x0 x1 - x2"; `dim` is by default the fewest variables that
    have its names.

    >>> polynomial("0.5 x0^2 + 3 x0 x1").gradient(torch.tensor([1.0, 2.0])).tolist()
    [7.0, 3.0]

    Raises:
        ValueError: it is no such text, or names more variables than `dim`.
    """
    terms, end = [], 0
    for match in TERM.finditer(text):
        if match.start() == end < match.end() and (match[2] or match[3]) and (match[1] or not end):
            size = float(match[2] or 1.0)
            powers = [(int(name), int(power or 1)) for name, power in FACTOR.findall(match[3])]
            terms.append((-size if match[1] == "-" else size, powers))
            end = match.end()
    named = 1 + max((name for _, powers in terms for name, _ in powers), default=0)
    dim = named if dim is None else count("dim", dim)
    if end != len(text) or not terms or named > dim:
        raise ValueError(f"{text!r} is no polynomial in {dim} variables: write one like '0.5 x0^2 + 3 x0 x1 - x2'")
    rows = [(c, tuple(sum(p for name, p in powers if name == i) for i in range(dim))) for c, powers in terms]
    return Polynomial(dim, tuple(rows))


def _powers(powers: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(count("a power", p, least=0) for p in powers)


def _written(term: Term) -> str:
    coefficient, powers = term
    names = [f"x{i}" + (f"^{p}" if p > 1 else "") for i, p in enumerate(powers) if p]
    size = repr(abs(coefficient)).removesuffix(".0")
    shown = names if names and size == "1" else [size, *names]
    return " ".join(["-" if coefficient < 0 else "+", *shown])
