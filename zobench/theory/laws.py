"""What a law of directions brings into theory: the expectations of products of D_a = D^a f(x)[u, ..., u].

A new law registers `odd_mean`, and for variances and descent `product`, `curved` and `quartic`. For laws with
independent entries they follow from the cumulants of one entry, for the sphere from those of the Gaussian, degree by
degree.
"""

from functools import singledispatch

import torch
from torch import Tensor

from zobench.law import Coordinate, Gaussian, Isotropic, Rademacher, RandomMask, Sphere, Uniform
from zobench.layout import CPU
from zobench.problem import Problem, Ridges, demand
from zobench.theory import independent, ridge_moments
from zobench.theory.lines import Lines, radial
from zobench.theory.ridge_moments import NormalMoments, normal_moment, sign_mean, sign_moments, sign_quadratic_mean


@singledispatch
def odd_mean(law: Isotropic, problem: Problem, x: Tensor, j: int) -> Tensor:
    """Return E[D_j u], float64 (d,), at x (d,), for odd j.

    Under a Gaussian it is j! / (2^k k!) grad(Lap^k f), k = (j - 1) / 2.

    Raises:
        TypeError: no theory of the law is registered.
        MissingDerivativeError: the problem lacks a derivative that the law needs.
    """
    raise TypeError(f"no theory of the law {law!r}: register theory.odd_mean for {type(law).__name__}")


@odd_mean.register
def _(law: Gaussian, problem: Problem, x: Tensor, j: int) -> Tensor:
    """The gradient of Lap^k f times j! / (2^k k!), k = (j - 1) / 2."""
    why = f"the bias of order epsilon^{j - 1} under {law!r}"
    if getattr(problem, "grad_laplacian", None) is None and getattr(problem, "ridges", None) is not None:
        return ridge_moments.normal_odd_mean(Lines(problem, x).ridges(j, why), j)
    gradient: Tensor = demand(problem, "grad_laplacian", why)(x, order=(j - 1) // 2)
    return gradient * _odd_factorial(j)


def _odd_factorial(j: int) -> float:
    """1 * 3 * ... * j = j! / (2^k k!)."""
    return float(torch.arange(1, j + 1, 2, dtype=torch.float64, device=CPU).prod())


@odd_mean.register
def _(law: Sphere, problem: Problem, x: Tensor, j: int) -> Tensor:
    gaussian: Tensor = odd_mean(Gaussian(), problem, x, j)
    return radial(problem.dim, j + 1) * gaussian


@odd_mean.register
def _(law: Coordinate, problem: Problem, x: Tensor, j: int) -> Tensor:
    along = Lines(problem, x).axis_derivatives(j, f"the prediction of order {j} under {law!r}")
    return float(problem.dim ** ((j - 1) / 2)) * along


@odd_mean.register
def _(law: Rademacher, problem: Problem, x: Tensor, j: int) -> Tensor:
    """3 grad Lap f - 2 f_iii for j = 3: the coefficient of e^(j-1) / j! in tanh(e d_i)/e prod_k cosh(e d_k) f, d_i a
    partial derivative.
    """
    lines = Lines(problem, x)
    if lines.knows("ridges"):
        return ridge_moments.sign_odd_mean(lines.ridges(j, f"the bias under {law!r}"), j)
    full, axis = odd_mean(Gaussian(), problem, x, j), lines.axis_derivatives(j, f"the bias of order {j} under {law!r}")
    if j == 3:
        return full - 2 * axis
    third_second, first_fourth = _mixed_fifth(problem, x, axis)
    return full - 10 * first_fourth - 20 * third_second + 16 * axis


@odd_mean.register(Uniform)
@odd_mean.register(RandomMask)
def _(law: Uniform | RandomMask, problem: Problem, x: Tensor, j: int) -> Tensor:
    """3 grad Lap f + kappa_4 f_iii for j = 3; above it, and where ridges are known, by the cumulants of an entry."""
    lines, table, why = Lines(problem, x), independent.entry_cumulants(law), f"the bias of order {j} under {law!r}"
    if j == 3 and not lines.knows("ridges"):
        return odd_mean(Gaussian(), problem, x, j) + table[4] * lines.axis_derivatives(j, why)
    return ridge_moments.sign_odd_mean(lines.ridges(j, why), j, table)


def _mixed_fifth(problem: Problem, x: Tensor, axis: Tensor) -> tuple[Tensor, Tensor]:
    """sum_j d_i^3 d_j^2 f and sum_j d_i d_j^4 f, both (d,), from derivatives along c e_i ± e_j (O(d^2) of them)."""
    eye = torch.eye(problem.dim, dtype=torch.float64, device=CPU)
    derivative = demand(problem, "derivative", "the bias of order epsilon^4 under Rademacher()")

    def even_part(c: float) -> Tensor:  # c^5 d_i^5 + 10 c^3 d_i^3 d_j^2 + 5 c d_i d_j^4
        plus, minus = (derivative(x, c * eye[:, None] + sign * eye[None, :], 5) for sign in (1.0, -1.0))
        mixed: Tensor = (plus + minus) / 2 - c**5 * axis[:, None]
        return mixed

    one, two = even_part(1.0), even_part(2.0)
    third_second, first_fourth = (two - 2 * one) / 60, (8 * one - two) / 30
    return third_second.sum(1), first_fourth.sum(1)


@singledispatch
def product(law: Isotropic, lines: Lines, a: int, b: int) -> float:
    """Return E[D_a D_b |u|^2] at the point of `lines`, a <= b of equal parity.

    Raises:
        TypeError: no theory of the law is registered.
        MissingDerivativeError: the problem declares neither ridges nor, for a = 1, the derivative that the bias needs.
    """
    if a == b == 1:
        return law.fourth_moment(lines.dim) * float(lines.gradient @ lines.gradient)
    if a == 1 and not lines.knows("ridges"):
        return lines.dim * float(lines.gradient @ odd_mean(law, lines.problem, lines.x, b))
    return lines.dim * _expected(law, lines, a, b)


@product.register
def _(law: Gaussian, lines: Lines, a: int, b: int) -> float:
    """(d + a + b) E[D_a D_b], by Euler's theorem for a homogeneous polynomial."""
    if a == 1 < b:
        return (lines.dim + 1 + b) * float(lines.gradient @ odd_mean(law, lines.problem, lines.x, b))
    return (lines.dim + a + b) * _expected(law, lines, a, b)


@product.register
def _(law: Coordinate, lines: Lines, a: int, b: int) -> float:
    left, right = (lines.axis_derivatives(order, f"the variance under {law!r}") for order in (a, b))
    return float(lines.dim ** ((a + b) / 2)) * float(left @ right)


@product.register(Uniform)
@product.register(RandomMask)
def _(law: Uniform | RandomMask, lines: Lines, a: int, b: int) -> float:
    if a == b == 1:
        return law.fourth_moment(lines.dim) * float(lines.gradient @ lines.gradient)
    eye = torch.eye(lines.dim, dtype=torch.float64, device=CPU)
    return _with_form(law, lines, eye, a, b, f"the variance under {law!r}")


def _with_form(law: Isotropic, lines: Lines, weight: Tensor, a: int, b: int, why: str) -> float:
    """E[D_a D_b u^T W u] for independent entries, by their cumulants."""
    left, right = (lines.ridges(order, why) for order in (a, b))
    joint = lines.joint(independent.moments_of(law), left, right)
    return joint.contract_with(weight, left.coefficients, a, b, right.coefficients)


@singledispatch
def _expected(law: Isotropic, lines: Lines, a: int, b: int) -> float:
    """E[D_a D_b]."""
    raise TypeError(f"no theory of the variance under {law!r}: register theory.laws.product for {type(law).__name__}")


@_expected.register
def _(law: Gaussian, lines: Lines, a: int, b: int) -> float:
    why = f"the variance under {law!r}"
    if 2 not in (a, b) or not lines.knows("hessian"):
        left, right = (lines.ridges(order, why) for order in (a, b))
        return lines.joint(NormalMoments, left, right).contract(left.coefficients, a, b, right.coefficients)
    hessian = lines.hessian(why)
    if a == b:
        return quartic(law, hessian, hessian)
    order = a + b - 2
    return _quadratic_and_powers(hessian, lines.ridges(order, why), order)


def _quadratic_and_powers(weight: Tensor, ridges: Ridges, b: int) -> float:
    """E[u^T W u sum_k c_k (w_k . u)^b] for normal u."""
    c, w = ridges
    norms, along = w.norm(dim=1), ((w @ weight) * w).sum(1)
    plain = float(weight.trace()) * normal_moment(b) * float(c @ norms**b)
    return plain + (b * (b - 1) * normal_moment(b - 2) * float((c * along) @ norms ** (b - 2)) if b >= 2 else 0.0)


@_expected.register
def _(law: Sphere, lines: Lines, a: int, b: int) -> float:
    return radial(lines.dim, a + b) * _expected(Gaussian(), lines, a, b)


@_expected.register
def _(law: Rademacher, lines: Lines, a: int, b: int) -> float:
    why = f"the variance under {law!r}"
    if 2 not in (a, b) or not lines.knows("hessian"):
        left, right = (lines.ridges(order, why) for order in (a, b))
        return lines.joint(sign_moments, left, right).contract(left.coefficients, a, b, right.coefficients)
    hessian = lines.hessian(why)
    if a == b:
        return quartic(law, hessian, hessian)
    order = a + b - 2
    other = lines.ridges(order, why)
    return float(hessian.trace()) * sign_mean(other, order) + sign_quadratic_mean(_apart(hessian), other, order)


def _apart(matrix: Tensor) -> Tensor:
    """The matrix without its diagonal."""
    return matrix - torch.diag(matrix.diagonal())


@singledispatch
def quartic(law: Isotropic, left: Tensor, right: Tensor) -> float:
    """Return E[u^T L u u^T R u] for symmetric L = `left` and R = `right`, (d, d); with R = I it is fourth_moment(d)
    tr L.

    Raises:
        TypeError: no theory of the law is registered.
    """
    raise TypeError(f"no theory of descent under {law!r}: register theory.laws.quartic for {type(law).__name__}")


@quartic.register
def _(law: Gaussian, left: Tensor, right: Tensor) -> float:
    return float(left.trace() * right.trace() + 2 * (left * right).sum())


@quartic.register
def _(law: Sphere, left: Tensor, right: Tensor) -> float:
    return radial(len(left), 4) * quartic(Gaussian(), left, right)


@quartic.register
def _(law: Rademacher, left: Tensor, right: Tensor) -> float:
    return quartic(Gaussian(), left, right) - 2 * float(left.diagonal() @ right.diagonal())


@quartic.register(Uniform)
@quartic.register(RandomMask)
def _(law: Uniform | RandomMask, left: Tensor, right: Tensor) -> float:
    fourth = independent.entry_cumulants(law)[4]
    return quartic(Gaussian(), left, right) + fourth * float(left.diagonal() @ right.diagonal())


@quartic.register
def _(law: Coordinate, left: Tensor, right: Tensor) -> float:
    return len(left) * float(left.diagonal() @ right.diagonal())


@singledispatch
def curved(law: Isotropic, lines: Lines, weight: Tensor, a: int, b: int) -> float:
    """Return E[D_a D_b u^T W u] at the point of `lines`, a <= b of equal parity, for a symmetric W = `weight`, (d, d).

    Raises:
        TypeError: no theory of the law is registered.
        MissingDerivativeError: the problem lacks a derivative that the law needs.
    """
    raise TypeError(f"no theory of descent under {law!r}: register theory.laws.curved for {type(law).__name__}")


@curved.register
def _(law: Gaussian, lines: Lines, weight: Tensor, a: int, b: int) -> float:
    """E[F u^T W u] = tr W E[F] + E[tr W F''], F = (v . u)^a (w . u)^b: Stein's identity, twice."""
    why = f"the expected descent under {law!r}"
    if 2 in (a, b) and lines.knows("hessian"):
        hessian = lines.hessian(why)
        if a == b:
            return _three_quadratics(hessian, weight)
        return _curved_quadratic(hessian, weight, lines.ridges(a + b - 2, why), a + b - 2)
    left, right = (lines.ridges(order, why) for order in (a, b))
    c, e = left.coefficients, right.coefficients
    joint = lines.joint(NormalMoments, left, right)
    own, across, other = joint.pressed(weight)
    total = float(weight.trace()) * joint.contract(c, a, b, e)
    if a >= 2:
        total += a * (a - 1) * joint.contract(c * own, a - 2, b, e)
    if b >= 2:
        total += b * (b - 1) * joint.contract(c, a, b - 2, e * other)
    return total + 2 * a * b * joint.contract(c, a - 1, b - 1, e, across) if a else total


def _three_quadratics(hessian: Tensor, weight: Tensor) -> float:
    """E[(u^T H u)^2 u^T W u] for normal u."""
    h, w, hh = float(hessian.trace()), float(weight.trace()), float(hessian.square().sum())
    hw, hhw = float((hessian * weight).sum()), float((hessian @ hessian * weight).sum())
    return h * h * w + 2 * w * hh + 4 * h * hw + 8 * hhw


def _curved_quadratic(hessian: Tensor, weight: Tensor, ridges: Ridges, b: int) -> float:
    """E[u^T H u u^T W u sum_k c_k (w_k . u)^b] for normal u, by Wick's theorem; b even."""
    c, w = ridges
    bent, pressed = w @ hessian, w @ weight
    h, k, both = (bent * w).sum(1), (pressed * w).sum(1), (bent * pressed).sum(1)
    norms, trace, other = w.norm(dim=1), float(hessian.trace()), float(weight.trace())
    total = quartic(Gaussian(), hessian, weight) * normal_moment(b) * float(c @ norms**b)
    if b >= 2:
        once = (h * other + k * trace + 4 * both) * c
        total += b * (b - 1) * normal_moment(b - 2) * float(once @ norms ** (b - 2))
    if b >= 4:
        total += b * (b - 1) * (b - 2) * (b - 3) * normal_moment(b - 4) * float((c * h * k) @ norms ** (b - 4))
    return total


@curved.register
def _(law: Sphere, lines: Lines, weight: Tensor, a: int, b: int) -> float:
    return radial(lines.dim, a + b + 2) * curved(Gaussian(), lines, weight, a, b)


@curved.register(Uniform)
@curved.register(RandomMask)
def _(law: Uniform | RandomMask, lines: Lines, weight: Tensor, a: int, b: int) -> float:
    return _with_form(law, lines, weight, a, b, f"the expected descent under {law!r}")


@curved.register
def _(law: Coordinate, lines: Lines, weight: Tensor, a: int, b: int) -> float:
    left, right = (lines.axis_derivatives(order, f"the expected descent under {law!r}") for order in (a, b))
    return float(lines.dim ** ((a + b) / 2)) * float(left * right @ weight.diagonal())


@curved.register
def _(law: Rademacher, lines: Lines, weight: Tensor, a: int, b: int) -> float:
    """E[D_a D_b] tr W, as u_i^2 = 1, and what the entries of W off its diagonal add."""
    return float(weight.trace()) * _expected(law, lines, a, b) + _off_diagonal(lines, _apart(weight), a, b)


def _off_diagonal(lines: Lines, off: Tensor, a: int, b: int) -> float:
    """E[D_a D_b u^T W u] for W with an empty diagonal and a + b <= 4; products of higher degree are left out."""
    why = "the expected descent under Rademacher()"
    if not bool(off.any()) or a + b > 4:
        return 0.0
    if a == 0:
        return lines.value * sign_quadratic_mean(off, lines.ridges(b, why), b)
    if a == 2:
        hessian = lines.hessian(why)
        apart = _apart(hessian)
        return 4 * float(hessian.trace() * (apart * off).sum()) + 8 * float((apart @ apart * off).sum())
    g = lines.gradient
    if b == 1:
        return 2 * float(g @ off @ g)
    c, w = lines.ridges(3, why)
    bent = w @ off
    distinct = (w @ g) * (bent * w).sum(1) - 2 * (bent * w**2) @ g
    return 2 * float(off @ g @ ridge_moments.sign_odd_mean(lines.ridges(3, why), 3)) + 6 * float(c @ distinct)


def quadratics_known(law: Isotropic, lines: Lines) -> bool:
    """Return whether E[D_2^2 |u|^2] is known without ridges: from the Hessian, under the laws of this file."""
    return lines.knows("hessian") and isinstance(law, Gaussian | Sphere | Rademacher | Coordinate)


def products_known(law: Isotropic, lines: Lines) -> bool:
    """Return whether E[D_a D_b |u|^2] is known for all orders a, b."""
    return lines.knows("ridges") or (isinstance(law, Coordinate) and lines.knows("derivative"))
