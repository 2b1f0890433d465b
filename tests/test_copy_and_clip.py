"""The clip of each tensor and the second copy of the weights, against the steps written out on dense vectors."""

from dataclasses import replace

import pytest
import torch
from test_rules import MULTIPLIERS, STEPS, flat, gradient_of, small_blocks, space_for, stepped, vector

from zobench import SGD, Groups, Interpolated, SmallWeights, TensorClip, kernels, methods, schedule
from zobench import rule as rules
from zobench.groups import decays

assert small_blocks  # a fixture that this module uses too
pytestmark = pytest.mark.usefixtures("one_thread")

BOUND = 20.0
"""Of the norm of an estimate in a tensor: some tensors of `Net` are beyond it, some are not."""
CLIP = TensorClip(0.01, 0.1, Groups(MULTIPLIERS), most=BOUND)
HELD = Interpolated(0.05, 0.1, Groups(MULTIPLIERS), beta=4.0, most=BOUND)
GROWING = Interpolated(schedule("linear", 0.05, STEPS, 2), growing=True)


def tensors(x, layout):
    return dict(zip((s.name for s in layout.segments), x.split([s.size for s in layout.segments]), strict=True))


def written_out(rule, *, averaged=False, lags=2, late=0, share=1.0):
    """The vector after the steps of a rule; the options plant errors."""
    space = flat()
    x, layout = space.x.clone(), space.layout
    copy = x.clone()
    for step in range(STEPS):
        g, lr = space.dense(gradient_of(step)), rule.lr_at(step)
        most = getattr(rule, "most", None)
        for segment in layout.segments:
            here = slice(start := offset(layout, segment), start + segment.size)
            norm = float(g.norm() if averaged else g[here].norm())
            factor = min(1.0, most * share / norm) if most is not None else 1.0
            rate = MULTIPLIERS.get(segment.name, 1.0) if rule.groups.multipliers else 1.0
            decay = rule.weight_decay * rate * decays(segment.name, len(segment.shape))
            copy[here] = (1 - lr * decay) * copy[here] - lr * rate * factor * g[here]
        if isinstance(rule, TensorClip):
            x = copy.clone()
            continue
        for lag in range(lags):  # after the step, and before the probes of the next
            beta = step + 1 + lag + late if rule.growing else rule.beta
            x = copy / beta + (1 - 1 / beta) * x
    return x


def offset(layout, segment):
    return sum(s.size for s in layout.segments[: [s.name for s in layout.segments].index(segment.name)])


@pytest.mark.parametrize("engine", ["flat", "plain", "in-forward", "paired-deferred"])
@pytest.mark.parametrize("rule", [CLIP, HELD, GROWING], ids=["clip", "held", "growing"])
def test_steps_are_those_written_out(rule, engine):
    space = space_for(engine)
    stepped(space, rule)
    assert torch.allclose(vector(space), written_out(rule), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("rule", "planted"),
    [
        (CLIP, {"averaged": True}),
        (CLIP, {"share": 1.01}),
        (HELD, {"averaged": True}),
        (HELD, {"lags": 1}),
        (GROWING, {"lags": 1}),
        (GROWING, {"late": 1}),
    ],
)
def test_a_step_that_is_wrong_is_seen(rule, planted):
    assert not torch.allclose(written_out(rule, **planted), written_out(rule), rtol=1e-6, atol=1e-8)


def test_some_tensors_are_clipped_and_some_are_not():
    space = flat()
    norms = [part.norm() for part in tensors(space.dense(gradient_of(0)), space.layout).values()]
    assert min(norms) < BOUND < max(norms)


def test_a_bound_that_nothing_reaches_and_a_copy_that_is_followed_at_once_are_sgd():
    one = flat()
    stepped(one, SGD(0.01, 0.1))
    for rule in (TensorClip(0.01, 0.1), Interpolated(0.01, 0.1, beta=1.0)):
        other = flat()
        stepped(other, rule)
        assert torch.allclose(one.x, other.x, rtol=1e-12, atol=1e-14)


def test_a_growing_copy_is_followed_by_the_mean_with_growing_weights():
    """b_k = k: x_k = 2 / (k (k + 1)) sum_j j c_j, c_j the iterates of SGD, but for the lag of the last half step."""
    plain, space = flat(), flat()
    rule, memory, other = Interpolated(0.05, growing=True), None, None
    total = torch.zeros_like(space.x)
    for step in range(STEPS):
        other = stepped(plain, SGD(0.05), [step], other)
        memory = stepped(space, rule, [step], memory)
        total += (step + 1) * plain.x
        assert torch.allclose(memory.copy[0].flatten(), plain.x[: memory.copy[0].numel()])
        assert torch.allclose(space.x, 2 * total / ((step + 1) * (step + 2)))


def test_the_rule_of_the_code_is_both():
    assert methods.rule("kerzoo-code", 1e-3) == Interpolated(1e-3, beta=100.0, most=4e5)
    assert rules.parse("interpolated:growing=true", lr=0.1) == Interpolated(0.1, growing=True)
    assert rules.parse("tensor-clip:most=10", lr=0.1) == TensorClip(0.1, most=10.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tensor-clip:most=0", "most is 0: give the largest norm"),
        ("interpolated:most=-1", "most is -1"),
        ("interpolated:beta=0.5", "beta is 0.5: give b_k, a number from 1"),
        ("interpolated:growing=2", "growing is 2"),
    ],
)
def test_numbers_out_of_range_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        rules.parse(text, lr=0.1)


def test_a_law_that_reads_the_weights_is_stepped_along_what_was_probed():
    """The sweep that measures norms leaves the weights: the directions of the step are those of the plan."""
    estimator = replace(methods.make("mezo"), law=SmallWeights())
    assert estimator.law.reads_weights
    space, other = flat(), flat()
    for each, rule in ((space, TensorClip(0.01)), (other, SGD(0.01))):
        plan = estimator.ask(3, ())
        gradient = estimator.tell(plan, each.losses(lambda x: x.square().sum(-1), plan), ()).gradient
        rule.apply_(each, gradient, rule.init(each))
    assert torch.allclose(space.x, other.x, rtol=1e-12)


@pytest.mark.parametrize("steps", [1, 7, 4000])
def test_the_hidden_schedule_is_the_mean_step_of_the_shrinking_kernel(steps):
    """E[r K] of the estimator at every step, which for C = 1 is the learning rate's factor."""
    code, rate = (
        methods.make("kerzoo-code", constant=1.0, steps=steps, per_tensor=False),
        schedule("kerzoo", 2.0, steps),
    )
    for step in {0, steps // 4, steps // 2, steps - 1, steps, steps + 3}:
        assert rate(step) == pytest.approx(2.0 * code.at(step).stencil.moment(1), rel=1e-9)
    assert schedule("kerzoo", 1.0, 5000)(5000 - round(5000 * (25 / 42) ** 0.5)) == pytest.approx(625 / 336, rel=1e-6)
    assert kernels.shrunk(kernels.legendre(3), 0.5).moment(1) == pytest.approx(schedule("kerzoo", 1.0, 2)(1))
