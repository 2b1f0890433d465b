"""The native sweep gives the numbers of the eager one, and of torch, to the bit."""

import pytest
import torch
from engines import bits, threads
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zobench import InForwardSpace, layout
from zobench.law import Gaussian, LowRank, Rademacher, SmallWeights, Sphere
from zobench.layout import CPU, Layout, Segment
from zobench.random import native, streams
from zobench.space.sweep import Drawn, Sweep, Update, run

pytestmark = [
    pytest.mark.environment,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(native.status() != "in use", reason=f"the native sweep is not in use: {native.status()}"),
]

CHUNK = 4992
COUNTS = [*range(16, 101), *range(CHUNK - 17, CHUNK + 34), *range(2 * CHUNK - 1, 2 * CHUNK + 18), 3 * 624 + 1]
LAWS = {
    "normals": Gaussian(),
    "signs": Rademacher(),
    "low rank": LowRank(3),
    "masked normals": SmallWeights(share=0.3),
    "masked signs": SmallWeights(Rademacher()),
}


def segment_of(size: int) -> Segment:
    """A matrix of so many entries, of few columns or of few rows."""
    few = max(d for d in (1, 2, 3, 5, 7, 8, 16) if size % d == 0)
    return Segment("w", size, torch.float32, shape=(few, size // few) if size % 3 else (size // few, few))


@pytest.mark.parametrize("seed", [0, 5, 2**32 - 1, 2**62 + 3])
def test_normals_are_torchs_in_every_count(seed):
    for count in COUNTS:
        wanted = torch.randn(count, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(bits(native.normals(seed, count)), bits(wanted)), count
        assert not torch.equal(native.normals(seed + 1, count), wanted)  # planted: another seed


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
        assert not alike(swept(count, Update(1.0, ()), [drawn(kind, 4, 1.0, size=count)], 1), theirs)  # planted


# smaller ones may leave no rounding to be random
amount = st.floats(1e-3, 0.1).flatmap(lambda a: st.sampled_from([a, -a]))
dtypes = st.sampled_from([torch.float32, torch.bfloat16])


@given(
    block=st.sampled_from([1000, 5000, 7 * 624]),
    whole=st.integers(0, 2),
    rest=st.integers(16, 999),
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
        if any(abs(a) > 0.01 for _, a in pending):
            assert not alike(swept(size, other, looks, **options), theirs)  # planted: another direction is pending
        if dtype == torch.bfloat16 and rounding and any(abs(a) > 0.01 for _, a in pending):
            assert not alike(swept(size, update._replace(rounding=12), looks, **options), theirs)  # planted


@pytest.mark.parametrize("block", [1000, 5000])
@pytest.mark.parametrize("rest", [1, 15])
def test_a_last_block_that_is_too_small_is_torchs(block, rest, monkeypatch):
    """torch draws fewer than 16 numbers in another way, so that torch does the whole parameter; its numbers are those
    of the layout's blocks, each drawn by itself.
    """
    monkeypatch.setattr(layout, "BLOCK_SIZE", block)
    size = 2 * block + rest
    _, found = swept(size, Update(1.0, ()), [drawn("normals", 3, 0.5)], 1, natively=False)
    direction = Gaussian().direction(3, 1, Layout(()), ())
    blocks = Layout((Segment("w", size, torch.float32),)).blocks
    u = [torch.randn(b.size, generator=torch.Generator().manual_seed(direction.seed(b))) for b in blocks]
    stored = streams.normal(77, (size,), torch.float32, CPU)
    assert torch.equal(found, bits(torch.add(stored, torch.cat(u), alpha=0.5)))


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
            for name in ("normals", "sweep"):
                setattr(self, name, (lambda *_: 0) if name == broken else getattr(library, name))

    assert native._agrees(Other("none"))
    assert not native._agrees(Other("normals")) and not native._agrees(Other("sweep"))


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


def test_numbers_of_one_stream_in_two_blocks_differ(monkeypatch):
    monkeypatch.setattr(layout, "BLOCK_SIZE", 1000)
    _, target = swept(2000, Update(1.0, ()), [drawn("normals", 3, 1.0)], 1)
    u = target.view(torch.float32) - streams.normal(77, (2000,), torch.float32, CPU)
    z = float((u[:1000] * u[1000:]).mean()) * 1000**0.5
    assert abs(z) < 5 < float(u[:1000].square().mean()) * 1000**0.5  # planted: the same stream twice


def unaligned(count: int) -> Tensor:
    return torch.frombuffer(bytearray(4 * count + 1), dtype=torch.float32, offset=1)


OCTETS = torch.tensor([255, 3, 9], dtype=torch.uint8)
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
    assert native.readable(FIT) and native.readable(HALF)
    with pytest.raises(ValueError, match="a native call needs"):
        native.NativeSweep(stored, 40, 1.0, [], [], targets, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pending": [native.NativeLine(False, [1], [0.5])]},
        {"pending": [native.NativeLine(False, [1, 2], [0.5, 0.5])]},
        {"lines": [native.NativeLine(True, [1, 2], [])]}, {"lines": [native.NativeLine(True, [1, 2, 3], [0.5])]},
        {"pending": [native.NativeLine(False, [1, 2], [0.5], masks=[OCTETS])]},
        {"lines": [native.NativeLine(False, [1, 2], [0.5], masks=[OCTETS, OCTETS[:2]])]},
        {"pending": [native.NativeLine(False, [], [0.5], masks=[OCTETS, torch.cat((OCTETS, OCTETS))])]},
        {"pending": [native.NativeLine(False, [1, 2], [0.5], (torch.ones(5, 2), torch.ones(2, 8)))]},
        {"pending": [native.NativeLine(False, [], [0.5], (torch.ones(4, 2), torch.ones(2, 8)))]},
        {"lines": [native.NativeLine(False, [], [0.5], (torch.ones(5, 2), torch.ones(3, 8)))]},
        {"lines": [native.NativeLine(False, [], [0.5], (torch.ones(5, 2), torch.ones(2, 7)))]},
        {"rounding": [1, 2]}, {"block": 15}, {"block": 39}, {"block": 0},
    ],
    ids=repr,
)  # fmt: skip
def test_lengths_that_do_not_fit_are_refused_before_anything_is_written(wrong):
    stored, target = torch.zeros(40), torch.full((40,), 7.0)
    call = {
        "stored": stored,
        "block": 20,
        "keep": 0.5,
        "pending": [],
        "lines": [],
        "targets": [target],
        "rounding": None,
    }
    native.NativeSweep(**{**call, "targets": [target.clone()]}).take()
    with pytest.raises(ValueError, match="the native code refused"):
        native.NativeSweep(**{**call, **wrong}).take()
    assert not stored.any() and bool((target == 7).all())


def test_a_mask_and_factors_in_the_smallest_case():
    u, line = [1.0, 2.0] * 10, native.NativeLine(False, [], [1.0], (torch.ones(20, 1), torch.tensor([[1.0, 2.0]])))
    stored = torch.zeros(40)
    native.NativeSweep(stored, 20, 1.0, [line._replace(masks=[OCTETS, OCTETS], scale=-0.5)], [], [], None).take()
    kept = [*[1] * 8, 1, 1, *[0] * 6, 1, 0, 0, 1]
    assert stored.tolist() == [-0.5 * value * bit for value, bit in zip(u, kept, strict=True)] * 2


@pytest.mark.parametrize("mask", [OCTETS.int(), torch.ones(6, dtype=torch.uint8)[::2], OCTETS.to("meta")])
def test_a_mask_that_c_would_misread_is_refused(mask):
    with pytest.raises(ValueError, match="a mask wants contiguous octets"):
        native.NativeSweep(FIT, 40, 1.0, [native.NativeLine(False, [1], [0.5], masks=[mask])], [], [], None)


def test_streams_of_two_kinds_are_no_line():
    of, one = native.NativeLine.of, native.NativeStream(3)
    assert of([one, one._replace(seed=4, scale=1.0)], [0.5]) == native.NativeLine(False, [3, 4], [0.5])
    for other in ({"signs": True}, {"scale": 2.0}, {"mask": OCTETS}, {"factors": (FIT, FIT)}):
        assert of([one, one._replace(**other)], [0.5]) is None


def test_fewer_numbers_than_a_group_are_refused():
    with pytest.raises(ValueError, match="below 16"):
        native.normals(0, 15)


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

        def native(self, block):
            return halves.native(block)._replace(scale=0.5)

    called = Drawn(lambda block: halves(block) * 0.5, (0.3,))
    ours = swept(100, Update(1.0, [Drawn(Declared(), (0.3,))]))
    assert alike(ours, swept(100, Update(1.0, [called]), natively=False))
