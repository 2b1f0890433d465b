"""Learning-rate multipliers by segment: what torch alone makes of them on every engine, and nothing but the step."""

import copy
import math

import pytest
import torch
from engines import ENGINES, IN_FORWARD, Net, bits, loss_of, space_of, swept_by, threads
from torch import Tensor, nn
from torch.nn import functional

from zobench import Combination, FlatSpace, Groups, ModuleSpace, Term, layout, methods, query
from zobench.groups import decays
from zobench.layout import Segment
from zobench.space.sweep import Change

pytestmark = pytest.mark.usefixtures("one_thread")

MULTIPLIERS = {"embedding.weight": 0.3, "shared.bias": 7.0, "gains.0": 0.1}
EXACT = {"embedding.weight": 0.5, "shared.bias": 4.0, "gains.0": 0.25}  # products with them do not round
LR, SHRINK = 0.05, 0.1
DTYPES = [torch.float64, torch.float32, torch.bfloat16]
GROUPS = Groups(MULTIPLIERS)
MEZO = methods.make("mezo", epsilon=0.05, n=2)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 200 entries: parameters of one block and of several."""
    monkeypatch.setattr(layout, "BLOCK_SIZE", 200)


def walked(module: nn.Module, space: ModuleSpace, plan, coefficients: Tensor, in_place: bool, grouped: bool) -> None:
    """What torch makes of one step: the way to the points and back too where the engine goes it."""
    lines = []
    for i, row in enumerate(plan.offsets.tolist()):
        one = torch.zeros(len(plan.offsets), dtype=torch.float64)
        one[i] = plan.law.unit(space.layout.dim)
        u = space.dense(Combination((Term(plan.law, plan.key, one),))).split([s.size for s in space.layout.segments])
        lines.append((row, u))
    for j, (segment, p) in enumerate(zip(space.layout.segments, space.stored.parameters.values(), strict=True)):
        own, x = MULTIPLIERS.get(segment.name, 1.0) if grouped else 1.0, p.detach()
        keep = 1.0 - own * SHRINK if decays(segment.name, p.ndim) else 1.0
        us = [(row, u[j].to(segment.dtype).view(p.shape)) for row, u in lines]
        at = None
        for index, (row, u) in enumerate(us if in_place else ()):
            for offset in row:
                if at is not None and at[0] != index:
                    x.add_(us[at[0]][1], alpha=-at[1]).add_(u, alpha=offset)
                else:
                    x.add_(u, alpha=offset - (at[1] if at else 0.0))
                at = (index, offset)
        if keep != 1.0:
            x.mul_(keep)
        last = at[0] if at else 0  # the line that it comes back from is first
        for index in (last, *(i for i in range(len(us)) if i != last)):
            pending = -at[1] if at is not None and index == last else 0.0
            x.add_(us[index][1], alpha=keep * pending + own * (-LR * coefficients[index].item()))


@pytest.mark.parametrize("way", ["native", "eager"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("engine", ENGINES)
def test_steps_are_those_of_torch_to_the_bit(engine, dtype, way):
    module = Net(dtype=dtype)
    twins = {True: copy.deepcopy(module), False: copy.deepcopy(module)}
    with swept_by(way), threads(2 if engine == "paired" else 1):
        space = space_of(engine, module)
        for key in range(3):
            told = query(space, MEZO, loss_of(module), key, ())
            space.step_(told.gradient, -LR, SHRINK, GROUPS)
            for grouped, twin in twins.items():
                coefficients = told.gradient.terms[0].coefficients
                walked(twin, ModuleSpace(twin), MEZO.ask(key, ()), coefficients, engine == "plain", grouped)
        space.settle_()
    named = dict(twins[True].named_parameters())
    assert all(torch.equal(bits(p), bits(named[name])) for name, p in module.named_parameters())
    same = [torch.equal(bits(p), bits(q)) for p, q in zip(module.parameters(), twins[False].parameters(), strict=True)]
    names = [name for name, _ in module.named_parameters()]
    assert [name for name, equal in zip(names, same, strict=True) if not equal] == [
        n for n in names if n in MULTIPLIERS
    ]


ROWS = [1, 3, 4, 20, 50]


def some_logits(module: Net) -> Tensor:
    """A loss that reads the rows ROWS of the tied table alone."""
    ids = torch.tensor([[1, 3, 4, 20, 50], [50, 4, 4, 1, 1]])
    columns = module.hidden(ids) @ module.head.weight[torch.tensor(ROWS)].t()
    return functional.cross_entropy(columns.flatten(0, 1).double(), torch.arange(10) % 5)


OPTIONS = [
    {},
    {"rounding": "stochastic"},
    {"reads": torch.bfloat16},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["nearest", "stochastic", "master"])
@pytest.mark.parametrize("restricted", [False, True])
@pytest.mark.parametrize("engine", IN_FORWARD)
def test_each_segment_steps_as_one_whose_rate_is_its_own(engine, restricted, options):
    """Restricted rows, random rounding and a master copy included: a step of p lr is that of multiplier p."""
    dtype = torch.float32 if "reads" in options else torch.bfloat16
    rows = {"embedding.weight": ROWS} if restricted else {}

    def stepped(factor: float, multipliers: dict[str, float]) -> Net:
        module = Net(dtype=dtype)
        module.shift = module.shift.to(options.get("reads", dtype))
        space = space_of(engine, module, **options)
        space.restrict(rows)
        told = query(space, MEZO, lambda: some_logits(module), 3, ())
        space.step_(told.gradient, -factor * LR, factor * SHRINK, Groups(multipliers))
        space.losses(lambda: some_logits(module), MEZO.ask(4, ()))  # flushes what is pending
        space.settle_()
        return module

    found = dict(stepped(1.0, EXACT).named_parameters())
    for name, p in found.items():
        alone = dict(stepped(EXACT.get(name, 1.0), {}).named_parameters())[name]
        assert torch.equal(bits(p), bits(alone)), name
        if name in EXACT:
            assert not torch.equal(bits(p), bits(dict(stepped(1.0, {}).named_parameters())[name])), name


@pytest.mark.parametrize("engine", ["plain", "in-forward"])
def test_motion_is_that_of_the_step_with_its_groups(engine):
    module = Net(dtype=torch.bfloat16)
    space = space_of(engine, module)
    gradient = query(space, MEZO, loss_of(module), 3, ()).gradient
    motion = space.motion(gradient, -1e-3, 0.0, GROUPS)
    before, u = space.vector(), space.dense(gradient)
    space.step_(gradient, -1e-3, 0.0, GROUPS)
    space.settle_()
    done = space.vector() - before
    rates = [torch.full((s.size,), MULTIPLIERS.get(s.name, 1.0)) for s in space.layout.segments]
    pace = torch.cat(rates).double()

    def cosine(meant: Tensor) -> float:
        return float(functional.cosine_similarity(done, meant, dim=0))

    assert motion.cosine == pytest.approx(cosine(-u * pace), rel=1e-6)
    assert abs(cosine(-u * pace) - cosine(-u)) > 1e-3
    assert motion.length == pytest.approx(float(done.norm() / (1e-3 * u * pace).norm()), rel=1e-6)


def test_a_flat_space_takes_groups_too():
    module = Net()
    space = space_of("in-forward", module)
    flat = FlatSpace(space.vector(), space.layout)
    gradient = query(space, MEZO, loss_of(module), 3, ()).gradient
    space.step_(gradient, -LR, SHRINK, GROUPS)
    flat.step_(gradient, -LR, SHRINK, GROUPS)
    assert torch.allclose(flat.x, space.vector(), rtol=1e-12)


def test_a_change_is_the_same_in_all_segments_of_one_kind():
    """So that a step is not slower for its groups: two kinds, however many segments."""
    change = Change(0.1, [])
    kinds = {id(change.of(Segment(str(i), 5, shape=(5, 1) if i % 2 else (5,)))) for i in range(10)}
    assert len(kinds) == 2


@pytest.mark.parametrize(
    ("name", "ndim", "wanted"),
    [("fc.weight", 2, True), ("fc.bias", 1, False), ("norm.weight", 2, False), ("conv", 4, True), ("x", 0, True),
     ("gain", 1, False), ("bias_table", 2, False)],
)  # fmt: skip
def test_one_rule_says_what_decays(name, ndim, wanted):
    assert decays(name, ndim) is wanted
    segment = Segment(name, 5, shape=(1,) * ndim)
    assert Groups({name: 3.0}).of(segment) == (3.0, 3.0 * wanted)
    assert Groups({name: 3.0}, {name: 0.5}).of(segment) == (3.0, 1.5)


def test_bad_multipliers_are_told():
    with pytest.raises(ValueError, match=r"no trainable parameter of that name"):
        Groups({"shared.biass": 1.0}).require_known(["shared.bias"])
    for multiplier in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="give 0 or more"):
            Groups({"shared.bias": multiplier})
