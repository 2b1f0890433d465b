"""The composition of ours that an estimate is: a law, a stencil and n, found by its points and confirmed by moments."""

from dataclasses import dataclass
from typing import Any

from zobench import LineEstimator, theory
from zobench.audit.probing import Probe
from zobench.problem import Problem
from zobench.testing import Subject
from zobench.testing.examples import Example
from zobench.testing.mean import LARGEST


@dataclass(frozen=True)
class Match:
    """`estimator` has E g = m grad f to first order where the target has `ratio` m grad f; `reach` is its epsilon in
    units of the target's.
    """

    estimator: LineEstimator
    ratio: float
    reach: float | None

    def at(self, epsilon: float | None) -> LineEstimator:
        """Return the estimator at an epsilon of the target."""
        one = self.estimator
        if epsilon is None or self.reach is None:
            return one
        return LineEstimator(one.law, one.stencil, epsilon * self.reach, one.n)

    def predicted(self, epsilon: float | None, problem: Problem, x: Any) -> dict[str, float | None]:
        """Return what theory predicts of the target; empty where it cannot."""
        one = self.at(epsilon)
        try:
            gradient = problem.gradient(x)
            mean = self.ratio * (gradient + theory.bias(one, problem, x))
            trace = self.ratio**2 * theory.covariance_trace(one, problem, x)
        except (ValueError, TypeError, AttributeError):
            return {}
        return {
            "predicted_bias": float((mean - gradient).norm()),
            "predicted_beyond": float((mean - self.ratio * gradient).norm()),
            "predicted_covariance_trace": trace,
            "predicted_mse": trace + float((mean - gradient).square().sum()),
            "predicted_cosine": theory.cosine(one, problem.dim),
        }


def candidate(subject: Subject, probed: Probe | None, ratio: float) -> Match | None:
    """Return the composition that looks where the target does; it is still to be confirmed."""
    own = subject.estimator
    if isinstance(own, LineEstimator):
        return Match(own, 1.0, None if subject.epsilon is None else own.epsilon / subject.epsilon)
    if probed is None or probed.law is None or probed.stencil is None:
        return None
    dim = probed.directions.shape[-1]
    epsilon = probed.length / probed.law.unit(dim)
    try:
        one = LineEstimator(probed.law, probed.stencil, epsilon, probed.lines)
    except ValueError:
        return None
    return Match(one, ratio, None if subject.epsilon is None else epsilon / subject.epsilon)


def confirmed(match: Match | None, example: Example, second_moment: float, error: float) -> Match | None:
    """Return the match if E|g|^2 / |grad f|^2 on a linear function is as theory predicts, within five errors."""
    if match is None:
        return None
    try:
        square = float(example.gradient @ example.gradient)
        predicted = match.ratio**2 * theory.second_moment(match.estimator, example.f, example.x) / square
    except (ValueError, TypeError, AttributeError):
        return None
    slack = LARGEST * error + 1e-6 * predicted + 0.02 * predicted  # epsilon is known from a sample of points
    return match if abs(predicted - second_moment) <= slack else None
