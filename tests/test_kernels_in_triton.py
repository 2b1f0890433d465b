"""The Triton kernels, run by Triton's interpreter on the CPU, against the eager streams and sweeps: to the bit where
sums are exact. The interpreter rounds a product before it adds it, so that amounts are powers of two here.
"""

import os

import pytest
import torch

pytest.importorskip("triton", reason="Triton comes with torch for CUDA; `make triton` installs it alone")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("TRITON_INTERPRET=1 is not set: `make triton` sets it", allow_module_level=True)

from engines import bits
from test_host_reads import reads_of
from torch import nn

from zobench import InForwardSpace, ModuleSpace, derive, methods, query
from zobench.law import LAWS
from zobench.layout import BLOCK_SIZE, CPU, Layout, Segment
from zobench.random import eager, fused, native
from zobench.random.native import NativeStream, UnreadableError
from zobench.space.sweep import Drawn, Sweep, Update

KEYS = (0, 1, 16, derive("triton"), (1 << 64) - 1, 1 << 63)
FLOAT, NARROW = torch.float32, torch.bfloat16


class Small(nn.Module):
    """A table whose rows kernels draw, and a layer."""

    def __init__(self, dtype):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.table, self.layer = nn.Embedding(9, 128), nn.Linear(128, 5)
        self.to(dtype).eval()

    def forward(self, ids):
        return self.layer(torch.tanh(self.table(ids)))


def loss_of(module):
    ids = torch.tensor([[3, 5, 5, 0], [8, 1, 3, 7]])
    return lambda: module(ids).float().square().mean((1, 2))


@pytest.fixture
def fused_here(monkeypatch):
    """Kernels where they would be used on a GPU."""
    monkeypatch.setattr(fused, "available", lambda device: not native.is_turned_off())
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the interpreter knows one thread
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("start", "stop"), [(0, 1), (0, 5000), (127, 129), (4099, 9973), ((1 << 34) - 3, (1 << 34) + 700)]
)
def test_streams_are_the_eager_ones(key, start, stop):
    assert torch.equal(fused.words(key, start, stop, CPU), eager.words(key, start, stop, CPU))
    for name in ("signs", "normals"):
        one, other = (getattr(module, name)(key, start, stop, FLOAT, CPU) for module in (fused, eager))
        assert torch.equal(bits(one), bits(other))
    assert fused.words(0, 0, 4, CPU).tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def test_what_kernels_do_not_draw_is_eager():
    for name in ("signs", "normals"):
        one, other = (getattr(module, name)(3, 5, 50, torch.float64, CPU) for module in (fused, eager))
        assert torch.equal(one, other)
    assert torch.equal(fused.words(3, 1 << 63, (1 << 63) + 9, CPU), eager.words(3, 1 << 63, (1 << 63) + 9, CPU))


def swept(way, law, dtype, target, keep, rounding, points, count, lines=2):
    layout = Layout((Segment("w", count, FLOAT, CPU, (count,)),))
    stored = torch.linspace(-2, 2, count).to(dtype)
    targets = [torch.full((count,), 7.0).to(target) for _ in range(points)]
    draws = [LAWS[law].direction(derive("sweep"), k, layout, ()) for k in range(2 * lines)]
    pending = [Drawn(draw, [2.0**-k]) for k, draw in enumerate(draws[:lines], 3)]
    along = [Drawn(draw, [2.0**-k, -(2.0**-k)][:points]) for k, draw in enumerate(draws[lines:], 5)]
    with native.turned_off():  # the fixture's kernels too
        job = Sweep(layout.blocks, stored, Update(keep, pending, rounding), along if points else (), targets)
    if way == "kernel":
        told = [[(draw.native(layout.segments[0]), amounts) for draw, amounts in each] for each in (pending, along)]
        job._native = fused.FusedSweep(stored, keep, *told, targets, job._rounding)
    job.take()
    return [stored, *targets]


@pytest.mark.parametrize("law", ["gaussian", "rademacher"])
@pytest.mark.parametrize(("dtype", "target", "rounding"), [
    (FLOAT, FLOAT, None), (NARROW, NARROW, None), (NARROW, NARROW, 5), (FLOAT, NARROW, None),
])  # fmt: skip
@pytest.mark.parametrize(("keep", "points"), [(1.0, 2), (0.5, 0), (0.75, 1)])
def test_a_sweep_is_the_eager_one_to_the_bit(law, dtype, target, rounding, keep, points):
    for count in (1, 1100):
        one, other = (swept(way, law, dtype, target, keep, rounding, points, count) for way in ("kernel", "eager"))
        exact = all(torch.equal(bits(a), bits(b)) for a, b in zip(one, other, strict=True))
        close = all(torch.allclose(a.float(), b.float(), rtol=3e-7, atol=1e-7) for a, b in zip(one, other, strict=True))
        assert exact or (dtype == target == FLOAT and close)  # the product keep x is rounded alike, two sums are not


def test_a_sweep_of_many_blocks_is_one():
    count = BLOCK_SIZE + 70  # of which the kernel knows nothing
    one, other = (swept(way, "rademacher", FLOAT, FLOAT, 1.0, None, 1, count, 1) for way in ("kernel", "eager"))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_planted_key_is_seen():
    one, other = (swept("kernel", law, FLOAT, FLOAT, 1.0, None, 1, 500) for law in ("gaussian", "rademacher"))
    assert not torch.allclose(one[1], other[1])


def test_rows_are_those_of_the_whole_matrix():
    stream = NativeStream(derive("rows"))
    wanted, target = torch.tensor([3, 0, 3, 9]), torch.zeros(4, 256)
    fused.add_rows(target, wanted, [(stream, [0.25])])
    whole = eager.normals(stream.key, 0, 10 * 256, FLOAT, CPU).view(10, 256) * 0.25
    assert torch.equal(target, whole[wanted])


def test_what_a_kernel_cannot_do_is_refused():
    stored, line = torch.zeros(256), (NativeStream(1), [1.0])
    for lines, targets in (
        ([line, (NativeStream(1, signs=True), [1.0])], []),
        ([(NativeStream(1, mask=torch.ones(32, dtype=torch.uint8)), [1.0])], []),
        ([line], [torch.zeros(255)]),
        ([line], [stored.double()]),
        ([line], [torch.zeros(256)] * 3),
    ):
        with pytest.raises(UnreadableError):
            fused.FusedSweep(stored, 1.0, (), lines, targets, None)


@pytest.mark.parametrize(("law", "dtype"), [("gaussian", FLOAT), ("rademacher", NARROW), ("sphere", FLOAT)])
def test_engines_step_as_without_kernels(fused_here, dtype, law):
    def stepped():
        module = Small(dtype)
        space, estimator = InForwardSpace(module, deferred=True), methods.make("mezo", law=law)
        told = query(space, estimator, loss_of(module), derive("step"), ())
        space.step_(told.gradient, -1e-3, 1e-3)
        return told.losses, space.vector()

    (losses, x), (expected, y) = stepped(), _eager(stepped)
    tolerance = 1e-5 if dtype == FLOAT else 2e-2
    assert torch.allclose(losses, expected, rtol=tolerance)
    assert float((x - y).norm() / y.norm()) < tolerance


def _eager(work):
    with native.turned_off():
        return work()


@pytest.mark.parametrize("space_of", [ModuleSpace, InForwardSpace])
def test_with_kernels_the_host_waits_once_a_step(fused_here, space_of):
    module = Small(FLOAT)
    space, estimator, f = space_of(module), methods.make("mezo"), loss_of(module)

    def step():
        told = query(space, estimator, f, derive("step"), estimator.init())
        space.step_(told.gradient, -1e-3, 1e-3)

    assert [name for name in reads_of(step) if name not in ("numpy", "cpu")] == ["tolist"]
