"""What a step costs is known before a run: all rounds of it, or a refusal."""

import re
from dataclasses import dataclass, replace
from typing import NamedTuple

import prototypes
import pytest
import torch

from llm.dry_run import dry_run
from llm.options.train import TrainOptions
from llm.studies.rates import forward_passes_a_step
from synthetic import converge, problems
from synthetic.__main__ import main as synthetic
from synthetic.converge import ConvergeOptions
from zobench import (
    SGD,
    AutoEpsilon,
    Estimate,
    Estimator,
    FlatSpace,
    LineEstimator,
    More,
    derive,
    methods,
    query,
    theory,
)
from zobench.evaluations import evaluations_a_step

pytestmark = pytest.mark.usefixtures("one_thread")

MEZO = prototypes.MEZO
EVEN = {
    "one round": (prototypes.MovingBaseline(), 1),
    "two terms": (prototypes.TwoTerms(), 4),
    "a search along a combination": (prototypes.RankLineSearch(), 4 + 3),
    "a look at the step": (prototypes.Conservative(), 4 + 2),
    "no LineEstimator's tell": (prototypes.Bent(MEZO.law, MEZO.stencil, 0.05, 3), 6),
    "slopes": (methods.make("forward-gradient", n=2), 6),
    "an interval that shrinks": (methods.make("kerzoo-code", per_tensor=False), 6),
}


class Tries(NamedTuple):
    count: int = 0
    gradient: object = None


@dataclass(frozen=True)
class Backtracking(Estimator):
    """A step that is halved until the loss of one point is below another's: as many rounds as the losses ask for."""

    def init(self):
        return Tries()

    def ask(self, key, state, batch=()):
        return MEZO.ask(derive(key, state.count), (), batch)

    def tell(self, plan, losses, state):
        if losses[0, 0] > losses[0, 1]:
            return More(Tries(state.count + 1))
        return replace(MEZO.tell(plan, losses, ()), state=Tries())


@dataclass(frozen=True)
class TwoRounds(Estimator):
    """MEZO along the directions of two keys, one after the other, for a batch too."""

    def init(self):
        return Tries()

    def ask(self, key, state, batch=()):
        return MEZO.ask(derive(key, state.count), (), batch)

    def tell(self, plan, losses, state):
        gradient = MEZO.tell(plan, losses, ()).gradient
        return Estimate(state.gradient + gradient, Tries()) if state.count else More(Tries(1, gradient))


@dataclass(frozen=True)
class Told(prototypes.SVRG):
    """SVRG, whose steps take 12, 8, 8, 12, ...: it says what to count."""

    @property
    def evaluations(self):
        return 10


@dataclass(frozen=True)
class Fixed(LineEstimator):
    """Two points, however many directions."""

    def ask(self, key, state, batch=()):
        return replace(self, n=1).ask(key, state, batch) if self.n > 1 else super().ask(key, state, batch)


def bowl(points):
    return (points - 1).square().sum(-1) + points.pow(3).sum(-1) / 50


def queries(estimator, steps):
    """What each of some steps evaluates."""
    space, rule, counts = FlatSpace(torch.zeros(6, dtype=torch.float64)), SGD(0.01), []
    state, memory = estimator.init(), rule.init(space)
    f = {"": bowl, "whole": bowl}
    for step in range(steps):
        told = query(space, estimator, f, derive("cost", step), state)
        memory, state = rule.apply_(space, told.gradient, memory), told.state
        counts.append(told.queries)
    return counts


@pytest.mark.parametrize("name", EVEN)
def test_every_round_of_a_step_counts(name):
    estimator, cost = EVEN[name]
    assert evaluations_a_step(estimator) == cost
    assert queries(estimator, 5) == [cost] * 5


@pytest.mark.parametrize("estimator", [prototypes.SVRG(), Backtracking()])
def test_steps_that_cost_differently_are_refused_until_one_number_is_declared(estimator):
    with pytest.raises(ValueError, match=r"takes \d+ to \d+ loss evaluations.*let its `evaluations` return"):
        evaluations_a_step(estimator)
    assert len({*queries(estimator, 6)}) > 1  # as it is
    assert evaluations_a_step(Told()) == 10


def test_what_is_declared_is_a_number_of_evaluations():
    for wrong in (0, -1, 2.5, "many"):
        made = type("Made", (Told,), {"evaluations": wrong})()
        with pytest.raises(ValueError, match="must evaluate the loss"):
            evaluations_a_step(made)


def test_a_budget_of_forward_passes_pays_for_all_rounds():
    assert forward_passes_a_step("prototypes:RankLineSearch:n=5", 1e-3) == 8
    assert forward_passes_a_step("prototypes:Conservative", 1e-3) == 6
    assert forward_passes_a_step("mezo:n=4", "auto") == 8 == evaluations_a_step(AutoEpsilon(n=4))
    with pytest.raises(ValueError, match="SVRG"):
        forward_passes_a_step("prototypes:SVRG", 1e-3)


def test_a_budget_of_theory_pays_for_directions_of_whatever_they_cost():
    bent = prototypes.Bent(MEZO.law, MEZO.stencil, 0.05)
    assert theory.spend(bent, 9, 6).n == 4 == theory.spend(MEZO, 9, 6).n
    with pytest.raises(ValueError, match="costs 2 evaluations with one direction and 2 with two"):
        theory.spend(Fixed(MEZO.law, MEZO.stencil, 0.05), 9, 6)


@pytest.mark.parametrize("estimator", [AutoEpsilon(every=10), TwoRounds(), MEZO])
def test_a_convergence_run_spends_its_budget_and_says_what_it_spent(estimator):
    problem, calls = problems.make("quadratic", 4), []

    class Counted:
        dim, centre, radius = problem.dim, problem.centre, problem.radius

        def __call__(self, points):
            calls.append(points.shape[:-1].numel())
            return problem(points)

    options = ConvergeOptions(evaluations=300, points=7)
    curve = converge.descend(estimator, Counted(), options, 0.01, [0])
    looks = len(curve)  # the loss of a row is no evaluation of the run
    assert curve[-1].evaluations == sum(calls) - looks
    assert 300 - evaluations_a_step(estimator) < curve[-1].evaluations
    assert curve[-1].evaluations <= 300 or isinstance(estimator, AutoEpsilon)  # whose last probe may go beyond


@pytest.mark.parametrize("command", ["converge", "descent"])
def test_a_budget_below_one_step_is_refused_before_the_first_run(command, tmp_path, capsys):
    given = ["--methods", "mezo,richardson:n=3", "--evaluations", "11", "--out", str(tmp_path / "r")]
    with pytest.raises(SystemExit):
        synthetic([command, *given])
    assert "evaluations is 11: not enough for one step of richardson:n=3" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


@pytest.mark.environment
def test_a_dry_run_tells_that_steps_cost_differently(tmp_path, capsys):
    sizes = {"steps": 20, "batch": 2, "train": 8, "dev": 4, "test": 4, "max_tokens": 16, "out": str(tmp_path / "r")}
    dry_run.run(TrainOptions(method=f"{__name__}:Backtracking", dry_run=True, **sizes))
    assert re.search(
        r"about [\d,]+ forward in 20 steps; the steps that were tried took 4 to \d+", capsys.readouterr().out
    )
