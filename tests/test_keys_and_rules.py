"""Keys, streams, the algebra of combinations, and update rules."""

import itertools
import math
import struct
import zlib

import numpy as np
import pytest
import torch
from engines import ISOTROPIC
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from zobench import SGD, Combination, FlatSpace, ModuleSpace, Term, derive, keyed, schedule
from zobench.groups import decays
from zobench.law import LAWS
from zobench.naming import UnknownNameError
from zobench.random import streams

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
NAMES = st.lists(st.integers() | st.text("ab1'\x1f\\", max_size=5), max_size=4)
PINNED = {
    (): 6510301506637419378,
    ("run", 3): 4311665188409261218,
    ("run", "3"): 4289065992304302846,
    (0, "stencil"): 3700947289259225162,
}


def test_derived_keys_are_pinned():
    """Changing these changes every number ever published with a key."""
    for names, key in PINNED.items():
        assert derive(*names) == key


@given(first=NAMES, second=NAMES)
def test_keys_tell_names_apart(first, second):
    assert (derive(*first) == derive(*second)) == (repr(first) == repr(second))
    assert 0 <= derive(*first) < 2**63


def test_integers_strings_and_grouping_are_told_apart():
    paths = [("a", 1), ("a", "1"), ("a1",), ("a", "1", ""), (1, "a"), ("a", -1), ("a\x1f1",)]
    assert len({derive(*names) for names in paths}) == 7
    assert len({derive("step", i) for i in range(50_000)}) == 50_000
    ones = sum(derive("step", i).bit_count() for i in range(10_000))
    assert abs(ones - 315_000) < 5 * math.sqrt(630_000) / 2


def test_a_numpy_integer_is_the_integer_or_refused():
    """Equal names give equal numbers: `for seed in np.arange(5)` must not silently draw from other streams."""
    try:
        assert derive("step", np.int64(3)) == derive("step", 3)
    except TypeError as error:
        assert "int64" in str(error)


def test_keyed_names_each_step_and_is_lazy():
    pairs = keyed(itertools.count(10), "run", 7)
    assert [next(pairs) for _ in range(3)] == [(derive("run", 7, i), 10 + i) for i in range(3)]
    assert list(keyed([])) == []


DRAWS = {
    "normal": lambda key, rows: streams.normal(key, (rows, 3), torch.float64, CPU),
    "signs": lambda key, rows: streams.signs(key, 0, 3 * rows, torch.float64).view(rows, 3),
    "uniform": lambda key, rows: streams.uniform(key, (rows, 3)),
    "integers": lambda key, rows: streams.integers(key, (rows, 3), 1000),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@given(key=st.integers(0, 2**63 - 1), rows=st.integers(1, 200), more=st.integers(0, 200))
def test_a_shorter_draw_is_a_prefix_and_keys_differ(draw, key, rows, more):
    assert torch.equal(draw(key, rows + more)[:rows], draw(key, rows))
    assert not torch.equal(draw(key, 200), draw(key ^ 1, 200))
    assert not torch.equal(draw(key, 200), draw(key ^ (1 << 62), 200))  # the high half of the key counts


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_streams_have_the_moments_of_their_laws(dtype):
    count = 1_000_000
    normal, signs = (draw(11, 0, count, dtype).double() for draw in (streams.normals, streams.signs))
    root = math.sqrt(count)
    assert abs(float(normal.mean())) * root < 5
    assert abs(float(normal.square().mean()) - 1) * root / math.sqrt(2) < 5
    assert abs(float(normal.pow(4).mean()) - 3) * root / math.sqrt(96) < 5
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) * root < 5
    assert abs(float((signs[1:] * signs[:-1]).mean())) * root < 5
    assert abs(float((1.01 * normal).square().mean()) - 1) * root / math.sqrt(2) > 5  # planted: 1 % too wide
    uniform = streams.uniform(11, (count,))
    assert abs(float(uniform.square().mean()) - 1 / 3) * root / math.sqrt(4 / 45) < 5
    axes = torch.bincount(streams.integers(11, (count,), 10), minlength=10).double()
    assert float(((axes - count / 10) ** 2 / (count / 10)).sum()) < 40  # chi square, 9 degrees of freedom


VALUES = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=4)
TERMS = st.builds(
    lambda law, key, values: Term(ISOTROPIC[law], key, torch.tensor(values, dtype=torch.float64)),
    st.sampled_from(list(ISOTROPIC)),
    st.integers(0, 2**63 - 1),
    VALUES,
)
SUMS = st.lists(TERMS, max_size=3).map(lambda terms: Combination(tuple(terms)))
SPACE = FlatSpace(torch.zeros(6, dtype=torch.float64))


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-12, atol=1e-8)


@given(a=SUMS, b=SUMS, c=SUMS, s=st.floats(-100, 100), t=st.floats(-100, 100))
def test_dense_is_linear(a, b, c, s, t):
    dense = SPACE.dense
    assert close(dense(a + b), dense(a) + dense(b))
    assert close(dense(b + a), dense(a + b))
    assert close(dense((a + b) + c), dense(a + (b + c)))
    assert close(dense(s * a), s * dense(a))
    assert close(dense(a * s), s * dense(a))
    assert close(dense(s * (a + t * b)), s * dense(a) + s * t * dense(b))
    assert close(dense(a - b), dense(a) - dense(b))
    assert torch.equal(dense(-a), -dense(a))


@given(a=SUMS)
def test_a_minus_a_is_nothing(a):
    assert SPACE.dense(a - a).abs().max() <= 1e-12 * (1 + SPACE.dense(a).abs().max())
    module = nn.Linear(3, 2, dtype=torch.float64)
    space = ModuleSpace(module)
    before = space.vector()
    space.step_(a - a)
    assert torch.equal(space.vector(), before)


def test_one_term_less_itself_is_exactly_nothing():
    a = Combination((Term(LAWS["sphere"], 3, torch.tensor([-0.7], dtype=torch.float64)),))
    assert torch.count_nonzero(SPACE.dense(a - a)) == 0
    assert torch.count_nonzero(SPACE.dense(a)) > 0
    assert torch.equal(SPACE.dense(Combination()), torch.zeros(6, dtype=torch.float64))


@given(a=SUMS, b=SUMS)
def test_a_combination_is_finite_iff_its_coefficients_are(a, b):
    assert (a + b).finite
    for bad in (math.nan, math.inf, -math.inf):
        term = Term(LAWS["gaussian"], 0, torch.tensor([1.0, bad], dtype=torch.float64))
        assert not (a + Combination((term,)) + b).finite


def test_a_batch_of_coefficients_is_a_batch_of_vectors():
    coefficients = torch.tensor([[1.0, 2.0], [0.0, -1.0], [3.0, 0.5]], dtype=torch.float64)
    batched = SPACE.dense(Combination((Term(LAWS["gaussian"], 9, coefficients),)))
    first, second = (
        SPACE.dense(Combination((Term(LAWS["gaussian"], 9, torch.eye(2, dtype=torch.float64)[i].expand(3, 2)),)))
        for i in range(2)
    )
    assert batched.shape == (3, 6)
    assert torch.allclose(batched, coefficients[:, :1] * first + coefficients[:, 1:] * second)


@given(lr=st.floats(1e-8, 10), steps=st.integers(1, 500), warmup=st.integers(0, 500), step=st.integers(0, 600))
def test_schedules_against_their_formulas(lr, steps, warmup, step):
    warmup = min(warmup, steps - 1)
    rates = {name: schedule(name, lr, steps, warmup)(step) for name in ("constant", "linear", "cosine")}
    if step < warmup:
        assert all(rate == pytest.approx(lr * (step + 1) / warmup) for rate in rates.values())
        return
    t = min((step - warmup) / (steps - warmup), 1.0)
    assert rates["constant"] == lr
    assert rates["linear"] == pytest.approx(lr * (1 - t), abs=1e-15 * lr)
    assert rates["cosine"] == pytest.approx(lr * math.cos(math.pi * t / 2) ** 2, abs=1e-12 * lr)


def test_schedule_values():
    assert [schedule("linear", 8.0, 4)(s) for s in range(6)] == [8.0, 6.0, 4.0, 2.0, 0.0, 0.0]
    assert [schedule("constant", 8.0, 4, warmup=4)(s) for s in range(5)] == [2.0, 4.0, 6.0, 8.0, 8.0]
    assert [schedule("linear", 8.0, 6, warmup=2)(s) for s in range(7)] == [4.0, 8.0, 8.0, 6.0, 4.0, 2.0, 0.0]
    assert schedule("cosine", 8.0, 4)(2) == pytest.approx(4.0)
    gains = schedule("gains", 8.0, 104, warmup=4)
    assert [gains(4 + k) for k in range(3)] == [pytest.approx(8.0 / (10 + k + 1) ** 0.602) for k in range(3)]
    assert gains(1) == gains(4) / 2 and schedule("gains:alpha=1:stability=3", 8.0, 9)(0) == 2.0


def test_schedules_that_cannot_be():
    with pytest.raises(UnknownNameError, match="Did you mean 'cosine'"):
        schedule("cosin", 1.0, 10)
    with pytest.raises(UnknownNameError, match="alpa"):
        schedule("gains:alpa=1", 1.0, 10)
    for steps, warmup in [(0, 0), (10, 11), (10, -1), (-1, 0)]:
        with pytest.raises(ValueError, match=f"steps is {steps}, warmup {warmup}"):
            schedule("linear", 1.0, steps, warmup)


@pytest.mark.parametrize("lr", [-1.0, math.nan, math.inf, "1e-3", lambda step: -1.0, lambda step: None])
def test_a_rate_that_is_none_is_refused(lr):
    with pytest.raises(ValueError, match="^the learning rate of step 0 is " if callable(lr) else "^lr is "):
        SGD(lr)


def test_a_schedule_that_turns_bad_is_refused_before_the_parameters_move():
    space = FlatSpace(torch.ones(6, dtype=torch.float64))
    rule = SGD(lambda step: 0.1 if step < 1 else math.nan)
    memory = rule.apply_(space, Combination(), rule.init(space))
    with pytest.raises(ValueError, match="learning rate of step 1"):
        rule.apply_(space, Combination(), memory)
    assert torch.equal(space.x, torch.ones(6, dtype=torch.float64))


@pytest.mark.parametrize("decay", [-0.1, math.nan, math.inf])
def test_a_weight_decay_that_is_none_is_refused(decay):
    with pytest.raises(ValueError, match="weight_decay"):
        SGD(0.1, weight_decay=decay)


def model(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    parts = {"embed": nn.Embedding(5, 3), "norm": nn.LayerNorm(3), "head": nn.Linear(3, 2)}
    return nn.ModuleDict(parts).to(dtype).eval()


DECAYING = {"embed.weight", "head.weight"}
GRADIENT = Combination((Term(LAWS["gaussian"], 21, torch.tensor([0.3, -0.8], dtype=torch.float64)),))


def test_weight_decay_is_decoupled_and_spares_biases_and_norms():
    module = model()
    space, rule = ModuleSpace(module), SGD(0.1, weight_decay=0.5)
    assert {segment.name for segment in space.layout.segments if decays(segment.name, len(segment.shape))} == DECAYING
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    rule.apply_(space, Combination(), 0)
    for name, p in module.named_parameters():
        assert torch.equal(p, before[name] * 0.95 if name in DECAYING else before[name])
    plain, decayed = ModuleSpace(model()), ModuleSpace(model())
    start = plain.vector()
    SGD(0.1).apply_(plain, GRADIENT, 0)
    SGD(0.1, weight_decay=0.5).apply_(decayed, GRADIENT, 0)
    mask = torch.cat(
        [torch.full((s.size,), float(decays(s.name, len(s.shape)))) for s in plain.layout.segments]
    ).double()
    assert torch.allclose(decayed.vector(), plain.vector() - 0.05 * mask * start, rtol=1e-13)  # decoupled


@given(
    lr=st.floats(0, 1),
    decay=st.floats(0, 1),
    steps=st.integers(1, 4),
    law=st.sampled_from(list(LAWS)),
    key=st.integers(0),
)
def test_both_spaces_take_the_same_steps(lr, decay, steps, law, key):
    module = ModuleSpace(model())
    flat = FlatSpace(module.vector(), layout=module.layout)
    rule = SGD(schedule("linear", lr, steps, warmup=1), weight_decay=decay)
    memories = [rule.init(module), rule.init(flat)]
    for step in range(steps):
        coefficients = torch.tensor([0.5, -1.5], dtype=torch.float64)
        gradient = Combination((Term(LAWS[law], derive(key, step), coefficients),))
        memories = [rule.apply_(s, gradient, m) for s, m in zip((module, flat), memories, strict=True)]
    assert memories == [steps, steps]
    assert torch.allclose(module.vector(), flat.x, rtol=1e-12, atol=1e-12)


def test_sgd_steps_against_the_gradient():
    space = FlatSpace(torch.zeros(6, dtype=torch.float64))
    wanted = -0.25 * space.dense(GRADIENT)
    SGD(0.25).apply_(space, GRADIENT, 0)
    assert torch.allclose(space.x, wanted, rtol=1e-14)
    assert not torch.allclose(space.x, -wanted)


def test_the_checksum_of_a_combination_is_spelled_out():
    """CRC-32 of the float64 coefficients, then of key and index of each, eight bytes little-endian."""
    one = Combination((Term(LAWS["gaussian"], 5, torch.tensor([0.5, -2.0]).double(), (3, 8)),))
    text = struct.pack("<dd", 0.5, -2.0)
    assert one.checksum == zlib.crc32(struct.pack("<QQ", 5, 8), zlib.crc32(struct.pack("<QQ", 5, 3), zlib.crc32(text)))
    assert Combination().checksum == 0 and Combination().coefficients.shape == (0,) and Combination().finite
    assert (-one).coefficients.tolist() == [-0.5, 2.0] and (one - one).coefficients.tolist() == [0.5, -2.0, -0.5, 2.0]


def test_coefficients_of_a_batch_stand_side_by_side():
    terms = [Term(LAWS["gaussian"], key, torch.full((2, n), float(key)).double()) for key, n in ((1, 2), (3, 1))]
    assert Combination(tuple(terms)).coefficients.tolist() == [[1.0, 1.0, 3.0]] * 2
