"""Groups of ZerothOrder: rates, decay and parameters of their own, one estimate, drawn and built once."""

import pytest
import torch
from optimizers import loss_of, network, stepped, taken, vector
from torch import nn
from torch.nn import functional

from zobench import Groups, InForwardSpace, derive, methods, optim, query
from zobench.law import LAWS
from zobench.optim import ZerothOrder
from zobench.space import ParameterSpace, restoring

pytestmark = pytest.mark.usefixtures("one_thread")


class TestGroups:
    @pytest.mark.parametrize("law", LAWS)
    def test_each_group_has_its_pace(self, law):
        model = network(torch.float64)
        estimator = methods.make("mezo", law=law, epsilon=0.1)
        groups = [
            {"params": model[0].parameters(), "lr": 0.5},
            {"params": model[2].parameters(), "weight_decay": 0.4},
            {"params": model[3].parameters()},
        ]
        optimizer = ZerothOrder(groups, estimator, lr=0.25)
        before = vector(model)
        told = query(optimizer.space, estimator, lambda: loss_of(model), derive(0, 0), ())
        optimizer.space.settle_()
        sizes = [sum(p.numel() for p in model[i].parameters()) for i in (0, 2, 3)]
        lr, decay = (
            torch.cat(
                [torch.full((size,), value, dtype=torch.float64) for size, value in zip(sizes, values, strict=True)]
            )
            for values in ((0.5, 0.25, 0.25), (0.0, 0.4, 0.0))
        )
        wanted = (1 - lr * decay) * before - lr * optimizer.space.dense(told.gradient)
        sweeps = optimizer.space.sweeps
        assert torch.allclose(taken(model, optimizer, 1), wanted, rtol=1e-12, atol=1e-12)
        assert optimizer.space.sweeps == sweeps + 3  # the update is fused with the way back
        assert not torch.allclose(vector(model), before - 0.25 * optimizer.space.dense(told.gradient), rtol=1e-9)

    def test_groups_of_equal_pace_are_one_group(self):
        ours, theirs = network(), network()
        groups = [{"params": list(ours[i].named_parameters(str(i)))} for i in (0, 2, 3)]
        found = taken(ours, ZerothOrder(groups, methods.make("mezo"), lr=0.05), 3)
        assert torch.equal(found, stepped(theirs, methods.make("mezo"), 3))

    def test_a_group_added_later_moves_and_shifts_nobody(self):
        model = network()
        optimizer = ZerothOrder(model[0].named_parameters("0"), methods.make("mezo"), lr=0.05)
        before = model[3].weight.detach().clone()
        taken(model, optimizer, 2)
        assert torch.equal(model[3].weight, before)
        optimizer.add_param_group({"params": model[3].named_parameters("3"), "lr": 0.5})
        assert [s.name for s in optimizer.space.layout.segments] == ["0.weight", "0.bias", "3.weight"]
        taken(model, optimizer, 1)
        assert not torch.equal(model[3].weight, before)
        with pytest.raises(ValueError, match="more than one parameter group"):
            optimizer.add_param_group({"params": [("again", model[0].weight)]})

    def test_unfreezing_is_seen_and_keeps_the_names(self):
        model = network()
        model[0].weight.requires_grad_(False)
        optimizer = ZerothOrder(model.parameters(), methods.make("mezo"), lr=0.05)
        assert [s.name for s in optimizer.space.layout.segments] == ["1", "2", "3", "4"]
        before = model[0].weight.detach().clone()
        taken(model, optimizer, 1)
        assert torch.equal(model[0].weight, before)
        model[0].weight.requires_grad_(True)
        taken(model, optimizer, 1)
        assert not torch.equal(model[0].weight, before)

    def test_a_model_cast_after_construction_is_seen(self):
        model = network()
        optimizer = ZerothOrder(model.named_parameters(), methods.make("mezo", epsilon=0.1), lr=0.5)
        model.to(torch.bfloat16)  # swaps p.data
        twin = network(torch.bfloat16)
        found = taken(model, optimizer, 2)
        estimator = methods.make("mezo", epsilon=0.1)
        assert torch.equal(found, stepped(twin, estimator, 2, lr=0.5, space_type=InForwardSpace))

    def test_tied_parameters_move_once(self):
        embed, head = nn.Embedding(11, 6), nn.Linear(6, 11, bias=False)
        head.weight = nn.Parameter(embed.weight.detach())  # another parameter in the same memory
        optimizer = ZerothOrder([embed.weight, head.weight], methods.make("mezo"), lr=0.05)
        assert [s.name for s in optimizer.space.layout.segments] == ["0"]
        tokens = torch.arange(11)
        before = embed.weight.detach().clone()
        told = query(
            optimizer.space,
            optimizer.estimator,
            lambda: functional.cross_entropy(head(embed(tokens)), tokens),
            derive(0, 0),
            (),
        )
        optimizer.space.step_(told.gradient, -0.05)
        wanted = before.double() - 0.05 * optimizer.space.dense(told.gradient).view(11, 6)
        assert torch.allclose(embed.weight.double(), wanted, atol=1e-6)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("n", [1, 3])
def test_what_is_remembered_changes_no_bit(law, n, monkeypatch):
    estimator, ends, draws = methods.make("mezo", law=law, n=n, epsilon=0.1), [], []
    for room in (restoring.REMEMBERED_BYTES, 0):  # of large models nothing is remembered
        monkeypatch.setattr(restoring, "REMEMBERED_BYTES", room)
        model = network()
        groups = [list(model[:1].named_parameters()), list(model[2:].named_parameters())]
        space = ParameterSpace(groups)
        rates = {name: 3.0 for name, _ in groups[1]}
        decays = {name: float(name in rates) for group in groups for name, _ in group}
        for key in range(3):
            told = query(space, estimator, lambda model=model: loss_of(model), key, ())
            space.step_(told.gradient, -0.1, 0.01, Groups(rates, decays))
        assert space.sweeps == 3 * (2 * n + 1)
        ends.append(vector(model))
        draws.append(len(space.engine._drawn))
    assert torch.equal(*ends)
    assert draws == [n * len({LAWS[law], LAWS[law].credit}), 0]


def test_a_thousand_small_tensors_are_drawn_once_a_step(monkeypatch):
    model = nn.ParameterList([nn.Parameter(torch.ones(3)) for _ in range(1000)])
    optimizer = ZerothOrder(model.parameters(), methods.make("mezo"), lr=0.05)
    drawn, direction = [], LAWS["gaussian"].__class__.direction

    def counting(*args):
        draw = direction(*args)
        return lambda block: (drawn.append(block.offset), draw(block))[1]

    monkeypatch.setattr(LAWS["gaussian"].__class__, "direction", counting)
    optimizer.step(lambda: sum(p.square().sum() for p in model))
    assert len(drawn) == len(set(drawn)) == 1000


def test_groups_are_built_anew_only_where_they_change(monkeypatch):
    built, groups = [], optim.Groups
    monkeypatch.setattr(optim, "Groups", lambda *given: (built.append(1), groups(*given))[1])
    model = network()
    optimizer = ZerothOrder(
        [{"params": list(model[i].named_parameters(str(i))), "lr": 0.05} for i in (0, 2)], methods.make("mezo")
    )
    counts = []
    for rates in ((0.05, 0.05), (0.04, 0.04), (0.04, 0.02), (0.04, 0.02), (0.04, 0.03)):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        taken(model, optimizer, 1)
        counts.append(len(built))
    assert counts == [1, 1, 2, 2, 3]  # a rate of all is the rule's
    optimizer.add_param_group({"params": list(model[3].named_parameters("3")), "lr": 0.03})
    before = vector(model[3])
    taken(model, optimizer, 1)
    assert len(built) == 4 and not torch.equal(vector(model[3]), before)
