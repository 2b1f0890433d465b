"""Second-order SPSA: an exact Hessian on quadratics, the steps of the formula, and large models refused."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from zobench import SGD, FlatSpace, Gains, Gaussian, ModuleSpace, Rademacher, derive, identity, methods, query
from zobench.estimators import SecondOrderSPSA
from zobench.integrations.scipy import zeroth_order
from zobench.optim import ZerothOrder

DIM = 4
A = torch.tensor([[4.0, 1, 0, 0], [1, 3, -1, 0], [0, -1, -2, 0.5], [0, 0, 0.5, 1]], dtype=torch.float64)
B = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
TWO = SecondOrderSPSA(Rademacher(), 0.1, n=2, second=0.05)


def quadratic(x):
    return 0.5 * ((x @ A) * x).sum(-1) + x @ B


def dense(law, key, index):
    drawn = law.direction(key, index, FlatSpace(torch.zeros(DIM, dtype=torch.float64)).layout, ())
    return torch.cat([drawn(b) for b in FlatSpace(torch.zeros(DIM, dtype=torch.float64)).layout.blocks]).double()


def hessian_of(key, law, n=2):
    """The mean of (v^T A u / 2) (v u^T + u v^T) over the directions of a step."""
    total = torch.zeros(DIM, DIM, dtype=torch.float64)
    for i in range(n):
        u, v = dense(law, key, i), dense(law, derive(key, "second"), i)
        total += 0.5 * (v @ A @ u) * (torch.outer(v, u) + torch.outer(u, v)) / n
    return total


def test_the_mean_of_a_hessian_estimate_is_the_hessian():
    """Every pair of sign vectors."""
    signs = torch.tensor(list(product((1.0, -1.0), repeat=DIM)), dtype=torch.float64)
    h = torch.einsum("ai,ij,bj->ab", signs, A, signs)
    mean = torch.einsum("ab,ai,bj->ij", h, signs, signs) / len(signs) ** 2
    assert torch.allclose((mean + mean.T) / 2, A, atol=1e-12)


@pytest.mark.parametrize("law", [Rademacher(), Gaussian()], ids=repr)
def test_the_steps_are_those_of_the_formula(law):
    estimator, rule = replace(TWO, law=law, start=2.0, floor=0.1), SGD(0.05)
    x = torch.tensor([0.3, -0.1, 0.4, 0.2], dtype=torch.float64)
    space, state, memory, mean = FlatSpace(x.clone()), estimator.init(), 0, 2.0 * torch.eye(DIM, dtype=torch.float64)
    for step in range(5):
        told = query(space, estimator, quadratic, key := derive("steps", step), state)
        mean = (mean * (step + 1) + hessian_of(key, law)) / (step + 2)
        slope = sum(float((A @ x + B) @ dense(law, key, i)) * dense(law, key, i) / 2 for i in range(2))
        values, vectors = torch.linalg.eigh(mean)
        x = x - 0.05 * vectors @ ((vectors.T @ slope) / (values**2 + 0.01).sqrt())
        memory, state = rule.apply_(space, told.gradient, memory), told.state
        assert told.queries == estimator.evaluations == 8
        assert torch.allclose(space.x, x, rtol=1e-7), step
    assert [len(kept) for kept in space.snapshots.values()] == [3] and sum(
        t.numel() for t in next(iter(space.snapshots.values()))
    ) == DIM**2 + 2


def test_a_step_that_is_not_taken_teaches_nothing():
    space, state = FlatSpace(torch.ones(DIM, dtype=torch.float64)), TWO.init()
    for step, f in enumerate((quadratic, lambda x: quadratic(x) * torch.nan, quadratic)):
        told = query(space, TWO, f, derive("skipped", step), state)
        state = told.state
        if told.gradient.finite:
            space.step_(told.gradient, 0.0)
            space.dense(told.gradient)
    (_, taken, mean) = next(iter(space.snapshots.values()))
    wanted = torch.eye(DIM, dtype=torch.float64) + sum(
        hessian_of(derive("skipped", step), Rademacher()) for step in (0, 2)
    )
    assert int(taken) == 3 and torch.allclose(mean, wanted / 3, rtol=1e-6)


def test_a_stiff_paraboloid_is_descended_where_first_order_spsa_is_slow():
    """As many evaluations for both, each at the better of two rates. The noise of H is that of its largest entry: at
    condition 1e4 the gain is gone."""
    stiff = torch.logspace(0, 2, DIM, dtype=torch.float64)
    f = lambda x: 0.5 * float(stiff @ torch.as_tensor(x) ** 2)  # noqa: E731
    least = {}
    for name, estimator, rates in (
        ("2spsa", SecondOrderSPSA(Rademacher(), 1e-3, start=100.0, floor=10.0), (0.2, 0.4)),
        ("spsa", methods.make("mezo", epsilon=1e-3, law="rademacher", n=2), (2e-3, 4e-3)),
    ):
        found = [
            minimize(f, [1.0] * DIM, method=zeroth_order, options={"lr": lr, "estimator": estimator, "maxiter": 300})
            for lr in rates
        ]
        least[name] = min(one.fun for one in found)
    assert least["2spsa"] < 1e-3 * least["spsa"]


def test_an_interrupted_optimizer_goes_on_to_the_bit(tmp_path):
    inputs, targets = torch.randn(16, 3, generator=torch.Generator().manual_seed(0)), torch.linspace(-1, 1, 16)[:, None]

    def made():
        model = nn.Linear(3, 1)
        nn.init.constant_(model.weight, 0.1), nn.init.zeros_(model.bias)
        return model, ZerothOrder(model.named_parameters(), SecondOrderSPSA(Rademacher(), 1e-2, start=5.0), lr=0.5)

    def steps(model, optimizer, count):
        for _ in range(count):
            optimizer.step(lambda: nn.functional.mse_loss(model(inputs), targets))

    whole, first, second = made(), made(), made()
    steps(*whole, 8)
    steps(*first, 4)
    torch.save([one.state_dict() for one in first], tmp_path / "saved.pt")
    for one, saved in zip(second, torch.load(tmp_path / "saved.pt", weights_only=True), strict=True):
        one.load_state_dict(saved)
    steps(*second, 4)
    assert all(torch.equal(a, b) for a, b in zip(whole[0].parameters(), second[0].parameters(), strict=True))
    assert float(whole[1].loss) < 0.3


def test_large_models_are_refused_with_the_memory_they_would_need_before_a_loss():
    calls = []
    space = ModuleSpace(nn.Linear(100, 100))
    with pytest.raises(ValueError, match=r"10,100 parameters are trained: 0.76 GiB; it serves at most 1,000"):
        query(space, TWO, lambda: calls.append(1), 1, TWO.init())
    assert not calls


def test_it_goes_on_in_the_space_of_the_steps_before_and_is_restored_from_its_repr():
    assert identity.restore(repr(TWO)) == TWO
    state = TWO.init()._replace(step=3, scalars=(1.0, 1.0))
    with pytest.raises(ValueError, match="does not hold H at step 3"):
        query(FlatSpace(torch.ones(DIM, dtype=torch.float64)), TWO, quadratic, 1, state)
    assert Gains(1.0, 0.0, 1.0)(1) == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0.0}, "epsilon is 0.0"),
        ({"second": -1.0}, "second is -1.0"),
        ({"floor": 0.0}, "floor is 0.0"),
        ({"most": 0}, "most is 0"),
        ({"gamma": -0.1}, "gamma is -0.1"),
    ],
)
def test_what_is_out_of_range_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        replace(TWO, **options)
