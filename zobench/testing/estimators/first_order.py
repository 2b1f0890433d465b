"""E[g] on functions whose gradient differences find exactly."""

from collections.abc import Callable, Iterator

from torch import Tensor

from zobench.testing import examples
from zobench.testing.check import Check, Level
from zobench.testing.examples import Example
from zobench.testing.factor import Ratio, name_factor
from zobench.testing.mean import LARGEST, Mean, mean_of
from zobench.testing.report import Finding
from zobench.testing.scale import ratio_of
from zobench.testing.subject import Subject


def first_order(subject: Subject, level: Level) -> Finding:
    """E[g] on linear functions."""
    return _on(subject, level, examples.linear)


def quadratic(subject: Subject, level: Level) -> Finding:
    """E[g] on quadratic functions."""
    return _on(subject, level, examples.quadratic)


def _on(subject: Subject, level: Level, problem: Callable[[int], Example]) -> Finding:
    m = 1.0 if subject.promises.mean is None else subject.promises.mean
    for dim in examples.sizes(subject.least_dim, (1, 3)):
        example = problem(dim)
        mean, wanted = mean_of(subject, example, level), m * example.gradient
        if not mean.z(wanted) < LARGEST:
            return Finding(_told(subject, example, mean, level), False, str(example), mean.evidence(wanted))
    return Finding(f"E[g] = {'' if m == 1 else f'{m:g} '}grad f, {mean.evidence(wanted)}", True)


def _told(subject: Subject, example: Example, mean: Mean, level: Level) -> str:
    """What E[g] is in place of the gradient: a multiple, whose factor is named, or a vector across."""
    ratio, error = mean.along(example.gradient)
    across = Mean(mean.value - ratio * example.gradient, mean.error, mean.samples, mean.key)
    zero: Tensor = 0.0 * example.gradient
    if not across.z(zero) < LARGEST:
        return f"E[g] = {mean.value.tolist()}, not along grad f = {example.gradient.tolist()}"
    named = name_factor(list(ratios(subject, level)))
    return f"E[g] = {ratio:.3g} grad f (± {error:.2g})" + (f", which {named}" if named else "")


def ratios(subject: Subject, level: Level) -> Iterator[Ratio]:
    """Yield r in E[g] = r grad f on linear functions in several dimensions and at several epsilons, which tell factors
    apart; relative to the mean that is promised.
    """
    m = subject.promises.mean or 1.0
    plain = [subject] if subject.epsilon is None else [subject, subject.at(subject.epsilon / 8)]
    for dim in sorted({max(3, subject.least_dim), max(5, subject.least_dim)}):
        for one in plain:
            ratio = ratio_of(one, dim, subject.count(level) // dim)
            yield ratio._replace(value=ratio.value / m, error=ratio.error / abs(m))


CHECKS = (
    Check("first-order", "E[g] = m grad f on linear f, m = 1 unless declared: E[u u^T] = I, sum_k w_k r_k = 1",
          first_order, "a mean: linear, by the law's and the stencil's first moments",
          lambda s: s.promises.mean is not None),
    Check("quadratic", "E[g] = m grad f on quadratic f, since u ~ -u", quadratic,
          "a mean, and directions with u ~ -u",
          lambda s: s.promises.mean is not None and s.promises.quadratic),
)  # fmt: skip
