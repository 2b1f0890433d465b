"""Plans: answers that are evaluated once, and points along indices, combinations, closures and snapshots."""

import pytest
import torch
from engines import Net, loss_of, space_of
from hypothesis import given
from hypothesis import strategies as st

from zobench import Combination, FlatSpace, Gaussian, Plan, Rademacher, Term

pytestmark = pytest.mark.usefixtures("one_thread")

ENGINES = ["flat", "plain", "in-forward", "paired-deferred"]
ALONG = Combination((
    Term(Gaussian(), 5, torch.tensor([0.3, -0.4], dtype=torch.float64), (4, 1)),
    Term(Rademacher(), 6, torch.tensor([0.2], dtype=torch.float64)),
))  # fmt: skip
STEP = Combination((Term(Gaussian(), 9, torch.tensor([1.0], dtype=torch.float64)),))


def points(rows):
    return torch.tensor(rows, dtype=torch.float64)


def plan_of(rows, **how):
    return Plan(Gaussian(), 3, points(rows), torch.zeros_like(points(rows)), **how)


offsets = st.lists(st.lists(st.sampled_from([0.0, 0.5, -0.5, 1.0]), min_size=3, max_size=3), min_size=1, max_size=4)


@given(offsets, st.integers(0))
def test_answers_survive_being_kept_once(rows, seed):
    """The base point is shared: of answers that agree there, the distinct ones are all."""
    plan = plan_of(rows)
    answers = torch.rand(plan.offsets.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed % 2**31))
    answers[plan.offsets == 0] = 7.0
    kept = plan.distinct(answers)
    assert len(kept) == plan.distinct_count == plan.queries
    assert torch.equal(plan.answers(kept), answers)
    for wrong in (kept[:-1], [*kept, 1.0]):
        with pytest.raises(ValueError, match="distinct answers, not"):
            plan.answers(wrong)


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=8).filter(lambda x: len(x) % 2 == 0))
def test_losses_and_slopes_are_all_kept(values):
    plan = Plan(
        Gaussian(), 3, points([[0.0, 0.0]] * (len(values) // 2)), points([[0.0, 1.0]] * (len(values) // 2)), "slope"
    )
    answers = points(values).view(-1, 2)
    assert torch.equal(plan.answers(plan.distinct(answers)), answers) and plan.distinct_count == len(values)


class Case:
    """A space, the loss of the whole vector, and the losses that the space asks for by name."""

    def __init__(self, engine: str) -> None:
        self.module = Net()
        module_space = space_of("plain" if engine == "flat" else engine, self.module)
        self.start, twin = module_space.vector(), Net()
        self.names = [segment.name for segment in module_space.layout.segments]
        self.twin, self.parameters = twin, dict(twin.named_parameters())
        self.space = FlatSpace(self.start.clone(), module_space.layout) if engine == "flat" else module_space
        loss = loss_of(self.module)
        named = {"": loss, "twice": lambda: 2.0 * loss()}
        flat = {"": self.at, "twice": lambda x: 2.0 * self.at(x)}
        self.losses = flat if engine == "flat" else named

    @torch.no_grad()
    def at(self, x: torch.Tensor) -> torch.Tensor:
        """The loss where the trainable parameters are x (..., d)."""
        found = []
        for one in x.reshape(-1, x.shape[-1]):
            torch.nn.utils.vector_to_parameters(one, [self.parameters[name] for name in self.names])
            found.append(loss_of(self.twin)())
        return torch.stack(found).view(x.shape[:-1])

    def require(self, plan: Plan, wanted: list[list[torch.Tensor]], factor: float = 1.0) -> None:
        found = self.space.losses(self.losses, plan)
        by_hand = torch.stack([torch.stack([factor * self.at(x) for x in row]) for row in wanted])
        assert torch.allclose(found, by_hand, rtol=1e-9, atol=1e-12)
        self.space.settle_()


def u(case: Case, index: int) -> torch.Tensor:
    return case.space.dense(Combination((Term(Gaussian(), 3, torch.ones(1, dtype=torch.float64), (index,)),)))


@pytest.mark.parametrize("engine", ENGINES)
def test_indices_name_the_directions(engine):
    case = Case(engine)
    wanted = [[case.start + a * u(case, i) for a in (0.5, -0.25)] for i in (7, 2)]
    case.require(plan_of([[0.5, -0.25]] * 2, indices=(7, 2)), wanted)
    with pytest.raises(AssertionError):
        case.require(plan_of([[0.5, -0.25]] * 2), wanted)


@pytest.mark.parametrize("engine", ENGINES)
def test_points_along_a_combination_are_those_of_a_step(engine):
    case = Case(engine)
    way = case.space.dense(ALONG)
    case.require(plan_of([[0.0, 0.5, -2.0]], along=(ALONG,)), [[case.start + a * way for a in (0.0, 0.5, -2.0)]])
    case.space.step_(ALONG, 0.5)
    case.require(plan_of([[0.0]]), [[case.start + 0.5 * way]])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_closure_is_asked_for_by_name(engine):
    case = Case(engine)
    case.require(plan_of([[0.5]], closure="twice"), [[case.start + 0.5 * u(case, 0)]], 2.0)
    with pytest.raises(ValueError, match=r"asks for the loss 'thrice', but f has the losses \['', 'twice'\]"):
        case.space.losses(case.losses, plan_of([[0.5]], closure="thrice"))
    with pytest.raises(ValueError, match="asks for the loss 'twice'"):
        case.space.losses(case.losses[""], plan_of([[0.5]], closure="twice"))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_snapshot_is_the_point_where_it_was_taken(engine):
    case = Case(engine)
    case.space.step_(STEP, 0.1)
    kept = case.start + 0.1 * case.space.dense(STEP)
    case.require(plan_of([[0.5]], keep="anchor"), [[kept + 0.5 * u(case, 0)]])
    case.space.step_(STEP, 0.3)
    here = kept + 0.3 * case.space.dense(STEP)
    case.require(plan_of([[0.0, 0.5]], base="anchor"), [[kept, kept + 0.5 * u(case, 0)]])
    case.require(plan_of([[0.0, 0.5]]), [[here, here + 0.5 * u(case, 0)]])  # and x is where it was
    before = case.space.x.clone() if engine == "flat" else case.space.vector()
    case.space.losses(case.losses, plan_of([[0.5]], base="anchor"))
    case.space.settle_()
    assert torch.equal(case.space.x if engine == "flat" else case.space.vector(), before)
    with pytest.raises(ValueError, match=r"based on the snapshot 'other', but the snapshots kept are \['anchor'\]"):
        case.space.losses(case.losses, plan_of([[0.5]], base="other"))


def test_a_plan_that_does_not_fit_itself_is_refused():
    with pytest.raises(ValueError, match="indices has 1 entries, the plan 2 lines"):
        plan_of([[0.5], [0.5]], indices=(1,))
    with pytest.raises(ValueError, match="along has 2 entries, the plan 1 lines"):
        plan_of([[0.5]], along=(ALONG, ALONG))
