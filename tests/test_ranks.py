"""Several processes take one step: the same bits as one process, and an end within bounds whatever happens."""

import os
import signal
import time
from functools import partial

import pytest
import torch
from ranks import together
from torch import nn

from zobench import SGD, InForwardSpace, ModuleSpace, derive, methods
from zobench.distributed import Division, Ranks, checksum, slice_of
from zobench.optim import ZerothOrder
from zobench.query import query
from zobench.space import Shared

pytestmark = pytest.mark.usefixtures("one_thread")

INPUTS = torch.randn(12, 6, generator=torch.Generator().manual_seed(1))
TARGETS = torch.randn(12, generator=torch.Generator().manual_seed(2))
SPACES = {
    "plain": ModuleSpace,
    "deferred": partial(InForwardSpace, deferred=True),
    "paired": partial(InForwardSpace, paired=True, deferred=True),
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1)).eval()


def parts(model, rows, size):
    """Losses of examples that depend on the part in which they are computed, as padding makes real ones depend."""
    return torch.cat([each(model, rows[first : first + size]) for first in range(0, len(rows), size)])


def each(model, rows):
    error = model(INPUTS[rows]).squeeze(1) - TARGETS[rows]
    return error**2 * (1 + 1e-3 * len(rows) + 1e-4 * INPUTS[rows].sum())


def trained(kind, method, size, steps=4, shared=None):
    """The weights after some steps, and what the losses of the last one were."""
    model = network()
    space = SPACES[kind](model)
    space.share(shared)
    rule, estimator = SGD(lr=0.05, weight_decay=0.01), methods.parse(method)
    memory, state, rows = rule.init(space), estimator.init(), list(range(12))
    if shared is not None and shared.division.data > 1:
        mine = slice_of(12 // size, shared.division.data, shared.division.part_of(shared.ranks.rank))
        rows = rows[mine.start * size : mine.stop * size]
    for step in range(steps):
        estimate = query(space, estimator, lambda: parts(model, rows, size), derive(7, step), state)
        state, memory = estimate.state, rule.apply_(space, estimate.gradient, memory)
    space.settle_()
    return space.vector(), estimate.losses


def of_ranks(world, text, kind, method, size, folder):
    def work(rank):
        ranks = Ranks(60.0)
        result = trained(kind, method, size, shared=Shared(ranks, Division.parse(text, world)))
        ranks.close()
        return result, ranks.bytes, ranks.exchanges

    return [each.value for each in together(world, work, folder)]


CASES = [
    (2, "probes", "plain", "mezo:n=2"),
    (4, "probes", "deferred", "mezo"),  # two of the four have no point
    (4, "2x2", "paired", "fzoo:n=3"),
    (2, "data", "plain", "kerzoo"),
    (4, "2x2", "deferred", "forward-gradient:n=3"),
]
MORE = [
    (world, text, kind, method)
    for world, text in ((2, "probes"), (4, "probes"), (2, "data"), (4, "data"), (4, "2x2"), (3, "probes"))
    for kind in SPACES
    for method in ("mezo", "mezo:n=5", "fzoo:n=3", "forward-gradient:n=3", "mezo:law=low-rank:n=2")
]


def same(world, text, kind, method, folder):
    size = 3
    weights, losses = trained(kind, method, size)
    for result, _, _ in of_ranks(world, text, kind, method, size, folder):
        assert torch.equal(result[0], weights)
        assert torch.equal(result[1], losses)


@pytest.mark.parametrize(("world", "text", "kind", "method"), CASES)
def test_ranks_take_the_steps_of_one_process_to_the_bit(world, text, kind, method, tmp_path):
    same(world, text, kind, method, tmp_path)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("world", "text", "kind", "method"), MORE)
def test_ranks_take_the_steps_of_one_process_to_the_bit_in_every_way(world, text, kind, method, tmp_path):
    same(world, text, kind, method, tmp_path)


def test_the_split_of_a_minibatch_is_seen_in_the_bits_of_these_losses():
    assert not torch.equal(trained("plain", "mezo", 3)[0], trained("plain", "mezo", 4)[0])


def test_a_step_sends_a_few_numbers_whatever_the_size_of_the_model(tmp_path):
    ((_, sent, exchanges), _) = of_ranks(2, "probes", "plain", "mezo", 3, tmp_path)
    assert (sent, exchanges) == (4 * 16, 4)  # a count and a loss, in each of four steps


def test_divisions_and_their_faults():
    assert Division.parse("auto", 4, 2) == Division(2, 2) and Division.parse("auto", 4, 5) == Division(4, 1)
    assert Division.parse("auto", 3, 2) == Division(1, 3) and Division.parse("data", 3) == Division(1, 3)
    for text in ("2x3", "probe", "2x", "0x0"):
        with pytest.raises(ValueError, match=f"ranks is '{text}'"):
            Division.parse(text, 4)
    assert [list(slice_of(5, 3, i)) for i in range(3)] == [[0], [1, 2], [3, 4]]
    assert checksum([torch.ones(3), torch.zeros(())]) != checksum([torch.ones(3), torch.full((), -0.0)])


def faulty(fault, timeout=3.0):
    """A rank 1 of 2 that meets a fault in its third step."""

    def work(rank):
        shared, calls = Shared(Ranks(timeout), Division(2, 1)), iter(range(100))
        model = network()
        space = ModuleSpace(model)
        space.share(shared)

        def loss():
            if rank == 1 and next(calls) == 2:
                return fault()
            return each(model, list(range(12)))

        for step in range(5):
            estimate = query(space, methods.make("mezo"), loss, derive(7, step), ())
            if estimate.gradient.finite:
                space.step_(estimate.gradient, -0.01)
        space.settle_()
        return checksum(p.data for p in model.parameters())

    return work


def test_a_rank_that_dies_hangs_or_fails_ends_the_others(tmp_path):
    def failing():
        raise ZeroDivisionError("mine")

    began = time.monotonic()
    died = together(2, faulty(lambda: os.kill(os.getpid(), signal.SIGKILL), 60.0), tmp_path / "died")
    failed = together(2, faulty(failing, 60.0), tmp_path / "failed")
    assert time.monotonic() - began < 100  # far below the two timeouts
    hung = together(2, faulty(lambda: time.sleep(60)), tmp_path / "hung")
    assert died[0].error.startswith("RankLostError: rank 1 has ended or hangs") and died[1].value is None
    assert failed[0].error.startswith("RankLostError: rank 1 met an error")
    assert failed[1].error == "ZeroDivisionError: mine"
    assert hung[0].error.startswith("RankLostError: rank 1 has ended or hangs")


def test_a_nan_on_one_rank_is_seen_by_all(tmp_path):
    one, two = together(2, faulty(lambda: torch.tensor(float("nan"))), tmp_path)
    assert one.value == two.value is not None


def test_the_rank_whose_weights_differ_is_named(tmp_path):
    def work(rank):
        Ranks(30.0).require_same("checksum of the weights", 5 if rank == 1 else 3)

    for ended in together(3, work, tmp_path):
        assert ended.error.startswith("RanksDifferError: rank 1 of 3 ranks has another checksum of the weights")


def optimized(ranks, seed=0, **options):
    """The weights after three steps of an optimizer, whose closure has the rows of its rank where data is divided."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    model, rows = network(), list(range(12))
    if ranks in ("auto", "data"):
        rows = [rows[place] for place in slice_of(12, world, rank)]
    if seed and rank == 1:
        with torch.no_grad():
            model[0].bias.add_(1.0)
    optimizer = ZerothOrder(model.named_parameters(), methods.make("mezo", n=2), lr=0.05, ranks=ranks, **options)
    for _ in range(3):
        optimizer.step(lambda: parts(model, rows, 6))
    optimizer.space.settle_()
    return [p.detach().clone() for p in model.parameters()], float(optimizer.loss)


@pytest.mark.parametrize("ranks", ["probes", "auto"])
def test_optimizers_of_several_processes_take_the_step_of_one(ranks, tmp_path):
    weights, loss = optimized("alone")
    for ended in together(2, lambda _: optimized(ranks), tmp_path):
        assert ended.value[1] == loss
        assert all(map(torch.equal, ended.value[0], weights))


def test_an_optimizer_names_the_process_that_began_elsewhere(tmp_path):
    for ended in together(2, lambda _: optimized("data", seed=1), tmp_path):
        assert ended.error.startswith("RanksDifferError: rank 1 of 2 ranks has another checksum of the parameters")


@pytest.mark.environment
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of transformers and accelerate
def test_the_trainers_of_two_processes_train_as_one_with_both_batches(tmp_path):
    from test_trainer import InOrder, rows, stacked, tiny
    from transformers import TrainingArguments

    def train(batch, folder):
        from accelerate.state import AcceleratorState, GradientState, PartialState

        for state in (AcceleratorState, PartialState, GradientState):
            state._shared_state.clear()  # those of the process that was forked
        model = tiny(0.0)
        quiet = {"report_to": "none", "save_strategy": "no", "use_cpu": True, "disable_tqdm": True}
        args = TrainingArguments(
            str(folder), per_device_train_batch_size=batch, max_steps=2, learning_rate=0.05, **quiet
        )
        trainer = InOrder(
            model=model,
            args=args,
            train_dataset=rows(8),
            data_collator=stacked,
            estimator=methods.make("mezo", epsilon=0.1),
        )
        trainer.train()
        assert type(trainer.model_wrapped) is type(model)  # no DistributedDataParallel
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    ((alone, _),) = together(1, lambda _: train(4, tmp_path / "alone"), tmp_path / "one")
    one, two = together(2, lambda _: train(2, tmp_path / "both"), tmp_path / "two")
    assert not torch.equal(alone, torch.cat([p.flatten() for p in tiny(0.0).parameters()]))
    assert torch.equal(one.value, two.value)
    assert torch.allclose(one.value, alone, rtol=0, atol=1e-5)
