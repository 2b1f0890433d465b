"""Coefficient maps: what they make of slopes, and what theory says of a step with them."""

import itertools
import math
from dataclasses import dataclass, replace

import pytest
import torch

from zobench import (
    CentralStencil,
    ForwardStencil,
    Gaussian,
    LineEstimator,
    OnePointStencil,
    Rademacher,
    ThreePointStencil,
    estimate,
    methods,
)
from zobench.identity import restore
from zobench.maps import (
    MAPS,
    Clip,
    CurvatureWeight,
    Identity,
    LossSpread,
    PairSpread,
    Ranks,
    Scalars,
    Sign,
    Winsorise,
    ZScore,
    normal_order,
)
from zobench.theory import linear_step

pytestmark = pytest.mark.usefixtures("one_thread")

DIM, VALUE, SAMPLES = 12, 0.7, 40_000
GRADIENT = torch.linspace(0.2, 1.0, DIM, dtype=torch.float64)
CENTRAL, FORWARD, ONE, THREE = CentralStencil(), ForwardStencil(), OnePointStencil(), ThreePointStencil()
EXACT = [
    (Identity(), CENTRAL, 4), (Sign(), CENTRAL, 4), (Sign(), FORWARD, 3), (Sign(), ONE, 3), (Clip(1.0), CENTRAL, 4),
    (Clip(1.0), ONE, 4), (Clip(1.0), FORWARD, 4), (Ranks(), CENTRAL, 6), (Ranks("logarithmic"), ONE, 6),
    (Ranks(top=2), ONE, 6), (Ranks(), FORWARD, 2), (ZScore(), ONE, 5), (ZScore(groups=2), ONE, 6),
    (ZScore(), FORWARD, 3), (LossSpread(), FORWARD, 10), (CurvatureWeight(0.5), THREE, 4),
]  # fmt: skip


def linear(x: torch.Tensor) -> torch.Tensor:
    return x @ GRADIENT + VALUE


def worst_z(estimator: LineEstimator, noise: float, told) -> tuple[float, float]:
    """|z| of the mean along the gradient, and of the second moment."""
    x = torch.zeros(DIM, dtype=torch.float64)
    g = estimate(estimator, linear, x, key=17, samples=SAMPLES, noise=noise)
    zs = []
    for values, expected in ((g @ (GRADIENT / GRADIENT.norm()), told.mean), (g.square().sum(-1), told.second_moment)):
        zs.append(abs(float(values.mean()) - expected) / (float(values.std()) / math.sqrt(SAMPLES)))
    return zs[0], zs[1]


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize(("coefficients", "stencil", "n"), EXACT, ids=repr)
def test_a_step_on_a_linear_function_is_as_theory_says(coefficients, stencil, n, noise):
    estimator = LineEstimator(Gaussian(), stencil, 0.5, n, coefficients)
    told = linear_step(estimator, float(GRADIENT.norm()), DIM, noise, VALUE)
    assert told.coverage == "exact"
    assert max(worst_z(estimator, noise, told)) < 5
    for wrong in (told._replace(mean=1.1 * told.mean), told._replace(second_moment=1.1 * told.second_moment)):
        assert max(worst_z(estimator, noise, wrong)) > 5


@pytest.mark.parametrize(
    ("coefficients", "stencil", "n", "noise"),
    [
        (Winsorise(0.2), CENTRAL, 30, 0.0), (Winsorise(0.2), CENTRAL, 30, 0.5), (PairSpread(), CENTRAL, 30, 0.5),
        (CurvatureWeight(0.5, scale_free=True), THREE, 100, 0.5),
    ],
)  # fmt: skip
def test_leading_orders_are_near_and_say_what_they_are(coefficients, stencil, n, noise):
    estimator = LineEstimator(Gaussian(), stencil, 0.5, n, coefficients)
    told = linear_step(estimator, float(GRADIENT.norm()), DIM, noise)
    x = torch.zeros(DIM, dtype=torch.float64)
    g = estimate(estimator, linear, x, key=18, samples=4000, noise=noise)
    assert "1/n" in told.coverage
    assert float((g @ (GRADIENT / GRADIENT.norm())).mean()) == pytest.approx(told.mean, rel=0.02)
    assert float(g.square().sum(-1).mean()) == pytest.approx(told.second_moment, rel=0.05)


def test_the_identity_has_the_moments_of_the_central_difference():
    told = linear_step(LineEstimator(Gaussian(), CENTRAL, 0.5, 3), 2.0, 12, noise=0.3)
    assert told.mean == 2.0
    q = 2.0**2 * (12 + 2)
    assert told.second_moment == pytest.approx((q + 12 * 0.3**2 / (2 * 0.25)) / 3 + (1 - 1 / 3) * 4)


def test_other_laws_are_told_to_be_leading_order():
    signs = LineEstimator(Rademacher(), CENTRAL, 0.5, 4, Sign())
    assert "1/d" in linear_step(signs, 1.0, 100).coverage


def told(coefficients, losses, offsets=None) -> torch.Tensor:
    """The map of losses (n, m), with the slopes of the stencil of as many nodes, epsilon 1."""
    losses = torch.tensor(losses, dtype=torch.float64)
    stencil = {1: ONE, 2: CENTRAL, 3: THREE}[losses.shape[-1]]
    weights, nodes = (torch.tensor(v, dtype=torch.float64) for v in (stencil.weights, stencil.nodes))
    return coefficients(Scalars((losses * weights).sum(-1), losses, nodes.expand_as(losses)))


def along(coefficients, stencil, a: float, b: float, n: int = 6) -> torch.Tensor:
    """The estimate of a f + b, with f a bent function."""
    estimator = LineEstimator(Gaussian(), stencil, 0.1, n, coefficients)
    x = torch.linspace(-1, 1, DIM, dtype=torch.float64)
    f = lambda y: a * ((y @ GRADIENT) ** 2 + y.square().sum(-1)) + b  # noqa: E731
    return estimate(estimator, f, x, key=3, samples=20)


@pytest.mark.parametrize(
    ("coefficients", "stencil", "degree"),
    [
        (ZScore(), ONE, 0), (LossSpread(), FORWARD, 0), (PairSpread(), CENTRAL, 0), (Ranks(), FORWARD, 0),
        (Sign(), CENTRAL, 0), (Winsorise(0.2), CENTRAL, 1), (CurvatureWeight(0.5, scale_free=True), THREE, 1),
    ],
)  # fmt: skip
def test_what_an_affine_change_of_the_loss_does(coefficients, stencil, degree):
    before, after = along(coefficients, stencil, 1.0, 0.0), along(coefficients, stencil, 8.0, 3.0)
    torch.testing.assert_close(after, 8.0**degree * before, rtol=1e-9, atol=1e-9)


def test_the_published_curvature_weight_depends_on_the_units_of_the_loss():
    published = CurvatureWeight(0.5)
    before, after = along(published, THREE, 1.0, 0.0), along(published, THREE, 8.0, 0.0)
    assert not torch.allclose(after, 8 * before, rtol=0.05)


@pytest.mark.parametrize(
    "losses", [[[2.0, 2.0]] * 4, [[3.0, 2.0]] * 4], ids=["all equal", "equal apart from the base point"]
)
def test_a_spread_of_zero_makes_no_step(losses):
    assert not told(LossSpread(), losses).any()


def test_a_spread_that_is_rounding_is_bounded_from_below():
    step = 2.0**-26
    losses = [[1.0 + step, 1.0], [1.0, 1.0], [1.0 - step, 1.0]]
    assert float(told(LossSpread(), losses).abs().max()) == pytest.approx(2.0**-26 / 2.0**-24)
    assert float(told(LossSpread(0.0), losses).abs().max()) > 1  # without a floor rounding takes a whole step


def test_published_spreads_divide_by_the_population():
    losses = [[1.0, 0.0], [2.0, 0.0], [4.0, 0.0]]
    spread = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64).std(correction=0)
    torch.testing.assert_close(told(LossSpread(), losses), torch.tensor([1.0, 2.0, 4.0]).double() / spread)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
@pytest.mark.parametrize("coefficients", [Ranks(), Ranks("logarithmic"), Ranks(top=1), Ranks(top=2)])
def test_ranks_sum_to_zero(coefficients, n):
    weights = coefficients.weights(n)
    assert abs(float(weights.sum())) < 1e-12
    assert bool((weights.diff() >= 0).all()) and weights[0] < 0
    if coefficients.top:
        k = coefficients.top
        pairs = k * (k - 1) / 2 + k * (n - k)
        published = torch.tensor([-(n - 2 * t) for t in range(k)] + [k] * (n - k)).double() * n / pairs
        assert float(published.sum()) == pytest.approx(-k * n / pairs)  # the defect of the published code
        assert not torch.allclose(published, weights)


def test_top_weights_are_the_edges_of_the_published_graph():
    n, k = 6, 3
    edges = [(i, j) for i, j in itertools.combinations(range(n), 2) if i < k]  # i is better than j
    counted = torch.zeros(n, dtype=torch.float64)
    for better, worse in edges:
        counted[worse] += 1
        counted[better] -= 1
    torch.testing.assert_close(Ranks(top=k).weights(n), counted * n / len(edges))


def test_equal_slopes_share_their_weights():
    y = told(Ranks(), [[1.0], [2.0], [2.0], [5.0]])
    torch.testing.assert_close(y, torch.tensor([-1.0, 0.0, 0.0, 1.0]).double())
    assert not told(Ranks(), [[1.0]] * 4).any()


def test_ranks_are_the_same_bits_under_a_monotone_transform():
    losses = torch.tensor([[0.3], [-1.2], [2.5], [0.1], [0.2]], dtype=torch.float64)
    assert torch.equal(told(Ranks(), losses.tolist()), told(Ranks(), losses.exp().tolist()))


def test_winsorising_replaces_the_ends_by_their_neighbours():
    y = told(Winsorise(0.2), [[9.0], [1.0], [2.0], [3.0], [-50.0]])
    assert y.tolist() == [3.0, 1.0, 2.0, 3.0, 1.0]


@pytest.mark.parametrize("coefficients", [Sign(), Clip(2.0), Ranks(), Winsorise(0.3)])
@pytest.mark.parametrize("wild", [math.nan, math.inf])
def test_a_wild_loss_has_a_bounded_influence(coefficients, wild):
    estimator = LineEstimator(Gaussian(), CENTRAL, 0.1, 6, coefficients)
    plan = estimator.ask(5, ())
    losses = torch.arange(12, dtype=torch.float64).sin().reshape(6, 2)
    losses[2, 1] = wild  # the lower end: downhill is up
    told = estimator.tell(plan, losses, ()).gradient.coefficients
    assert estimator.bounded and bool(told.isfinite().all())
    assert float(told[2]) <= 0 and not LineEstimator(Gaussian(), CENTRAL, 0.1, 6).bounded


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LineEstimator(Gaussian(), FORWARD, 0.1, 1, LossSpread()), "n is 1, but LossSpread"),
        (lambda: LineEstimator(Gaussian(), CENTRAL, 0.1, 4, LossSpread()), "give a forward one"),
        (lambda: LineEstimator(Gaussian(), FORWARD, 0.1, 4, PairSpread()), "give a central one"),
        (lambda: LineEstimator(Gaussian(), CENTRAL, 0.1, 4, CurvatureWeight()), "give a ThreePointStencil"),
        (lambda: LineEstimator(Gaussian(), ONE, 0.1, 5, ZScore(groups=2)), "groups of at least 2 lines"),
        (lambda: LineEstimator(Gaussian(), ONE, 0.1, 1, Ranks()), "n is 1, but Ranks"),
        (lambda: LineEstimator(Gaussian(), ONE, 0.1, 2, Ranks(top=3)), "top is 3"),
        (lambda: LineEstimator(Gaussian(), ONE, 0.1, 2, "sign"), "map is 'sign'"),
        (lambda: Clip(0.0), "bound is 0"),
        (lambda: Winsorise(0.5), "share is 0.5"),
        (lambda: Ranks("log"), "unknown utilities of ranks 'log'"),
        (lambda: methods.make("mezo", map="sing"), "Did you mean 'sign'"),
        (lambda: methods.parse("mezo:map=clip(bund=1)"), "Did you mean 'bound'"),
        (lambda: methods.parse("mezo:map=clip(bound=1"), "bracket that is not closed"),
        (lambda: methods.make("fzoo", epsilon="auto"), "is not linear in the losses"),
    ],
)
def test_what_has_no_meaning_is_refused(make, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        make()


def test_maps_are_in_identities_and_spellings():
    assert methods.parse("mezo:map=clip(bound=3),n=2:law=low-rank(rank=4)") == methods.make(
        "mezo", map=Clip(3.0), n=2, law=replace(methods.make("eggroll").law, rank=4)
    )
    for kind in MAPS.values():
        made = LineEstimator(Gaussian(), THREE, 0.1, 4, kind()) if kind is CurvatureWeight else None
        stencil = {LossSpread: FORWARD, CurvatureWeight: THREE}.get(kind, CENTRAL)
        made = LineEstimator(Gaussian(), stencil, 0.1, 4, kind())
        assert restore(repr(made)) == made
        assert ("map=" in repr(made)) == (kind is not Identity)


def test_moments_of_normal_order_statistics():
    assert normal_order.powers(2, 1).tolist() == pytest.approx([-1 / math.sqrt(math.pi), 1 / math.sqrt(math.pi)])
    assert normal_order.powers(3, 1)[2] == pytest.approx(1.5 / math.sqrt(math.pi))
    products = normal_order.products(5)
    assert products.sum(1).tolist() == pytest.approx([1.0] * 5)  # E[t_(i) sum t] = 1
    assert float(products.trace()) == pytest.approx(5)


@dataclass(frozen=True)
class MeanNotSubtracted(ZScore):
    """A planted error."""

    def __call__(self, scalars):
        s = scalars.slopes
        return s / s.std(-1, correction=0, keepdim=True)


def test_a_z_score_without_its_mean_is_caught():
    before, after = (along(MeanNotSubtracted(), ONE, 1.0, b) for b in (0.0, 3.0))
    assert not torch.allclose(before, after, rtol=1e-3)
