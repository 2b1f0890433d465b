"""Streams have the law they say and do not know each other: fixed keys and sizes, |z| < 5, planted errors."""

import math

import pytest
import torch
from torch import Tensor

from zobench import Gaussian
from zobench.layout import CPU, Layout, Segment
from zobench.random import eager, normals, signs, streams, words

pytestmark = pytest.mark.usefixtures("one_thread")

KEY, COUNT = 20_111, 1 << 20
DTYPES = [torch.float32, torch.float64]


def moment(k: int) -> int:
    """E z^k of a standard normal."""
    return 0 if k % 2 else math.prod(range(1, k, 2))


def moments(x: Tensor) -> list[float]:
    """The z of the means of x^k, k from 1 to 8."""
    n = len(x)
    deviations = [math.sqrt((moment(2 * k) - moment(k) ** 2) / n) for k in range(1, 9)]
    return [float(x.pow(k).mean() - moment(k)) / deviations[k - 1] for k in range(1, 9)]


def beyond(x: Tensor) -> list[float]:
    """The z of how many numbers lie beyond each of these, on either side."""
    found = []
    for edge in (0.5, 1.0, 2.0, 3.0, 3.5, 4.0):
        p = math.erfc(edge / math.sqrt(2)) / 2
        found += [(int(side.sum()) - len(x) * p) / math.sqrt(len(x) * p) for side in (x > edge, x < -edge)]
    return found


def correlation(x: Tensor, y: Tensor) -> float:
    """The z of the mean of x y."""
    return float((x * y).mean()) * math.sqrt(len(x)) / float(x.std() * y.std())


def serial(x: Tensor) -> list[float]:
    """The z of x and of its squares against themselves, some places later."""
    square = x.square() - x.square().mean()
    return [
        correlation(each[:-lag], each[lag:]) for lag in (1, 2, 3, 4, 5, 8, 16, 64, 128, 1024) for each in (x, square)
    ]


def worst(*z: float) -> float:
    return max(map(abs, z))


@pytest.mark.parametrize("dtype", DTYPES)
def test_moments_to_the_eighth(dtype):
    x = normals(KEY, 0, COUNT, dtype).double()
    assert worst(*moments(x)) < 5 < worst(*moments(1.005 * x))  # planted: half a percent too wide
    assert worst(*moments(torch.where(x > 0, 1.01 * x, x))[::2]) > 5  # planted: one side 1 % too wide


@pytest.mark.parametrize("dtype", DTYPES)
def test_tails(dtype):
    x = normals(KEY, COUNT, 9 * COUNT, dtype).double()
    assert worst(*beyond(x)) < 5 < worst(*beyond(x.clamp(-3.9, 3.9)))  # planted: a tail that ends early
    assert 5 < float(x.abs().max()) < 6.77
    assert worst(*beyond(x + 0.002)) > 5  # planted: not centred


def test_entries_of_a_stream_do_not_know_each_other():
    x = normals(KEY, 0, COUNT, torch.float64)
    assert worst(*serial(x)) < 5
    assert worst(*serial(x + 0.01 * x.roll(3))) > 5  # planted
    s = signs(KEY, 0, COUNT, torch.float64)
    lagged = [correlation(s[:-lag], s[lag:]) for lag in (1, 2, 4, 8, 16, 31, 32, 33, 64, 128)]
    assert worst(*lagged) < 5 < abs(correlation(s, torch.where(torch.arange(COUNT) % 100 == 0, s, -s.roll(32))))
    assert worst(float(s.sum()) / math.sqrt(COUNT)) < 5


def drawn(key: int, index: int, name: str, start: int = 0) -> Tensor:
    """A part of a direction, as laws draw it."""
    segment = Segment(name, start + COUNT // 4, torch.float32)
    draw = Gaussian().direction(key, index, Layout((segment,)), ())
    block = Layout((segment,)).blocks[0]
    return draw(type(block)(segment, 0, start, segment.size, start)).double()


def neighbours() -> dict[str, Tensor]:
    """Streams beside that of KEY: keys, halves of keys, directions, parameters, offsets."""
    n = COUNT // 4
    keys = {f"key {bit}": normals(KEY ^ 1 << bit, 0, n) for bit in (0, 1, 2, 31, 32, 33, 63)}
    offsets = {f"offset {at}": normals(KEY, at, at + n) for at in (n, 1 << 32, 1 << 34, 1 << 66, 1 << 98)}
    places = (("key", KEY + 1, 0, "w"), ("direction", KEY, 1, "w"), ("parameter", KEY, 0, "v"), ("entry", KEY, 0, "w"))
    laws = {what: drawn(key, i, name, n * (what == "entry")) for what, key, i, name in places}
    return {name: x.double() for name, x in {**keys, **offsets, **laws}.items()}


def test_streams_do_not_know_each_other():
    found = {**neighbours(), "itself": normals(KEY, 0, COUNT // 4).double(), "drawn": drawn(KEY, 0, "w")}
    names = list(found)
    z = [correlation(found[a], found[b]) for i, a in enumerate(names) for b in names[:i]]
    squares = {name: x.square() - x.square().mean() for name, x in found.items()}
    z += [correlation(squares[a], squares[b]) for i, a in enumerate(names) for b in names[:i]]
    assert worst(*z) < 5, max(z, key=abs)
    assert worst(correlation(found["itself"], found["key 0"] + 0.02 * found["itself"])) > 5  # planted


def flips(other: int, at: int) -> float:
    """The z of how many bits change where a bit of the key, or of the counter, does: half of them."""
    here, there = (eager.words(*place, place[1] + COUNT // 16, CPU) for place in ((KEY, 0), (KEY ^ other, at)))
    changed = sum(int(((here ^ there) >> bit & 1).sum()) for bit in range(32))
    return (changed - 16 * len(here)) / math.sqrt(8 * len(here))


def test_a_bit_of_the_key_or_the_counter_changes_half_of_the_output(monkeypatch):
    places = [(1 << bit, 0) for bit in (0, 5, 31, 32, 63)] + [(0, 4 << bit) for bit in (20, 32, 63, 64, 127)]
    assert worst(*(flips(*place) for place in places)) < 5
    monkeypatch.setattr(eager, "ROUNDS", 3)
    assert worst(*(flips(*place) for place in places)) > 5  # planted: too few rounds


def test_every_bit_and_byte_of_words_is_even():
    drawn = words(KEY, 0, COUNT)
    ones = [float((drawn >> bit & 1).double().mean() - 0.5) * 2 * math.sqrt(COUNT) for bit in range(32)]
    assert worst(*ones) < 5

    def spread(values: Tensor) -> float:
        """The z of chi square over the values of each byte."""
        counts = torch.stack([torch.bincount(values >> shift & 255, minlength=256) for shift in (0, 8, 16, 24)])
        chi = float((counts.double() - COUNT / 256).square().sum()) * 256 / COUNT
        return (chi - 4 * 255) / math.sqrt(2 * 4 * 255)

    assert abs(spread(drawn)) < 5 < abs(spread(torch.where(drawn % 100 == 0, drawn | 7, drawn)))  # planted


def test_uniforms_and_integers_are_even():
    uniform = streams.uniform(KEY, (COUNT,))
    assert (
        worst(
            *(float((uniform**k).mean() - (k % 2 == 0) / (k + 1)) * math.sqrt(COUNT * (2 * k + 1)) for k in (1, 2, 4))
        )
        < 5
    )
    counts = torch.bincount(streams.integers(KEY, (COUNT,), 1000), minlength=1000).double()
    chi = float((counts - COUNT / 1000).square().sum()) * 1000 / COUNT
    assert abs(chi - 999) / math.sqrt(2 * 999) < 5
    halves = streams.words16(KEY, 1, COUNT + 1, CPU).double()
    assert abs(float(halves.mean()) - 32767.5) * math.sqrt(12 * COUNT) / 65536 < 5
