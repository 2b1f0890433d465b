"""What an estimate depends on: its key, and nothing else that is random."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from zobench.random.keys import derive
from zobench.testing import examples
from zobench.testing.check import Check, Level
from zobench.testing.examples import Example
from zobench.testing.function_subject import global_states, globally_seeded
from zobench.testing.report import Finding, NotApplicableError
from zobench.testing.subject import Subject

SHARE = 1e-6
WIDE, KEYS, DISTINCT = 64, 16, 0.6


def determinism(subject: Subject, level: Level) -> Finding:
    """Ask under two keys by turns, twice."""
    for example in examples.all_of(subject.least_dim):
        keys = [derive("zobench.testing", "determinism", i) for i in range(level.keys)]
        first, again = ([subject.estimate(example.f, example.x, key) for key in keys] for _ in range(2))
        for key, one, other in zip(keys, first, again, strict=True):
            if not torch.equal(one, other):
                sentence = f"{one.tolist()} and {other.tolist()} under one key"
                return Finding(sentence, False, str(example), f"key = {key}")
    return Finding("equal to the bit under one key, also after other keys", True)


def other_keys(subject: Subject, level: Level) -> Finding:
    """Points of several keys, in a dimension in which few of them coincide by chance."""
    example = examples.linear(max(WIDE, subject.least_dim))
    keys = [derive("zobench.testing", "keys", i) for i in range(KEYS)]
    distinct = len({_places(subject, example, key) for key in keys})
    if distinct > DISTINCT * len(keys):
        return Finding(f"{len(keys)} keys give {distinct} different sets of points", True)
    size = float(example.gradient.norm())
    if float((subject.estimate(example.f, example.x, keys[0]) - example.gradient).norm()) < SHARE * size:
        return Finding("every key gives the same points, and each estimate is the gradient", True)
    sentence = f"{len(keys)} keys give {distinct} different sets of points: the key is not used, or not all of it"
    return Finding(sentence, False, str(examples.linear(max(2, subject.least_dim))), f"key = {keys[1]}")


def _places(subject: Subject, example: Example, key: int) -> tuple[tuple[float, ...], ...]:
    points = [tuple(p.tolist()) for p in subject.points(example.f, example.x, key)]
    if not points:
        raise NotApplicableError("it evaluates f nowhere")
    if all(point == tuple(example.x.tolist()) for point in points):  # slopes are asked for at x alone
        return (tuple(subject.estimate(example.f, example.x, key).tolist()),)
    return tuple(points)


def global_state(subject: Subject, level: Level) -> Finding:
    """Two global seeds, and the states before and after."""
    example = examples.quadratic(max(2, subject.least_dim))
    if getattr(subject, "takes_seed", True) is False:
        one, other = (subject.estimate(example.f, example.x, key) for key in (1, 2))
        if torch.equal(one, other):
            return Finding("it takes no seed, and no global generator matters to it", True)
        return Finding("it uses global random state, which checks seed: give it a parameter `seed`", True, warning=True)
    estimates = []
    for seed in (1, 2):
        with globally_seeded(seed):
            before = global_states()
            estimates.append(subject.estimate(example.f, example.x, 7))
            written = [name for name, a, b in zip(NAMES, before, global_states(), strict=True) if a != b]
        if written:
            return Finding(f"the state of {' and of '.join(written)} changes", False, str(example), "key = 7")
    if not torch.equal(*estimates):
        sentence = f"{estimates[0].tolist()} and {estimates[1].tolist()} under two states of the global generators"
        return Finding(sentence, False, str(example), "key = 7")
    return Finding("no state of torch, NumPy or random is read or written", True)


NAMES = ("torch's global generator", "NumPy's global generator", "the module random")


def threads(subject: Subject, level: Level) -> Finding:
    """Sample on one thread and on two, and ask for more and for fewer."""
    if not subject.batches:
        raise NotApplicableError("it makes one estimate at a time")
    example = examples.quadratic(max(2, subject.least_dim))
    count = 40_000 if level.samples < 100_000 else 100_000
    rows = []
    for number in (1, 2):
        with _threads(number):
            rows.append(subject.samples(example.f, example.x, 3, count))
    if not torch.equal(*rows):
        return Finding("samples on one thread and on two differ", False, str(example), f"n = {count}, key = 3")
    fewer = subject.samples(example.f, example.x, 3, 1 << 14)
    if not torch.equal(fewer, rows[0][: len(fewer)]):
        return Finding("the first samples depend on how many are drawn", False, str(example), f"n = {count}, key = 3")
    return Finding("samples are equal to the bit, in several chunks on one thread and on two", True)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


CHECKS = (
    Check("determinism", "one key, one estimate, to the bit", determinism),
    Check("keys", "another key, other directions", other_keys),
    Check("global-state", "global random state is neither read nor written", global_state),
    Check("threads", "samples depend on neither threads nor chunks nor their number", threads),
)
