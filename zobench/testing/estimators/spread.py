"""Second moments: of the stencil's draws, of one estimate, and of n directions."""

import math
from collections.abc import Callable
from functools import partial

from torch import Tensor

from zobench import theory
from zobench.estimator import LineEstimator
from zobench.plan import LOSSES, Plan
from zobench.random.keys import derive
from zobench.stencil import StencilRule
from zobench.testing import examples
from zobench.testing.check import Check, Level
from zobench.testing.mean import LARGEST, scalar_z
from zobench.testing.report import Finding, NotApplicableError
from zobench.testing.subject import Subject

MOMENTS = (0, 1, 2, 3)
MANY, DEGREE = 4, 14
ROUNDING = 1e-9


def stencil(subject: Subject, level: Level) -> Finding:
    """The moments of drawn nodes and weights against those that the stencil declares."""
    one = subject.estimator
    if not isinstance(one, LineEstimator) or one.stencil.asks != LOSSES:
        raise NotApplicableError("it has no stencil of points")
    count, rule, declares = 20 * level.single, one.stencil.quadrature(DEGREE), one.stencil
    plan = one.ask(derive("zobench.testing", "stencil"), one.init(), (count,))
    drawn = StencilRule(plan.offsets[:0], *(part[:, 0] for part in (plan.offsets / one.epsilon, _weights(one, plan))))
    compared: list[tuple[str, Callable[[StencilRule], Tensor], float]] = [
        ("E[(sum_k w_k r_k)^2]", lambda r: r.power_sums(1) ** 2, declares.slope_second_moment()),
        ("E[sum_k w_k^2]", lambda r: r.weights.square().sum(-1), declares.noise_second_moment()),
    ]
    for j in MOMENTS:
        compared.append((f"E sum_k w_k r_k^{j}", partial(StencilRule.power_sums, j=j), declares.moment(j)))
    for name, of, wanted in compared:
        values, outcomes = of(drawn), of(rule)
        mean, error, z = scalar_z(values, wanted, _deviation(rule, outcomes, count))
        if not z < LARGEST:
            sentence = f"{name} of draws is {mean:.6g} (± {error:.2g}), {wanted:g} is declared"
            return Finding(sentence, False, repr(declares), f"n = {count}, z = {z:.3g}")
    return Finding(f"moments 0 to {MOMENTS[-1]} and both second moments are those declared, n = {count}", True)


def _weights(one: LineEstimator, plan: Plan) -> Tensor:
    """The weights w of the stencil, from those of the plan."""
    return plan.weights * one.epsilon * one.n


def _deviation(rule: StencilRule, values: Tensor, count: int) -> float:
    """The error of a mean under the declared law, which draws of rare outcomes do not show; and that of rounding."""
    variance = rule.mean(values.square()) - rule.mean(values) ** 2
    rounding = ROUNDING * (1.0 + float(values.abs().max()))
    return math.sqrt(max(variance, 0.0) / count) + rounding


def second_moment(subject: Subject, level: Level) -> Finding:
    """E|g|^2 on a linear function, and for a LineEstimator the covariance on a quadratic one, against theory."""
    declared = subject.promises.second_moment
    dim = max(3, subject.least_dim)
    example = examples.linear(dim)
    square = float(example.gradient @ example.gradient)
    key, count = derive("zobench.testing", "second moment"), subject.count(level)
    norms = subject.samples(example.f, example.x, key, count).square().sum(-1) / square
    if declared is None and not _has_theory(subject):
        mean, error, _ = scalar_z(norms, 0.0)
        return Finding(f"E|g|^2 = {mean:.4g} |grad f|^2 (± {error:.2g}) on {example.f!r}", True)
    if declared is not None:
        mean, error, z = scalar_z(norms, declared(dim))
        sentence = f"E|g|^2 = {mean:.4g} |grad f|^2 (± {error:.2g}), {declared(dim):.4g} is declared"
        return Finding(sentence, z < LARGEST, str(example), f"n = {count}, z = {z:.3g}, key = {key}")
    return _against_theory(subject, level)


def _has_theory(subject: Subject) -> bool:
    """Whether theory predicts the estimator: asked of a linear problem."""
    example = examples.linear(max(3, subject.least_dim))
    try:
        theory.covariance_trace(subject.estimator, example.f, example.x)
    except (TypeError, ValueError, AttributeError):
        return False
    return True


def _against_theory(subject: Subject, level: Level) -> Finding:
    key, count = derive("zobench.testing", "covariance"), subject.count(level)
    shown = []
    for problem in (examples.linear, examples.quadratic):
        example = problem(max(3, subject.least_dim))
        rows = subject.samples(example.f, example.x, key, count)
        mean = example.gradient + theory.bias(subject.estimator, example.f, example.x)
        try:
            predicted = theory.covariance_trace(subject.estimator, example.f, example.x)
        except TypeError:  # of a law of one's own theory knows what it declares: linear functions
            continue
        square, error, z = scalar_z((rows - mean).square().sum(-1), predicted)
        shown.append(f"{square:.5g} (± {error:.2g}), predicted {predicted:.5g}, on {example.f!r}")
        if not z < LARGEST and abs(square - predicted) > 1e-9 * float(mean @ mean):
            return Finding(f"E|g - E g|^2 = {shown[-1]}", False, str(example), f"n = {count}, z = {z:.3g}, key = {key}")
    return Finding(f"E|g - E g|^2 = {shown[0]}", True)


def directions(subject: Subject, level: Level) -> Finding:
    """The covariance of 1 and of 4 directions."""
    one = subject.with_directions(1)
    law = None if one is None or one.estimator is None else one.estimator.ask(0, one.estimator.init()).law
    orthogonal = law is not None and law.orthogonal
    dim = max(MANY, 4)
    many = subject.with_directions(MANY)
    if one is None or many is None:
        raise NotApplicableError("the number of directions is no option n")
    example, count = examples.linear(dim), subject.count(level)
    m = 1.0 if subject.promises.mean is None else subject.promises.mean
    square = float(example.gradient @ example.gradient)
    squares = []
    for each, n in ((one, 1), (many, MANY)):
        rows = each.samples(example.f, example.x, derive("zobench.testing", "directions", n), count)
        off = rows - (m * example.gradient if subject.promises.mean is not None else rows.mean(0))
        squares.append(off.square().sum(-1) / square)
    means = [float(each.mean()) for each in squares]
    kept = m**2 * (1 - 1 / MANY) if orthogonal else 0.0  # E|g_n|^2 = E|g|^2 / n: they share no part
    wanted = means[0] / MANY - kept
    error = math.sqrt(sum(float(f.var()) / count / s**2 for f, s in zip(squares, (MANY, 1), strict=True)))
    z = abs(means[1] - wanted) / (error + 1e-9 * means[0])
    text = f"E|g - E g|^2 = {means[0]:.4g} |grad f|^2 for n = 1, {means[1]:.4g} for n = {MANY}, expected {wanted:.4g}"
    return Finding(text, z < LARGEST, str(example), f"{count} samples, z = {z:.3g}")


CHECKS = (
    Check("stencil", "drawn nodes and weights have the moments m_j, E[(sum w r)^2] and E[sum w^2] declared", stencil),
    Check("second-moment", "E|g|^2 is the declared one: theory's covariance, or second_moment(d) |grad f|^2",
          second_moment, "second_moment, or a LineEstimator along a law with a fourth moment",
          lambda s: s.promises.second_moment is not None or _has_theory(s)),
    Check("directions", "n directions have 1 / n of the covariance; orthogonal ones less by (1 - 1/n) |E g|^2",
          directions, "directions: a field n", lambda s: s.promises.directions),
)  # fmt: skip
