"""The batched engine: all points of low-rank directions in one forward, equal to the in-forward engine to rounding."""

import copy
from dataclasses import dataclass

import pytest
import torch
from engines import IDS, Net, bits, loss_of, space_of, steps
from test_engines_models import model_of
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zobench import Combination, Gaussian, LowRank, ModuleSpace, Plan, Subspace, Term, layout, methods, query
from zobench.law.factors import factors_together, vectors_together
from zobench.space import Batched, factored
from zobench.space.closure import evaluate

pytestmark = pytest.mark.usefixtures("one_thread")

RANK = LowRank(2)
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.03}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(layout, "BLOCK_SIZE", 200)


def batched(module, points=None, **options):
    return ModuleSpace(module, Batched(points, **options))


def both(module, f, estimator, points=None, key=1):
    """The losses on the in-forward engine and on this one."""
    plan = estimator.ask(key, ())
    return space_of("in-forward", module).losses(f, plan), batched(module, points).losses(f, plan)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", ["opt", "gpt2", "llama"])
def test_losses_are_those_of_the_in_forward_engine(name, dtype):
    """Linear and Conv1D, embeddings, tied heads, layer norms and RMS norms, a base point that all lines share."""
    model = model_of(name, dtype)
    for method in ("mezo", "forward"):
        dense, ours = both(model, loss_of(model), methods.make(method, epsilon=0.05, law=RANK, n=3))
        assert torch.allclose(dense, ours, rtol=TOLERANCES[dtype], atol=0)
        assert float(dense.max() - dense.min()) > 1e-3  # planted: nothing perturbed


@pytest.mark.parametrize("points", [1, 2, 5, 7, 100])
def test_a_bound_on_the_points_of_a_forward_changes_rounding_alone(points):
    module, seen = model_of("opt", torch.float64), []

    def loss():
        seen.append(torch._C._functorch.maybe_current_level() is not None)
        return loss_of(module)()

    dense, ours = both(module, loss, methods.make("forward", epsilon=0.05, law=RANK, n=6), points)
    assert torch.allclose(dense, ours, rtol=1e-12, atol=0)
    forwards = len(seen) - 7  # of the in-forward engine
    assert forwards == -(-7 // points)  # 6 points and the base point


def test_the_law_of_a_matrix_alone_is_what_is_read(monkeypatch):
    """Planted: factors of other numbers give other losses."""
    module = model_of("gpt2", torch.float64)
    dense, _ = both(module, loss_of(module), methods.make("mezo", epsilon=0.05, law=RANK))
    direction = type(RANK.direction(0, 0, batched(module).layout, ()))
    factors = direction.factors

    def larger(self, segment):
        left, right = factors(self, segment)
        return left, right * 1.01

    monkeypatch.setattr(direction, "factors", larger)
    ours = batched(module).losses(loss_of(module), methods.make("mezo", epsilon=0.05, law=RANK).ask(1, ()))
    assert not torch.allclose(dense, ours, rtol=1e-6, atol=0)


@pytest.mark.parametrize("law", [RANK, LowRank(3, scaled=False), RANK.refreshed(9), Subspace(2)])
def test_what_is_drawn_together_is_what_each_direction_draws_alone(law):
    whole = batched(model_of("opt", torch.float32)).layout
    matrices, vectors = ([s for s in whole.segments if (len(s.shape) == 2) is are] for are in (True, False))
    together, alone = ([law.direction(5, index, whole, ()) for index in range(3)] for _ in range(2))
    found, entries = factors_together(together, matrices), vectors_together(together, vectors)
    for direction, factors, row, first in zip(alone, found, entries, together, strict=True):
        for segment, pair in zip(matrices, factors, strict=True):
            assert all(map(torch.equal, pair, direction.factors(segment)))
            assert first.factors(segment)[0].data_ptr() == pair[0].data_ptr()  # held for the step
        assert torch.equal(row, torch.cat([direction(b) for s in vectors for b in whole.blocks_of[s.name]]))


def test_a_factored_law_of_ones_own():
    """Its directions are asked one by one, for factors and for blocks, of which some are zero."""

    @dataclass(frozen=True)
    class Own(LowRank):
        def direction(self, key, index, layout, batch):
            return Ones()

    class Ones:
        def factors(self, segment):
            rows, columns = segment.shape
            return torch.ones(rows, 1).double(), torch.full((1, columns), 0.1).double()

        def __call__(self, block):
            if len(block.segment.shape) == 2:
                return torch.full((block.size,), 0.1).double()
            return torch.ones(block.size).double() if "bias" in block.segment.name else None

    module = model_of("opt", torch.float64)
    dense, ours = both(module, loss_of(module), methods.make("mezo", epsilon=0.05, law=Own(1), n=1))
    assert torch.allclose(dense, ours, rtol=1e-12, atol=0) and float(dense.max() - dense.min()) > 1e-3


class Shapes(TorchDispatchMode):
    """The shapes of all tensors that operations make, views left out."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves(args) if isinstance(t, torch.Tensor)}
        if isinstance(found, torch.Tensor) and found.untyped_storage()._cdata not in given:
            self.seen.append(tuple(found.shape))
        return found


def test_no_matrix_of_a_point_exists(monkeypatch):
    module = model_of("opt", torch.float32)
    plan = methods.make("mezo", epsilon=0.05, law=LowRank(1), n=3).ask(1, ())
    with Shapes() as ours:
        batched(module).losses(loss_of(module), plan)
    monkeypatch.setattr(factored, "product", lambda x, w, left, right, _: x @ (w + left @ right).t())
    with Shapes() as formed:
        batched(module).losses(loss_of(module), plan)
    shapes = {tuple(p.shape) for p in module.parameters() if p.ndim == 2 and p.shape[0] != p.shape[1]}
    made = {(*points, *shape) for shape in shapes for points in ((), (6,), (3,))}
    assert len(ours.seen) > 50 and (6, 10, 24) in ours.seen  # all points of a hidden layer
    assert not made & {*ours.seen}
    assert made & {*formed.seen}  # planted


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_steps_are_those_of_the_in_forward_engine(dtype):
    ends = []
    for engine in ("in-forward", "batched"):
        module = model_of("opt", dtype)
        space = batched(module) if engine == "batched" else space_of(engine, module)
        space.step_(Combination((Term(RANK, 5, torch.ones(2, dtype=torch.float64)),)), 0.01, 0.1)
        ends.append([bits(p) for p in module.parameters()])
    assert all(map(torch.equal, *ends))
    module = model_of("opt", torch.float64)
    plain = copy.deepcopy(module)
    estimator = methods.make("mezo", epsilon=0.05, law=RANK, n=2)
    ours = steps(batched(module), loss_of(module), estimator, 10)
    theirs = steps(space_of("in-forward", plain), loss_of(plain), estimator, 10)
    assert torch.allclose(ours, theirs, rtol=1e-9, atol=0)


def test_lines_along_combinations_and_restricted_rows():
    model = model_of("gpt2", torch.float64)
    along = tuple(
        Combination((Term(RANK, key, torch.tensor(values, dtype=torch.float64)),))
        for key, values in ((3, [0.5, -1.0, 0.3]), (4, [1.0]))
    )
    offsets = torch.tensor([[0.05, -0.05, 0.0], [0.1, 0.0, -0.1]], dtype=torch.float64)
    plan = Plan(RANK, 1, offsets, torch.ones_like(offsets), along=along)
    found = [space.losses(loss_of(model), plan) for space in (space_of("in-forward", model), batched(model))]
    assert torch.allclose(*found, rtol=1e-12, atol=0)
    llama, plan = model_of("llama", torch.float64), methods.make("mezo", epsilon=0.05, law=RANK, n=2).ask(1, ())
    table = "model.embed_tokens.weight"
    spaces = [space_of("in-forward", llama), batched(llama)]
    for space in spaces:
        space.restrict({table: IDS.flatten()})
    found = [space.losses(loss_of(llama), plan) for space in spaces]
    assert torch.allclose(*found, rtol=1e-12, atol=0)
    tied = batched(model)
    tied.restrict({"transformer.wte.weight": IDS.flatten()})
    with pytest.raises(ValueError, match="whole vocabulary"):
        tied.losses(loss_of(model), plan)


def test_frozen_layers_adapters_and_bare_products():
    """LoRA as plain Linears beside a frozen one, a bare matrix in a product, chosen rows, masked attention."""

    class Adapted(nn.Module):
        def __init__(self):
            super().__init__()
            self.base, self.down, self.up = nn.Linear(6, 6), nn.Linear(6, 2, bias=False), nn.Linear(2, 6, bias=False)
            self.back, self.gain = nn.Parameter(torch.randn(6, 6)), nn.Parameter(torch.randn(()))
            self.head, self.norm = nn.Linear(6, 9, bias=False), nn.LayerNorm(6)
            self.frozen = nn.LayerNorm(6, bias=False)
            self.base.requires_grad_(False)

        def forward(self, x):
            x = self.norm(self.base(x) + self.up(self.down(x))) @ self.back * self.gain
            x = self.frozen(torch.mm(x.flatten(0, 1), self.back.t()).view_as(x))
            mask = torch.ones(2, 1, 3, 3, dtype=torch.bool).tril()
            mask[1, :, :, 0] = True
            heads = functional.scaled_dot_product_attention(*[x.view(2, 3, 2, 3).transpose(1, 2)] * 3, mask)
            x = x + heads.transpose(1, 2).reshape(2, 3, 6)
            return functional.linear(x, self.head.weight[[3, -1]]) + x @ self.head.weight[:][torch.tensor([0, 1])].T

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module, x = Adapted().double().eval(), torch.randn(2, 3, 6).double()
    mezo = methods.make("mezo", epsilon=0.1, law=RANK, n=3)
    dense, ours = both(module, lambda: module(x).square().mean((1, 2)), mezo)
    assert torch.allclose(dense, ours, rtol=1e-12, atol=0)
    assert float((dense[0] - dense[1]).abs().min()) > 1e-4


def test_weights_read_in_another_dtype_and_autocast():
    module = model_of("opt", torch.float32)
    plan = methods.make("mezo", epsilon=0.05, law=RANK, n=2).ask(1, ())
    exact = batched(module).losses(loss_of(module), plan)
    narrow = batched(module, reads=torch.bfloat16).losses(loss_of(module), plan)
    with torch.autocast("cpu", torch.bfloat16):
        cast = batched(module).losses(loss_of(module), plan)
    for found in (narrow, cast):
        assert torch.allclose(found, exact, rtol=0.05, atol=0) and not torch.allclose(found, exact, rtol=1e-5, atol=0)


class Odd(nn.Module):
    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def refused(module, f, match, law=RANK):
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ValueError, match=match):
        space = batched(module)
        query(space, methods.make("mezo", epsilon=0.05, law=law), f, 1, ())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(type(m._parameters) is dict for m in module.modules())


def test_what_the_engine_cannot_do_is_refused_and_the_module_is_whole():
    net = Net().eval()
    refused(net, loss_of(net), r"directions of low rank, but the law is Gaussian\(\): .*in-forward", Gaussian())
    convolution = Odd(conv=nn.Conv1d(3, 3, 1)).eval()
    refused(convolution, lambda: convolution.conv(torch.ones(1, 3, 4)).mean(), r"weight \(3, 3, 1\) of Conv1d")
    lstm = nn.LSTM(3, 3).eval()
    refused(lstm, lambda: lstm(torch.ones(2, 3))[0].mean(), "of LSTM is none: .*in-forward")
    bare = Odd(table=nn.Parameter(torch.ones(2, 3))).eval()
    refused(bare, lambda: (bare.table * 2).sum(), r"'table' is used by r?mul.*in-forward")
    refused(bare, lambda: (torch.ones(3) * bare.table).sum(), r"'table' is used by \w*mul")
    refused(bare, lambda: bare.table.sum(), "'table' is used by sum")
    refused(bare, lambda: 0.5, "the loss is 0.5, the same number at several points")
    refused(bare, lambda: functional.linear(bare.table, bare.table).sum(), "'table' is used by linear")
    bag = nn.EmbeddingBag(4, 3).eval()
    refused(bag, lambda: bag(torch.tensor([[0, 1]])).mean(), "embedding_bag")


@pytest.mark.parametrize(
    "take", [float, lambda x: x.item(), lambda x: x.tolist(), lambda x: x.numpy(), lambda x: x * bool(x > 0)]
)
def test_a_loss_that_takes_numbers_out_of_tensors_is_refused(take):
    net = model_of("opt", torch.float32)
    refused(net, lambda: take(loss_of(net)()), r"several points at once .*in-forward")


def test_a_number_of_points_below_one_is_refused():
    with pytest.raises(ValueError, match="points is 0"):
        Batched(0)
    with pytest.raises(ValueError, match=r"points is 1.5"):
        Batched(1.5)


def test_an_error_of_the_loss_is_its_own():
    module = model_of("opt", torch.float32)

    def broken():
        module(IDS)
        raise RuntimeError("no loss today")

    with pytest.raises(RuntimeError, match="no loss today"):
        query(batched(module), methods.make("mezo", epsilon=0.05, law=RANK), broken, 1, ())
    assert evaluate(loss_of(module)) == evaluate(loss_of(model_of("opt", torch.float32)))
