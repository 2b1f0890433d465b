"""zobench.testing: what comes with zobench passes, and every planted mistake is caught by the check meant for it."""

import random
from dataclasses import dataclass

import numpy as np
import planted
import planted_parts
import prototypes
import pytest
import torch
from planted import PLANTED

import zobench
from zobench import (
    SGD,
    Adam,
    AdaMeZO,
    AutoEpsilon,
    FactorMomentum,
    InForwardSpace,
    Interpolated,
    IterateAverage,
    LineEstimator,
    LowRank,
    Momentum,
    Muon,
    NormalisedCore,
    PerTensor,
    PowerMuon,
    SignSGD,
    TensorClip,
    kernels,
    methods,
)
from zobench.law import LAWS
from zobench.naming import UnknownNameError
from zobench.space import Batched, InPlace, Restoring
from zobench.testing import (
    CHECKS,
    CheckFailedError,
    Promises,
    Ratio,
    check_engine,
    check_estimator,
    check_law,
    check_rule,
    check_space,
    from_function,
    name_factor,
    parametrize_with_checks,
)
from zobench.testing.check import LEVELS
from zobench.testing.check_estimator import subject_of
from zobench.testing.engines import CHECKS as SPACES
from zobench.testing.engines import Spaces
from zobench.testing.laws import CHECKS as OF_LAWS
from zobench.testing.rules import CHECKS as OF_RULES
from zobench.testing.scale import ratio_of

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = LEVELS["quick"]


def named(checks, name):
    return next(check for check in checks if check.name == name)


@pytest.mark.parametrize("method", [method.name for method in methods.table()])
def test_every_method_passes(method):
    many = methods.make(method)
    report = check_estimator(f"{method}:n=4" if getattr(many, "n", 1) > 4 else method)
    assert not report.failed and len(report.rows) == len(CHECKS)
    one = zobench.methods.make(method)
    law = (one if hasattr(one, "law") else one.line).law if one.linear else None
    if law is not None and law.second_moment is not None and method != "forward-gradient":
        assert "first-order" in {row.check for row in report.with_status("passed")}


@pytest.mark.parametrize(
    "made",
    [
        lambda epsilon: methods.make("mezo", law="rademacher", epsilon=epsilon, n=2),
        lambda epsilon: methods.make("forward", law="sphere", epsilon=epsilon, n=3),
        lambda epsilon: methods.make("mezo", law="small-weights", epsilon=epsilon),
        lambda epsilon: methods.make("kerzoo", law="coordinate", epsilon=epsilon, constant=4.0),
    ],
)
def test_other_compositions_pass(made):
    assert not check_estimator(made).failed


@pytest.mark.parametrize("made", [prototypes.TwoTerms, prototypes.RankLineSearch, prototypes.SVRG])
def test_estimators_of_somebody_else_are_held_to_what_they_declare(made):
    """No mean, no order: what they are is measured."""
    report = check_estimator(made)
    assert {"first-order", "shift", "linear"} <= {row.check for row in report.with_status("measured")}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_mistake_is_caught_by_the_check_meant_for_it(name):
    mutant = PLANTED[name]
    row = named(CHECKS, mutant.caught_by).run(subject_of(mutant.target(), mutant.promises), QUICK)
    assert row.status == "failed", row
    assert row.found


def test_every_check_has_a_planted_mistake():
    assert {check.name for check in CHECKS} == {mutant.caught_by for mutant in PLANTED.values()}
    assert len(PLANTED) >= 25


@pytest.mark.parametrize("law", [*LAWS.values(), PerTensor(kernels.legendre(3, 4.0))], ids=repr)
def test_every_law_passes(law):
    assert not check_law(law).failed


@pytest.mark.parametrize("name", [check.name for check in OF_LAWS])
def test_a_wrong_law_is_caught(name):
    assert named(OF_LAWS, name).run(planted_parts.LAWS[name], QUICK).status == "failed"


RULES = {
    "sgd": SGD,
    "momentum": Momentum,
    "adam": Adam,
    "momentum-window": lambda lr, weight_decay=0.0: Momentum(lr, weight_decay, window=3),
    "nesterov": lambda lr, weight_decay=0.0: Momentum(lr, weight_decay, nesterov=True),
    "adam-window": lambda lr, weight_decay=0.0: Adam(lr, weight_decay, window=3),
    "adamezo": AdaMeZO,
    "adamezo-window": lambda lr, weight_decay=0.0: AdaMeZO(lr, weight_decay, window=3),
    "sign": SignSGD,
    "factor-momentum": FactorMomentum,
    "muon": Muon,
    "normalised": NormalisedCore,
    "power-muon": lambda lr, weight_decay=0.0: PowerMuon(lr, weight_decay, k=2),
    "average": lambda lr, weight_decay=0.0: IterateAverage(Momentum(lr, weight_decay), 1),
    "tensor clip": lambda lr, weight_decay=0.0: TensorClip(lr, weight_decay, most=1.0),
    "interpolated": lambda lr, weight_decay=0.0: Interpolated(lr, weight_decay, beta=1.0, most=1.0),
    "own": prototypes.Sign,
}


@pytest.mark.parametrize("name", RULES)
def test_every_rule_passes(name):
    assert not check_rule(RULES[name]).failed


@pytest.mark.parametrize("name", [check.name for check in OF_RULES])
def test_a_wrong_rule_is_caught(name):
    assert named(OF_RULES, name).run(planted_parts.RULES[name], QUICK).status == "failed"


@pytest.mark.parametrize("engine", [InPlace, Restoring, planted_parts.Copied])
def test_every_engine_passes(engine):
    assert not check_engine(engine).failed


@pytest.mark.parametrize("points", [None, 2])
def test_the_engine_of_low_ranks_passes(points):
    assert not check_engine(lambda: Batched(points), laws=[LowRank(1), LowRank(2)]).failed


def test_a_wrong_engine_of_low_ranks_is_caught():
    """A tenth too far on the way to a point; and an error of the loss that it swallows."""

    class Far(Batched):
        def losses_of_lines(self, loss, lines):
            moved = [[{u: 1.1 * amount for u, amount in point.items()} for point in line] for line in lines]
            return super().losses_of_lines(loss, moved)

    class Deaf(Batched):
        def losses_of_lines(self, loss, lines):
            try:
                return super().losses_of_lines(loss, lines)
            except ZeroDivisionError:
                return [[0.0 for _ in line] for line in lines]

    for engine, name in ((Far, "points"), (Deaf, "restored")):
        of = Spaces(planted_parts.in_space(engine), (LowRank(1),))
        assert named(SPACES, name).run(of, QUICK).status == "failed"


@pytest.mark.parametrize("options", [{}, {"paired": True}, {"deferred": True}], ids=str)
def test_every_space_passes(options):
    assert not check_space(lambda module: InForwardSpace(module, **options)).failed


@pytest.mark.parametrize("name", [check.name for check in SPACES])
def test_a_wrong_engine_is_caught(name):
    assert named(SPACES, name).run(Spaces(planted_parts.SPACES[name]), QUICK).status == "failed"


def sphere(f, x, seed, epsilon=1e-2):
    u = np.random.default_rng(seed).standard_normal(len(x))
    u /= np.linalg.norm(u)
    return (f(x + epsilon * u) - f(x - epsilon * u)) / (2 * epsilon) * u


def test_a_hidden_factor_is_named():
    """And the message has what a reader needs: the formula, n, z and key, and the smallest example."""
    with pytest.raises(AssertionError) as caught:
        check_estimator(from_function(sphere))
    told = str(caught.value)
    assert "which is 1/d: a factor d is missing" in told
    for part in (
        "E[g] = m grad f on linear f",
        "n = 500, z = ",
        "key = ",
        "smallest example: f = polynomial(",
    ):
        assert part in told, told
    assert isinstance(caught.value, CheckFailedError) and "first-order" in caught.value.report.failed


@pytest.mark.parametrize(
    ("factor", "told"),
    [
        (lambda r: 1.0, ""),
        (lambda r: 0.0, "does not see the gradient"),
        (lambda r: -1.0, "the sign is wrong"),
        (lambda r: r.dim, "is d: a factor 1/d is missing"),
        (lambda r: 1 / r.dim, "is 1/d: a factor d is missing"),
        (lambda r: r.epsilon, "is epsilon: a factor 1/epsilon is missing"),
        (lambda r: 1 / r.epsilon, "is 1/epsilon: a factor epsilon is missing"),
        (lambda r: -2.0, "is -2: a factor 1/2 is missing, and the sign is wrong"),
        (lambda r: r.n, "is n: a factor 1/n is missing"),
        (lambda r: r.dim / 3, "is d * 1/3: a factor 1/d * 3 is missing"),
        (lambda r: 6.2, "is the constant 6.2 everywhere"),
        (lambda r: 1 + r.dim**3.3, ""),
    ],
)
def test_factors_by_name(factor, told):
    where = [Ratio(0.0, 1e-3, dim, epsilon, 5) for dim in (3, 7) for epsilon in (1e-1, 1e-2)]
    found = name_factor([r._replace(value=factor(r)) for r in where])
    assert told in found and bool(told) == bool(found)


@pytest.mark.parametrize(
    ("factor", "error", "told"),
    [
        (lambda r: r.epsilon, 1e-3, "is epsilon: a factor 1/epsilon is missing"),
        (lambda r: r.epsilon, 2.1e-2, "is 0 or epsilon: the error is too large"),
        (lambda r: r.epsilon, 1e-1, ""),
        (lambda r: 0.0, 1e-3, "is 0: the estimate does not see the gradient"),
        (lambda r: 1 / r.dim, 1e-3, "is 1/d: a factor d is missing"),
        (lambda r: 1 / r.dim, 1.5e-2, "is 1/d or 1/(d + 2): the error is too large"),
        (lambda r: r.dim / 3, 1e-2, ""),  # a product fits, as products do with any number
        (lambda r: 6.2, 1e-2, "is the constant 6.2 everywhere"),
        (lambda r: 6.2, 0.15, ""),
    ],
)
def test_a_factor_is_named_only_where_others_are_excluded(factor, error, told):
    where = [Ratio(0.0, error, dim, epsilon, 5) for dim in (5, 9) for epsilon in (1e-1, 2e-2)]
    found = name_factor([r._replace(value=factor(r)) for r in where])
    assert found.startswith(told) and bool(told) == bool(found)


def test_n_is_told_from_2_by_no_error():
    found = name_factor([Ratio(0.5, 1e-9, dim, 0.1, 2) for dim in (3, 7)])
    assert found.startswith("is 1/n or 1/2")


def test_the_ratio_of_directions_of_one_length_has_no_noise():
    found = ratio_of(from_function(sphere), 4, 30)
    assert found.error < 1e-6 and abs(found.value - 1 / 4) < 1e-6 < abs(found.value - 1 / 5)


def test_the_ratio_of_normal_directions_is_enumerated_where_that_is_possible():
    few, many = (ratio_of(subject_of(methods.make("mezo")), dim, 1000) for dim in (3, 8))
    assert abs(few.value - 1) < 1e-6 and few.error < 2e-6 < many.error
    assert abs(many.value - 1) < 5 * many.error < 0.2


def test_a_factor_epsilon_is_not_said_to_be_0():
    """A one-point estimate L u in place of L u / epsilon: its mean is epsilon grad f, lost in its noise."""

    def undivided(f, x, seed, epsilon=1e-2):
        u = np.random.default_rng(seed).standard_normal(len(x))
        return f(x + epsilon * u) * u

    (row,) = (r for r in planted_report(undivided).rows if r.check == "first-order")
    assert row.status == "failed" and "grad f (±" in row.found
    assert "which is 0:" not in row.found and "does not see" not in row.found


def test_functions_of_torch_and_without_a_seed():
    """A function that draws from global generators passes, and is told so; their states are as they were."""

    def of_torch(f, x, epsilon=1e-2):
        u = torch.randn(len(x), dtype=x.dtype)
        return (f(x + epsilon * u) - f(x - epsilon * u)) / (2 * epsilon) * u

    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    report = check_estimator(from_function(of_torch, "torch", Promises(mean=1.0, linear=True, order=2, shift=True)))
    (row,) = report.with_status("warned")
    assert row.check == "global-state" and "parameter `seed`" in row.found
    assert torch.equal(before[0], torch.random.get_rng_state()) and before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()


def test_promises_of_the_call_take_the_place_of_those_of_the_function():
    given = from_function(sphere)
    assert "bias-order" in planted_report(sphere, Promises(order=4)).failed
    assert given.promises == Promises(mean=1.0)


def test_a_function_that_is_not_random_is_no_user_of_global_state():
    def differences(f, x):
        return np.array([(f(x + 1e-4 * e) - f(x - 1e-4 * e)) / 2e-4 for e in np.eye(len(x))])

    report = check_estimator(from_function(differences))
    rows = {row.check: row for row in report.rows}
    assert not report.with_status("warned") and "each estimate is the gradient" in rows["keys"].found
    assert {rows[name].status for name in ("evaluations", "second-moment", "shift")} == {"measured"}


class Unwritten(zobench.Estimator):
    """No dataclass: a repr that makes nothing, and nothing else that is wrong."""

    def ask(self, key, state, batch=()):
        return methods.make("mezo", epsilon=1e-2).ask(key, state, batch)

    def tell(self, plan, losses, state):
        return methods.make("mezo", epsilon=1e-2).tell(plan, losses, state)


def test_an_estimator_without_a_repr_fails_that_check_alone():
    with pytest.raises(CheckFailedError) as caught:
        check_estimator(Unwritten)
    assert caught.value.report.failed == ["restorable"]


def test_a_function_with_the_wrong_shape_is_told():
    report = planted_report(lambda f, x, seed: x[:0])
    assert all("returned the shape (0,) at x of the shape" in r.found for r in report.rows if r.check == "determinism")
    with pytest.raises(UnknownNameError, match="kind of array"):
        from_function(sphere, "jax")


def planted_report(function, promises=None):
    with pytest.raises(CheckFailedError) as caught:
        check_estimator(from_function(function), promises=promises)
    return caught.value.report


def test_what_is_not_declared_is_measured():
    """Signs of differences: no mean is promised, and what they do is told."""

    @dataclass(frozen=True)
    class Signs(LineEstimator):
        def tell(self, plan, losses, state):
            told = super().tell(plan, losses, state)
            (term,) = told.gradient.terms
            signed = zobench.Combination((term._replace(coefficients=term.coefficients.sign()),))
            return zobench.Estimate(signed, state)

    made = lambda epsilon: Signs(zobench.Gaussian(), zobench.CentralStencil(), epsilon)  # noqa: E731
    report = check_estimator(made)
    measured = {row.check: row.found for row in report.with_status("measured")}
    assert measured["first-order"].startswith("E[g] = ") and "g = 0" in measured["constant"]
    with pytest.raises(CheckFailedError) as caught:
        check_estimator(made, promises=Promises(mean=1.0, linear=True))
    assert {"linear", "first-order"} <= set(caught.value.report.failed)
    excused = dict.fromkeys(caught.value.report.failed, "signs are not linear")
    again = check_estimator(made, promises=Promises(mean=1.0, linear=True), expected_failures=excused)
    assert any("(expected: signs are not linear)" in row.found for row in again.rows)


def test_epsilon_that_is_chosen_is_checked_too():
    """Its probes, which differ in cost from other steps: the checks of one estimate, and of a few steps."""
    subject = subject_of(AutoEpsilon(zobench.Gaussian(), n=2))
    for name in ("global-state", "evaluations", "asked-is-told", "unchanged", "restorable", "state", "interrupted"):
        row = named(CHECKS, name).run(subject, QUICK)
        assert row.status == "passed", row
    assert "estimates of others" in named(CHECKS, "batch").run(subject, QUICK).found  # one choice for a batch


def test_bad_input_gets_a_sentence():
    with pytest.raises(UnknownNameError, match="level of checks"):
        check_estimator("mezo", level="slow")
    with pytest.raises(UnknownNameError, match="Did you mean 'shift'"):
        check_estimator("mezo", expected_failures={"shft": "no"})
    with pytest.raises(TypeError, match="makes no estimator: give make"):
        check_estimator(3)
    with pytest.raises(TypeError, match=r"which is no zobench\.Estimator: see from_function"):
        check_estimator(lambda epsilon: 3)


def test_a_report_is_a_table():
    report = check_law(zobench.Gaussian())
    lines = str(report).splitlines()
    assert lines[0] == "Gaussian()" and lines[-1].strip().endswith("skipped")
    assert len(lines) == len(report.rows) + 2


@parametrize_with_checks(
    [lambda epsilon: methods.make("mezo", law="rademacher", epsilon=epsilon), from_function(sphere)]
)
def test_checks_are_tests_of_pytest(check):
    if check.subject.estimator is None and check.check.name == "first-order":
        with pytest.raises(CheckFailedError):
            check()
    else:
        check()


def test_the_table_of_mutants_is_printed(capsys):
    assert planted.main(["Ascent"]) == 0
    assert "1 of 1 are caught by the check meant for them" in capsys.readouterr().out
