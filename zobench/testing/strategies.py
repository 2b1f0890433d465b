"""Hypothesis strategies of problems, points, epsilons, laws, stencils, kernels, rules, noise, modules and plans.

They shrink to the smallest: one variable, one term, small whole numbers, the identity for a map, and every problem is
told as the expression that makes it.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from torch import Tensor

from zobench import kernels as kernel_designs
from zobench.estimator import LineEstimator
from zobench.kernels import Kernel
from zobench.law import LAWS, Isotropic, Law
from zobench.layout import CPU, Layout
from zobench.maps import (
    IDENTITY,
    Clip,
    CoefficientMap,
    CurvatureWeight,
    LossSpread,
    PairSpread,
    Ranks,
    Sign,
    Winsorise,
    ZScore,
)
from zobench.noise import Additive, NoiseModel
from zobench.plan import Plan
from zobench.problems import SHAPES, Network, Polynomial, RidgeSum, Transformed
from zobench.rule import SGD, Adam, Momentum, UpdateRule
from zobench.stencil import (
    CentralStencil,
    ForwardStencil,
    KernelStencil,
    OnePointStencil,
    RichardsonStencil,
    Stencil,
    SymmetricStencil,
    TelescopingStencil,
    ThreePointStencil,
)
from zobench.testing.modules import ModuleShape

Row = tuple[float, ...]
LARGEST = 3


class At(NamedTuple):
    """A problem and a point (d,)."""

    problem: Any
    x: Tensor

    def __repr__(self) -> str:
        return f"{self.problem!r} at {self.x.tolist()}"


def numbers(most: float = LARGEST) -> SearchStrategy[float]:
    """Quarters from -most to most: exact in every dtype, and told in few digits."""
    quarters = int(4 * most)
    return st.integers(-quarters, quarters).map(lambda q: q / 4)


def dims(most: int = 5) -> SearchStrategy[int]:
    """Dimensions d from 1."""
    return st.integers(1, most)


def keys() -> SearchStrategy[int]:
    """Keys of random numbers, 0 <= key < 2^63."""
    return st.integers(0, 2**63 - 1)


def epsilons(scale: float = 1.0) -> SearchStrategy[float]:
    """Displacements from 1e-4 to 1 times the scale of the points, which shrink to the scale itself."""
    return st.integers(0, 16).map(lambda k: scale * 10.0 ** (-k / 4))


def points(dim: int, scale: float = 1.0) -> SearchStrategy[Tensor]:
    """Points (dim,), float64, entries up to 3 times the scale."""
    rows = st.lists(numbers(), min_size=dim, max_size=dim)
    return rows.map(lambda row: scale * torch.tensor(row, dtype=torch.float64, device=CPU))


@st.composite
def polynomials(draw: DrawFn, dim: int | None = None, degree: int = 4, terms: int = 4) -> Polynomial:
    """Polynomials of few terms, sum_t c_t prod_i x_i^(p_ti), which couple variables; they shrink to one term."""
    dim = draw(dims()) if dim is None else dim
    powers = st.lists(st.integers(0, dim - 1), max_size=degree).map(
        lambda axes: tuple(axes.count(i) for i in range(dim))
    )
    rows = draw(st.lists(st.tuples(numbers(), powers), min_size=1, max_size=terms))
    return Polynomial(dim, tuple(rows))


@st.composite
def ridge_sums(draw: DrawFn, dim: int | None = None, ridges: int = 3) -> RidgeSum:
    """Smooth functions sum_j h_j phi(v_j . x + b_j) that are no polynomials: exp, sin, tanh and softplus."""
    dim = draw(dims()) if dim is None else dim
    count = draw(st.integers(1, ridges))
    rows = [tuple(draw(st.lists(numbers(0.5), min_size=dim, max_size=dim))) for _ in range(count)]
    heights, offsets = (tuple(draw(st.lists(numbers(1), min_size=count, max_size=count))) for _ in range(2))
    return RidgeSum(draw(st.sampled_from(sorted(SHAPES))), tuple(rows), heights, offsets)


def networks() -> SearchStrategy[Network]:
    """Networks of one hidden layer in their weights, d = hidden (inputs + 2)."""
    return st.builds(Network, st.integers(1, 3), st.integers(1, 3), st.integers(1, 5))


@st.composite
def rotations(draw: DrawFn, dim: int) -> tuple[Row, ...]:
    """Orthogonal matrices Q, Q^T Q = I: a product of up to 3 rotations in planes; they shrink to the identity."""
    q = torch.eye(dim, dtype=torch.float64, device=CPU)
    for _ in range(draw(st.integers(0, 3)) if dim > 1 else 0):
        i, j = draw(st.permutations(range(dim)))[:2]
        angle = draw(st.integers(0, 12)) * math.pi / 12
        turn = torch.eye(dim, dtype=torch.float64, device=CPU)
        turn[i, i] = turn[j, j] = math.cos(angle)
        turn[i, j], turn[j, i] = -math.sin(angle), math.sin(angle)
        q = turn @ q
    return tuple(map(tuple, q.tolist()))


@st.composite
def conditionings(draw: DrawFn, dim: int, condition: float = 100.0) -> tuple[Row, ...]:
    """Diagonal matrices with entries from 1 / condition to 1, which shrink to the identity."""
    steps = draw(st.lists(st.integers(0, 4), min_size=dim, max_size=dim))
    return tuple(
        map(
            tuple,
            torch.diag(torch.tensor([condition ** (-s / 4) for s in steps], dtype=torch.float64, device=CPU)).tolist(),
        )
    )


@st.composite
def transformed(draw: DrawFn, inner: SearchStrategy[Any]) -> Transformed:
    """Another problem scaled, conditioned or rotated: height f(M x) + shift."""
    problem = draw(inner)
    matrix = draw(st.one_of(rotations(problem.dim), conditionings(problem.dim)))
    return Transformed(problem, matrix, draw(st.sampled_from([1.0, -2.0, 1e-3, 1e3])), draw(numbers()))


def problems(dim: int | None = None) -> SearchStrategy[Any]:
    """Problems with exact gradients of every kind, simple ones first; networks where the dimension is free."""
    plain = st.one_of(polynomials(dim), ridge_sums(dim))
    return st.one_of(plain, transformed(plain)) if dim is not None else st.one_of(plain, networks(), transformed(plain))


@st.composite
def problems_at(draw: DrawFn, inner: SearchStrategy[Any] | None = None) -> At:
    """A problem f and a point x (d,) of its dimension."""
    problem = draw(problems() if inner is None else inner)
    return At(problem, draw(points(problem.dim)))


def laws(isotropic: bool = False) -> SearchStrategy[Law]:
    """The laws u of directions that come with zobench; with `isotropic` those with E[|u|^2 u u^T] = c_d I."""
    known = [law for law in LAWS.values() if isinstance(law, Isotropic) or not isotropic]
    return st.sampled_from(known)


@st.composite
def kernels(draw: DrawFn) -> Kernel:
    """Kernels K(r) with E[r K] = 1 and E[r^j K] = 0 for odd 3 <= j <= q: the named ones, and those of least second
    moment on random nodes.
    """
    order, ratio = draw(st.sampled_from([1, 3, 5, 7])), draw(st.sampled_from([1.0, 0.01, 100.0]))
    nodes = draw(st.lists(st.integers(1, 8).map(lambda k: k / 8), min_size=1, max_size=3, unique=True))
    makers: list[Callable[[], Kernel]] = [
        lambda: kernel_designs.legendre(order),
        lambda: kernel_designs.chebyshev(order),
        lambda: kernel_designs.optimal(order, ratio),
        lambda: kernel_designs.on_nodes(tuple(nodes), ratio),
    ]
    return draw(st.sampled_from(makers))()


def stencils(differences: bool = False) -> SearchStrategy[Stencil]:
    """Stencils, c = sum_k w_k f(x + e r_k u) / e; with `differences` those with sum_k w_k = 0."""
    plain: list[Stencil] = [CentralStencil(), ForwardStencil(), RichardsonStencil()]
    if not differences:
        plain.append(OnePointStencil())
    reaches = st.lists(st.integers(1, 8).map(lambda k: k / 4), min_size=1, max_size=3, unique=True).map(tuple)
    telescoping = st.builds(TelescopingStencil, st.just(0.5), st.integers(1, 4), st.booleans())
    return st.one_of(
        st.sampled_from(plain), st.builds(SymmetricStencil, reaches), st.builds(KernelStencil, kernels()), telescoping
    )


def line_estimators(most: int = 3) -> SearchStrategy[LineEstimator]:
    """LineEstimators g = sum_i c_i u_i of any law that a vector has, stencil, epsilon and n up to `most`."""
    return st.builds(LineEstimator, laws(isotropic=True), stencils(), epsilons(), st.integers(1, most))


def maps() -> SearchStrategy[CoefficientMap]:
    """Coefficient maps y = map(s) of the slopes of a step that suit any stencil and 4 lines, the identity first."""
    return st.one_of(
        st.sampled_from([IDENTITY, Sign()]),
        st.sampled_from([0.5, 100.0]).map(Clip),
        st.builds(Ranks, st.sampled_from(["linear", "logarithmic"]), st.none() | st.integers(1, 4)),
        st.sampled_from([0.0, 0.25]).map(Winsorise),
        st.builds(ZScore, groups=st.sampled_from([1, 2])),
    )


def mapped_estimators() -> SearchStrategy[LineEstimator]:
    """LineEstimators g = (1/n) sum_i y_i u_i of 4 lines, y = map(s), with stencils that the map fits."""
    fitting: list[SearchStrategy[tuple[Stencil, CoefficientMap]]] = [
        st.tuples(stencils(), maps()),
        st.just((ForwardStencil(), LossSpread())),
        st.just((CentralStencil(), PairSpread())),
        st.booleans().map(lambda free: (ThreePointStencil(), CurvatureWeight(0.5, free))),
    ]
    made = st.tuples(laws(isotropic=True), epsilons(), st.one_of(fitting))
    return made.map(lambda drawn: LineEstimator(drawn[0], drawn[2][0], drawn[1], 4, drawn[2][1]))


def rules() -> SearchStrategy[UpdateRule]:
    """SGD, momentum and Adam, x <- (1 - lr wd) x - lr step, with buffers or a window."""
    rate, decay = st.sampled_from([1e-2, 1.0, 0.0]), st.sampled_from([0.0, 0.1])
    windows = st.none() | st.integers(1, 4)
    return st.one_of(
        st.builds(SGD, rate, decay),
        st.builds(Momentum, rate, decay, beta=st.sampled_from([0.9, 0.0]), window=windows),
        st.builds(Adam, rate, decay, beta1=st.sampled_from([0.9, 0.0]), window=windows),
    )


def noises() -> SearchStrategy[NoiseModel]:
    """Noise of evaluations, f(x) + scale xi."""
    return st.sampled_from([0.0, 1e-3, 1.0]).map(Additive)


def module_shapes() -> SearchStrategy[ModuleShape]:
    """Modules with tied and frozen parameters, buffers and odd strides, in float64, float32 or bfloat16: call one for
    the module. They shrink to the plain one.
    """
    dtypes = st.sampled_from([torch.float64, torch.float32, torch.bfloat16])
    return st.builds(ModuleShape, *[st.booleans()] * 4, st.integers(1, 4), dtypes)


def layouts() -> SearchStrategy[Layout]:
    """Layouts of one to three tensors: scalars of size 1, vectors, matrices, cubes."""
    shapes = st.lists(st.integers(1, 3), max_size=3).map(tuple)
    return st.lists(shapes, min_size=1, max_size=3).map(Layout.of)


@st.composite
def plans(draw: DrawFn, law: Law | None = None) -> Plan:
    """Plans of n lines with m points x + offsets_ik u_i: offsets that are zero in some or in all places, base points
    that lines share, more lines than variables, directions by number out of order and twice.
    """
    law = draw(laws(isotropic=True)) if law is None else law
    n, m = draw(st.integers(1, 3 if law.orthogonal else 8)), draw(st.integers(1, 3))
    offsets, weights = (
        torch.tensor(draw(st.lists(numbers(1), min_size=n * m, max_size=n * m)), dtype=torch.float64, device=CPU)
        for _ in range(2)
    )
    numbered = st.lists(st.integers(0, 2), min_size=n, max_size=n).map(tuple)
    indices = draw(st.none() if law.orthogonal else st.none() | numbered)
    return Plan(law, draw(keys()), offsets.view(n, m), weights.view(n, m), indices=indices)
