"""Spaces: which parameters they own, and which directions these have."""

import math

import pytest
import torch
from bowl import GAUSSIAN, line_sum, network, twins
from torch import Tensor, nn

from zobench import SGD, FlatSpace, InForwardSpace, ModuleSpace, methods, query
from zobench.law import LAWS, Coordinate
from zobench.layout import BLOCK_SIZE
from zobench.space import InForward
from zobench.space.space import require_resolved

pytestmark = pytest.mark.usefixtures("one_thread")


class Tied(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(11, 6, dtype=torch.float64)
        self.head = nn.Linear(6, 11, bias=False, dtype=torch.float64)
        if how == "same parameter":
            self.head.weight = self.embed.weight
        else:
            self.head.weight = nn.Parameter(self.embed.weight.detach())


@pytest.mark.parametrize("how", ["same parameter", "same memory"])
def test_tied_weights_move_once(how):
    module = Tied(how).eval()
    space = ModuleSpace(module)
    assert [segment.name for segment in space.layout.segments] == ["embed.weight"]
    assert space.layout.dim == 66
    before = module.embed.weight.detach().clone().view(-1)
    combination = line_sum(GAUSSIAN, 5, 2.0)
    space.step_(combination, 0.1)
    assert torch.allclose(module.embed.weight.view(-1), before + 0.1 * space.dense(combination), rtol=1e-13)
    assert torch.equal(module.head.weight, module.embed.weight)


def test_frozen_parameters_and_buffers_are_untouched():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    model[0].weight.requires_grad_(False)
    space = ModuleSpace(model)
    untouched = {"0.weight", *(name for name, _ in model.named_buffers())}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for step in range(3):
        told = query(space, methods.make("mezo", epsilon=0.1), lambda: model(torch.ones(3, 4)).square().sum(), step, ())
        SGD(0.1, weight_decay=0.1).apply_(space, told.gradient, step)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == (name in untouched), name


def draws(law, key: int, space: ModuleSpace | FlatSpace, backwards: bool = False) -> dict[tuple[str, int], Tensor]:
    draw = law.bind(space.layout, space.stored.support.stored).direction(key, 0, space.layout, ())
    blocks = reversed(space.layout.blocks) if backwards else space.layout.blocks
    blank = {(b.segment.name, b.index): torch.zeros(b.size, dtype=b.segment.dtype) for b in space.layout.blocks}
    return blank | {(b.segment.name, b.index): u for b in blocks if (u := draw(b)) is not None}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("key", [0, 1, 2**62])
def test_directions_depend_on_no_order(law, key):
    space = twins()[1]
    forth, back = draws(LAWS[law], key, space), draws(LAWS[law], key, space, backwards=True)
    assert all(torch.equal(forth[name], back[name]) for name in forth)
    again = torch.cat([*draws(LAWS[law], key, space).values()])
    assert torch.equal(again, space.dense(line_sum(LAWS[law], key, LAWS[law].unit(space.layout.dim))))
    assert not torch.equal(again, torch.cat([*draws(LAWS[law], key + 1, space).values()]))
    if law in ("sphere", "rademacher", "coordinate"):
        assert float(again.square().sum()) == pytest.approx(20, rel=1e-12)


@pytest.mark.parametrize("law", ["gaussian", "rademacher", "sphere"])
def test_another_parameter_changes_nobody_elses_draw(law):
    small, large = nn.Module(), nn.Module()
    for module in (large, small):
        if module is large:
            module.zeroth = nn.Parameter(torch.zeros(7))
        module.weight = nn.Parameter(torch.zeros(3, 5))
    one, two = (draws(LAWS[law], 4, ModuleSpace(m))[("weight", 0)].double() for m in (small, large))
    assert torch.allclose(one / one.norm(), two / two.norm(), rtol=1e-6)
    if law != "sphere":
        assert torch.equal(one, two)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("law", LAWS)
def test_a_parameter_of_several_blocks(law, dtype):
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(2 * BLOCK_SIZE + 100, dtype=dtype))
    space, law = ModuleSpace(module), LAWS[law]
    assert [block.size for block in space.layout.blocks] == [BLOCK_SIZE, BLOCK_SIZE, 100]
    combination = line_sum(law, 6, 0.5, -2.0)
    wanted = space.dense(combination)
    assert torch.allclose(FlatSpace(space.vector(), layout=space.layout).dense(combination), wanted, rtol=1e-12)
    space.step_(combination, -1.0)
    assert torch.allclose(space.vector(), -wanted, rtol=1e-5, atol=1e-6)
    u = draws(law, 6, space)
    one, two, three = (u[("weight", i)].double() for i in range(3))
    if isinstance(law, Coordinate):
        assert sum(int(block.count_nonzero()) for block in u.values()) == 1
        return
    if law.reads_weights:  # those that it reads here are the step
        return
    root = math.sqrt(BLOCK_SIZE)
    for block in (one, two):
        assert abs(float(block.mean())) * root < 5
        assert abs(float(block.square().mean()) - 1) * root / math.sqrt(2) < 5
    assert abs(float((one * two).mean())) * root < 5  # streams differ
    assert abs(float((one * one).mean())) * root > 5  # planted: the same stream in both
    assert not torch.equal(three, one[:100]) and not torch.equal(three, two[:100])


def test_parameters_that_overlap_or_have_gaps_are_refused():
    memory = torch.zeros(10)
    module = nn.Module()
    module.first, module.second = nn.Parameter(memory[:6]), nn.Parameter(memory[4:])
    with pytest.raises(ValueError, match="'first' and 'second' overlap"):
        ModuleSpace(module)
    module.second = nn.Parameter(memory[6:])
    assert ModuleSpace(module).layout.dim == 10
    for gaps in (torch.zeros(4, 3)[:, ::2], torch.zeros(3).expand(4, 3)):
        module.second = nn.Parameter(gaps)
        with pytest.raises(ValueError, match=r"'second' has gaps .* \(shape \(4, \d\), strides \(\d, \d\)\)"):
            ModuleSpace(module)
    module.second = nn.Parameter(torch.zeros(3, device="meta"))
    with pytest.raises(ValueError, match="'second' is on the meta device"):
        ModuleSpace(module)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameter"):
        ModuleSpace(module)


def test_an_engine_serves_one_space_and_is_one():
    engine, module = InForward(), nn.Linear(2, 2)
    ModuleSpace(module, engine)
    with pytest.raises(ValueError, match="this InForward serves another space"):
        ModuleSpace(module, engine)
    with pytest.raises(TypeError, match="engine is 'paired': give an Engine"):
        ModuleSpace(module, "paired")


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn])
@pytest.mark.parametrize("kind", [ModuleSpace, InForwardSpace])
def test_a_parameter_that_no_real_direction_moves_rightly_is_refused(kind, dtype):
    module = nn.Linear(2, 2)
    module.more = nn.Parameter(torch.zeros(3).to(dtype))
    with pytest.raises(ValueError, match=f"'more' is {dtype}: give real floating-point parameters"):
        kind(module)
    module.more.requires_grad_(False)
    kind(module)


def test_a_bfloat16_module_moves_and_too_small_an_epsilon_is_found():
    model = network(torch.bfloat16)
    nn.init.normal_(model[0].weight)
    space = ModuleSpace(model)
    before = space.vector()
    combination = line_sum(GAUSSIAN, 3, 1.0)
    space.step_(combination, 0.1)
    moved = space.vector() - before
    assert float(torch.nn.functional.cosine_similarity(moved, 0.1 * space.dense(combination), dim=0)) > 0.999
    assert model[0].weight.dtype == torch.bfloat16
    assert space.layout.segments[0].dtype == torch.float32  # the draws are not in bfloat16
    with pytest.raises(ValueError, match=r"epsilon 1e-05 is below the resolution of the parameters: it leaves \d+%"):
        require_resolved(space, 1e-5)
    require_resolved(space, 0.1)
    require_resolved(ModuleSpace(network(torch.float64)), 1e-5)
    assert 0.5 < space.unresolved_share(1e-5) < 1.0
    assert space.unresolved_share(0.0) == 1.0
