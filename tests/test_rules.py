"""Momentum and Adam on estimates: what torch's optimizers make of the same dense gradients, on every engine."""

from dataclasses import replace

import pytest
import torch
from engines import ENGINES, Net, space_of, threads
from torch import nn

from zobench import (
    SGD,
    Adam,
    AdaMeZO,
    Combination,
    FlatSpace,
    Groups,
    Momentum,
    SignSGD,
    SmallWeights,
    Term,
    layout,
    schedule,
)
from zobench import rule as rules
from zobench.groups import decays
from zobench.law import LAWS
from zobench.naming import UnknownNameError

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 6
MULTIPLIERS = {"embedding.weight": 0.3, "shared.bias": 7.0}
RULES = {
    "momentum": Momentum(0.01, 0.1, Groups(MULTIPLIERS), beta=0.8),
    "nesterov": Momentum(0.01, 0.1, Groups(MULTIPLIERS), beta=0.8, nesterov=True),
    "adam": Adam(0.01, 0.1, Groups(MULTIPLIERS), beta1=0.8, beta2=0.95),
    "adam on a schedule": Adam(schedule("linear", 0.01, STEPS, 2), 0.1, Groups(MULTIPLIERS)),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 200 entries: parameters of one block and of several."""
    monkeypatch.setattr(layout, "BLOCK_SIZE", 200)


def gradient_of(step: int) -> Combination:
    """Two terms, the second along a direction of the step before."""
    first = Term(LAWS["gaussian"], 100 + step, torch.tensor([0.5, -1.5], dtype=torch.float64))
    return Combination((first, Term(LAWS["rademacher"], 99 + step, torch.tensor([0.7], dtype=torch.float64))))


def stepped(space, rule, steps=range(STEPS), memory=None):
    """The memory after these steps."""
    memory = rule.init(space) if memory is None else memory
    for step in steps:
        memory = rule.apply_(space, gradient_of(step), memory)
    space.settle_()
    return memory


def space_for(engine):
    return space_of(engine, Net()) if engine != "flat" else flat()


def flat():
    space = space_of("plain", Net())
    return FlatSpace(space.vector(), space.layout)


def vector(space):
    return space.x.clone() if isinstance(space, FlatSpace) else space.vector()


def by_torch(rule, steps=STEPS):
    """The vector that torch's optimizer makes of the dense gradients."""
    space = flat()
    split = space.x.split([s.size for s in space.layout.segments])
    parameters = [nn.Parameter(part.clone()) for part in split]
    groups = []
    for segment, p in zip(space.layout.segments, parameters, strict=True):
        decay = rule.weight_decay if decays(segment.name, len(segment.shape)) else 0.0
        groups.append({"params": [p], "weight_decay": decay, "multiplier": MULTIPLIERS.get(segment.name, 1.0)})
    if isinstance(rule, Adam):
        optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(rule.beta1, rule.beta2), eps=rule.eps)
    else:
        optimizer = torch.optim.SGD(groups, lr=1.0, momentum=rule.beta, nesterov=rule.nesterov)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rule.lr_at(step) * group["multiplier"]
            if isinstance(rule, Momentum) and step == 0:
                group["decoupled"], group["weight_decay"] = group["weight_decay"], 0.0  # torch's is not decoupled
            if isinstance(rule, Momentum):
                group["params"][0].data.mul_(1.0 - group["lr"] * group["decoupled"])
        for p, g in zip(parameters, space.dense(gradient_of(step)).split([p.numel() for p in parameters]), strict=True):
            p.grad = g
        optimizer.step()
    return torch.cat([p.detach() for p in parameters])


@pytest.mark.parametrize("engine", ["flat", *ENGINES])
@pytest.mark.parametrize("name", RULES)
def test_steps_are_those_of_torch(name, engine):
    rule, space = RULES[name], space_for(engine)
    with threads(2 if engine.startswith("paired") else 1):
        stepped(space, rule)
    assert torch.allclose(vector(space), by_torch(rule), rtol=1e-10, atol=1e-12)


PLANTED = {
    "momentum": [{"beta": 0.81}, {"weight_decay": 0.0}, {"groups": Groups()}, {"nesterov": True}],
    "nesterov": [{"beta": 0.81}, {"nesterov": False}],
    "adam": [{"beta1": 0.81}, {"beta2": 0.951}, {"eps": 1e-3}, {"weight_decay": 0.0}, {"groups": Groups()}],
}


@pytest.mark.parametrize(("name", "changes"), [(name, each) for name in PLANTED for each in PLANTED[name]])
def test_a_rule_that_is_wrong_is_seen(name, changes):
    space = flat()
    stepped(space, replace(RULES[name], **changes))
    assert not torch.allclose(space.x, by_torch(RULES[name]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("engine", ["flat", "plain", "in-forward", "paired-deferred"])
def test_a_window_of_adam_is_adam_restarted(engine):
    """adam:window=4 at step t is Adam that begins at step t - 3, from the same weights."""
    window, whole = Adam(0.01, 0.1, window=4), Adam(0.01, 0.1)
    space, memory = space_for(engine), None
    for step in range(STEPS):
        before = vector(space)
        memory = stepped(space, window, [step], memory)
        again = flat()
        held = stepped(again, whole, range(max(0, step - 3), step))
        again.x.copy_(before)
        stepped(again, whole, [step], held)
        assert torch.allclose(vector(space), again.x, rtol=1e-10, atol=1e-12), step
    longer = flat()
    stepped(longer, whole)
    assert not torch.allclose(vector(space), longer.x, rtol=1e-6, atol=1e-8)  # what the window leaves out counts


def recent(step, window):
    """The dense gradients of the last steps, the latest first."""
    return [flat().dense(gradient_of(step - age)) for age in range(min(window, step + 1))]


@pytest.mark.parametrize("engine", ["flat", "plain", "in-forward", "paired-deferred"])
def test_a_window_of_momentum_is_the_sum_of_its_steps(engine):
    wanted = flat().x
    for step in range(STEPS):
        wanted -= 0.01 * sum(0.8**age * g for age, g in enumerate(recent(step, 3)))
    rule, space = Momentum(0.01, beta=0.8, window=3), space_for(engine)
    memory = stepped(space, rule)
    assert torch.allclose(vector(space), wanted, rtol=1e-10, atol=1e-12)
    assert len(memory.recent) == 3 and rule.held == 0.0 and replace(rule, window=None).held == 1.0
    whole = flat()
    stepped(whole, replace(rule, window=None))
    assert not torch.allclose(whole.x, wanted, rtol=1e-6, atol=1e-8)


def test_a_window_of_nesterov_adds_beta_times_the_velocity_to_the_gradient():
    wanted = flat().x
    for step in range(STEPS):
        wanted -= 0.01 * (recent(step, 1)[0] + 0.8 * sum(0.8**age * g for age, g in enumerate(recent(step, 3))))
    space = flat()
    stepped(space, Momentum(0.01, beta=0.8, window=3, nesterov=True))
    assert torch.allclose(space.x, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("engine", ["flat", "plain", "in-forward", "paired-deferred"])
def test_the_sign_of_each_entry(engine):
    wanted = flat().x
    for step in range(STEPS):
        wanted -= 0.01 * recent(step, 1)[0].sign()
    space = space_for(engine)
    assert stepped(space, SignSGD(0.01)) == STEPS
    assert torch.allclose(vector(space), wanted, rtol=1e-10, atol=1e-12)
    lines = flat()
    stepped(lines, SGD(0.01))  # the map sign(s) u keeps the length of a direction, and is another method
    assert not torch.allclose(lines.x, wanted, rtol=1e-3, atol=1e-3)


def adamezo(window, *, factor=100.0, averages=False, corrected=False, warm=None, inside=False):
    """The published step, dense; what is named is changed in it."""
    x = flat().x
    for step in range(STEPS):
        gradients = recent(step, window)
        m, v = sum(0.7**k * g for k, g in enumerate(gradients)), sum(0.9**k * g**2 for k, g in enumerate(gradients))
        m, v = (0.3 * m, 0.1 * v) if averages else (m, v)
        m, v = (m / (1 - 0.7 ** len(gradients)), v / (1 - 0.9 ** len(gradients))) if corrected else (m, v)
        root = (v + 1e-5).sqrt() if inside else v.sqrt() + 1e-5
        x -= 1e-4 * (gradients[0] if step < (window if warm is None else warm) else factor * m / root)
    return x


@pytest.mark.parametrize("engine", ["flat", "plain", "in-forward", "paired-deferred"])
def test_adamezo_is_the_published_formula(engine):
    rule, space = AdaMeZO(1e-4, window=3), space_for(engine)
    memory = stepped(space, rule)
    assert torch.allclose(vector(space), adamezo(3), rtol=1e-10, atol=1e-12)
    assert len(memory.recent) == 3 and rule.held == 0.0


@pytest.mark.parametrize(
    "change",
    [{"factor": 1.0}, {"averages": True}, {"averages": True, "corrected": True}, {"warm": 0}, {"inside": True}],
    ids=str,
)
def test_another_form_of_adamezo_is_seen(change):
    assert not torch.allclose(adamezo(3, **change), adamezo(3), rtol=1e-10, atol=1e-12)


def test_adamezo_begins_with_plain_steps():
    one, other = flat(), flat()
    stepped(one, AdaMeZO(1e-4)), stepped(other, SGD(1e-4))
    assert torch.equal(one.x, other.x)  # 6 steps, of the first 10


@pytest.mark.parametrize(
    "rule",
    [
        Momentum(0.1), Adam(0.1), Momentum(0.1, window=2), Adam(0.1, window=2), SGD(0.1), SignSGD(0.1),
        AdaMeZO(0.1, window=2),
    ],
)  # fmt: skip
def test_a_skipped_step_counts_for_the_schedule_alone(rule):
    rule = replace(rule, lr=schedule("linear", 0.1, STEPS))
    one, other = flat(), flat()
    memory = stepped(one, rule, [0, 1])
    skipped = rule.skip(stepped(other, rule, [0, 1]))
    assert torch.equal(one.x, other.x) and rule.rate(memory) > rule.rate(skipped) == rule.lr_at(3)
    stepped(one, replace(rule, lr=rule.lr_at(3)), [3], memory)
    stepped(other, rule, [3], skipped)
    assert torch.equal(one.x, other.x)


def test_what_cannot_be_drawn_again_or_stepped_elementwise_is_refused():
    space = space_of("plain", Net())
    law = SmallWeights()
    gradient = Combination((Term(law, 3, torch.ones(1, dtype=torch.float64)),))
    for rule in (Momentum(0.1, window=2), Adam(0.1, window=2), AdaMeZO(0.1)):
        before = space.vector()
        with pytest.raises(ValueError, match=r"SmallWeights\(.*\) reads the weights .* give the rule without `window`"):
            rule.apply_(space, gradient, rule.init(space))
        assert torch.equal(space.vector(), before)
    Adam(0.1).apply_(space, gradient, Adam(0.1).init(space))
    space = space_of("in-forward", Net())
    space.restrict({"embedding.weight": [1, 3]})
    for rule in (Adam(0.1), Momentum(0.1), Adam(0.1, window=2), SignSGD(0.1)):
        with pytest.raises(ValueError, match=r"restricted to rows of \['embedding.weight'\].*--rows all"):
            rule.apply_(space, gradient_of(0), rule.init(space))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_random_rounding_of_an_elementwise_step_is_right_on_average(dtype):
    """Steps of a hundredth of a unit in the last place: lost to the nearest, kept on average at random."""
    moved = {}
    for rounding in ("nearest", "stochastic"):
        module = nn.Linear(200, 100, bias=False).to(dtype)
        nn.init.constant_(module.weight, 1.0)
        space = space_of("in-forward", module, rounding=rounding)
        rule = Adam(4e-5, beta1=0.0, beta2=0.0)
        memory = rule.init(space)
        for step in range(20):  # u = 1 everywhere but for the sign, which Adam at beta = 0 steps along
            memory = rule.apply_(space, gradient_of(step), memory)
        space.settle_()
        moved[rounding] = float((module.weight.detach().float() - 1.0).abs().mean())
    assert moved["stochastic"] > 1e-5
    assert (moved["nearest"] == 0.0) is (dtype == torch.bfloat16)


def test_a_rule_is_spelled_as_a_method():
    assert rules.parse("sgd", lr=0.1) == SGD(0.1)
    assert rules.parse("adam:beta1=0.8,window=10", lr=0.1, weight_decay=0.2) == Adam(0.1, 0.2, beta1=0.8, window=10)
    assert rules.parse("momentum:window=3", lr=0.1) == Momentum(0.1, window=3)
    assert rules.parse("momentum:nesterov=true", lr=0.1) == Momentum(0.1, nesterov=True)
    assert rules.parse("adamezo:factor=1", lr=0.1) == AdaMeZO(0.1, factor=1.0)
    assert rules.parse("sign", lr=0.1) == SignSGD(0.1)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("adm", UnknownNameError, "Did you mean 'adam'"),
        ("adam:beta=0.9", UnknownNameError, "beta1"),
        ("sgd:lr=1", UnknownNameError, "lr"),
        ("adam:beta1", ValueError, "is not option=value"),
        ("adam:beta1=1.0", ValueError, r"beta1 is 1.0: give a number from 0 to below 1"),
        ("momentum:beta=-0.1", ValueError, "beta is -0.1"),
        ("adam:eps=0", ValueError, "eps is 0: give a positive number"),
        ("adam:window=0", ValueError, "window is 0: give the number of steps"),
        ("momentum:window=1.5", ValueError, "window is 1.5"),
        ("momentum:nesterov=1", ValueError, "nesterov is 1"),
        ("adamezo:window=0", ValueError, "window is 0: give the number of steps"),
        ("adamezo:factor=0", ValueError, "factor is 0: give a positive number"),
        ("adamezo:beta2=1", ValueError, "beta2 is 1"),
        ("momentum:beta=0.9:beta=0.8", ValueError, "beta is given twice"),
        ("nowhere_at_all:rule", ValueError, "the module 'nowhere_at_all' cannot be imported"),
        ("prototypes:Nothing", ValueError, "has no function 'Nothing'"),
        ("prototypes:Conservative", ValueError, "which is no zobench.UpdateRule"),
    ],
)
def test_a_rule_that_is_none_is_refused(text, error, message):
    shared = {} if "Conservative" not in text else {"lr": 0.1}
    with pytest.raises(error, match=message):
        rules.parse(text, **({"lr": 0.1} | shared))
