"""Counter-based streams: known answers, slices, backends that agree to the bit."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zobench.layout import CPU
from zobench.random import eager, native, normals, signs, streams, words

pytestmark = [pytest.mark.environment, pytest.mark.usefixtures("one_thread")]

BACKENDS = {"eager": eager} | ({"native": native} if native.available() else {})
backends = pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
TOP = 1 << 130
DTYPES = [torch.float32, torch.float64]


def counter(*words_: int) -> int:
    """The counter of these four words, the lowest first."""
    return sum(word << 32 * i for i, word in enumerate(words_))


KNOWN = [  # Random123's kat_vectors: key, counter, output of philox4x32 of 10 rounds
    (0, 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    (0xFFFFFFFF_FFFFFFFF, counter(*[0xFFFFFFFF] * 4), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        0x299F31D0_A4093822,
        counter(0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@backends
@pytest.mark.parametrize(("key", "at", "output"), KNOWN)
def test_known_answers(backend, key, at, output):
    found = backend.words(key, 4 * at, 4 * at + 4, CPU)
    assert " ".join(f"{word:08x}" for word in found.tolist()) == output and found.dtype == torch.int64
    assert backend.words(key, 4 * at + 1, 4 * at + 3, CPU).tolist() == found[1:3].tolist()


def slow_words(key: int, start: int, stop: int) -> list[int]:
    """Philox4x32-10 in Python's integers."""
    found = []
    for j in range(start, stop):
        c = [j // 4 >> 32 * i & 0xFFFFFFFF for i in range(4)]
        k = [key & 0xFFFFFFFF, key >> 32]
        for _ in range(10):
            first, second = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
            c = [second >> 32 ^ c[1] ^ k[0], second & 0xFFFFFFFF, first >> 32 ^ c[3] ^ k[1], first & 0xFFFFFFFF]
            k = [k[0] + 0x9E3779B9 & 0xFFFFFFFF, k[1] + 0xBB67AE85 & 0xFFFFFFFF]
        found.append(c[j % 4])
    return found


keys = st.integers(0, 2**64 - 1)
edges = st.sampled_from([0, 1 << 32, 1 << 34, 1 << 64, 1 << 66, 1 << 98, TOP - 5000]).flatmap(
    lambda edge: st.integers(max(0, edge - 300), edge + 300)
)


@backends
@given(key=keys, start=edges, count=st.integers(0, 40))
def test_words_are_those_of_the_definition(backend, key, start, count):
    assert backend.words(key, start, start + count, CPU).tolist() == slow_words(key, start, start + count)


@backends
@given(key=keys, start=edges, count=st.integers(0, 300))
def test_signs_are_bits_of_words(backend, key, start, count):
    first = start // 32
    bits = [word >> b & 1 for word in slow_words(key, first, first + count // 32 + 2) for b in range(32)]
    wanted = [2.0 * bit - 1.0 for bit in bits[start % 32 :][:count]]
    for dtype in DTYPES:
        found = backend.signs(key, start, start + count, dtype, CPU)
        assert found.tolist() == wanted and found.dtype == dtype


@backends
@pytest.mark.parametrize("dtype", DTYPES)
def test_normals_are_cosine_and_sine_of_words(backend, dtype):
    count = 100_000
    first, second = words(5, 0, count).double().view(-1, 2).unbind(-1)
    radius, turn = (-2 * ((first + 0.5) / 2**32).log()).sqrt(), 2 * math.pi * second / 2**32
    wanted = torch.stack((radius * turn.cos(), radius * turn.sin()), -1).flatten()
    found = backend.normals(5, 0, count, dtype, CPU).double()
    # float32 rounds u by 2^-25, which moves the radius by 2^-25 / (u radius), and all else by some 2^-24
    error, allowed = (found - wanted).abs(), 1e-14
    if dtype == torch.float32:
        u = (first + 0.5) / 2**32
        allowed = (2**-25 * (1 + (1 - u) / u * 2**-8) / radius + 2**-22 * (1 + radius)).repeat_interleave(2)
    assert bool((error <= allowed).all()), float((error / allowed).max())
    assert bool((error > allowed / 1e3).any())


EXTREMES = [0, 1, 2**29 - 1, 2**29, 2**31, 2**32 - 129, 2**32 - 128, 2**32 - 1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_normals_of_extreme_words(dtype, monkeypatch):
    """The tail ends at sqrt(66 ln 2), in both dtypes; the largest word gives a radius of next to nothing."""
    pairs = torch.tensor([(a, b) for a in EXTREMES for b in EXTREMES])
    monkeypatch.setattr(eager, "words", lambda key, start, stop, device: pairs.flatten()[start:stop])
    found = eager.normals(0, 0, pairs.numel(), dtype, CPU).view(-1, 2)
    radius = found.double().norm(dim=-1)
    assert bool(found.isfinite().all()) and float(radius.max()) == pytest.approx(math.sqrt(66 * math.log(2)))
    assert float(radius.min()) == pytest.approx(0.0 if dtype == torch.float32 else 2**-16, rel=1e-6)


@backends
@given(
    key=keys, start=edges, lengths=st.lists(st.sampled_from([0, 1, 2, 3, 31, 64, 127, 2047, 2048, 4097]), max_size=4)
)
def test_any_slice_is_that_of_the_whole(backend, key, start, lengths):
    stop = min(start + sum(lengths), TOP)
    cuts = [min(start + sum(lengths[:i]), TOP) for i in range(len(lengths) + 1)]
    for draw in (
        lambda a, b: backend.words(key, a, b, CPU),
        lambda a, b: backend.signs(key, a, b, torch.float32, CPU),
        lambda a, b: backend.normals(key, a, b, torch.float32, CPU),
        lambda a, b: backend.normals(key, a, b, torch.float64, CPU),
    ):
        parts = [draw(a, b) for a, b in itertools.pairwise(cuts)]
        assert torch.equal(torch.cat([*parts, draw(stop, stop)]), draw(start, stop))


@pytest.mark.skipif(not native.available(), reason=native.status())
@given(key=keys, start=edges, count=st.sampled_from([1, 17, 2049, 70_001]), dtype=st.sampled_from(DTYPES))
def test_backends_agree_to_the_bit(key, start, count, dtype):
    stop = min(start + count, TOP)
    for draw in ("signs", "normals"):
        ours, theirs = (getattr(each, draw)(key, start, stop, dtype, CPU) for each in (native, eager))
        assert torch.equal(ours.view(torch.int32), theirs.view(torch.int32))
    assert torch.equal(native.words(key, start, stop, CPU), eager.words(key, start, stop, CPU))


@pytest.mark.parametrize("stream", [streams.normals, streams.signs, streams.uniforms])
@pytest.mark.parametrize("dtype", [*DTYPES, torch.bfloat16])
def test_rows_are_the_beginnings_of_their_streams(stream, dtype):
    named, counts = [[5, 1 << 62, 7], [7, 5, 6]], [2049, 0, 33]
    wanted = [torch.cat([stream(key, 0, n, dtype, CPU) for key, n in zip(row, counts, strict=True)]) for row in named]
    assert torch.equal(streams.rows(stream, named, counts, dtype, CPU), torch.stack(wanted))
    with native.turned_off():
        assert torch.equal(streams.rows(stream, named, counts, dtype, CPU), torch.stack(wanted))


def test_pieces_of_the_eager_path_are_one_stream(monkeypatch):
    whole = [draw(3, 7, 5000, torch.float32, CPU) for draw in (eager.signs, eager.normals)]
    monkeypatch.setattr(eager, "PIECE", 64)
    again = [draw(3, 7, 5000, torch.float32, CPU) for draw in (eager.signs, eager.normals)]
    assert all(map(torch.equal, whole, again))


@pytest.mark.parametrize("draw", [words, signs, normals])
def test_arguments_that_name_no_part_of_a_stream(draw):
    assert draw(0, 5, 5).shape == (0,)
    for given_, name in (((0.0, 0, 1), "key is 0.0"), ((0, "1", 2), "start is '1'"), ((0, 0, None), "stop is None")):
        with pytest.raises(TypeError, match=name):
            draw(*given_)
    with pytest.raises(TypeError, match="key is True"):
        draw(True, 0, 1)
    for key in (-1, 2**64):
        with pytest.raises(ValueError, match=f"key is {key}"):
            draw(key, 0, 1)
    for start, stop in ((-1, 3), (4, 3), (0, 2**135 + 1)):
        with pytest.raises(ValueError, match=f"start is {start} and stop {stop}"):
            draw(0, start, stop)


def test_the_last_of_a_stream():
    assert len(words(1, TOP - 1, TOP)) == len(normals(1, TOP - 1, TOP)) == len(signs(1, 32 * TOP - 1, 32 * TOP)) == 1
    for draw in (words, normals):
        with pytest.raises(ValueError, match=r"start <= stop <= 2\^130"):
            draw(1, TOP, TOP + 1)


def test_narrow_normals_are_the_float32_ones_rounded():
    wide = normals(3, 0, 1000)
    assert torch.equal(normals(3, 0, 1000, torch.bfloat16), wide.bfloat16()) and wide.dtype == torch.float32
    assert float((normals(3, 0, 1000, torch.float64) - wide).abs().max()) < 1e-5


def test_integers_against_python():
    for high in (1, 7, 2**31, 2**32 + 5, 2**40 - 1, 2**62):
        found = streams.integers(9, (3, 50), high).flatten().tolist()
        drawn = words(9, 0, 300).tolist()
        wanted = [((hi << 32 | lo) * high) >> 64 for lo, hi in zip(drawn[::2], drawn[1::2], strict=True)]
        assert found == wanted and max(found) < high


def test_uniforms_and_halves_against_python():
    drawn = words(9, 0, 12).tolist()
    wanted = [(hi << 21 | lo >> 11) / 2**52 - 1 for hi, lo in zip(drawn[::2], drawn[1::2], strict=True)]
    assert streams.uniform(9, (2, 3)).flatten().tolist() == wanted
    halves = [half for word in drawn for half in (word & 0xFFFF, word >> 16)]
    assert streams.words16(9, 3, 20, CPU).tolist() == halves[3:20]
