"""What is left of a step in bfloat16: lost to the nearest, right on average at random, told by motion()."""

import copy
import math

import pytest
import torch
from engines import ENGINES, IDS, IN_FORWARD, Net, bits, loss_of, space_of, steps, swept_by, threads
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from zobench import Combination, Gaussian, InForwardSpace, ModuleSpace, Rademacher, Term, layout, methods, query
from zobench.groups import UNIFORM, Groups
from zobench.law import LowRank
from zobench.naming import UnknownNameError
from zobench.random.keys import derive
from zobench.space import motion as motions
from zobench.space.sweep import Drawn, Sweep, Update

pytestmark = pytest.mark.usefixtures("one_thread")

KEYS = 400


class Weights(nn.Module):
    """3000 weights of the usual size, in three blocks of 1000."""

    def __init__(self, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter((0.02 * torch.randn(60, 50, generator=generator)).to(dtype))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(layout, "BLOCK_SIZE", 1000)


def along(key: int, amount: float = 1.0) -> Combination:
    return Combination((Term(Gaussian(), key, torch.tensor([amount], dtype=torch.float64)),))


def stepped(rounding: str, key: int, amount: float, shrink: float = 0.0, **options) -> Tensor:
    module = Weights()
    space = InForwardSpace(module, rounding=rounding, **options)
    space.step_(along(key), amount, shrink)
    return space.vector()


def neighbours(exact: Tensor) -> tuple[Tensor, Tensor]:
    """The bfloat16 numbers below and above, towards and away from zero; equal where exact is one of them."""
    words = exact.float().view(torch.int32)
    inner = words & -0x10000
    outer = torch.where(words == inner, inner, inner + 0x10000)
    return inner.view(torch.float32).double(), outer.view(torch.float32).double()


@pytest.mark.parametrize("way", ["native", "eager"])
def test_stochastic_rounding_is_unbiased_and_stays_on_the_neighbours(way):
    """The same step 400 times, each rounded by other bits. z of each entry's mean, from its own samples; 3000 entries
    are looked at together, so that their squares are averaged.
    """
    module, amount = Weights(), 1e-4
    direction = Gaussian().direction(5, 0, InForwardSpace(module).layout, ())
    blocks, stored = InForwardSpace(module).layout.blocks, module.weight.detach().flatten()
    u = torch.cat([direction(block) for block in blocks])
    exact = torch.add(0.99 * stored.float(), u, alpha=amount)
    inner, outer = neighbours(exact)
    total = torch.zeros(3000, dtype=torch.float64)
    with swept_by(way):
        for key in range(KEYS):
            x = stored.clone()
            Sweep(blocks, x, Update(0.99, [Drawn(direction, (amount,))], derive("rounding", key))).take()
            assert bool(((x.double() == inner) | (x.double() == outer)).all())
            total += x.double() / KEYS
    exact = exact.double()
    deviation = ((exact - inner) * (outer - exact)).clamp(min=0).sqrt() / math.sqrt(KEYS)
    random = deviation > 0
    assert float(random.double().mean()) > 0.9

    def mean_square(mean: Tensor) -> float:
        """The mean of z^2, which is 1 if nothing is biased, in units of its own standard deviation."""
        z = ((mean - exact) / deviation)[random]
        return float((z.square().mean() - 1) / (z.square().std() / math.sqrt(int(random.sum()))))

    def overall(mean: Tensor) -> float:
        return float((mean - exact)[random].sum() / deviation[random].square().sum().sqrt())

    assert abs(mean_square(total)) < 5 and abs(overall(total)) < 5
    biased = total + 0.02 * (outer - inner)  # planted: a fiftieth of a unit too far from zero
    assert abs(mean_square(biased)) > 5
    nearest = exact.to(torch.bfloat16).double()  # planted: rounded to the nearest
    assert abs(mean_square(nearest)) > 5


@pytest.mark.parametrize("way", ["native", "eager"])
@pytest.mark.parametrize("engine", IN_FORWARD)
def test_the_key_names_the_bits(engine, way):
    """Order and number of threads do not matter, nor when the step is written; another key rounds in another way."""
    wanted = stepped("stochastic", 5, 1e-4, 0.1)
    with swept_by(way), threads(2):
        assert torch.equal(stepped("stochastic", 5, 1e-4, 0.1, **IN_FORWARD[engine]), wanted)
    backwards = Weights().weight.detach().flatten().clone()
    space = InForwardSpace(Weights(), rounding="stochastic")
    step = space.step_of(along(5), 1e-4, 0.1, UNIFORM)
    update = space.stored.change(step).of(space.layout.segments[0])
    with swept_by("eager"):
        Sweep(space.layout.blocks[::-1], backwards, update).take()
    assert torch.equal(backwards.double(), wanted)
    other = InForwardSpace(Weights(), rounding="stochastic")
    other.step_(along(5) + along(6, 0.0), 1e-4, 0.1)  # the same step, by another name
    assert not torch.equal(other.vector(), wanted)


def test_every_term_of_a_step_names_its_bits():
    """A rule that keeps its first term would otherwise round every step by the same bits."""
    found = []
    for key in (6, 7):
        module = Weights()
        InForwardSpace(module, rounding="stochastic").step_(along(5, 1e-4) + along(key, 1e-30))
        found.append(module.weight.detach())
    assert not torch.equal(*found)


@given(amount=st.floats(1e-6, 1.0), shrink=st.floats(0.0, 0.5), key=st.integers(0, 2**62), law=st.sampled_from([0, 1]))
def test_stochastic_rounding_stays_on_the_neighbours(amount, shrink, key, law):
    module = Weights()
    space = InForwardSpace(module, rounding="stochastic")
    old = module.weight.detach().float().flatten()
    step = Combination((Term((Gaussian(), Rademacher())[law], key, torch.ones(1, dtype=torch.float64)),))
    u = space.dense(step).float()
    exact = torch.add(old * torch.tensor(1.0 - shrink).float(), u, alpha=amount)
    inner, outer = neighbours(exact)
    space.step_(step, amount, shrink)
    x = space.vector()
    assert bool(((x == inner) | (x == outer)).all())


def test_an_update_of_nothing_changes_nothing():
    module = Weights()
    space = InForwardSpace(module, rounding="stochastic")
    before = bits(module.weight).clone()
    space.step_(along(5), 0.0)
    space.step_(Combination())
    space.settle_()
    assert torch.equal(bits(module.weight), before)


def test_infinities_stay_infinite_and_nothing_else_becomes_one():
    big = torch.full((32,), 3.3e38).to(torch.bfloat16)
    module = nn.Module()
    module.weight = nn.Parameter(torch.cat([torch.full((32,), math.inf).to(torch.bfloat16), big]))
    for way in ("native", "eager"):
        with swept_by(way):
            InForwardSpace(module, rounding="stochastic").step_(along(5), 1e-3)
        assert bool(module.weight[:32].isinf().all()) and torch.equal(module.weight[32:], big)


def realised(rounding: str, amount: float) -> tuple[float, float]:
    """The share of entries that a step moves, and its cosine with the intended one."""
    module = Weights()
    space = InForwardSpace(module, rounding=rounding)
    before, intended = space.vector(), amount * space.dense(along(5))
    space.step_(along(5), amount)
    r = space.vector() - before
    return float((r != 0).double().mean()), float(functional.cosine_similarity(r, intended, dim=0))


def test_to_the_nearest_small_steps_are_lost_and_motion_says_so():
    """Half a unit in the last place of the smallest of these entries is about 1e-9, of the usual ones 4e-5."""
    for amount, rounding, moved in ((1e-12, "nearest", 0.0), (1e-6, "nearest", 0.06), (1e-6, "stochastic", 0.1)):
        space = InForwardSpace(Weights(), rounding=rounding)
        before = space.vector()
        told = space.motion(along(5), amount)
        assert torch.equal(space.vector(), before)  # nothing is written
        share, cosine = realised(rounding, amount)
        assert told.moved == pytest.approx(share, abs=1e-12)
        assert share <= moved and (share > 0 or amount == 1e-12)
        assert math.isnan(told.cosine) if share == 0 else told.cosine == pytest.approx(cosine, rel=1e-9)
    spaces = [InForwardSpace(Weights(), rounding=way) for way in ("nearest", "stochastic")]
    swallowed, noisy = (space.motion(along(5), 1e-5).length for space in spaces)
    assert swallowed < 1 < noisy


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_a_sample_of_a_large_model_stands_for_all_of_it(dtype, rounding, monkeypatch):
    """Of spans that make up the whole tensor it is the exact motion, of fewer it is near; small tensors are whole."""
    module = nn.Sequential(nn.Linear(640, 320), nn.Linear(320, 3)).to(dtype)
    space = InForwardSpace(module, rounding=rounding)
    step, groups = along(5) + along(6, 0.5), Groups({"0.weight": 3.0})
    exact = space.motion(step, 3e-4, 1e-3, groups)
    assert exact.sampled == 0 and set(exact.row) == {"moved", "cosine", "length"}
    monkeypatch.setattr(motions, "EXACT", 1000)
    monkeypatch.setattr(motions, "SPAN", 640 * 320 // 16)
    assert space.motion(step, 3e-4, 1e-3, groups).sampled == space.layout.dim
    monkeypatch.setattr(motions, "SPANS", 4)
    monkeypatch.setattr(motions, "SPAN", 5000)
    found = space.motion(step, 3e-4, 1e-3, groups)
    assert found == space.motion(step, 3e-4, 1e-3, groups) and found.row["sampled"] == 4 * 5000 + 320 + 3 * 320 + 3
    for name, value in exact.row.items():
        assert found.row[name] == pytest.approx(value, abs=0.02)
    wrong = space.motion(step, 3e-5, 1e-3, groups)
    assert dtype == torch.float32 or wrong.moved < found.moved - 0.1


def test_the_spans_of_a_sample_lie_apart_and_are_those_of_the_tensor():
    """Equal to the bit to those entries of the exact sweep, for laws that draw by rows too."""
    module = nn.Linear(700, 500).to(torch.bfloat16)
    space = InForwardSpace(module, rounding="stochastic")
    for law in (Gaussian(), LowRank(2), Rademacher()):
        change = space.stored.change(
            space.step_of(Combination((Term(law, 7, torch.ones(1, dtype=torch.float64)),)), 1e-3, 0.1, UNIFORM)
        )
        blocks = space.layout.blocks_of["weight"]
        spans = motions._spans(blocks)
        assert len({block.start for block in spans}) == motions.SPANS and spans[-1].stop <= 350000
        before = module.weight.detach().flatten()
        update = change.of(blocks[0].segment)
        whole = torch.cat([new for _, _, new in motions._written(blocks, before, update)])
        for block, old, new in motions._written(spans, before, update):
            assert torch.equal(new, whole[block.start : block.stop]) and not torch.equal(new, old)


def test_a_thousand_small_steps_arrive_only_at_random_rounding():
    """Each is 1e-7 u, lost to the nearest; their sum is 1e-4 u, which stochastic rounding meets in the mean."""
    kept = {}
    for rounding in ("nearest", "stochastic"):
        module = Weights()
        space = InForwardSpace(module, rounding=rounding)
        before, u = space.vector(), space.dense(along(5))
        for step in range(1000):
            space.step_(along(5) + along(derive(step), 0.0), 1e-7)
        kept[rounding] = float((space.vector() - before) @ u / u.square().sum()) / 1e-4
    assert abs(kept["nearest"]) < 0.2 and abs(kept["stochastic"] - 1) < 0.05


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_motion_of_a_wide_step_is_the_step(engine, dtype):
    space = space_of(engine, Weights(dtype))
    told = space.motion(along(5), 1e-2, 0.1)
    assert told.moved == 1.0 and told.length == pytest.approx(1, rel=1e-6)
    assert told.cosine == pytest.approx(1.0, abs=1e-9)
    still = space.motion(along(5), 0.0)  # nothing was meant
    assert still.moved == 0 and math.isnan(still.cosine) and math.isnan(still.length)


@pytest.mark.parametrize("engine", ENGINES)
def test_motion_while_a_step_is_owed_or_a_point_perturbed(engine):
    module = Net(dtype=torch.bfloat16)
    space = space_of(engine, module)
    query(space, methods.make("mezo", epsilon=0.05), loss_of(module), 1, ())
    space.step_(along(8), 0.1)
    twin = Net(dtype=torch.bfloat16)
    twin.load_state_dict(module.state_dict()) if engine == "plain" else InForwardSpace(twin).step_(along(8), 0.1)
    assert space.motion(along(5), 1e-3) == InForwardSpace(twin).motion(along(5), 1e-3)


@pytest.mark.parametrize("engine", IN_FORWARD)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("way", ["native", "eager"])
def test_bfloat16_reads_are_the_perturbed_float32_rounded_once(engine, tied, way, monkeypatch):
    monkeypatch.setattr(layout, "BLOCK_SIZE", 100)
    master = Net(dtype=torch.float32, tied=tied)
    master.shift = master.shift.to(torch.bfloat16)
    space = space_of(engine, master, reads=torch.bfloat16)
    before, estimator = copy.deepcopy(master.state_dict()), methods.make("mezo", epsilon=0.03)
    with swept_by(way):
        told = query(space, estimator, loss_of(master), 1, ())
    wanted, twice = [], []
    u = space.dense(along(1)).float().split([s.size for s in space.layout.segments])
    for amount in (0.03, -0.03):
        for rounded_first, losses in ((False, wanted), (True, twice)):
            module = Net(dtype=torch.float32, tied=tied)
            for s, part in zip(space.layout.segments, u, strict=True):
                p = module.get_parameter(s.name).detach()
                old = p.to(torch.bfloat16).float() if rounded_first else p
                p.copy_(torch.add(old, part.view_as(p), alpha=amount))
            losses.append(float(loss_of(module.to(torch.bfloat16))().detach()))
    assert told.losses.tolist() == [wanted]
    assert wanted != twice  # planted: rounded before and after
    for name, value in master.state_dict().items():
        assert torch.equal(bits(value), bits(before[name])), name


@pytest.mark.parametrize("engine", IN_FORWARD)
def test_a_float32_master_takes_the_steps_that_bfloat16_loses(engine):
    shares = []
    for dtype, reads in ((torch.float32, torch.bfloat16), (torch.bfloat16, None)):
        module = Net(dtype=dtype)
        module.shift = module.shift.to(torch.bfloat16)
        space = space_of(engine, module, reads=reads)
        before = space.vector()
        steps(space, loss_of(module), methods.make("mezo", epsilon=0.05), 3, lr=1e-7, shrink=0.0)
        shares.append(float((space.vector() != before).double().mean()))
    assert shares[0] > 0.3 > 0.05 > shares[1]


def test_wide_reads_of_narrow_parameters_are_not_rounded():
    """The rows that are looked up and the whole matrix are the same numbers."""
    module = Net(dtype=torch.bfloat16)
    space, seen = InForwardSpace(module, reads=torch.float32), []

    def look() -> float:
        rows = module.embedding(IDS.flatten())
        assert rows.dtype == torch.float32
        assert torch.equal(rows, (module.head.weight + 0)[IDS.flatten()])
        seen.append(rows)
        return 0.0

    query(space, methods.make("mezo", epsilon=0.01), look, 1, ())
    assert not torch.equal(seen[0], seen[0].to(torch.bfloat16).float())


def test_the_resolution_is_that_of_what_is_read():
    space = InForwardSpace(Weights(torch.float32), reads=torch.bfloat16)
    assert space.unresolved_share(1e-6) > 0.5 > ModuleSpace(Weights(torch.float32)).unresolved_share(1e-6)


def test_what_cannot_be_rounded_is_refused():
    with pytest.raises(UnknownNameError, match="stochastic"):
        InForwardSpace(Weights(), rounding="stochastically")
    with pytest.raises(ValueError, match="float16"):
        InForwardSpace(Weights(torch.float16), rounding="stochastic")
