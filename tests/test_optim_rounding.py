"""ZerothOrder where rounding could take over: 16-bit parameters, rates of 0, memory formats."""

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import lr_scheduler

from zobench import AutoEpsilon, ForwardGradient, InForwardSpace, ModuleSpace, derive, methods, query
from zobench.optim import ZerothOrder
from zobench.space import ParameterSpace, restoring

pytestmark = pytest.mark.usefixtures("one_thread")

MEZO = methods.make("mezo", epsilon=1e-3)
INPUTS = torch.linspace(-1, 1, 8 * 20).reshape(8, 20)
LABELS = torch.arange(8) % 4
NARROW = [torch.bfloat16, torch.float16]


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 4)).to(dtype)


def loss_of(model: nn.Module) -> Tensor:
    return functional.cross_entropy(model(INPUTS.to(next(model.parameters()).dtype)).float(), LABELS)


def vector(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1).double() for p in model.parameters()])


@pytest.fixture(params=[restoring.REMEMBERED_BYTES, 0])
def any_size(request, monkeypatch):
    """Planted: nothing is remembered and no wide parameter is copied, as of large models."""
    monkeypatch.setattr(restoring, "REMEMBERED_BYTES", request.param)


class TestSixteenBits:
    @pytest.mark.parametrize("dtype", NARROW)
    @pytest.mark.filterwarnings("ignore:16 bits round:RuntimeWarning")
    def test_weights_are_written_by_steps_alone(self, dtype, any_size):
        """At a rate whose steps are all lost to the nearest, nothing moves; in place the way back moves most of it."""
        ours, walked = network(dtype), network(dtype)
        before, space = vector(ours), ModuleSpace(walked)
        optimizer = ZerothOrder(ours.named_parameters(), methods.make("mezo", epsilon=1e-2, n=2), lr=1e-12)
        for key in range(5):
            optimizer.step(lambda: loss_of(ours))
            space.step_(query(space, MEZO, lambda: loss_of(walked), key, ()).gradient, -1e-12)
        assert float((vector(ours) != before).double().mean()) < 0.05  # weights near 0 resolve any step
        assert torch.allclose(vector(ours), before, rtol=0, atol=1e-9)
        assert float((vector(walked) != before).double().mean()) > 0.3  # planted

    @pytest.mark.parametrize("dtype", NARROW)
    def test_a_step_that_is_rounded_away_is_told_once(self, dtype):
        model = network(dtype)
        optimizer = ZerothOrder(model.parameters(), MEZO, lr=1e-5)
        with pytest.warns(
            RuntimeWarning, match=r"16 bits round this step away: \d+\.\d%.*cosine.* 0\.\d\d, .*1e-05"
        ) as told:
            for _ in range(5):
                optimizer.step(lambda: loss_of(model))
        assert len(told) == 1

    @pytest.mark.parametrize(("dtype", "lr"), [(torch.float32, 1e-6), (torch.bfloat16, 0.05), (torch.float16, 0.05)])
    def test_a_step_that_is_kept_is_not(self, dtype, lr):
        model = network(dtype)
        optimizer = ZerothOrder(model.parameters(), methods.make("mezo", epsilon=1e-2), lr=lr)
        for _ in range(5):  # a warning would be an error
            optimizer.step(lambda: loss_of(model))

    def test_a_warm_up_is_no_alarm(self):
        model = network(torch.bfloat16)
        optimizer = ZerothOrder(model.parameters(), methods.make("mezo", epsilon=1e-2), lr=0.05)
        scheduler = lr_scheduler.LambdaLR(optimizer, lambda step: 1e-6 if step < 3 else 1.0)
        for _ in range(5):
            optimizer.step(lambda: loss_of(model))
            scheduler.step()

    def test_of_mixed_parameters_the_narrow_ones_are_told_and_the_wide_ones_step(self):
        model = network()
        model[0].to(torch.bfloat16)
        twin, wide = copy.deepcopy(model), list(model[2].parameters())

        def closure() -> Tensor:
            return functional.cross_entropy(model[2](torch.tanh(model[0](INPUTS.bfloat16())).float()), LABELS)

        groups = [{"params": model[0].parameters(), "lr": 1e-7}, {"params": wide, "lr": 0.05}]
        optimizer = ZerothOrder(groups, MEZO)
        with pytest.warns(RuntimeWarning, match="learning rates of 1e-07 to 0.05"):
            optimizer.step(closure)
        assert (vector(model[0]) - vector(twin[0])).norm() < 1e-4 < (vector(model[2]) - vector(twin[2])).norm()

    def test_stochastic_rounding_is_that_of_an_in_forward_space(self, any_size):
        ours, theirs, nearest = (network(torch.bfloat16) for _ in range(3))
        estimator = methods.make("mezo", epsilon=0.1)
        one = ZerothOrder(ours.named_parameters(), estimator, lr=0.05, rounding="stochastic")
        two = ZerothOrder(nearest.named_parameters(), estimator, lr=0.05)
        space = InForwardSpace(theirs, rounding="stochastic")
        for step in range(2):
            told = query(space, estimator, lambda: loss_of(theirs), derive(0, step), ())
            space.step_(told.gradient, -0.05)
            one.step(lambda: loss_of(ours))
            two.step(lambda: loss_of(nearest))
        assert torch.equal(vector(ours), vector(theirs)) and not torch.equal(vector(ours), vector(nearest))
        two.load_state_dict(one.state_dict())
        assert two.space.rounding == "stochastic"  # as the seed, it is that of the state

    def test_a_step_without_a_plan_starts_from_what_is_stored(self):
        model = network(torch.bfloat16)
        space = ParameterSpace([list(model.named_parameters())])
        told = query(space, MEZO, lambda: loss_of(model), 0, ())
        space.step_(told.gradient, -0.05)
        with torch.no_grad():
            model[0].weight.fill_(1.0)
        space.step_(told.gradient, 0.0)
        assert bool((model[0].weight == 1).all())

    @pytest.mark.parametrize("dtype", [*NARROW, torch.float32])
    def test_an_error_of_the_loss_brings_them_back_exactly(self, dtype):
        model = network(dtype)
        before, calls = vector(model), []

        def closure() -> Tensor:
            calls.append(1)
            if len(calls) == 4:
                raise KeyError("no such column")
            return loss_of(model)

        with pytest.raises(KeyError):
            ZerothOrder(model.parameters(), MEZO, lr=0.05).step(closure)
        assert torch.equal(vector(model), before)


class TestRatesOfZero:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *NARROW])
    @pytest.mark.parametrize("still", [0, 1])
    def test_a_group_is_left_alone_to_the_bit(self, dtype, still, any_size):
        model = network(dtype)
        groups = [{"params": model[i].parameters(), "lr": 0.05, "weight_decay": 0.1} for i in (0, 2)]
        groups[still]["lr"] = 0.0
        before, seen = [vector(model[i]) for i in (0, 2)], []

        def closure() -> Tensor:
            seen.append(vector(model[2 * still]))
            return loss_of(model)

        optimizer = ZerothOrder(groups, methods.make("mezo", epsilon=1e-2))
        for _ in range(3):
            optimizer.step(closure)
        after = [vector(model[i]) for i in (0, 2)]
        assert torch.equal(after[still], before[still]) and not torch.equal(after[1 - still], before[1 - still])
        assert all(torch.equal(x, before[still]) for x in seen)  # it is not perturbed either
        optimizer.param_groups[still]["lr"] = 0.05
        optimizer.step(closure)
        assert not torch.equal(vector(model[2 * still]), before[still])

    @pytest.mark.parametrize("estimator", [MEZO, AutoEpsilon(lines=2)], ids=repr)
    def test_where_all_are_0_the_loss_is_evaluated_once_and_nothing_else(self, estimator):
        model = network()
        before, seen = vector(model), []
        optimizer = ZerothOrder(model.parameters(), estimator, lr=0.0, weight_decay=0.1)
        for _ in range(3):
            loss = optimizer.step(lambda: seen.append(loss_of(model)) or seen[-1])
        assert loss == seen[0].double() and len(seen) == optimizer.evaluations == 3
        assert torch.equal(vector(model), before) and optimizer.memory == estimator.init()
        assert optimizer.state_dict()["state"]["zeroth_order"]["step"] == 3

    def test_a_warm_up_from_0_moves_nothing_at_first(self):
        model = network()
        optimizer = ZerothOrder(model.parameters(), MEZO, lr=0.05)
        scheduler = lr_scheduler.LambdaLR(optimizer, lambda step: step / 2)
        moved = []
        for _ in range(3):
            before = vector(model)
            optimizer.step(lambda: loss_of(model))
            scheduler.step()
            moved.append(not torch.equal(vector(model), before))
        assert moved == [False, True, True]


class TestMemoryFormats:
    @staticmethod
    def network(dtype: torch.dtype = torch.float32, *, last: bool) -> nn.Sequential:
        """A kernel in one block, one in several, and a transposed matrix."""
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 200, 3), nn.Conv2d(200, 200, 3), nn.Linear(7, 5)).to(dtype)
        if last:
            model.to(memory_format=torch.channels_last)
            model[2].weight = nn.Parameter(model[2].weight.detach().t().contiguous().t())
        return model

    @staticmethod
    def value(model: nn.Module) -> Tensor:
        """A loss whose own rounding does not depend on the format."""
        return sum(layer.weight.contiguous().double().sin().sum() for layer in model) * 1e-3

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
    @pytest.mark.parametrize("law", ["gaussian", "sphere", "coordinate"])
    def test_the_numbers_of_an_optimizer_are_those_of_the_contiguous_format(self, dtype, rounding, law, any_size):
        ends = []
        for last in (False, True):
            model = self.network(dtype, last=last)
            estimator = methods.make("mezo", epsilon=0.1, law=law)
            optimizer = ZerothOrder(model.parameters(), estimator, lr=0.1, weight_decay=0.1, rounding=rounding)
            before = vector(model)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                optimizer.step(lambda model=model: self.value(model))
            assert model[1].weight.is_contiguous() is not last
            ends.append(vector(model))
            assert not torch.equal(ends[-1], before)
        assert torch.equal(*ends)

    @pytest.mark.parametrize(
        "engine",
        [ModuleSpace, InForwardSpace, lambda m: InForwardSpace(m, paired=True, deferred=True, rounding="stochastic")],
    )
    @pytest.mark.parametrize("estimator", [methods.make("mezo", epsilon=0.1), ForwardGradient()], ids=repr)
    def test_so_are_those_of_every_engine(self, engine, estimator):
        ends, losses = [], []
        for last in (False, True):
            model = self.network(last=last)
            space = engine(model)
            for key in range(2):
                told = query(space, estimator, lambda model=model: self.value(model), key, ())
                space.step_(told.gradient, -0.1, 0.1)
            ends.append(space.vector() if isinstance(space, InForwardSpace) else (space.settle_(), space.vector())[1])
            losses.append(told.losses)
        assert torch.equal(*ends) and torch.equal(*losses)

    def test_a_weight_tied_to_its_transpose_moves_once_or_is_refused(self):
        module = nn.Module()
        module.first = nn.Parameter(torch.randn(3, 4))
        module.second = nn.Parameter(module.first.detach().t())
        assert ModuleSpace(module).layout.dim == 12
        with pytest.raises(ValueError, match=r"shares the memory of 'first' as \(4, 3\)"):
            InForwardSpace(module)
        with pytest.raises(ValueError, match="shares the memory"):
            query(ModuleSpace(module), ForwardGradient(), lambda: module.first.sum(), 0, ())
