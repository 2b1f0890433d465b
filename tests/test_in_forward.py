"""The in-forward engine does what the plain one does, and leaves the stored parameters alone."""

import copy
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sampled import diagonal
from torch import nn
from torch.nn import functional

from zobench import InForwardSpace, ModuleSpace, layout, methods, query
from zobench.law import LAWS
from zobench.layout import CPU, Block, Layout, Segment
from zobench.space import lazy_rows
from zobench.space.lazy_rows import RowSweep, overlaps, runs
from zobench.space.sweep import NOTHING, Drawn
from zobench.threads import in_parallel

pytestmark = pytest.mark.usefixtures("one_thread")


class Tiny(nn.Module):
    """Embedding tied to the head, a frozen layer, a layer used twice, a norm, a buffer and a bare parameter."""

    def __init__(self, tied: bool = True, dtype: torch.dtype = torch.float64, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.embedding = nn.Embedding(23, 7)
            self.frozen, self.shared, self.norm = nn.Linear(7, 7), nn.Linear(7, 7, bias=False), nn.LayerNorm(7)
            self.head = nn.Linear(7, 23, bias=False)
            self.gain = nn.Parameter(torch.randn(7))
            self.register_buffer("shift", torch.randn(7))
        if tied:
            self.head.weight = self.embedding.weight
        self.frozen.requires_grad_(False)
        self.to(dtype)

    def forward(self, ids):
        x = self.shared(torch.tanh(self.frozen(self.embedding(ids))))
        x = self.norm(x + self.shared(x)) * self.gain + self.shift
        return self.head(x)


IDS = torch.tensor([[3, 5, 5, 0], [22, 1, 3, 9]])


def loss_of(module):
    return lambda: functional.cross_entropy(module(IDS).flatten(0, 1).double(), IDS.flatten())


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 10 entries: they end within rows, and rows within them."""
    monkeypatch.setattr(layout, "BLOCK_SIZE", 10)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("name", "law"), diagonal(["mezo", "forward", "kerzoo", "richardson"], LAWS))
def test_losses_and_steps_are_those_of_the_plain_engine(name, law, tied, paired, small_blocks):
    plain, other = Tiny(tied), Tiny(tied)
    spaces = ModuleSpace(plain), InForwardSpace(other, paired)
    estimator = methods.make(name, epsilon=0.05, law=law, n=2)
    for key in range(50 if law == "gaussian" else 5):
        told = [query(s, estimator, loss_of(m), key, ()) for s, m in zip(spaces, (plain, other), strict=True)]
        assert torch.allclose(told[0].losses, told[1].losses, rtol=1e-9)
        for space, one in zip(spaces, told, strict=True):
            space.step_(one.gradient, -1e-3, shrink=0.01)
    assert torch.allclose(spaces[0].vector(), spaces[1].vector(), rtol=1e-7, atol=1e-9)
    assert not torch.allclose(spaces[1].vector(), InForwardSpace(Tiny(tied)).vector(), atol=1e-4)  # planted: it moved


def test_kerzoos_code_runs_on_both():
    plain, other = Tiny(), Tiny()
    spaces, estimator = (ModuleSpace(plain), InForwardSpace(other)), methods.make("kerzoo-code", epsilon=0.05)
    told = [query(s, estimator, loss_of(m), 3, estimator.init()) for s, m in zip(spaces, (plain, other), strict=True)]
    assert torch.allclose(told[0].losses, told[1].losses, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_looking_writes_nothing_in_any_dtype(dtype):
    module = Tiny(dtype=dtype)
    space, before = InForwardSpace(module), copy.deepcopy(module.state_dict())
    query(space, methods.make("mezo", epsilon=0.1), loss_of(module), 1, ())
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    plain = Tiny(dtype=dtype)
    unsettled = ModuleSpace(plain)
    query(unsettled, methods.make("mezo", epsilon=0.1), loss_of(plain), 1, ())
    unsettled.settle_()
    drift = sum(float((a != b).sum()) for a, b in zip(plain.state_dict().values(), before.values(), strict=True))
    assert drift > 0  # what the plain engine leaves behind


def test_a_loss_that_fails_leaves_the_module_whole():
    module = Tiny()
    space, before = InForwardSpace(module), copy.deepcopy(module.state_dict())

    def broken():
        module(IDS)
        raise RuntimeError("no loss today")

    with pytest.raises(RuntimeError, match="no loss today"):
        query(space, methods.make("mezo", epsilon=0.1), broken, 1, ())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(type(m._parameters) is dict for m in module.modules())
    assert torch.equal(loss_of(module)(), loss_of(Tiny())())


@pytest.mark.parametrize("when", ["both", "first", "second"])
def test_an_error_in_one_of_a_pair_is_told_and_the_next_step_works(when, small_blocks, monkeypatch):
    module = Tiny().eval()
    space, ready, lock = InForwardSpace(module, paired=True), [], threading.Lock()

    def broken():
        with lock:
            ready.append(threading.get_ident())
        main = threading.current_thread() is threading.main_thread()
        module.shared.weight.sum()
        if when == "both" or (when == "first") == main:
            raise RuntimeError("no loss today")
        return module(IDS).square().mean()

    with pytest.raises(RuntimeError, match="no loss today"):
        query(space, methods.make("mezo", epsilon=0.1), broken, 1, ())
    assert len(set(ready)) == 2
    losses = []
    for whole, engine in ((module, space), (fresh := Tiny().eval(), InForwardSpace(fresh))):
        losses.append(query(engine, methods.make("mezo", epsilon=0.1), loss_of(whole), 1, ()).losses)
    assert torch.equal(*losses)


def test_threads_that_read_different_things_go_on_alone(small_blocks):
    """A closure whose reads depend on the thread: no deadlock, and the losses are still those of the points."""
    module = Tiny().eval()
    space = InForwardSpace(module, paired=True)

    def crooked():
        if threading.current_thread() is threading.main_thread():
            module.shared.weight.sum()
        return loss_of(module)()

    crooked_told = query(space, methods.make("mezo", epsilon=0.1), crooked, 1, ())
    told = query(InForwardSpace(module), methods.make("mezo", epsilon=0.1), loss_of(module), 1, ())
    assert torch.allclose(crooked_told.losses, told.losses, rtol=1e-12)


def test_what_is_read_is_perturbed_and_what_is_listed_is_not():
    module = Tiny().eval()
    space, seen = InForwardSpace(module), []
    stored = module.gain.detach().clone()

    def look():
        seen.append((module.gain.detach().clone(), dict(module.named_parameters())["gain"].detach().clone()))
        assert module.embedding.weight[[2, 5, 2]].shape == (3, 7)
        assert torch.allclose(module.embedding.weight[[2, 5, 2]], (module.embedding.weight + 0)[[2, 5, 2]])
        return 0.0

    query(space, methods.make("mezo", epsilon=0.1), look, 1, ())
    (first, listed), (second, _) = seen
    assert not torch.equal(first, stored) and torch.allclose(first + second, 2 * stored)
    assert torch.equal(listed, stored) and torch.equal(module.gain, stored)


@given(
    width=st.integers(1, 9),
    start=st.integers(0, 60),
    size=st.integers(1, 40),
    rows=st.sets(st.integers(0, 40), max_size=12),
)
def test_overlaps_cover_every_wanted_entry_of_a_block_once(width, start, size, rows):
    block = Block(Segment("x", 1000), 0, start, start + size, start)
    wanted = torch.tensor(sorted(rows), dtype=torch.int64)
    numbers = torch.arange(start, start + size)
    found = torch.full((len(wanted), width), -1)
    for part, place, columns, offset in overlaps(block, wanted, width):
        length = columns.stop - columns.start
        seen = numbers[offset:][: (size - offset) // length * length].view(-1, length)[place]
        assert bool((found[part, columns] == -1).all())
        found[part, columns] = seen
    every = wanted[:, None] * width + torch.arange(width)
    inside = (every >= start) & (every < start + size)
    assert torch.equal(found, torch.where(inside, every, -1))


@given(width=st.sampled_from([1, 3, 16]), rows=st.sets(st.integers(0, 40), min_size=1, max_size=12))
def test_runs_hold_every_wanted_row_once_and_little_else(width, rows):
    segment, wanted = Segment("x", 41 * width, shape=(41, width)), torch.tensor(sorted(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lazy_rows, "GAP", 2 * width)
        patch.setattr(lazy_rows, "BLOCK_SIZE", 8 * width)
        found = list(runs(segment, 100, wanted))
    assert torch.equal(torch.cat([place + block.start // width for block, (_, place, _, _) in found]), wanted)
    assert torch.equal(torch.cat([torch.arange(41)[:12][part] for _, (part, *_) in found]), torch.arange(len(wanted)))
    for block, (_, place, columns, at) in found:
        assert block.size <= 8 * width and block.offset == 100 + block.start and (columns, at) == (slice(0, width), 0)
        assert place[0] == 0 and (place[-1] + 1) * width == block.size and bool((place.diff() <= 2).all())


@pytest.mark.parametrize("law", ["gaussian", "rademacher", "sphere", "low-rank", "small-weights", "coordinate"])
def test_rows_alone_are_those_of_the_whole_matrix(law, small_blocks, monkeypatch):
    """To the bit; and where the native sweep knows the law, nothing is drawn that lies far from the rows."""
    segment = Segment("x", 300 * 64, torch.float32, CPU, (300, 64))
    space, chosen = Layout((segment,)), methods.parse(f"mezo:law={law}").law
    values, wanted, target = torch.linspace(-1, 1, segment.size), torch.tensor([0, 1, 77, 78, 299]), torch.zeros(5, 64)
    bound = chosen.bind(space, lambda b: values[b.start : b.stop]) if chosen.reads_weights else chosen
    draw = bound.direction(3, 0, space, ())
    whole = torch.cat([torch.zeros(b.size) if (u := draw(b)) is None else u for b in space.blocks]).view(300, 64)
    monkeypatch.setattr(lazy_rows, "GAP", 64)
    job = RowSweep(space.blocks, wanted, NOTHING, [Drawn(draw, (1.0,))], [target])
    job.take()
    assert torch.equal(target, whole[wanted]) and bool(whole.any())
    assert (sum(block.size for block in job.blocks) == 5 * 64) == (law != "coordinate")


def test_the_number_of_threads_changes_nothing(small_blocks):
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            module = nn.Bilinear(20, 20, 30, bias=False)  # of many blocks; products of torch may depend on its threads
            nn.init.constant_(module.weight, 0.1)
            space = InForwardSpace(module)
            for key in range(3):
                told = query(space, methods.make("mezo", epsilon=0.05), lambda m=module: m.weight.sin().sum(), key, ())
                space.step_(told.gradient, -1e-2)
            results.append(space.vector())
        finally:
            torch.set_num_threads(1)
    assert torch.equal(*results)


def test_an_error_in_any_block_is_told():
    waiting = iter(range(10))

    def take():
        for number in waiting:
            if number == 7:
                raise ValueError("block 7")

    for threads in (1, 3):
        torch.set_num_threads(threads)
        waiting = iter(range(10))
        try:
            with pytest.raises(ValueError, match="block 7"):
                in_parallel(take, 10, torch.device("cpu"))
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(1)
