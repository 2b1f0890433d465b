"""The native sweep gives the numbers of the eager one to the bit."""

import pytest
import torch
from engines import bits, threads
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zobench import InForwardSpace, layout
from zobench.kernels import legendre
from zobench.law import (
    Blocks,
    Gaussian,
    LowRank,
    PerTensor,
    Rademacher,
    RandomMask,
    SmallWeights,
    Sphere,
    Subspace,
    Tied,
)
from zobench.layout import CPU, Layout, Segment
from zobench.random import native, streams
from zobench.space.sweep import Drawn, Sweep, Update, run

pytestmark = [
    pytest.mark.environment,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(native.status() != "in use", reason=f"the native sweep is not in use: {native.status()}"),
]

CHUNK, PIECE = 2048, 32 * 2048
COUNTS = [*range(1, 101), *range(CHUNK - 17, CHUNK + 34), 2 * CHUNK, PIECE - 1, PIECE + 1]
FEW = 64  # so many signs or masked numbers of two streams may agree
LAWS = {
    "normals": Gaussian(),
    "signs": Rademacher(),
    "low rank": LowRank(3),
    "masked normals": SmallWeights(share=0.3),
    "masked signs": SmallWeights(Rademacher()),
    "held low rank": LowRank(2).refreshed(5),
    "subspace": Subspace(3),
    "held subspace": Subspace(3).refreshed(5),
    "left subspace": Subspace(3, right=False),
    "held left subspace": Subspace(3, right=False).refreshed(5),
    "random mask": RandomMask(density=0.3),
    "block": Blocks(by="tensor").credit,
    "tied": Tied(Rademacher()),
    "by tensor": PerTensor(legendre(3)),
    "by tensor, low rank": PerTensor(legendre(3), LowRank(2)).credit,
}


def segment_of(size: int) -> Segment:
    """A matrix of so many entries, of few columns or of few rows."""
    few = max(d for d in (1, 2, 3, 5, 7, 8, 16) if size % d == 0)
    return Segment("w", size, torch.float32, shape=(few, size // few) if size % 3 else (size // few, few))


def swept(
    size: int,
    update: Update,
    lines: list[Drawn] = (),
    points: int = 0,
    dtype: torch.dtype = torch.float32,
    target: torch.dtype = torch.float32,
    natively: bool = True,
) -> list[Tensor]:
    """What a sweep leaves in the stored values and in its targets."""
    blocks = Layout((segment_of(size),)).blocks
    stored = streams.normal(77, (size,), torch.float32, CPU).to(dtype)
    targets = [torch.full((size,), torch.nan, dtype=target) for _ in range(points)]
    job = Sweep(blocks, stored, update, lines, targets)
    assert (job._native is not None) == natively
    job.take()
    return [bits(each) for each in (stored, *targets)]


def drawn(kind: str, key: int, *amounts: float, size: int = 1) -> Drawn:
    cut, weights = Layout((segment_of(size),)), streams.normal(99, (size,), torch.float32, CPU)
    law = LAWS[kind].bind(cut, lambda block: weights[block.start : block.stop])
    return Drawn(law.direction(key, 1, cut, ()), amounts)


def alike(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def both(*arguments, **options) -> tuple[list[Tensor], list[Tensor]]:
    """Natively, and by torch."""
    with native.turned_off():
        eager = swept(*arguments, **options, natively=False)
    return swept(*arguments, **options), eager


@pytest.mark.parametrize("kind", LAWS)
def test_directions_of_every_count(kind):
    for count in COUNTS:
        ours, theirs = both(count, Update(1.0, ()), [drawn(kind, 3, 1.0, size=count)], 1)
        assert alike(ours, theirs), count
        other = swept(count, Update(1.0, ()), [drawn(kind, 4, 1.0, size=count)], 1)
        assert count < FEW or not alike(other, theirs)  # planted


# smaller ones may leave no rounding to be random
amount = st.floats(1e-3, 0.1).flatmap(lambda a: st.sampled_from([a, -a]))
dtypes = st.sampled_from([torch.float32, torch.bfloat16])


@given(
    block=st.sampled_from([1000, 5000, 8]),
    whole=st.integers(0, 2),
    rest=st.integers(1, 999),
    keep=st.sampled_from([1.0, 0.99, 0.5]),
    pending=st.lists(st.tuples(st.sampled_from([*LAWS]), amount), max_size=3),
    lines=st.lists(st.sampled_from([*LAWS]), max_size=3),
    points=st.integers(0, 3),
    amounts=st.lists(amount, min_size=9, max_size=9),
    dtype=dtypes,
    target=dtypes,
    rounding=st.sampled_from([None, 11]),
)
def test_sweeps_are_torchs(block, whole, rest, keep, pending, lines, points, amounts, dtype, target, rounding):
    size = whole * block + rest
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "BLOCK_SIZE", block)
        update = Update(keep, [drawn(kind, 20 + i, a, size=size) for i, (kind, a) in enumerate(pending)], rounding)
        looks = [drawn(kind, 40 + i, *amounts[3 * i : 3 * i + points], size=size) for i, kind in enumerate(lines)]
        options = {"points": points, "dtype": dtype, "target": target}
        ours, theirs = both(size, update, looks, **options)
        assert alike(ours, theirs)
        other = Update(keep, [drawn(kind, 60 + i, a, size=size) for i, (kind, a) in enumerate(pending)], rounding)
        moved = size >= FEW and any(abs(a) > 0.01 for _, a in pending)
        if moved:
            assert not alike(swept(size, other, looks, **options), theirs)  # planted: another direction is pending
        if dtype == torch.bfloat16 and rounding and moved:
            assert not alike(swept(size, update._replace(rounding=12), looks, **options), theirs)  # planted


@pytest.mark.parametrize("kind", LAWS)
def test_the_block_size_changes_no_number(kind, monkeypatch):
    found = []
    for block in (layout.BLOCK_SIZE, 1000, 8):
        monkeypatch.setattr(layout, "BLOCK_SIZE", block)
        ours, theirs = both(3011, Update(0.9, [drawn(kind, 4, 0.5, size=3011)], 7), [drawn(kind, 3, 0.5, size=3011)], 1)
        found += [ours, theirs]
    assert all(alike(found[0], each) for each in found[1:])


def test_what_it_cannot_do_is_torchs(monkeypatch):
    look = [drawn("normals", 3, 0.5)]
    swept(100, Update(1.0, ()), look, 1, dtype=torch.float16, natively=False)
    swept(100, Update(1.0, ()), look, 1, target=torch.float64, natively=False)
    swept(100, Update(1.0, ()), [Drawn(lambda block: torch.ones(block.size), (1.0,))], 1, natively=False)
    with native.turned_off():
        assert not native.available()
        with native.turned_off():
            pass
        assert not native.available()
    assert native.available()


def test_it_is_not_used_where_numbers_or_sums_differ():
    library = native._library()

    class Other:
        """Planted: one function that does nothing."""

        def __init__(self, broken: str) -> None:
            for name in ("draw", "sweep"):
                setattr(self, name, (lambda *_: 0) if name == broken else getattr(library, name))

    assert native._agrees(Other("none"))
    assert not native._agrees(Other("draw")) and not native._agrees(Other("sweep"))


@pytest.mark.parametrize("kind", LAWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_share_the_blocks_and_change_no_bit(kind, dtype, monkeypatch):
    monkeypatch.setattr(layout, "BLOCK_SIZE", 1000)
    size = 20_500
    found = []
    for count in (1, 2, 3):
        stored, target = torch.linspace(-1, 1, 20_500).to(dtype), torch.empty(20_500, dtype=dtype)
        update = Update(0.9, [drawn(kind, 8, 0.1, size=size)], 5)
        with threads(count):
            look = [drawn(kind, 9, 0.1, size=size)]
            run([Sweep(Layout((segment_of(size),)).blocks, stored, update, look, [target])])
        found.append((bits(stored), bits(target)))
    assert alike(found[0], found[1]) and alike(found[0], found[2])


def test_the_sphere_is_scaled_natively(monkeypatch):
    monkeypatch.setattr(layout, "BLOCK_SIZE", 1000)
    directions = [Drawn(Sphere().direction(key, 1, Layout((segment_of(2500),)), ()), (0.5,)) for key in (3, 4)]
    ours, theirs = both(2500, Update(1.0, directions[:1]), directions[:1], 1)
    assert alike(ours, theirs)
    assert not alike(swept(2500, Update(1.0, directions[1:]), directions[:1], 1), theirs)  # planted


def test_a_large_parameter_is_drawn_in_its_own_blocks():
    """At the real block size: a module's parameter of more than one block, its last one just large enough."""
    size = layout.BLOCK_SIZE + 16
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(torch.zeros(size))
    space = InForwardSpace(module)
    (first, second), draw = space.layout.blocks, Gaussian().direction(5, 0, space.layout, ())
    with native.turned_off():
        wanted = torch.cat([draw(first), draw(second)])
    assert torch.equal(bits(torch.cat([draw(first), draw(second)])), bits(wanted))
    ours, theirs = both(size, Update(1.0, [drawn("normals", 5, 1.0)]))
    assert alike(ours, theirs)


def test_numbers_of_two_parts_of_a_stream_differ():
    _, target = swept(2000, Update(1.0, ()), [drawn("normals", 3, 1.0)], 1)
    u = target.view(torch.float32) - streams.normal(77, (2000,), torch.float32, CPU)
    z = float((u[:1000] * u[1000:]).mean()) * 1000**0.5
    assert abs(z) < 5 < float(u[:1000].square().mean()) * 1000**0.5  # planted: the same part twice


def unaligned(count: int) -> Tensor:
    return torch.frombuffer(bytearray(4 * count + 1), dtype=torch.float32, offset=1)


FIT, HALF = torch.zeros(40), torch.zeros(40, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("stored", "targets"),
    [
        (FIT.double(), []), (FIT.half(), []), (torch.zeros(40, dtype=torch.int32), []), (torch.zeros(80)[::2], []),
        (FIT.to("meta"), []), (unaligned(40), []), (FIT.to_sparse(), []), (FIT, [FIT[:-1].clone()]),
        (FIT, [FIT.clone(), HALF.clone()]), (FIT, [torch.zeros(40, 40).T[0]]), (FIT, [FIT.double()]),
    ],
)  # fmt: skip
def test_a_tensor_that_c_would_misread_is_refused(stored, targets):
    native.NativeSweep(FIT, 1.0, [], [], [HALF], None)
    with pytest.raises(native.UnreadableError, match="a native call needs"):
        native.NativeSweep(stored, 1.0, [], [], targets, None)


PLAIN = native.NativeStream(3)
MASK = torch.tensor([255, 3, 9, 255, 129], dtype=torch.uint8)


def factors(rows: int, rank: int, right: int, columns: int) -> native.NativeStream:
    return native.NativeStream(factors=(torch.ones(rows, rank), torch.ones(right, columns)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"pending": [(PLAIN, [0.5, 0.5])]}, {"pending": [(PLAIN, [])]}, {"lines": [(PLAIN, [])]},
        {"pending": [(PLAIN._replace(mask=MASK[:-1].clone()), [0.5])]},
        {"lines": [(PLAIN._replace(mask=torch.cat((MASK, MASK))), [0.5])]},
        {"pending": [(factors(4, 2, 2, 8), [0.5])]}, {"lines": [(factors(5, 2, 3, 8), [0.5])]},
        {"lines": [(factors(5, 2, 2, 7), [0.5])]}, {"rounding": 1},
    ],
    ids=repr,
)  # fmt: skip
def test_lengths_that_do_not_fit_are_refused_before_anything_is_written(wrong):
    stored, target = torch.zeros(40), torch.full((40,), 7.0)
    call = {"stored": stored, "keep": 0.5, "pending": [], "lines": [], "targets": [target], "rounding": None}
    native.NativeSweep(**{**call, "targets": [target.clone()]}).take()
    with pytest.raises(ValueError, match="the native code refused"):
        native.NativeSweep(**{**call, **wrong}).take()
    assert not stored.any() and bool((target == 7).all())


def test_a_mask_and_factors_in_the_smallest_case():
    u, both_factors = [1.0, 2.0] * 20, (torch.ones(20, 1), torch.tensor([[1.0, 2.0]]))
    stored = torch.zeros(40)
    stream = native.NativeStream(factors=both_factors, mask=MASK, scale=-0.5)
    native.NativeSweep(stored, 1.0, [(stream, [1.0])], [], [], None).take()
    kept = [*[1] * 8, 1, 1, *[0] * 6, 1, 0, 0, 1, *[0] * 4, *[1] * 8, 1, *[0] * 6, 1]
    assert stored.tolist() == [-0.5 * value * bit for value, bit in zip(u, kept, strict=True)]


@pytest.mark.parametrize("mask", [MASK.int(), torch.ones(10, dtype=torch.uint8)[::2], MASK.to("meta")])
def test_a_mask_that_c_would_misread_is_refused(mask):
    with pytest.raises(native.UnreadableError, match="a mask wants contiguous octets"):
        native.NativeSweep(FIT, 1.0, [(PLAIN._replace(mask=mask), [0.5])], [], [], None)


def test_memory_between_the_numbers_is_left_to_torch():
    segment = Segment("w", 40, torch.float32)
    job = Sweep(Layout((segment,)).blocks, unaligned(40), Update(1.0, [drawn("signs", 3, 1.0)]))
    assert job._native is None
    job.take()
    assert float(job.stored.abs().sum()) == 40


def test_a_direction_of_somebody_else_is_drawn_natively_where_it_says_so():
    """The declaration decides, and no class: without it the direction is called."""
    halves = Gaussian().direction(5, 0, Layout((segment_of(100),)), ())

    class Declared:
        def __call__(self, block):
            raise AssertionError("called")

        def native(self, segment):
            return halves.native(segment)._replace(scale=0.5)

    called = Drawn(lambda block: halves(block) * 0.5, (0.3,))
    ours = swept(100, Update(1.0, [Drawn(Declared(), (0.3,))]))
    assert alike(ours, swept(100, Update(1.0, [called]), natively=False))
