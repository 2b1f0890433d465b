"""Forward-gradient: slopes by forward-mode differentiation, on every space, in theory, and where they cannot be."""

import pytest
import torch
from engines import ENGINES, IDS, IN_FORWARD, ISOTROPIC, Net, bits, loss_of, slopes_by_backpropagation, space_of
from enumeration import backward
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional

import zobench
from synthetic import bias, noise, phase, problems
from zobench import (
    AutoEpsilon,
    Combination,
    FlatSpace,
    ForwardGradient,
    Gaussian,
    LineEstimator,
    ModuleSpace,
    Plan,
    SlopeStencil,
    SmallWeights,
    Term,
    identity,
    layout,
    methods,
    query,
    theory,
)
from zobench.integrations.scipy import zeroth_order
from zobench.law import LAWS
from zobench.noise import NoisySpace

pytestmark = pytest.mark.usefixtures("one_thread")

PROBLEMS = ("quadratic", "sextic", "rosenbrock", "rastrigin", "levy", "logistic", "ackley", "mlp")


def everything(module: nn.Module) -> list[int]:
    return torch.cat([bits(tensor) for tensor in module.state_dict().values()]).tolist()


class TestFlat:
    @pytest.mark.parametrize("law", ISOTROPIC)
    @pytest.mark.parametrize("problem", PROBLEMS)
    def test_answers_are_the_loss_and_the_directional_derivative(self, problem, law):
        f = problems.make(problem, 5) if problem not in ("mlp", "logistic") else problems.make(problem)
        x = problems.start(f, 1)
        space = FlatSpace(x)
        plan = methods.make("forward-gradient", n=3, law=law).ask(5, (), (4,))
        answers = space.losses(f, plan)
        unit = plan.law.unit(f.dim)
        assert torch.allclose(answers[..., 0], f(x).expand(4, 3), rtol=1e-13)
        for i in range(3):
            u = space.dense(Combination((Term(plan.law, 5, torch.eye(3, dtype=torch.float64)[i].expand(4, 3)),))) * unit
            wanted = unit * (u @ backward(f, x))
            assert torch.allclose(answers[:, i, 1], wanted, rtol=1e-10, atol=1e-12)
            assert not torch.allclose(answers[:, i, 1], 1.001 * wanted, rtol=1e-10, atol=1e-12)  # planted

    def test_the_mean_is_the_gradient(self):
        f = problems.make("sextic", 16)
        x = problems.start(f)
        made = methods.make("forward-gradient", n=2)
        found = zobench.moments(made, f, x, key=1, samples=40_000)
        off = (found.mean - f.gradient(x)) / found.mean_error
        assert float(off.abs().max()) < 5
        assert float(((found.mean - 1.1 * f.gradient(x)) / found.mean_error).abs().max()) > 5  # planted
        trace = theory.covariance_trace(made, f, x)
        assert abs(found.covariance_trace - trace) < 5 * found.covariance_trace_error < 0.1 * trace

    def test_estimates_depend_on_no_threads(self):
        f = problems.make("sextic", 300)  # several chunks
        x = problems.start(f)
        made, threads = methods.make("forward-gradient"), torch.get_num_threads()
        one = zobench.estimate(made, f, x, samples=3000)
        torch.set_num_threads(4)
        try:
            assert torch.equal(zobench.estimate(made, f, x, samples=3000), one)
        finally:
            torch.set_num_threads(threads)

    def test_the_control_variate_leaves_nothing(self):
        f = problems.make("sextic", 6)
        x = problems.start(f)
        found = zobench.controlled_moments(methods.make("forward-gradient"), f, f.gradient(x), x, samples=100)
        assert float(found.mean.norm()) < 1e-13 * float(f.gradient(x).norm())
        off = zobench.controlled_moments(methods.make("forward-gradient"), f, 1.01 * f.gradient(x), x, samples=100)
        assert float(off.mean.norm()) > 1e-3 * float(f.gradient(x).norm())  # planted

    @pytest.mark.parametrize(
        "f",
        [
            lambda x: torch.from_numpy(x.numpy()).sum(-1),
            lambda x: x.detach().sum(-1),
            lambda x: torch.tensor(1.0).expand(x.shape[:-1]),
        ],
    )
    def test_what_torch_does_not_differentiate_is_told(self, f):
        with pytest.raises(ValueError, match=r"no derivative .* mezo"):
            zobench.estimate(methods.make("forward-gradient"), f, torch.ones(3))

    def test_a_loss_of_numbers_is_told(self):
        with pytest.raises(ValueError, match="no derivative"):
            zeroth_order(lambda x: float(x @ x), [1.0, 2.0], lr=0.1, estimator=methods.make("forward-gradient"))


class TestTheory:
    def test_it_is_the_central_difference_in_the_limit_of_epsilon_0(self):
        f = problems.make("sextic", 8)
        x = problems.start(f)
        for law in ("gaussian", "rademacher", "sphere", "coordinate", "orthogonal"):
            ours = methods.make("forward-gradient", n=3, law=law)
            near, far = (methods.make("mezo", epsilon=e, n=3, law=law) for e in (1e-5, 0.3))
            assert float(theory.bias(ours, f, x).abs().max()) == 0.0 < float(theory.bias(near, f, x).norm())
            for predicted in (theory.covariance_trace, theory.mse, theory.second_moment, theory.best_lr):
                assert predicted(ours, f, x) == pytest.approx(predicted(near, f, x), rel=1e-8)
                assert predicted(ours, f, x) != pytest.approx(predicted(far, f, x), rel=1e-4)  # planted
            assert theory.coverage(ours, f) == "exact, all orders"

    def test_noise_of_losses_does_not_enter(self):
        f = problems.make("sextic", 8)
        x = problems.start(f)
        made = methods.make("forward-gradient", n=2)
        assert theory.mse(made, f, x, noise=10.0) == theory.mse(made, f, x)
        assert theory.best_lr(made, f, x, noise=10.0) == theory.best_lr(made, f, x)
        noisy, exact = (zobench.estimate(made, f, x, samples=50, noise=scale) for scale in (10.0, 0.0))
        assert torch.equal(noisy, exact)
        told = query(NoisySpace(x, noise.Additive(10.0)), made, f, 3, (), (50,))
        assert float((told.losses - f(x)).std()) > 5  # planted: the losses are noisy

    @pytest.mark.parametrize("per", ["plan", "direction", "evaluation"])
    def test_minibatches_and_relative_noise_do(self, per):
        f = problems.make("logistic")
        x = problems.start(f)
        made = methods.make("forward-gradient", n=3)
        model = noise.MinibatchNoise(7, per)
        found = zobench.moments(made, f, x, key=2, samples=20_000, noise=model)
        seen = noise.MinibatchNoise(7, "direction" if per == "evaluation" else per)
        predicted = theory.covariance_trace(made, f, x, noise.statistics(seen, f, x))
        assert abs(found.covariance_trace - predicted) < 5 * found.covariance_trace_error
        assert abs(found.covariance_trace - theory.covariance_trace(made, f, x)) > 5 * found.covariance_trace_error

    def test_relative_noise_is_one_error_a_pass(self):
        f = problems.make("sextic", 8)
        x = problems.start(f)
        plan = methods.make("forward-gradient", n=4).ask(3, (), (5,))
        clean, seen = (NoisySpace(x, noise.Multiplicative(s)).losses(f, plan) for s in (0.0, 0.1))
        ratios = seen / clean
        assert torch.allclose(ratios[..., 0], ratios[..., 1])
        assert len(set(ratios[..., 1].flatten().tolist())) == 20

    def test_there_is_no_epsilon(self):
        f = problems.make("sextic", 8)
        x = problems.start(f)
        made = methods.make("forward-gradient")
        assert repr(made) == "ForwardGradient(law=Gaussian(), n=1)" and identity.restore(repr(made)) == made
        assert made.perturbed_by is None
        for call, message in (
            (lambda: methods.make("forward-gradient", epsilon="auto"), "has no epsilon to choose"),
            (lambda: methods.parse("forward-gradient", epsilon="auto"), "has no epsilon to choose"),
            (lambda: methods.make("forward-gradient", epsilon=1e-3), "unknown option"),
            (lambda: methods.parse("forward-gradient:epsilon=1e-3"), "unknown option"),
            (lambda: AutoEpsilon(stencils=(SlopeStencil(),)), "no epsilon to choose"),
            (lambda: LineEstimator(Gaussian(), SlopeStencil(), 1e-3), "give a ForwardGradient"),
            (lambda: theory.best_epsilon(made, f, x, noise=1.0), "no epsilon to choose"),
            (lambda: bias.run(bias.BiasOptions(methods=("forward-gradient",))), "no epsilon to vary"),
            (lambda: phase.run(phase.PhaseOptions(methods=("mezo", "forward-gradient"))), "no epsilon to map"),
        ):
            with pytest.raises(ValueError, match=message):
                call()
        assert methods.parse("forward-gradient:n=3", epsilon=1e-3) == ForwardGradient(Gaussian(), 3)

    def test_side_by_side_it_keeps_having_none(self):
        f = problems.make("sextic", 8)
        x = problems.start(f)
        both = [methods.make("mezo"), methods.make("forward-gradient")]
        central, ours = theory.equal_budget(both, f, x, 12, noise=1e-2, best="mse")
        assert (central.estimator.n, ours.estimator.n, ours.evaluations) == (6, 4, 12)
        assert ours.bias == 0.0 < central.bias and ours.mse == theory.mse(ours.estimator, f, x)

    def test_a_plan_asks_for_slopes_at_the_base_point_alone(self):
        zero, one = torch.zeros(3, 2, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64)
        assert Plan(Gaussian(), 1, zero, one, "slope").queries == 9
        for offsets, asks in ((one, "slope"), (zero[:, :1], "slope"), (zero, "slopes")):
            with pytest.raises(ValueError, match=r"offset 0|Did you mean"):
                Plan(Gaussian(), 1, offsets, torch.ones_like(offsets), asks)


@pytest.mark.parametrize("engine", ENGINES)
class TestModules:
    @pytest.mark.parametrize("law", LAWS)
    def test_slopes_are_those_of_backpropagation(self, engine, law, monkeypatch):
        monkeypatch.setattr(layout, "BLOCK_SIZE", 50)
        module = Net(dtype=torch.float64)
        space, loss = space_of(engine, module), loss_of(module)
        plan = methods.make("forward-gradient", n=3, law=law).ask(7, ())
        answers = space.losses(loss, plan)
        wanted = slopes_by_backpropagation(space, loss, plan) * plan.law.unit(space.layout.dim) ** 2
        assert torch.allclose(answers[:, 1], wanted, rtol=1e-9, atol=1e-13)
        assert torch.equal(answers[:, 0], loss().detach().mean().expand(3))
        assert float(answers[:, 1].abs().max()) > 1e-6

    def test_mezo_tends_to_it_along_the_same_directions(self, engine):
        module = Net(dtype=torch.float64)
        space, loss = space_of(engine, module), loss_of(module)
        ours = query(space, methods.make("forward-gradient", n=2), loss, 5, ())
        off = []
        for epsilon in (1e-2, 1e-3):
            told = query(space, methods.make("mezo", epsilon=epsilon, n=2), loss, 5, ())
            off.append(float((told.gradient.coefficients - ours.gradient.coefficients).abs().max()))
            space.settle_()
            assert told.gradient.terms[0][:2] == ours.gradient.terms[0][:2]
        assert off[0] / off[1] == pytest.approx(100, rel=0.05)  # the bias of the central difference, epsilon^2

    def test_steps_are_the_same_on_every_engine(self, engine):
        found = []
        for name in ("plain", engine):
            module = Net(dtype=torch.float64)
            space, made = space_of(name, module), methods.make("forward-gradient", n=2)
            for key in range(5):
                told = query(space, made, loss_of(module), key, ())
                space.step_(told.gradient, -0.01)
            found.append(space.vector())
        assert torch.allclose(*found, rtol=0, atol=1e-14)
        assert not torch.allclose(found[0], ModuleSpace(Net(dtype=torch.float64)).vector(), atol=1e-4)

    @pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, None])
    def test_parameters_are_left_as_they_were(self, engine, error):
        module = Net()
        space, loss = space_of(engine, module), loss_of(module)
        before, names = everything(module), {name: id(p) for name, p in module.named_parameters()}

        def f():
            value = loss()
            if error:
                raise error
            return value.detach()

        with pytest.raises(error or ValueError):
            space.losses(f, methods.make("forward-gradient").ask(1, ()))
        assert everything(module) == before and {name: id(p) for name, p in module.named_parameters()} == names
        assert all(owner._parameters.__class__ is dict for owner in module.modules())
        with forward_ad.dual_level():  # whose level is free again
            assert all(forward_ad.unpack_dual(p).tangent is None for p in module.parameters())
        space.losses(loss, methods.make("forward-gradient").ask(1, ()))
        assert everything(module) == before and all(p.is_leaf and p.grad is None for p in module.parameters())

    def test_a_look_at_points_may_come_before(self, engine):
        """A module that a plan left perturbed is brought back first."""
        module = Net(dtype=torch.float64)
        space, loss = space_of(engine, module), loss_of(module)
        plan = methods.make("forward-gradient").ask(1, ())
        wanted = space.losses(loss, plan)
        space.losses(loss, methods.make("mezo", epsilon=0.1).ask(2, ()))
        assert torch.allclose(space.losses(loss, plan), wanted, rtol=1e-12)

    def test_directions_on_some_rows(self, engine, monkeypatch):
        monkeypatch.setattr(layout, "BLOCK_SIZE", 50)
        module = Net(dtype=torch.float64)
        space = space_of(engine, module)
        rows = [0, 1, 3, 5, 9, 22, 31, 35]
        space.restrict({"embedding.weight": rows})

        def loss():
            columns = module.hidden(IDS) @ module.head.weight[torch.tensor(rows)].t()
            return functional.cross_entropy(columns.flatten(0, 1), torch.arange(10) % 8)

        plan = methods.make("forward-gradient", n=3).ask(7, ())
        answers = space.losses(loss, plan)
        assert torch.allclose(answers[:, 1], slopes_by_backpropagation(space, loss, plan), rtol=1e-9)
        if engine in IN_FORWARD:
            for bad, message in ((loss_of(module), "all of 'embedding.weight' was read"), (other_row(module), "row 7")):
                with pytest.raises(ValueError, match=message):
                    space.losses(bad, plan)

    def test_a_law_that_reads_weights(self, engine):
        module = Net(dtype=torch.float64)
        space, loss = space_of(engine, module), loss_of(module)
        plan = ForwardGradient(SmallWeights()).ask(3, ())
        answers = space.losses(loss, plan)
        assert torch.allclose(answers[:, 1], slopes_by_backpropagation(space, loss, plan), rtol=1e-9)


def other_row(module: Net):
    return lambda: module.hidden(torch.tensor([[7, 1]])).square().mean()
