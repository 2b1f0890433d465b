"""Optimizers of other packages on the problems of the suites, as they come: `peer:NAME` beside our methods."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthetic import problems
from zobench.layout import CPU
from zobench.naming import require_known
from zobench.problem import Problem

PREFIX = "peer:"
Vector = NDArray[np.float64]


class _Spent(Exception):
    """The budget of evaluations is spent."""


@dataclass(eq=False)
class Search:
    """One run of a peer: `f` counts and ends the run with the budget, `seen` is told every iterate; `curve` has the
    evaluations and the loss at each. `lr` and `epsilon` are what the peer has of both.
    """

    problem: Problem
    x0: Vector
    lr: float
    epsilon: float
    seed: int
    budget: int
    spent: int = 0
    curve: list[tuple[int, float]] = field(default_factory=list)

    def f(self, x: Any) -> float:
        """Return the loss at a point, which counts."""
        if self.spent >= self.budget:
            raise _Spent
        self.spent += 1
        return self.loss(x)

    def loss(self, x: Any) -> float:
        """Return the loss at a point, which does not count."""
        return float(self.problem(torch.as_tensor(np.asarray(x, dtype=float).ravel(), dtype=torch.float64, device=CPU)))

    def seen(self, x: Any, *_: Any) -> None:
        """Note an iterate."""
        self.curve.append((self.spent, self.loss(x)))


@dataclass(frozen=True)
class Peer:
    """An optimizer of another package: what it is, what theory says of its estimate of the gradient, and its run. One
    that is not `rated` has no learning rate, and is run at the first of the rates alone.
    """

    name: str
    package: str
    theory: str
    minimise: Callable[[Search], None]
    rated: bool = True

    def __repr__(self) -> str:
        return f"{self.package} {version(self.package)}: {self.name}"

    def require_installed(self) -> "Peer":
        """Return the peer.

        Raises:
            ValueError: its package is not installed.
        """
        try:
            version(self.package)
        except PackageNotFoundError:
            raise ValueError(
                f"{PREFIX}{self.name} needs the package {self.package}: pip install -e '.[peers]', or leave it out"
            ) from None
        return self

    def reached(
        self, problem: Problem, lr: float, epsilon: float, seeds: Sequence[int], budget: int, points: int
    ) -> list[tuple[int, int, Tensor]]:
        """Return the number of a point, the evaluations until there and the losses of the seeds at their last iterates
        before it; a run that fails as numbers overflow is infinite.
        """
        curves = [self._curve(problem, lr, epsilon, seed, budget) for seed in seeds]
        every = max(1, budget // points)
        return [(at, at * every, _losses(curves, at * every)) for at in range(budget // every + 1)]

    def _curve(self, problem: Problem, lr: float, epsilon: float, seed: int, budget: int) -> list[tuple[int, float]]:
        x0 = problems.start(problem, seed).double().numpy()
        search = Search(problem, x0, lr, epsilon, seed % 2**31, budget)
        search.seen(x0)
        with np.errstate(all="ignore"), torch.random.fork_rng(devices=[]):
            state = np.random.get_state()
            try:
                self.minimise(search)
            except _Spent:
                pass
            except (ArithmeticError, ValueError, np.linalg.LinAlgError):
                search.curve.append((search.spent, float("inf")))
            finally:
                np.random.set_state(state)
        return search.curve


def _losses(curves: Sequence[list[tuple[int, float]]], evaluations: int) -> Tensor:
    last = [[loss for spent, loss in curve if spent <= evaluations][-1] for curve in curves]
    return torch.tensor(last, dtype=torch.float64, device=CPU).nan_to_num(nan=float("inf"))


def _torchzero(search: Search, module: str, **options: Any) -> None:
    import torchzero as tz

    torch.manual_seed(search.seed)
    x = torch.nn.Parameter(torch.tensor(search.x0, dtype=torch.float64, device=CPU))
    optimizer = tz.Optimizer([x], getattr(tz.m, module)(h=search.epsilon, **options), tz.m.LR(search.lr))

    def closure(backward: bool = False) -> Tensor:
        return torch.tensor(search.f(x.detach().numpy()), dtype=torch.float64, device=CPU)

    while True:
        optimizer.step(closure)
        search.seen(x.detach().numpy())


def _nevergrad(search: Search) -> None:
    import nevergrad as ng

    one = ng.optimizers.SPSA(ng.p.Array(init=search.x0), budget=search.budget)
    one.parametrization.random_state = np.random.RandomState(search.seed)
    one.a, one.c = search.lr, search.epsilon
    while True:
        candidate = one.ask()
        if one.idx % 2 == 0:  # an update is taken when the next pair is asked for
            search.seen(search.x0 + one.t)
        one.tell(candidate, search.f(candidate.value))


def _cma(search: Search) -> None:
    import cma

    one = cma.CMAEvolutionStrategy(search.x0, search.lr, {"seed": search.seed + 1, "verbose": -9})
    while True:
        points = one.ask()
        one.tell(points, [search.f(point) for point in points])
        search.seen(one.mean)


def _cbx(search: Search, particles: int = 20, alpha: float = 30.0, dt: float = 0.1) -> None:
    from cbx.dynamics import CBO

    drawn = np.random.default_rng(search.seed).standard_normal((1, particles, len(search.x0)))
    told = {"alpha": alpha, "dt": dt, "noise": "anisotropic", "seed": search.seed, "verbosity": 0}
    one = CBO(search.f, x=search.x0 + search.lr * drawn, f_dim="1D", **told)
    while True:
        one.step()
        search.seen(np.asarray(one.consensus).ravel())


def _scipy(search: Search, method: str) -> None:
    from scipy.optimize import minimize

    minimize(search.f, search.x0, method=method, callback=search.seen, options={"maxfev": 10 * search.budget})


RANKS = "moves by ranks and has no estimate of the gradient"
PEERS = {
    peer.name: peer
    for peer in (
        Peer("scipy-nelder-mead", "scipy", "a simplex, no estimate", partial(_scipy, method="Nelder-Mead"), False),
        Peer("scipy-powell", "scipy", "line searches, no estimate", partial(_scipy, method="Powell"), False),
        Peer(
            "torchzero-spsa",
            "torchzero",
            "E g = grad f, as mezo:law=rademacher; one evaluation more a step",
            partial(_torchzero, module="RandomizedFDM", formula="central", distribution="rademacher", n_samples=1),
        ),
        Peer(
            "torchzero-spsa1",
            "torchzero",
            "wrong: E g = h grad f, a factor 1/h is missing (docs/audit.md)",
            partial(_torchzero, module="SPSA1"),
        ),
        Peer(
            "nevergrad-spsa",
            "nevergrad",
            "wrong: update j is (1 + 1/j)^0.101 too large, 7 % at the first (docs/audit.md)",
            _nevergrad,
        ),
        Peer("cma", "cma", f"{RANKS}; lr is its first spread", _cma),
        Peer("cbx", "cbx", "a consensus drift, 4 % short with 20 particles; lr is its first spread", _cbx),
    )
}


def find(name: str) -> Peer:
    """Return the peer of `peer:NAME`.

    Raises:
        UnknownNameError: no such peer.
        ValueError: its package is not installed.
    """
    known = [PREFIX + each for each in PEERS]
    require_known(name, known, "peer")
    return PEERS[name.removeprefix(PREFIX)].require_installed()
