"""ZerothOrder: the step of ModuleSpace and SGD, and resuming it."""

import copy
import io
import math
import pickle

import pytest
import torch
from optimizers import INPUTS, LABELS, loss_of, network, stepped, taken, vector
from torch import Tensor, nn
from torch.nn import functional

from zobench import (
    SGD,
    AutoEpsilon,
    BlockBandit,
    InForwardSpace,
    ModuleSpace,
    ParameterSpace,
    derive,
    keyed,
    methods,
    query,
)
from zobench.optim import ZerothOrder
from zobench.rule import table as rules

pytestmark = pytest.mark.usefixtures("one_thread")


ESTIMATORS = [
    *(methods.parse(method.name, epsilon=0.01) for method in methods.table() if method.name != "mezo-svrg"),
    methods.make("mezo", n=3, law="rademacher"),
    methods.make("kerzoo", n=2, order=5),
    methods.make("orthogonal", n=4),
    AutoEpsilon(every=3, lines=2),
]


class TestTheStep:
    @pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
    def test_one_group_steps_as_a_module_space_to_the_bit(self, estimator):
        ours, theirs = network(), network()
        optimizer = ZerothOrder(ours.named_parameters(), estimator, lr=1e-4, seed=7)
        found, wanted = taken(ours, optimizer, 5), stepped(theirs, estimator, 5, 1e-4, seed=7)
        if isinstance(getattr(estimator, "law", None), BlockBandit):  # other parameters at each step
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
        else:
            assert torch.equal(found, wanted)
        assert not torch.equal(found, vector(network()))
        assert not torch.equal(found, stepped(network(), estimator, 5, 1e-4, seed=8))  # planted: another seed

    def test_a_snapshot_of_the_weights_is_one_of_the_optimizer_too(self):
        """One closure stands for both losses; settling before a snapshot puts back exactly, as in a ParameterSpace."""
        ours, theirs, estimator = network(), network(), methods.make("mezo-svrg", whole="", epsilon=0.01)
        optimizer = ZerothOrder(ours.named_parameters(), estimator, lr=1e-3, seed=7)
        found = taken(ours, optimizer, 5)
        space_type = lambda model: ParameterSpace([list(model.named_parameters())])  # noqa: E731
        assert torch.equal(found, stepped(theirs, estimator, 5, 1e-3, seed=7, space_type=space_type))
        assert optimizer.evaluations == 3 * 2 + 2 * 4
        with pytest.raises(ValueError, match="asks for the loss 'whole', but f has the losses"):
            taken(network(), ZerothOrder(ours.parameters(), methods.make("mezo-svrg")), 1)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    @pytest.mark.parametrize("law", ["gaussian", "sphere", "coordinate"])
    def test_in_every_dtype(self, dtype, law):
        estimator = methods.make("mezo", epsilon=0.1, law=law, n=2)
        ours, theirs = network(dtype), network(dtype)
        optimizer = ZerothOrder(ours.named_parameters(), estimator, lr=0.5)
        space_type = InForwardSpace if dtype.itemsize == 2 else ModuleSpace  # which writes the weights by steps alone
        wanted = stepped(theirs, estimator, 3, lr=0.5, space_type=space_type)
        assert torch.equal(taken(ours, optimizer, 3), wanted)
        assert next(ours.parameters()).dtype == dtype
        assert optimizer.space.layout.segments[0].dtype == (dtype if dtype == torch.float64 else torch.float32)

    def test_without_names_positions_key_the_directions(self):
        ours, theirs = network(), network()
        optimizer = ZerothOrder(ours.parameters(), methods.make("mezo"), lr=0.05)
        assert [s.name for s in optimizer.space.layout.segments] == ["0", "1", "2", "3", "4"]
        found = taken(ours, optimizer, 4)
        space = ModuleSpace(nn.ParameterList(theirs.parameters()))
        for key, _ in keyed(range(4), 0):
            SGD(0.05).apply_(space, query(space, methods.make("mezo"), lambda: loss_of(theirs), key, ()).gradient, 0)
        assert torch.equal(found, vector(theirs))

    def test_decay_is_for_the_whole_group(self):
        model = nn.Sequential(nn.Linear(20, 8, bias=False), nn.Linear(8, 4, bias=False))
        twin, estimator = copy.deepcopy(model), methods.make("mezo")
        optimizer = ZerothOrder(model.named_parameters(), estimator, lr=0.05, weight_decay=0.3)
        assert torch.equal(taken(model, optimizer, 3), stepped(twin, estimator, 3, decay=0.3))
        model = network()
        before = vector(model)
        optimizer = ZerothOrder(model.named_parameters(), estimator, lr=0.5, weight_decay=0.5)
        optimizer.step(lambda: 0.0)  # no gradient: decay alone, of biases and norms as well
        assert torch.allclose(vector(model), 0.75 * before, rtol=1e-5, atol=1e-6)

    def test_several_rounds_are_one_step(self):
        model, estimator = network(), methods.make("mezo", epsilon="auto")
        optimizer = ZerothOrder(model.parameters(), estimator, lr=0.05)
        taken(model, optimizer, 1)
        probed = optimizer.evaluations
        taken(model, optimizer, 3)
        assert probed > 2 and optimizer.evaluations == probed + 3 * 2
        assert optimizer.memory.step == 4 and optimizer.memory.choice.epsilon > 0

    def test_the_loss_is_the_mean_of_the_points(self):
        model, seen = network(), []

        def closure() -> Tensor:
            seen.append(loss_of(model))
            return seen[-1]

        optimizer = ZerothOrder(model.parameters(), methods.make("mezo", n=2), lr=0.05)
        assert math.isnan(optimizer.loss)
        loss = optimizer.step(closure)
        assert len(seen) == 2 + 4 and optimizer.evaluations == 4
        assert loss.shape == () and loss.dtype == torch.float64
        assert loss.item() == optimizer.loss.item() == pytest.approx(torch.stack(seen[2:]).double().mean().item())
        optimizer.step(closure)
        assert len(seen) == 10  # the closure is checked once

    def test_losses_of_examples_are_averaged(self):
        ours, theirs = network(torch.float64), network(torch.float64)
        one, two = (ZerothOrder(m.parameters(), methods.make("mezo"), lr=0.05) for m in (ours, theirs))
        one.step(lambda: functional.cross_entropy(ours(INPUTS.double()), LABELS, reduction="none"))
        two.step(lambda: float(functional.cross_entropy(theirs(INPUTS.double()), LABELS)))
        assert torch.allclose(vector(ours), vector(theirs), rtol=1e-9)

    def test_it_descends(self):
        model = network()
        optimizer = ZerothOrder(model.parameters(), methods.make("mezo", n=4), lr=0.05)
        before = loss_of(model).item()
        taken(model, optimizer, 100)
        assert loss_of(model).item() < 0.7 * before


class TestResuming:
    @pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
    def test_to_the_bit_through_a_file_of_weights_only(self, estimator):
        whole = network()
        wanted = taken(whole, ZerothOrder(whole.parameters(), estimator, lr=1e-4, seed=3), 7)
        first = network()
        optimizer = ZerothOrder(first.parameters(), estimator, lr=1e-4, seed=3)
        taken(first, optimizer, 4)
        file = io.BytesIO()
        torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
        file.seek(0)
        saved = torch.load(file, weights_only=True)
        second = network()
        second.load_state_dict(saved["model"])
        resumed = ZerothOrder(second.parameters(), estimator, lr=9.0)
        resumed.load_state_dict(saved["optimizer"])
        assert torch.equal(taken(second, resumed, 3), wanted)
        assert resumed.state_dict()["state"] == {**optimizer.state_dict()["state"], **resumed.state_dict()["state"]}
        second.load_state_dict(saved["model"])
        assert not torch.equal(taken(second, ZerothOrder(second.parameters(), estimator, lr=1e-4), 3), wanted)

    def test_a_state_dict_does_not_change_with_later_steps(self):
        model = network()
        optimizer = ZerothOrder(model.parameters(), methods.make("mezo"), lr=0.05)
        state = optimizer.state_dict()
        before = copy.deepcopy(state)
        taken(model, optimizer, 2)
        assert state["state"] == before["state"] != optimizer.state_dict()["state"]
        assert [group["lr"] for group in state["param_groups"]] == [0.05]

    @pytest.mark.parametrize("through", ["deepcopy", "pickle"])
    def test_copies_go_on_alike(self, through):
        model = network()
        optimizer = ZerothOrder(model.parameters(), methods.make("kerzoo", n=2), lr=0.05)
        taken(model, optimizer, 3)
        both = (model, optimizer)
        other, again = copy.deepcopy(both) if through == "deepcopy" else pickle.loads(pickle.dumps(both))
        assert repr(again) == repr(optimizer)
        found, wanted = taken(other, again, 2), taken(model, optimizer, 2)
        assert torch.equal(found, wanted)

    def test_the_state_of_others_is_refused(self):
        model = network()
        optimizer = ZerothOrder(model.parameters(), methods.make("mezo"), lr=0.05)
        other = ZerothOrder(model.parameters(), methods.make("kerzoo"), lr=0.05)
        with pytest.raises(ValueError, match=r"that of LineEst.*CentralStencil.* has LineEst.*KernelStencil"):
            other.load_state_dict(optimizer.state_dict())
        with pytest.raises(ValueError, match="not that of a ZerothOrder"):
            other.load_state_dict(torch.optim.SGD(model.parameters()).state_dict())
        fewer = ZerothOrder(model[0].parameters(), methods.make("mezo"), lr=0.05)
        with pytest.raises(ValueError, match="doesn't match the size"):
            fewer.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize(
    "rule", ["momentum:beta=0.5", "adam:beta1=0.5", "adam:window=2", "power-muon:k=2", "factor-momentum"]
)
def test_a_rule_takes_the_steps_of_its_own_loop_and_goes_on_from_a_state(rule, tmp_path):
    def model():
        torch.manual_seed(3)
        return torch.nn.Linear(4, 3, bias=False).double().eval()

    estimator, inputs = methods.make("mezo", epsilon=0.01, n=2), torch.eye(4, dtype=torch.float64)

    def optimizer_of(module):
        return ZerothOrder(module.named_parameters(), estimator, lr=0.05, seed=7, rule=rule)

    first, whole, second = model(), model(), model()
    space, by_hand = ModuleSpace(second), rules.parse(rule, lr=0.05)
    memory, optimizer, uninterrupted = by_hand.init(space), optimizer_of(first), optimizer_of(whole)
    for step in range(4):
        if step == 2:
            torch.save(optimizer.state_dict(), tmp_path / "state")
            optimizer = optimizer_of(first)
            optimizer.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
        optimizer.step(lambda: first(inputs).square().sum())
        uninterrupted.step(lambda: whole(inputs).square().sum())
        told = query(space, estimator, lambda: second(inputs).square().sum(), derive(7, step), ())
        memory = by_hand.apply_(space, told.gradient, memory)
    space.settle_()
    assert torch.equal(first.weight, whole.weight)
    torch.testing.assert_close(first.weight, second.weight, rtol=1e-12, atol=1e-12)
    other = ZerothOrder(first.named_parameters(), estimator, rule="sgd")
    with pytest.raises(ValueError, match="the state is that of the rule"):
        other.load_state_dict(optimizer.state_dict())


def test_what_a_rule_holds_starts_anew_where_other_parameters_move():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)).eval()
    optimizer = ZerothOrder(model.named_parameters(), methods.make("mezo"), rule="momentum")
    loss = lambda: model(torch.ones(1, 2)).square().sum()  # noqa: E731
    optimizer.step(loss)
    model[0].requires_grad_(False)
    with pytest.warns(RuntimeWarning, match="what Momentum holds of earlier steps starts anew"):
        optimizer.step(loss)


def test_what_makes_no_rule_is_refused():
    with pytest.raises(TypeError, match="makes 3: give what makes"):
        ZerothOrder(torch.nn.Linear(1, 1).parameters(), methods.make("mezo"), rule=lambda **_: 3)
