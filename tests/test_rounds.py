"""Estimators of several rounds, closures or steps: each against its formula, with the defects of published codes."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from zobench import SGD, CentralStencil, FlatSpace, Gaussian, LineEstimator, Rademacher, Term, derive, methods, query
from zobench.combination import Combination
from zobench.estimators import (
    SPSA,
    SVRG,
    Blocking,
    Conservative,
    Guided,
    Halving,
    JointOracle,
    RandomSearch,
    RankSearch,
    Residual,
)
from zobench.maps import Ranks
from zobench.query import converse

pytestmark = pytest.mark.usefixtures("one_thread")

DIM, LR = 6, 0.05
MEZO = LineEstimator(Gaussian(), CentralStencil(), 0.05, 2)
SCALES = torch.linspace(0.5, 2.0, DIM, dtype=torch.float64)


def bowl(x):
    return (SCALES * (x - 1.0).square()).sum(-1)


def start():
    return FlatSpace(torch.zeros(DIM, dtype=torch.float64))


def run(estimator, f=bowl, steps=30, lr=LR):
    """The points of a run, and what each step was told; coefficients are float64 throughout."""
    space, state, memory, told = start(), estimator.init(), 0, []
    points = [space.x.clone()]
    for step in range(steps):
        told.append(query(space, estimator, f, derive("rounds", step), state))
        assert all(term.coefficients.dtype == torch.float64 for term in told[-1].gradient.terms)
        state, memory = told[-1].state, SGD(lr).apply_(space, told[-1].gradient, memory)
        points.append(space.x.clone())
    return points, told


class TestResidual:
    def test_each_loss_is_compared_with_the_mean_of_the_step_before(self):
        estimator, space = Residual(Gaussian(), 0.1, 3), start()
        state, before = estimator.init(), None
        for step in range(4):
            told = query(space, estimator, bowl, step, state)
            losses = told.losses[:, 0]
            wanted = torch.zeros(3).double() if before is None else (losses - before) / 0.1 / 3
            assert torch.allclose(told.gradient.coefficients, wanted)
            before, state = losses.mean(), told.state
            space.step_(told.gradient, -1e-3)

    def test_its_mean_is_the_gradient_and_its_spread_that_of_the_change(self):
        """Exactly: over all signs, b any number; the one-point estimate, b = 0, is the planted other spread."""
        estimator, x = Residual(Rademacher(), 0.1), torch.zeros(DIM, dtype=torch.float64)
        f = lambda points: bowl(points) + 100.0  # noqa: E731
        samples = 4000
        plan = estimator.ask(1, estimator.init(), (samples,))
        space = FlatSpace(x)
        losses = space.losses(f, plan)
        gradient = torch.autograd.functional.jacobian(f, x)
        spreads = []
        for last in (float(f(x)), 0.0):
            g = space.dense(estimator.tell(plan, losses, torch.tensor(last).double()).gradient)
            z = (g.mean(0) - gradient) / (g.std(0) / math.sqrt(samples))
            assert float(z.abs().max()) < 5
            spreads.append(float(g.square().sum(-1).mean()))
        assert spreads[1] > 100 * spreads[0]

    def test_a_loss_that_is_not_finite_costs_one_step(self):
        estimator, space = Residual(Gaussian(), 0.1), start()
        wild = query(space, estimator, lambda x: bowl(x) * math.inf, 1, torch.tensor(1.0).double())
        assert not wild.gradient.finite
        after = query(space, estimator, bowl, 2, wild.state)
        assert float(after.gradient.coefficients.abs().max()) == 0.0 and bool(after.state.isfinite())


class TestLooking:
    def test_sgd_steps_to_the_best_of_three_points(self):
        estimator = Conservative(MEZO, 0.3)
        points, told = run(estimator, lr=0.3)
        taken = set()
        for x, after, each in zip(points, points[1:], told, strict=False):
            g = start().dense(MEZO.tell(*each.rounds[0], ()).gradient)
            three = [x, x - 0.3 * g, x + 0.3 * g]
            best = min(range(3), key=lambda i: (float(bowl(three[i])), i))
            assert torch.allclose(after, three[best], rtol=1e-12, atol=1e-12)
            assert each.queries == estimator.evaluations == 2 * 2 + 3
            taken.add(best)
        assert {0, 1} <= taken

    def test_the_wrong_side_is_taken_where_it_is_better(self):
        """Waves shorter than epsilon: the slope of the two points misleads."""
        estimator = Conservative(replace(MEZO, epsilon=1.0, n=1), 1.0)
        space = start()
        f = lambda x: torch.sin(3 * x.sum(-1) + 4)  # noqa: E731
        signs = [query(space, estimator, f, key, estimator.init()) for key in range(40)]
        line = [estimator.line.tell(*told.rounds[0], ()).gradient.coefficients for told in signs]
        assert {round(float(t.gradient.coefficients / c)) for t, c in zip(signs, line, strict=True)} == {-1, 0, 1}

    def test_a_loss_never_rises(self):
        points, _ = run(Conservative(MEZO, 0.4), lr=0.4)
        losses = [float(bowl(x)) for x in points]
        assert losses == sorted(losses, reverse=True)
        alone, _ = run(MEZO, lr=0.4)
        assert [float(bowl(x)) for x in alone] != sorted((float(bowl(x)) for x in alone), reverse=True)

    @pytest.mark.parametrize("tolerance", [0.0, 0.5])
    def test_blocking_refuses_a_rise_above_the_tolerance(self, tolerance):
        points, told = run(Blocking(MEZO, 0.4, tolerance), lr=0.4)
        rises = [float(bowl(after) - bowl(x)) for x, after in pairwise(points)]
        assert max(rises) <= tolerance and any(rise == 0.0 for rise in rises) and min(rises) < 0
        assert (max(rises) > 0) is bool(tolerance)
        assert all(each.queries == 2 * 2 + 2 for each in told)

    def test_a_candidate_that_is_nan_is_not_taken(self):
        f = lambda x: torch.where(x.norm(dim=-1) > 0.3, torch.nan, bowl(x))  # noqa: E731
        told = query(start(), Conservative(MEZO, 10.0), f, 3, Conservative(MEZO, 10.0).init())
        assert float(told.gradient.coefficients.abs().max()) == 0.0

    def test_a_batch_chooses_for_each_of_its_estimates(self):
        estimator = Conservative(MEZO, 0.4)
        told = query(start(), estimator, bowl, 5, estimator.init(), (50,))
        moved = (told.gradient.coefficients != 0).all(-1)
        assert told.gradient.coefficients.shape == (50, 2) and bool(moved.any()) and not bool(moved.all())


class LeastSquares:
    """Mean squares of 1000 rows in dimension 100, and minibatches of 32: the demo of the published SVRG."""

    def __init__(self):
        made = torch.Generator().manual_seed(0)
        self.rows = torch.randn(1000, 100, generator=made).double()
        self.truth = torch.randn(100, generator=made).double()
        self.targets = self.rows @ self.truth + 1e-3 * torch.randn(1000, generator=made).double()

    def losses(self, batch):
        rows = torch.randint(1000, (32,), generator=torch.Generator().manual_seed(batch))
        return {"": lambda x: self.loss(x, rows), "whole": lambda x: self.loss(x, slice(None))}

    def loss(self, x, rows):
        return (x @ self.rows[rows].T - self.targets[rows]).square().mean(-1)


class Alias(SVRG):
    """Planted: the published code, whose snapshot is the same parameters, so that both estimates are at x."""

    def ask(self, key, state, batch=()):
        return replace(super().ask(key, state, batch), base="")


class OtherSeeds(SVRG):
    """Planted: the published code's second call, along directions of its own."""

    def ask(self, key, state, batch=()):
        return super().ask(derive(key, "second") if state.here is not None else key, state, batch)

    def tell(self, plan, losses, state):
        told = super().tell(plan, losses, state)
        if state.here is None or plan.keep:
            return told
        (here,), there = state.here.terms, self.line.tell(plan, losses, ()).gradient
        return replace(told, gradient=Combination((here,)) - there + state.anchor)


def spread(kind, distance, samples=60):
    """E|g - E g|^2 of the step after a snapshot at 0, at this distance from it, over minibatches and directions."""
    data, estimator = LeastSquares(), kind(LineEstimator(Gaussian(), CentralStencil(), 1e-3, 1), every=2)
    space = FlatSpace(torch.zeros(100, dtype=torch.float64))
    first = query(space, estimator, data.losses(0), derive("snapshot"), estimator.init())
    space.x += distance * torch.ones(100, dtype=torch.float64) / 10.0
    keys = ((batch, derive("after", batch)) for batch in range(samples))
    told = [query(space, estimator, data.losses(batch), key, first.state) for batch, key in keys]
    anchor = space.dense(first.state.anchor)
    g = torch.stack([space.dense(each.gradient) - anchor for each in told])
    return float((g - g.mean(0)).square().sum(-1).mean()), float(told[0].queries)


class TestSVRG:
    def test_the_variance_falls_with_the_square_of_the_distance_from_the_snapshot(self):
        far, near = spread(SVRG, 1e-1), spread(SVRG, 1e-2)
        assert near[0] == pytest.approx(far[0] / 100, rel=0.2)
        assert near[1] == 4

    @pytest.mark.parametrize("kind", [OtherSeeds])
    def test_without_equal_directions_it_does_not(self, kind):
        far, near = spread(kind, 1e-1), spread(kind, 1e-2)
        assert near[0] > 0.5 * far[0] and near[0] > 100 * spread(SVRG, 1e-2)[0]

    def test_an_alias_of_the_weights_is_no_snapshot(self):
        """The change of the gradient since the snapshot is what a control variate keeps; of an alias it is 0."""
        assert spread(Alias, 1e-1)[0] == 0.0 < spread(SVRG, 1e-1)[0]

    def test_the_mean_over_minibatches_is_the_gradient_of_the_whole_at_the_point(self):
        """Along the same directions, on the linear part: the sum over all minibatches of one row each."""
        data = LeastSquares()
        estimator = SVRG(LineEstimator(Gaussian(), CentralStencil(), 1e-3, 1))
        space = FlatSpace(torch.zeros(100, dtype=torch.float64))
        state = query(space, estimator, data.losses(0), 1, estimator.init()).state
        space.x += 0.01
        rows = [{"": lambda x, i=i: data.loss(x, slice(i, i + 1)), "whole": lambda x: data.loss(x, slice(None))}
                for i in range(0, 1000)]  # fmt: skip
        mean = sum(float(query(space, estimator, f, 2, state).gradient.coefficients[0]) for f in rows) / 1000
        whole = query(space, estimator, {"": rows[0]["whole"], "whole": rows[0]["whole"]}, 2, state)
        assert mean == pytest.approx(float(whole.gradient.coefficients[0]), rel=1e-6)

    def test_the_snapshot_stays_when_the_weights_move(self):
        space, estimator = start(), SVRG(MEZO, every=3)
        f, state = {"": bowl, "whole": bowl}, estimator.init()
        for step in range(3):
            told = query(space, estimator, f, step, state)
            state = told.state
            space.step_(told.gradient, -0.01)
            (kept,) = space.snapshots["anchor"]
            assert float(kept.abs().max()) == 0.0
        assert float(space.x.abs().max()) > 0

    def test_a_step_with_a_snapshot_is_along_the_whole_gradient(self):
        f = {"": lambda x: bowl(x) * 0.0, "whole": bowl}
        estimator = SVRG(MEZO, boost=3.0)
        told = query(start(), estimator, f, 7, estimator.init())
        wanted = MEZO.tell(*told.rounds[0], ()).gradient.coefficients
        assert torch.equal(told.gradient.coefficients, 3.0 * wanted) and told.queries == 4

    def test_a_loop_of_one_loss_is_told(self):
        with pytest.raises(ValueError, match="asks for the loss 'whole'"):
            query(start(), SVRG(MEZO), bowl, 1, SVRG(MEZO).init())
        assert query(start(), SVRG(MEZO, whole=""), bowl, 1, SVRG(MEZO).init()).queries == 4


class TestGuided:
    def test_the_direction_is_that_of_the_lower_probe_less_that_of_the_higher(self):
        estimator, space = Guided(Gaussian(), 0.05), start()
        state = estimator.init()
        for step in range(5):
            fresh = [space.dense(Combination((Term(Gaussian(), step, torch.ones(1).double(), (i,)),))) for i in (0, 1)]
            probes = fresh if state.best is None else [fresh[0], space.dense(state.best)]
            low, high = sorted(probes, key=lambda u: float(bowl(space.x + 0.05 * u)))
            v = low - high
            slope = float(bowl(space.x + 0.05 * v) - bowl(space.x - 0.05 * v)) / 0.1
            told = query(space, estimator, bowl, step, state)
            assert torch.allclose(space.dense(told.gradient), slope * v, atol=1e-9)
            assert told.queries == 4 and torch.allclose(space.dense(told.state.best), low)
            state = told.state
            space.step_(told.gradient, -0.01)

    def test_halves_of_more_probes_are_means(self):
        estimator, space = Guided(Gaussian(), 0.05, 5, remember=False), start()
        told = query(space, estimator, bowl, 3, estimator.init())
        u = [space.dense(Combination((Term(Gaussian(), 3, torch.ones(1).double(), (i,)),))) for i in range(5)]
        u.sort(key=lambda each: float(bowl(0.05 * each)))
        v = (u[0] + u[1] - u[3] - u[4]) / 2
        slope = float(bowl(0.05 * v) - bowl(-0.05 * v)) / 0.1
        assert torch.allclose(space.dense(told.gradient), slope * v) and told.state.best is None
        assert told.queries == 7


class TestRandomSearch:
    @pytest.mark.parametrize("n", [1, 4])
    def test_sgd_steps_to_the_best_guess_if_it_is_better(self, n):
        estimator = RandomSearch(Gaussian(), 0.1, n, LR)
        points, told = run(estimator)
        stayed = 0
        for step, (x, after, each) in enumerate(zip(points, points[1:], told, strict=False)):
            key = derive("rounds", step)
            u = [start().dense(Combination((Term(Gaussian(), key, torch.ones(1).double(), (i,)),))) for i in range(n)]
            best = min((x, *(x + 0.1 * each for each in u)), key=lambda point: float(bowl(point)))
            assert torch.allclose(after, best, rtol=1e-12, atol=1e-12) and each.queries == n + 1
            stayed += torch.equal(after, x)
        assert 0 < stayed < len(told)

    def test_losses_that_are_not_finite_lose(self):
        estimator = RandomSearch(Gaussian(), 0.1, 2, LR)
        f = lambda x: torch.where(x[..., 0] == 0, bowl(x), torch.nan)  # noqa: E731
        assert estimator.bounded
        assert float(query(start(), estimator, f, 1, ()).gradient.coefficients.abs().max()) == 0.0
        g = lambda x: torch.where(x[..., 0] == 0, torch.inf, bowl(x))  # noqa: E731
        assert float(query(start(), estimator, g, 1, ()).gradient.coefficients.abs().max()) == 0.1 / LR


RANKED = RankSearch(Gaussian(), 0.05, 8, 3, step=0.3, lr=LR)
MONOTONE = {
    "exponential": torch.exp,
    "cube": lambda y: y**3,
    "shift": lambda y: 7.0 + 1e-3 * y,
    "root": lambda y: -1 / (1 + y),
}


class TestRankSearch:
    @pytest.mark.parametrize("name", MONOTONE)
    def test_any_increasing_transform_of_f_has_the_same_iterates_to_the_bit(self, name):
        points, told = run(RANKED)
        again, _ = run(RANKED, lambda x: MONOTONE[name](bowl(x)))
        assert all(map(torch.equal, points, again))
        assert float(bowl(points[-1])) < 0.02 * float(bowl(points[0])) and told[0].queries == 16

    def test_a_method_that_reads_values_is_told_from_it(self):
        points, _ = run(MEZO, lr=0.01)
        again, _ = run(MEZO, lambda x: 7.0 + 1e-3 * bowl(x), lr=0.01)
        assert not torch.equal(points[1], again[1])

    def test_sgd_steps_to_the_best_of_the_points_that_were_searched(self):
        points, told = run(RANKED)
        kinds = set()
        for x, after, each in zip(points, points[1:], told, strict=False):
            losses = each.losses[:, 0]
            assert float(bowl(after)) == pytest.approx(float(losses.min()), abs=1e-12)
            assert float(losses[0]) == float(bowl(x))
            kinds.add(int(losses.argmin()))
        assert 0 in kinds and len(kinds) > 2

    def test_the_direction_is_the_mean_over_searches_that_found_nothing(self):
        estimator, space = replace(RANKED, step=50.0, epsilon=10.0), start()
        space.x += 1.0  # the minimum: nothing is better
        state, summed = estimator.init(), torch.zeros(DIM, dtype=torch.float64)
        for step in range(3):
            told = query(space, estimator, bowl, step, state)
            plan, losses = told.rounds[0]
            ranks = losses[:, 0].argsort().argsort().double()
            weights = torch.where(ranks < 3, 2 * ranks - 7, 3.0) / (3 + 15)  # |E| = k (k - 1) / 2 + k (m - k)
            assert float(weights.sum()) == pytest.approx(0.0, abs=1e-12)
            summed += space.dense(Combination((Term(plan.law, plan.key, weights),)))
            direction = told.rounds[1][0].along[1]
            assert torch.allclose(space.dense(direction), summed / (step + 1))
            assert not told.gradient.terms and told.state.rounds == step + 1
            state = told.state
        full = state._replace(rounds=estimator.averaged - 1)
        assert query(space, estimator, bowl, 9, full).state == estimator.init()

    def test_the_published_weights_that_do_not_sum_to_zero_are_seen(self):
        """Planted: m - 2 t in place of m - 1 - 2 t, a step towards the mean of the ranked probes whatever f is."""
        weights = (-Ranks(top=3).weights(8) / 8 * 18).round().tolist()
        assert weights == [7.0, 5.0, 3.0, -3.0, -3.0, -3.0, -3.0, -3.0] and sum(weights) == 0.0
        assert sum([8.0 - 2 * t for t in range(3)] + [-3.0] * 5) == 3.0
        told = query(start(), RANKED, lambda x: 0.0 * x.sum(-1), 1, RANKED.init())
        assert told.rounds[1][0].along[1].coefficients.tolist() == [0.0] * 8 and not told.gradient.terms

    def test_a_joint_oracle_is_shown_all_candidates_of_a_round_at_once(self):
        points, _ = run(RANKED, steps=4)
        shown = []

        def order(candidates):
            shown.append(len(candidates))
            return sorted(range(len(candidates)), key=candidates.__getitem__)

        space, state, memory = start(), RANKED.init(), 0
        for step in range(4):
            judge = JointOracle(space, lambda x: float(bowl(x)), order)
            told = converse(space, RANKED, judge, derive("rounds", step), state)
            state, memory = told.state, SGD(LR).apply_(space, told.gradient, memory)
            assert torch.equal(space.x, points[step + 1])
        assert shown == [8] * 8

    def test_an_oracle_may_name_the_best_few(self):
        judge = JointOracle(start(), lambda x: float(bowl(x)), lambda shown: [2, 0])
        assert judge(RANKED.ask(1, RANKED.init()))[:, 0].tolist() == [1.0, 2.0, 0.0, 2.0, 2.0, 2.0, 2.0, 2.0]

    @pytest.mark.parametrize("order", [[0, 0], [8], [-1]])
    def test_an_order_that_is_none_is_refused(self, order):
        judge = JointOracle(start(), lambda x: 0.0, lambda shown: order)
        with pytest.raises(ValueError, match=r"the order of 8 candidates is .*: give positions from 0"):
            judge(RANKED.ask(1, RANKED.init()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conservative(MEZO, 0.0), "lr is 0.0: give the positive learning rate of the rule"),
        (lambda: Conservative(3), "line is 3: give the LineEstimator"),
        (lambda: Blocking(MEZO, 0.1, -1.0), "tolerance is -1.0: give the rise"),
        (lambda: SVRG(MEZO, 0), "every is 0"),
        (lambda: SVRG(MEZO, boost=0.0), "boost is 0.0"),
        (lambda: methods.make("mezo-svrg", law="small-weights"), "reads the weights"),
        (lambda: Guided(Gaussian(), 0.1, 1), "n is 1: give the number of probes"),
        (lambda: methods.make("mezo-gv", law="coordinate"), "whose unit is 1"),
        (lambda: RankSearch(Gaussian(), 0.1, 2), "n is 2: give the number of probes, 3 or more"),
        (lambda: RankSearch(Gaussian(), 0.1, 4, 5), "top is 5, but a step has 4 probes"),
        (lambda: RankSearch(Gaussian(), 0.1, decay=1.0), "decay is 1.0"),
        (lambda: RandomSearch(Gaussian(), 0.1, lr=-1.0), "lr is -1.0"),
        (lambda: SPSA(Gaussian(), 0.1, gamma=-1.0), "gamma is -1.0"),
        (lambda: SPSA(Gaussian(), 0.1, calibrate=-1), "calibrate is -1"),
        (lambda: Halving(MEZO, 0), "patience is 0"),
        (lambda: Halving(MEZO, factor=1.0), "factor is 1.0"),
        (lambda: Guided(Gaussian(), 0.1).ask(1, Guided(Gaussian(), 0.1).init(), (3,)), "ask without a batch"),
    ],
)
def test_what_is_out_of_range_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class TestSPSA:
    def test_epsilon_and_rate_fall_as_spall_says(self):
        estimator, gains = methods.make("spall", epsilon=0.2), methods.rule("spall", 0.1).lr
        state = estimator.init()
        for step in range(5):
            plan = estimator.ask(step, state)
            assert plan.offsets[0].tolist() == pytest.approx([0.2 / (step + 1) ** 0.101, -0.2 / (step + 1) ** 0.101])
            assert gains(step) == pytest.approx(0.1 / (100 + step + 1) ** 0.602)
            state = query(start(), estimator, bowl, step, state).state
        assert repr(gains) == "Gains(lr=0.1, stability=100.0, alpha=0.602)"

    @pytest.mark.parametrize("scale", [1.0, 1000.0])
    def test_the_first_losses_choose_a_so_that_an_entry_moves_by_the_rate(self, scale):
        """Under sign directions; any multiple of f takes the same steps."""
        estimator, space = SPSA(Rademacher(), 0.01, calibrate=50), start()
        f = lambda x: scale * bowl(x)  # noqa: E731
        first = query(space, estimator, f, 1, estimator.init())
        assert first.queries == 102 and estimator.report(estimator.init(), first.state) == {"scale": first.state[1]}
        sizes = [
            float(space.dense(query(space, estimator, f, key, first.state).gradient).abs().mean()) for key in range(200)
        ]
        assert sum(sizes) / 200 == pytest.approx(1.0, abs=0.2)
        other = query(start(), estimator, f, 2, estimator.init())  # planted: a calibration that another run would meet
        assert other.state.scale != first.state.scale and other.queries == 102
        plain = query(space, SPSA(Rademacher(), 0.01), f, 1, SPSA(Rademacher(), 0.01).init())
        assert plain.queries == 2
        wanted = plain.gradient.coefficients * first.state.scale
        assert torch.allclose(first.gradient.coefficients, wanted, rtol=1e-12)

    def test_a_constant_loss_is_no_reason_to_divide_by_zero(self):
        estimator = SPSA(Rademacher(), 0.01, calibrate=5)
        told = query(start(), estimator, lambda x: 0.0 * x.sum(-1), 1, estimator.init())
        assert told.state.scale == 1.0 and told.gradient.finite


class TestHalving:
    def test_rate_and_epsilon_are_halved_after_so_many_steps_without_a_lower_loss(self):
        losses = iter([3.0, 2.0, 2.5, 2.0, 9.0, 1.0, 1.0, 1.0, 0.5, math.nan, 0.5])
        estimator, seen = Halving(MEZO, patience=2), []
        state = estimator.init()
        for loss in losses:
            plan = estimator.ask(1, state)
            seen.append(float(plan.offsets.max()) / 0.05)
            answers = torch.full_like(plan.offsets, loss)
            answers[:, 0] += 1e-3
            told = estimator.tell(plan, answers, state)
            slopes = told.gradient.coefficients * 2 * 0.1  # (l+ - l-) / (2 f^h e) times f^h: the halvings cancel
            assert math.isnan(loss) or slopes.tolist() == pytest.approx([1e-3, 1e-3])
            state = told.state
        assert seen == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
        assert estimator.report(estimator.init(), state) == {"halvings": 3}

    def test_it_trains(self):
        points, _ = run(Halving(MEZO, patience=3), steps=60)
        assert float(bowl(points[-1])) < 0.1 * float(bowl(points[0]))
