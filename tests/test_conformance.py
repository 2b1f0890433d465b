"""One table: every method, law and problem against enumeration, and on every space. A new method is one row of
methods.table()."""

import itertools

import pytest
import torch
from enumeration import CASES, Case, Outcomes, enumerated, sign_vectors, signed_axes
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import zobench
from synthetic import problems
from zobench import Coordinate, FlatSpace, LineEstimator, ModuleSpace, Rademacher, kernels, methods, query, theory
from zobench.law import LAWS
from zobench.plan import SLOPE
from zobench.stencil import KernelStencil
from zobench.theory import DescentStep

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),  # inside torch.func
]

PROVEN, PLANTED, MISSED = 1e-9, 1.0001, 1e-6
OPTIONS = {"telescoping": {"depth": 6}}  # at the default depth float64 differences are all that is left of its tail
NAMES = [method.name for method in methods.table()]
STEPWISE = {name for name in NAMES if not isinstance(methods.make(name), LineEstimator)}
"""Those that are not one LineEstimator but one at each step; their parts have their own tests."""
MAPPED = {name for name in NAMES if name not in STEPWISE and not methods.make(name).linear}  # tests/test_maps.py
LINES = [name for name in NAMES if name not in STEPWISE | MAPPED]
ENUMERATED = {
    "gaussian": "gaussian-3",
    "rademacher": "rademacher-8",
    "sphere": "sphere-3",
    "coordinate": "coordinate-3",
}
POLYNOMIALS = ["quadratic", "cubic", "sextic", "separable", "styblinski-tang", "rosenbrock"]
SMOOTH = ["rastrigin", "levy", "logistic", "ackley", "mlp"]


def build(name: str, epsilon: float, law: str, n: int = 1):
    row = next(method for method in methods.table() if method.name == name)
    options = {"epsilon": epsilon, "law": law, "n": n}
    taken = {option: value for option, value in options.items() if option in row.options}
    return methods.make(name, **taken, **OPTIONS.get(name, {}))


def case_of(estimator: LineEstimator) -> Case:
    """The directions to enumerate; orthogonal frames and distinct coordinates are marginally these laws."""
    name = {"Orthogonal": "sphere-3"}.get(type(estimator.law).__name__)
    return CASES[name or ENUMERATED[type(estimator.law).__name__.lower()]]


def outcomes(estimator: LineEstimator, scale: float = 1.0) -> Outcomes:
    rule = estimator.stencil.quadrature(14)
    return Outcomes(rule.probabilities, rule.nodes, scale * rule.weights, estimator.stencil.asks == SLOPE)


def deviations(estimator: LineEstimator, problem: str, noise: float, scale: float) -> list[float]:
    """Relative distances of predicted mean, covariance trace and curvature from the enumerated ones."""
    case = case_of(estimator)
    f = problems.make(problem, case.dim)
    x = problems.start(f, 1)
    hessian = f.hessian(x)
    found = enumerated(case, f, x, estimator.epsilon, outcomes(estimator, scale), weight=hessian)
    mean = f.gradient(x) + theory.bias(estimator, f, x)
    off = [float((found.mean - mean).norm() / (found.mean.norm() + f.gradient(x).norm()))]
    off.append(abs(theory.covariance_trace(estimator, f, x) / found.covariance_trace - 1))
    if not (isinstance(estimator.law, Rademacher) and hessian.count_nonzero() > len(hessian)):  # that part is truncated
        off.append(abs(DescentStep.of(estimator, f, x).curvature / found.curvature - 1))
    return off


@pytest.mark.parametrize("problem", POLYNOMIALS)
@pytest.mark.parametrize("law", ENUMERATED)
@pytest.mark.parametrize("name", LINES)
def test_every_prediction_is_proven(name, law, problem):
    estimator = build(name, 0.3, law)
    assert max(deviations(estimator, problem, 0.0, 1.0)) < PROVEN
    planted = deviations(estimator, problem, 0.0, PLANTED)
    assert min(planted) > MISSED * (problem != "quadratic" or name != "one-point")


@given(
    dim=st.integers(1, 6),
    condition=st.floats(1, 1e3),
    epsilon=st.floats(1e-2, 1.0),
    kernel=st.sampled_from([1, 3, 5, 7]).map(kernels.legendre)
    | st.builds(kernels.optimal, st.sampled_from([3, 5, 7]), st.floats(1e-3, 1e3))
    | st.floats(0.2, 1.0).map(lambda s: kernels.shrunk(kernels.legendre(3), s)),
    law=st.sampled_from([Rademacher(), Coordinate()]),
    seed=st.integers(0, 10**6),
)
def test_any_dimension_spectrum_epsilon_and_kernel(dim, condition, epsilon, kernel, law, seed):
    f = problems.make("sextic", dim, condition, seed=seed)
    x = problems.start(f, seed)
    case = Case(law, sign_vectors(dim) if law == Rademacher() else signed_axes(dim))
    estimator = LineEstimator(law, KernelStencil(kernel), epsilon)
    found = enumerated(case, f, x, epsilon, outcomes(estimator))
    size = float(found.mean.norm()) + float(f.gradient(x).norm())
    assert float((found.mean - f.gradient(x) - theory.bias(estimator, f, x)).norm()) < PROVEN * size
    spread = theory.covariance_trace(estimator, f, x)
    assert abs(spread - found.covariance_trace) < PROVEN * (found.covariance_trace + size**2)


class Holder(nn.Module):
    """A problem's point as two parameters, so that a law over segments meets more than one."""

    def __init__(self, x: torch.Tensor) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(x[:2].clone()), nn.Parameter(x[2:].clone())

    @property
    def point(self) -> torch.Tensor:
        return torch.cat((self.first, self.second))


@pytest.mark.parametrize("problem", POLYNOMIALS + SMOOTH)
@pytest.mark.parametrize(("name", "law"), [*itertools.product(NAMES, ["gaussian"]), *itertools.product(["mezo"], LAWS)])
def test_every_method_does_the_same_on_every_space(name, law, problem):
    f = problems.make(problem, 5) if problem not in ("mlp", "logistic") else problems.make(problem)
    x = problems.start(f, 2)
    estimator = build(name, 0.05, law, n=2)
    module = Holder(x)
    held = ModuleSpace(module.eval())
    flat = FlatSpace(x.clone(), held.layout)
    state = estimator.init()
    for key in (7, 8):
        told = query(flat, estimator, f, key, state)
        again = query(held, estimator, lambda: f(module.point), key, state)
        scale = max(float(told.gradient.terms[0].coefficients.abs().max()), float(f.gradient(x).norm()))
        assert told.queries == again.queries
        for one, two in zip(told.gradient.terms, again.gradient.terms, strict=True):
            assert torch.allclose(one.coefficients, two.coefficients, rtol=1e-7, atol=1e-7 * scale)
        flat.step_(told.gradient, -1e-3 / scale)
        held.step_(again.gradient, -1e-3 / scale)
        assert torch.allclose(flat.x, held.vector(), rtol=1e-9, atol=1e-9)
        state = told.state
    assert not torch.allclose(flat.x, x, rtol=1e-7)  # planted: a step was taken


@pytest.mark.parametrize("dim", [4, 100, 1000])
@pytest.mark.parametrize(
    ("name", "law"), [("mezo", "sphere"), ("forward", "sphere"), ("orthogonal", ""), ("kerzoo", "sphere")]
)
def test_the_sphere_in_any_dimension(name, law, dim):
    """z of trace and slope over a fixed number of samples; twin: the prediction for an epsilon 30 % larger."""
    f = problems.make("quartic", dim)
    x = problems.start(f)
    estimator = build(name, 0.5, law, n=3)
    found = zobench.moments(estimator, f, x, key=5, samples=1000 if dim == 1000 else 8000)
    trace = theory.covariance_trace(estimator, f, x)
    assert abs(found.covariance_trace - trace) < 5 * found.covariance_trace_error
    along = f.gradient(x) / f.gradient(x).norm()
    predicted = along @ (f.gradient(x) + theory.bias(estimator, f, x))
    assert abs(float(along @ found.mean - predicted)) < 5 * found.error_along(along)
    larger = build(name, 0.65, law, n=3)
    wrong = theory.covariance_trace(larger, f, x)
    assert abs(found.covariance_trace - wrong) > 5 * found.covariance_trace_error


@pytest.mark.parametrize("name", LINES)
def test_orthogonal_directions_and_shared_base_points_keep_the_mean(name):
    """The covariance of n directions, predicted for one law, sampled from the other: they must differ."""
    if name in ("orthogonal", "coordinate", "telescoping", "one-point"):
        return
    f = problems.make("quadratic", 4)
    x = problems.start(f)
    for law, other in (("orthogonal", "sphere"), ("sphere", "orthogonal")):
        estimator = build(name, 0.1, law, n=4)
        found = zobench.moments(estimator, f, x, key=3, samples=20_000)
        right, wrong = (theory.covariance_trace(build(name, 0.1, one, n=4), f, x) for one in (law, other))
        assert abs(found.covariance_trace - right) < 5 * found.covariance_trace_error + 1e-12
        assert abs(found.covariance_trace - wrong) > 5 * found.covariance_trace_error
