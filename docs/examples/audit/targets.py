"""Estimators of other packages as plain functions, optimizers and populations, about ten lines each."""

import numpy as np


def torchzero(params, formula="central", distribution="rademacher", n_samples=1, h=0.05, lr=1.0):
    """Torchzero's RandomizedFDM with a step of -lr g. It draws from torch's global generator."""
    import torchzero as tz

    module = tz.m.RandomizedFDM(h=h, n_samples=n_samples, formula=formula, distribution=distribution)
    return tz.Optimizer(params, module, tz.m.LR(lr))


def torchzero_spsa1(params, h=0.05, lr=1.0):
    """Torchzero's SPSA1, of one measurement."""
    import torchzero as tz

    return tz.Optimizer(params, tz.m.SPSA1(h=h), tz.m.LR(lr))


def torchzero_fdm(params, formula="central", h=0.05, lr=1.0):
    """Torchzero's FDM, a difference along each coordinate."""
    import torchzero as tz

    return tz.Optimizer(params, tz.m.FDM(h=h, formula=formula), tz.m.LR(lr))


for _each in (torchzero, torchzero_spsa1, torchzero_fdm):
    _each.optimizer = True


def scipy_forward(f, x, epsilon):
    """scipy.optimize.approx_fprime: forward differences with an absolute step."""
    from scipy.optimize import approx_fprime

    return approx_fprime(x, f, epsilon)


def scipy_derivative(f, x, epsilon, method="3-point"):
    """scipy.optimize._numdiff.approx_derivative, what least_squares and minimize use."""
    from scipy.optimize._numdiff import approx_derivative

    return approx_derivative(f, x, method=method, abs_step=epsilon)


def numdifftools_gradient(f, x, epsilon):
    """numdifftools.Gradient with one step, without extrapolation over several."""
    import numdifftools as nd

    return np.atleast_1d(nd.Gradient(f, step=epsilon, method="central", order=2)(x))


def numdifftools_extrapolated(f, x):
    """numdifftools.Gradient as it comes: adaptive steps and Richardson extrapolation."""
    import numdifftools as nd

    return np.atleast_1d(nd.Gradient(f)(x))


def nevergrad_spsa(f, x, seed, epsilon, pairs=1):
    """Nevergrad's SPSA: the estimate is read off an update, t -= a_k g, the first unless `pairs` is more."""
    import nevergrad as ng

    one = ng.optimizers.SPSA(ng.p.Array(init=np.zeros(len(x))), budget=100)
    one.parametrization.random_state = np.random.RandomState(seed % 2**32)
    one.c, start = epsilon, one.t.copy()
    for _ in range(2 * pairs):
        candidate = one.ask()
        start = one.t.copy()
        one.tell(candidate, f(x + candidate.value - start))  # around x, wherever the updates have led
    one.ask()
    return (start - one.t) / one._ak(one.idx)


def evotorch_gradient(f, x, epsilon, n=1, symmetric=True):
    """Evotorch's distributions of PGPE: compute_gradients of the centre, over epsilon^2."""
    import torch
    from evotorch.distributions import SeparableGaussian, SymmetricSeparableGaussian

    kind = SymmetricSeparableGaussian if symmetric else SeparableGaussian
    parameters = {"mu": torch.tensor(x), "sigma": torch.full((len(x),), epsilon, dtype=torch.float64)}
    one = kind({**parameters, "divide_mu_grad_by": "num_directions" if symmetric else "num_solutions"})
    points = one.sample(2 * n)
    values = torch.tensor([f(p.numpy()) for p in points], dtype=torch.float64)
    return one.compute_gradients(points, values, objective_sense="max")["mu"].numpy() / epsilon**2


def cma_mean(f, x, seed, epsilon):
    """CMA-ES as a population estimate: the first move of the mean, downhill, over sigma."""
    import cma

    one = cma.CMAEvolutionStrategy(x, epsilon, {"seed": seed % 2**31 + 1, "verbose": -9})
    points = one.ask()
    one.tell(points, [f(p) for p in points])
    return (x - one.mean) / epsilon


def gaussianzeroorder_step(f, x, seed, epsilon):
    """Gaussianzeroorder's first step over 4 / (mu T0): its rate has |u|^2 / d in the denominator."""
    from types import SimpleNamespace

    from gaussianzeroorder.optimizer.core import TwoPointGaussianOptimizer
    from gaussianzeroorder.optimizer.direction import GaussianDirectionSampler
    from gaussianzeroorder.optimizer.step_size import StepSizeSchedule

    dim = len(x)
    oracle, schedule = SimpleNamespace(evaluate=lambda point, sample: f(point)), StepSizeSchedule(dim, 1.0, 1.0)
    config = SimpleNamespace(space_dimension_d=dim)
    one = TwoPointGaussianOptimizer(oracle, config, schedule, GaussianDirectionSampler(dim, seed))
    one.alpha = epsilon
    return (x - one._step(x, 0)[0]) * schedule.T0 / 4.0


def zeroth_learn(f, x, epsilon, n=1):
    """zeroth-learn's SimultaneousPerturbation with its RademacherMatrix, made anew for each estimate."""
    from zeroth.utils.perturbation_matrices import RademacherMatrix
    from zeroth.zeroth_order.gradient_estimators import SimultaneousPerturbation

    one = SimultaneousPerturbation(epsilon, n, RademacherMatrix(), len(x))
    points = one.perturb(x)
    return one.get_gradient(np.array([[f(p)] for p in points]))


def cbx_drift(f, x, seed, epsilon, particles=100, alpha=1.0):
    """Cbx's consensus drift of particles around x: (x - consensus) / epsilon^2 = alpha grad f + O(epsilon)."""
    from cbx.dynamics import CBO

    start = x + epsilon * np.random.default_rng(seed).standard_normal((1, particles, len(x)))
    one = CBO(lambda p: f(p), x=start, f_dim="1D", alpha=alpha, verbosity=0)
    one.compute_consensus()
    return (start.mean(axis=(0, 1)) - np.asarray(one.consensus).ravel()) / (alpha * epsilon**2)
