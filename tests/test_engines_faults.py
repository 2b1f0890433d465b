"""Errors and interrupts in the middle of a look or a step: the parameters are whole, or every later call says torn."""

import itertools
import linecache
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest
import torch
from engines import ENGINES, IN_FORWARD, bits, space_of, swept_by
from torch import Tensor, nn

from zobench import Combination, Gaussian, ModuleSpace, Term, layout, methods, query
from zobench.space import Engine, InForward
from zobench.space.sweep import Sweep

pytestmark = pytest.mark.usefixtures("one_thread")

MEZO = methods.make("mezo", epsilon=0.1)
DEFERRED = [name for name in IN_FORWARD if "deferred" in name]
PAIRED = [name for name in IN_FORWARD if "paired" in name]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 20 entries: several to a matrix."""
    monkeypatch.setattr(layout, "BLOCK_SIZE", 20)


class Small(nn.Module):
    """A table of 3 blocks, two matrices of 3, a vector of one."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Embedding(10, 6)
        self.one, self.two = (nn.Parameter(torch.randn(6, 10, generator=generator)) for _ in range(2))
        self.gain = nn.Parameter(torch.randn(10, generator=generator))
        nn.init.constant_(self.table.weight, 0.5)
        self.eval()

    def loss(self) -> Tensor:
        x = self.table(torch.tensor([1, 7]))
        return (torch.tanh(x @ self.one) * self.gain @ self.two.t()).square().mean()


def combination(key: int = 8) -> Combination:
    return Combination((Term(Gaussian(), key, torch.tensor([0.3], dtype=torch.float64)),))


def ready(engine: str | Engine) -> tuple[Small, ModuleSpace]:
    """A module and its space after a step, which is pending if the engine defers."""
    module = Small()
    space = space_of(engine, module) if isinstance(engine, str) else ModuleSpace(module, engine)
    space.step_(combination(), shrink=0.1)
    return module, space


def state(module: nn.Module) -> Tensor:
    return torch.cat([bits(p) for p in module.parameters()])


def once() -> Tensor:
    """The bits of the parameters after that step, paid once."""
    module, space = ready("in-forward")
    space.settle_()
    return state(module)


def fresh_loss(module: Small) -> Tensor:
    """The loss of another module with these parameters."""
    other = Small()
    other.load_state_dict(module.state_dict())
    return other.loss()


def whole_or_torn(module: Small, space: ModuleSpace, wanted: list[Tensor]) -> str:
    """Which of the two it is; neither raises AssertionError."""
    try:
        space.settle_()
    except RuntimeError as error:
        assert "load them again" in str(error)
        step, motion = (lambda: space.step_(combination())), (lambda: space.motion(combination()))
        for call in (space.settle_, space.vector, step, motion, lambda: query(space, MEZO, module.loss, 1, ())):
            with pytest.raises(RuntimeError, match="load them again"):
                call()
        return "torn"
    assert any(torch.equal(state(module), each) for each in wanted), "neither torn nor whole"
    assert not torch.equal(module.loss(), query(space, MEZO, module.loss, 1, ()).losses[0, 0])
    assert torch.equal(module.loss(), fresh_loss(module))
    return "whole"


@pytest.mark.parametrize("way", ["native", "eager"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("after", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("where", ["main", "other"])
@pytest.mark.parametrize("engine", IN_FORWARD)
def test_a_loss_that_raises_leaves_what_is_owed_paid_once(engine, where, after, error, way):
    module, space = ready(engine)
    names = ["one", "gain", "two", "one"]

    def broken() -> Tensor:
        main = threading.current_thread() is threading.main_thread()
        if "paired" not in engine or main == (where == "main"):
            for name in names[:after]:
                getattr(module, name).sum()
            raise error("no loss today")
        return module.loss()

    with swept_by(way), pytest.raises(error, match="no loss today"):
        query(space, MEZO, broken, 1, ())
    assert whole_or_torn(module, space, [once()]) == "whole"
    fresh, other = ready("in-forward")
    again, wanted = (query(s, MEZO, m.loss, 2, ()).losses for s, m in ((space, module), (other, fresh)))
    assert torch.equal(again, wanted)


def crooked(module: Small, orders: tuple[str, str]) -> Tensor:
    """A loss that reads the parameters of the one order in the main thread, of the other elsewhere."""
    main = threading.current_thread() is threading.main_thread()
    return sum(float(getattr(module, name).sum()) for name in orders[main].split())


def broken_at_every_block(engine: str, error: type, loss: Callable[[Small], Tensor]) -> set[str]:
    """At every block in turn, in whichever thread takes it, before anything and halfway through the block."""
    sweep, outcomes, wanted = Sweep._sweep, set(), [once()]
    for at in itertools.count():
        module, space = ready(engine)
        count = iter(range(1000))

        def breaking(self, block, count=count, at=at):
            number = next(count)
            if number == at // 2:
                if at % 2:
                    sweep(self, block)
                raise error("broken off")
            sweep(self, block)

        with swept_by("eager"), pytest.MonkeyPatch.context() as patch:
            patch.setattr(Sweep, "_sweep", breaking)
            try:
                query(space, MEZO, partial(loss, module), 1, ())
                space.step_(combination(9))
            except error:
                pass
            else:  # it has fewer blocks
                return outcomes
        outcomes.add(whole_or_torn(module, space, wanted))
    raise AssertionError


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_sweep_that_breaks_off_is_whole_or_torn(engine, error):
    outcomes = broken_at_every_block(engine, error, Small.loss)
    assert outcomes == ({"torn"} if engine == "plain" else {"torn", "whole"})


@pytest.mark.parametrize("orders", [("one gain two", "two"), ("one two", "two one")])
def test_a_sweep_that_breaks_off_where_each_thread_reads_for_itself(orders):
    """A pending step is then written beside the look, by one thread at a time."""
    assert broken_at_every_block("paired-deferred", MemoryError, partial(crooked, orders=orders)) == {"torn", "whole"}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_law_that_refuses_has_torn_nothing(engine):
    module = nn.Linear(1, 1).double().eval()
    space = space_of(engine, module)
    before = space.vector()
    with pytest.raises(ValueError, match="no more than 2 directions"):
        query(space, methods.make("orthogonal", n=3), lambda: module(torch.ones(1).double()).sum(), 1, ())
    space.settle_()
    assert torch.allclose(space.vector(), before, rtol=1e-12)


class Late(InForward):
    """Planted: what is written is noted only after the parameters are said to be whole."""

    def write_pending(self, names):
        while due := {name: self.pending[name][0] for name in names if name in self.pending}:
            for name, pending in due.items():
                with self.stored.writing():
                    self.stored.write_(pending.change, [name], pending.support)
                self._written(name)


def interrupted(space: ModuleSpace, module: Small, line: int, code: set[str]) -> bool:
    """Look and step, with an interrupt at this line of the library that the main thread comes to; False if it ends."""
    count = iter(range(1_000_000))

    def trace(frame, event, argument):
        if frame.f_code.co_filename.endswith(tuple(code)):
            # Python itself cannot be interrupted between a block and the __exit__ that follows it
            is_with = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip().startswith("with ")
            if event == "line" and not is_with and next(count) == line:
                sys.settrace(None)
                raise KeyboardInterrupt("now")
            return trace
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        query(space, MEZO, module.loss, 1, ())
        space.step_(combination(9))
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


CODE = {
    f"space/{name}.py" for name in ("in_forward", "paired", "meeting", "threads", "sweep", "module", "stored", "engine")
}


def outcomes_of_interrupts(engine: Callable[[], str | Engine], lines: range) -> set[str]:
    module, space = ready(engine())
    told = query(space, MEZO, module.loss, 1, ())
    space.step_(combination(9))
    space.settle_()
    wanted, found = [once(), state(module)], set()
    del told
    for line in lines:
        module, space = ready(engine())
        if not interrupted(space, module, line, CODE):
            break
        found.add(whole_or_torn(module, space, wanted))
    return found


@pytest.mark.parametrize("engine", IN_FORWARD)
def test_an_interrupt_at_any_line_pays_nothing_twice(engine):
    assert outcomes_of_interrupts(lambda: engine, range(0, 2000, 7)) == {"torn", "whole"}


def test_planted_a_space_that_notes_payments_late_is_found():
    with pytest.raises(AssertionError, match="neither torn nor whole"):
        outcomes_of_interrupts(lambda: Late(deferred=True), range(2000))


@pytest.fixture
def interruptible():
    """A process that a shell has started in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("engine", PAIRED)
def test_an_interrupt_while_the_other_point_is_at_work_waits_for_it(engine):
    module, space = ready(engine)
    done = threading.Event()
    threads = torch.get_num_threads()

    def loss() -> float:
        if threading.current_thread() is threading.main_thread():
            done.set()
            return 0.0
        done.wait()
        time.sleep(0.05)  # the main thread now waits for this one
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.05)
        loss.value = float(module.one.detach().sum())
        return loss.value

    with pytest.raises(KeyboardInterrupt):
        query(space, MEZO, loss, 1, ())
    assert loss.value  # it has ended, and has read what it was to read
    assert torch.get_num_threads() == threads
    assert whole_or_torn(module, space, [once()]) == "whole"


@pytest.mark.parametrize("way", ["native", "eager"])
@pytest.mark.parametrize("engine", PAIRED)
@pytest.mark.parametrize(
    "orders", [("one two", "two one"), ("one gain two", "two"), ("one", ""), ("one two one", "one one")]
)
def test_threads_that_read_different_parameters_pay_each_once(orders, engine, way):
    wanted = once()
    for _ in range(10):
        module, space = ready(engine)
        with swept_by(way):
            told = query(space, MEZO, partial(crooked, module, orders), 1, ())
        fresh, other = ready("in-forward")
        turn = iter(orders[::-1])  # the first point was the main thread's

        def straight(fresh=fresh, turn=turn) -> float:
            return sum(float(getattr(fresh, name).sum()) for name in next(turn).split())

        assert torch.equal(told.losses, query(other, MEZO, straight, 1, ()).losses)
        space.settle_()
        assert torch.equal(state(module), wanted)


@pytest.mark.parametrize("engine", PAIRED)
def test_rows_that_depend_on_the_point(engine):
    """As many rows at both points, but others: a decoded text differs from point to point."""
    found = []
    for each in ("in-forward", engine):
        module, space = ready(each)
        space.settle_()

        def loss(module=module, middle=float(module.gain.detach()[0])) -> Tensor:
            row = 2 if float(module.gain[0]) > middle else 8
            return module.table(torch.tensor([row])).sum()

        found.append(query(space, MEZO, loss, 1, ()).losses)
    assert torch.equal(*found)


KEPT = {
    "itself": lambda w: w,
    "transposed": lambda w: w.t(),
    "a row": lambda w: w[2],
    "detached": lambda w: w.detach(),
    "data": lambda w: w.data,
    "an array": lambda w: w.numpy(),
    "a tensor of an array": lambda w: torch.from_numpy(w.numpy()),
    "storage": lambda w: w.untyped_storage(),
    "flattened": lambda w: {"deep": [w.view(-1)[3:]]}["deep"][0],
}


@pytest.mark.parametrize("keep", KEPT)
@pytest.mark.parametrize("engine", IN_FORWARD)
def test_a_perturbed_parameter_that_is_kept_stays_what_it_was(engine, keep):
    module, space = ready(engine)
    other: list[bool] = []

    def loss() -> float:
        kept = KEPT[keep](module.one.detach())
        was = torch.tensor(list(kept)) if keep == "storage" else torch.as_tensor(kept).clone()
        first = module.one.data_ptr()
        for name in ("two", "gain", "two", "one", "two"):
            getattr(module, name).sum()
        now = torch.tensor(list(kept)) if keep == "storage" else torch.as_tensor(kept)
        assert torch.equal(now, was)
        del kept
        module.gain.sum()
        other.append(module.two.data_ptr() != first)
        return 0.0

    query(space, MEZO, loss, 1, ())
    assert len(other) == 2


def test_memory_that_nobody_holds_is_used_again():
    """The twin of the above: without a holder the next parameter lies where the last one lay."""
    module, space = ready("in-forward")
    places = set()

    def loss() -> float:
        for name in ("one", "two", "one"):
            places.add(getattr(module, name).data_ptr())
        return float(len(places))

    assert query(space, MEZO, loss, 1, ()).losses.max() <= 2  # one for each point
