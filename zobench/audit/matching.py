"""The composition of ours that an estimate is: laws and stencils found by its points and their weights, and confirmed
by moments.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from zobench import LineEstimator, theory
from zobench.audit import probing
from zobench.audit.probing import Probe
from zobench.audit.weights import Line, lines
from zobench.law import Gaussian
from zobench.problem import Problem
from zobench.stencil import (
    CentralStencil,
    FixedStencil,
    ForwardStencil,
    OnePointStencil,
    RichardsonStencil,
    SymmetricStencil,
)
from zobench.testing import Subject, examples
from zobench.testing.examples import Example
from zobench.testing.mean import LARGEST

KEYS = 20
SAME = 1e-3  # of a weight or a slope, under several keys
NAMED: tuple[FixedStencil, ...] = (CentralStencil(), ForwardStencil(), OnePointStencil(), RichardsonStencil())


@dataclass(frozen=True)
class WeightedStencil(FixedStencil):
    """Any nodes r_k, the nearest at 1, and weights w_k with sum_k w_k r_k = 1."""

    nodes: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()


class Part(NamedTuple):
    """`share` times an estimator of ours; `places` of its lines in a call of the target."""

    share: float
    estimator: LineEstimator
    places: tuple[int, ...] = ()


@dataclass(frozen=True)
class Match:
    """The target is sum_j share_j g_j with independent parts g_j, each of which has E g_j = grad f on linear f."""

    parts: tuple[Part, ...]
    target: Subject

    def __repr__(self) -> str:
        told = [repr(part.estimator) for part in self.parts]
        shares = [f"{part.share:.3g} " if len(told) > 1 else "" for part in self.parts]
        return " + ".join(map(str.__add__, shares, told))

    @property
    def composition(self) -> str:
        """Laws, stencils and numbers of lines."""
        count: Counter[str] = Counter()
        for _, one, _ in self.parts:
            count[f"{one.law!r} × {one.stencil!r}"] += one.n
        apart = ", at several displacements" if len(self.parts) > len(count) else ""
        return " + ".join(f"{name} × n = {n}" for name, n in count.items()) + apart

    @property
    def epsilon(self) -> float | None:
        """The displacement, where all lines have one."""
        found = {part.estimator.epsilon for part in self.parts}
        return found.pop() if len(found) == 1 else None

    def at(self, target: Subject, example: Example) -> "Match | None":
        """Return the match of the target with another epsilon; None where the weights there are no such sum."""
        own = target.estimator
        if isinstance(own, LineEstimator):
            return Match((Part(1.0, own),), target)
        if target.epsilon is None or self.target.epsilon is None:
            return self
        seen = _calls(target, example, sum(part.estimator.n for part in self.parts), keys=4)
        if not seen:
            return None
        ratio = target.epsilon / self.target.epsilon
        return Match(tuple(_moved(part, ratio, seen[0], example.f.dim) for part in self.parts), target)

    def mean(self, problem: Problem, x: Tensor) -> Tensor:
        """Return E g."""
        gradient = problem.gradient(x)
        rows = [share * (gradient + theory.bias(one, problem, x)) for share, one, _ in self.parts]
        return torch.stack(rows).sum(0)

    def covariance_trace(self, problem: Problem, x: Tensor) -> float:
        """Return E|g - E g|^2 = sum_j share_j^2 E|g_j - E g_j|^2."""
        return sum(share**2 * theory.covariance_trace(one, problem, x) for share, one, _ in self.parts)

    def predicted(self, problem: Problem, x: Tensor) -> dict[str, float | None]:
        """Return what theory predicts of the target; empty where it cannot."""
        try:
            gradient, mean, trace = problem.gradient(x), self.mean(problem, x), self.covariance_trace(problem, x)
        except (ValueError, TypeError, AttributeError):
            return {}
        ratio = sum(part.share for part in self.parts)
        return {
            "predicted_bias": float((mean - gradient).norm()),
            "predicted_beyond": float((mean - ratio * gradient).norm()),
            "predicted_covariance_trace": trace,
            "predicted_mse": trace + float((mean - gradient).square().sum()),
            "predicted_cosine": theory.cosine(self.parts[0].estimator, problem.dim) if len(self.parts) == 1 else None,
        }


def candidate(subject: Subject, found: Probe | None) -> Match | None:
    """Return the composition that looks where the target does, and weighs what it sees alike; it is still to be
    confirmed.
    """
    own = subject.estimator
    if isinstance(own, LineEstimator):
        return Match((Part(1.0, own),), subject)
    if found is None or found.law is None:
        return None
    seen = _calls(subject, examples.linear(found.directions.shape[-1]), found.lines, KEYS)
    if not seen or not all(map(_steady, zip(*seen, strict=True))):
        return None
    parts = tuple(_part(subject, found, places, seen[0]) for places in _alike(seen[0]))
    return None if found.law.orthogonal and len(parts) > 1 else Match(parts, subject)


def _calls(subject: Subject, example: Example, count: int, keys: int) -> list[list[Line]]:
    """The calls whose lines are so many; none where one is no sum of weights times values. Two directions of signs may
    be one line.
    """
    calls = [lines(subject, example, key) for key in range(keys)]
    return [call for call in calls if call and len(call) == count] if all(calls) else []


def _steady(column: Sequence[Line]) -> bool:
    """Whether a line is weighed alike under all keys."""
    first = column[0]
    return all(
        line.nodes == first.nodes and _close([*line.weights, line.slope], [*first.weights, first.slope])
        for line in column
    )


def _close(ones: Sequence[float], others: Sequence[float]) -> bool:
    return all(math.isclose(a, b, rel_tol=SAME, abs_tol=SAME) for a, b in zip(ones, others, strict=True))


def _alike(call: list[Line]) -> list[tuple[int, ...]]:
    """The places of the lines that are weighed alike."""
    found: list[list[int]] = []
    for place, line in enumerate(call):
        group = next((g for g in found if _steady([call[g[0]], line])), None)
        if group is None:
            found.append([place])
        else:
            group.append(place)
    return [tuple(group) for group in found]


def _part(subject: Subject, found: Probe, places: tuple[int, ...], call: list[Line]) -> Part:
    law, dim = found.law, found.directions.shape[-1]
    assert law is not None
    epsilon = math.sqrt(sum(found.lengths[place] ** 2 for place in places) / len(places)) / law.unit(dim)
    if isinstance(law, Gaussian) and subject.epsilon is not None:  # known from a sample, and hardly an odd number
        error = 1 / math.sqrt(2 * probing.KEYS * len(places) * dim)
        near = Fraction(epsilon / subject.epsilon).limit_denominator(max(2, found.lines))
        if abs(epsilon / subject.epsilon - near) < LARGEST * error * near:
            epsilon = float(near) * subject.epsilon
    line = call[places[0]]
    share = len(places) * line.slope * (epsilon * law.unit(dim)) ** 2
    return Part(share, LineEstimator(law, _stencil(line), epsilon, len(places)), places)


def _moved(part: Part, ratio: float, call: list[Line], dim: int) -> Part:
    """The part at `ratio` times its epsilon, where its slope is that of the call."""
    _, one, places = part
    epsilon = ratio * one.epsilon
    share = one.n * call[places[0]].slope * (epsilon * one.law.unit(dim)) ** 2
    return Part(share, LineEstimator(one.law, one.stencil, epsilon, one.n), places)


def _stencil(line: Line) -> FixedStencil:
    """The stencil of ours with these nodes and weights, by name where it has one."""
    reaches = tuple(r for r in line.nodes if r > 0)
    symmetric = (SymmetricStencil(reaches),) if sorted(-r for r in reaches) == [r for r in line.nodes if r < 0] else ()
    candidates: tuple[FixedStencil, ...] = (*NAMED, *symmetric)
    for known in candidates:
        pairs = sorted(zip(known.nodes, known.weights, strict=True))
        if [r for r, _ in pairs] == list(line.nodes) and _close([w for _, w in pairs], line.weights):
            return known
    return WeightedStencil(line.nodes, line.weights)


def confirmed(match: Match | None, example: Example, second_moment: float, error: float) -> Match | None:
    """Return the match if E|g|^2 / |grad f|^2 on a linear function is as theory predicts, within five errors."""
    if match is None:
        return None
    try:
        f, x, square = example.f, example.x, float(example.gradient @ example.gradient)
        predicted = (match.covariance_trace(f, x) + float(match.mean(f, x).square().sum())) / square
    except (ValueError, TypeError, AttributeError):
        return None
    slack = LARGEST * error + 1e-6 * predicted + 0.02 * predicted  # epsilon is known from a sample of points
    return match if abs(predicted - second_moment) <= slack else None
