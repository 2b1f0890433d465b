"""One table: every method, law and problem against enumeration. A new method is one row of methods.table()."""

import pytest
from enumeration import CASES, Case, Outcomes, enumerated, sign_vectors, signed_axes
from hypothesis import given
from hypothesis import strategies as st

import zobench
from synthetic import problems
from zobench import Coordinate, LineEstimator, Rademacher, kernels, methods, theory
from zobench.methods import laws, maps, rounds, rules
from zobench.plan import SLOPE
from zobench.stencil import KernelStencil
from zobench.theory import DescentStep

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),  # inside torch.func
]

PROVEN, PLANTED, MISSED = 1e-9, 1.0001, 1e-6
OPTIONS = {"telescoping": {"depth": 6}}  # at the default depth float64 differences are all that is left of its tail
ELSEWHERE = {method.name for method in (*laws.ROWS, *maps.ROWS, *rounds.ROWS, *rules.ROWS)} | {"kerzoo-code"}
"""Methods whose parts have tests of their own: laws, maps, several rounds, mezo with another rule, many steps."""
LINES = [method.name for method in methods.table() if method.name not in ELSEWHERE]
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
