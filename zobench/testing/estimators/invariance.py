"""What a change of f, of x or of both does to the estimate under the same key."""

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from zobench.problems import polynomial
from zobench.random.keys import derive
from zobench.testing import examples
from zobench.testing.check import Check, Level
from zobench.testing.examples import Example
from zobench.testing.mean import LARGEST
from zobench.testing.report import Finding, NotApplicableError
from zobench.testing.subject import Function, Subject

CLOSE = 1e-6
SCALE = 4.0  # a power of 2: points and differences round alike


class _Pair(NamedTuple):
    """An estimate, what it should be, and how the problem was changed."""

    found: Tensor
    wanted: Tensor
    change: str
    key: int


def _compared(example: Example, pairs: Iterator[_Pair]) -> Finding | None:
    """The finding of the first pair that differs by more than rounding."""
    for estimate, wanted, change, key in pairs:
        size = max(float(wanted.norm()), float(example.gradient.norm()))
        if not float((estimate - wanted).norm()) < CLOSE * size:
            sentence = f"{estimate.tolist()}, not {wanted.tolist()}, with {change}"
            return Finding(sentence, False, str(example), f"key = {key}")
    return None


def shift(subject: Subject, level: Level) -> Finding:
    """Add constants to f."""

    def pairs(example: Example) -> Iterator[_Pair]:
        for key in range(level.keys):
            wanted = subject.estimate(example.f, example.x, key)
            for c in (1.0, -30.0):
                estimate = subject.estimate(lambda x, c=c: example.f(x) + c, example.x, key)  # type: ignore[misc]
                yield _Pair(estimate, wanted, f"{c:g} added to f", key)

    return _of_all(subject, pairs, "adding a constant to f changes nothing")


def linear(subject: Subject, level: Level) -> Finding:
    """Scale f, negate it, and add another function."""

    def pairs(example: Example) -> Iterator[_Pair]:
        other = examples.quadratic(example.f.dim).f
        for key in range(level.keys):
            one, two = (subject.estimate(f, example.x, key) for f in (example.f, other))
            for a, b in ((3.0, 0.0), (-2.0, 0.0), (1.0, 1.0), (0.5, -2.0)):
                found = subject.estimate(_combined(example.f, other, a, b), example.x, key)
                yield _Pair(found, a * one + b * two, f"{a:g} f + {b:g} h, h = {other!r}, for f", key)

    return _of_all(subject, pairs, "linear in f")


def _combined(f: Function, other: Function, a: float, b: float) -> Function:
    return lambda x: a * f(x) + b * other(x)


def rescaling(subject: Subject, level: Level) -> Finding:
    """Stretch space, and epsilon with it."""
    if subject.epsilon is None:
        raise NotApplicableError("it has no epsilon")
    wide = subject.at(SCALE * subject.epsilon)

    def pairs(example: Example) -> Iterator[_Pair]:
        for key in range(level.keys):
            found = wide.estimate(lambda x: example.f(x / SCALE), SCALE * example.x, key)
            wanted = subject.estimate(example.f, example.x, key) / SCALE
            yield _Pair(found, wanted, f"x and epsilon times {SCALE:g}, f(x / {SCALE:g}) for f", key)

    return _of_all(subject, pairs, f"x and epsilon times {SCALE:g} divide the estimate by {SCALE:g}")


def _of_all(subject: Subject, pairs, sentence: str) -> Finding:  # type: ignore[no-untyped-def]
    for example in examples.all_of(subject.least_dim):
        failed = _compared(example, pairs(example))
        if failed is not None:
            return failed
    return Finding(sentence, True)


def rotation(subject: Subject, level: Level) -> Finding:
    """E (g . v)^2 / |v|^4 on f = v . x, for v along an axis and along a diagonal."""
    dim = max(2, subject.least_dim)
    axis, diagonal = polynomial("x0", dim), polynomial(" + ".join(f"x{i}" for i in range(dim)), dim)
    count, x = subject.count(level), 0.0 * examples.point(dim)  # where f is 0, which one evaluation sees
    estimates = []
    for f in (axis, diagonal):
        v = f.gradient(x)
        rows = subject.samples(f, x, derive("zobench.testing", "rotation", repr(f)), count)
        estimates.append((rows @ v / (v @ v)).square())
    means = [float(squares.mean()) for squares in estimates]
    error = float(sum(squares.var() / count for squares in estimates)) ** 0.5 + 1e-9 * max(means)
    z = abs(means[0] - means[1]) / error
    sentence = f"E (g . v)^2 / |v|^4 is {means[0]:.4g} along an axis, {means[1]:.4g} along a diagonal"
    return Finding(sentence, z < LARGEST, f"f = {axis!r} and f = {diagonal!r}", f"n = {count}, z = {z:.3g}")


CHECKS = (
    Check("shift", "g of f + c is g of f", shift, "shift: the weights of a line sum to 0", lambda s: s.promises.shift),
    Check("linear", "g of a f + b h is a g of f + b g of h", linear, "linear", lambda s: s.promises.linear),
    Check("rescaling", "f(x / s) at s x with s epsilon has g / s", rescaling, "linear", lambda s: s.promises.rescaling),
    Check("rotation", "E (g . v)^2 on f = v . x depends on |v| alone", rotation, "a law with Q u ~ u",
          lambda s: s.promises.rotation),
)  # fmt: skip
