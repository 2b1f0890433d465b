"""The strategies: what they make is what it says, is told in words, and shrinks to the smallest."""

import pytest
import torch
from hypothesis import find, given, settings
from hypothesis import strategies as st

import zobench
from zobench import FlatSpace, ModuleSpace, methods, query, theory
from zobench.problems import Network, Polynomial, RidgeSum, Transformed, polynomial
from zobench.stencil import FixedStencil
from zobench.testing import strategies
from zobench.testing.laws import drawn

pytestmark = pytest.mark.usefixtures("one_thread")


def by_backpropagation(f, x):
    point = x.clone().requires_grad_()
    value = f(point)
    return torch.autograd.grad(value, point)[0] if value.requires_grad else torch.zeros_like(x)


@given(strategies.problems_at())
def test_gradients_are_exact(at):
    wanted = by_backpropagation(at.problem, at.x)
    assert torch.allclose(at.problem.gradient(at.x), wanted, rtol=1e-9, atol=1e-9 * (1 + float(wanted.abs().max())))


@given(strategies.problems_at(st.one_of(strategies.polynomials(), strategies.ridge_sums())), st.data())
def test_derivatives_along_lines_are_sums_of_ridges(at, data):
    u = data.draw(strategies.points(at.problem.dim))
    for order in range(1, 5):
        coefficients, directions = at.problem.ridges(at.x, order)
        wanted = float(at.problem.derivative(at.x, u, order))
        assert float(coefficients @ (directions @ u) ** order) == pytest.approx(wanted, rel=1e-9, abs=1e-7)
    assert float(u @ at.problem.hessian(at.x) @ u) == pytest.approx(float(at.problem.derivative(at.x, u, 2)), rel=1e-9)
    h = at.problem.hessian(at.x)
    assert torch.allclose(h, h.T, rtol=1e-12, atol=1e-12)


@given(strategies.problems_at(st.one_of(strategies.polynomials(), strategies.ridge_sums())))
def test_the_gradient_of_the_laplacian_is_that_of_theory(at):
    """Two roads to E[D_3 u] under a Gaussian: from grad_laplacian and from ridges."""
    one = theory.odd_mean(zobench.Gaussian(), at.problem, at.x, 3)
    ridges = at.problem.ridges(at.x, 3)
    two = 3 * (ridges.coefficients * ridges.directions.square().sum(-1)) @ ridges.directions
    assert torch.allclose(one, two, rtol=1e-9, atol=1e-8)


@given(strategies.problems())
def test_a_problem_is_told_as_the_expression_that_makes_it(problem):
    names = {"polynomial": polynomial, "RidgeSum": RidgeSum, "Network": Network, "Transformed": Transformed}
    assert eval(repr(problem), names) == problem


@pytest.mark.parametrize(
    ("strategy", "condition", "smallest"),
    [
        (strategies.polynomials(), lambda f: f.degree >= 2, "polynomial('0.25 x0^2', dim=1)"),
        (strategies.polynomials(), lambda f: f.dim >= 2 and f.terms, "polynomial('0.25', dim=2)"),
        (strategies.rotations(2), lambda q: True, "((1.0, 0.0), (0.0, 1.0))"),
        (strategies.epsilons(), lambda e: True, "1.0"),
        (
            strategies.module_shapes(),
            lambda s: s.tied,
            "ModuleShape(tied=True, frozen=False, buffer=False, strided=False, width=1, dtype=torch.float64)",
        ),
        (
            strategies.line_estimators(),
            lambda e: e.n > 1,
            "LineEstimator(law=Gaussian(), stencil=CentralStencil(), epsilon=1.0, n=2)",
        ),
    ],
)
def test_examples_shrink_to_the_smallest(strategy, condition, smallest):
    found = find(strategy, condition, settings=settings(max_examples=300))
    assert repr(found) == smallest


@given(strategies.rotations(4))
def test_rotations_are_orthogonal(rows):
    q = torch.tensor(rows, dtype=torch.float64)
    assert torch.allclose(q @ q.T, torch.eye(4, dtype=torch.float64), atol=1e-12)


@given(strategies.kernels())
def test_kernels_have_the_moments_of_their_order(kernel):
    assert kernel.moment(1) == pytest.approx(1.0)
    for j in range(3, kernel.order + 1, 2):
        assert kernel.moment(j) == pytest.approx(0.0, abs=1e-9)


@given(strategies.plans(), st.data())
def test_plans_can_be_asked_in_every_space(plan, data):
    """A plan of any shape, on a vector of fewer variables than lines."""
    at = data.draw(strategies.problems_at(strategies.polynomials(dim=3)))
    found = FlatSpace(at.x.clone()).losses(at.problem, plan)
    assert found.shape == plan.offsets.shape and bool(found.isfinite().all())
    assert plan.queries <= plan.offsets.numel() and plan.answers(plan.distinct(found)).equal(found)


@given(strategies.module_shapes(), strategies.rules(), strategies.keys())
def test_modules_of_every_shape_take_a_step(shape, rule, key):
    module = shape()
    space = ModuleSpace(module)
    told = query(space, methods.make("mezo", epsilon=0.5), module.loss, key, ())
    memory = rule.apply_(space, told.gradient, rule.init(space))
    space.settle_()
    assert bool(space.vector().isfinite().all()) and rule.rate(memory) >= 0
    assert (module.head is module.embedding) == shape.tied


@given(strategies.line_estimators(2), strategies.noises(), strategies.problems_at(strategies.ridge_sums(dim=2)))
def test_estimators_estimate_under_noise(estimator, noise, at):
    found = zobench.estimate(estimator, at.problem, at.x, samples=3, noise=noise)
    assert found.shape == (3, 2) and bool(found.isfinite().all())


@given(strategies.layouts(), strategies.laws())
def test_laws_draw_on_every_layout(layout, law):
    assert drawn(law, 1, 0, (), layout).shape == (layout.dim,)


def test_texts_that_are_no_polynomials_are_refused():
    for text in ("", "x", "y0", "x0 +", "x0 ** 2", "2 3", "x0^-1", "x1"):
        with pytest.raises(ValueError, match="is no polynomial in 1 variables"):
            polynomial(text, dim=1)
    with pytest.raises(ValueError, match="give one for each of the 2 variables"):
        Polynomial(2, ((1.0, (1,)),))
    with pytest.raises(ValueError, match="give 2 rows of 2 numbers"):
        Transformed(polynomial("x0 x1"), ((1.0,),))
    with pytest.raises(ValueError, match="one height and one offset"):
        RidgeSum("exp", ((1.0,),), (1.0, 2.0), (0.0,))
    with pytest.raises(ValueError, match="of one length"):
        RidgeSum("exp", ((1.0,), (1.0, 2.0)), (1.0, 2.0), (0.0, 0.0))


@given(strategies.mapped_estimators(), strategies.keys())
def test_a_mapped_estimate_keeps_what_permuting_its_lines_leaves(estimator, key):
    """y permutes with the slopes, and its length does not: a map treats lines alike."""
    if not isinstance(estimator.stencil, FixedStencil):
        return
    plan = estimator.ask(key, ())
    losses = torch.sin(torch.arange(plan.offsets.numel(), dtype=torch.float64)).view(plan.offsets.shape)
    losses = torch.where(plan.offsets == 0, torch.tensor(0.5, dtype=torch.float64), losses)
    order = torch.tensor([2, 0, 3, 1])
    if getattr(estimator.map, "groups", 1) == 2:
        order = torch.tensor([1, 0, 2, 3])  # within groups
    one, two = (estimator.tell(plan, each, ()).gradient.coefficients for each in (losses, losses[order]))
    torch.testing.assert_close(two, one[order], rtol=1e-9, atol=1e-12)
