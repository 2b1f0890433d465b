"""An Estimator as the subject of checks."""

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from zobench import methods
from zobench.estimator import Estimate, Estimator
from zobench.layout import CPU, Layout
from zobench.montecarlo import estimate
from zobench.query import query
from zobench.random.streams import Shape
from zobench.space import FlatSpace
from zobench.spelling import taken
from zobench.testing.promises import Promises
from zobench.testing.subject import Everywhere, Function, Subject

EPSILON = 1e-2
Make = Callable[..., Estimator]


class EstimatorSubject(Subject):
    """The estimator of make(epsilon=...), on vectors; a law by tensor is told that they hold matrices."""

    def __init__(self, make: Make, epsilon: float = EPSILON, promises: Promises | None = None) -> None:
        self.make, self.given = make, promises
        self._made = made_with(make, epsilon)
        self.name = repr(self._made)
        self.epsilon = epsilon if "epsilon" in inspect.signature(make).parameters else None
        self.promises = promises or Promises.of(self._made)

    @property
    def estimator(self) -> Estimator:
        """The estimator."""
        return self._made

    def at(self, epsilon: float) -> "EstimatorSubject":
        """Return the subject of make(epsilon=epsilon)."""
        return EstimatorSubject(self.make, epsilon, self.given)

    def with_directions(self, n: int) -> "EstimatorSubject | None":
        """Return the subject with the field n of the estimator replaced."""
        many = self._made
        if not is_dataclass(many) or "n" not in {field.name for field in fields(many) if field.init}:
            return None
        made: Any = replace(many, n=n)
        return EstimatorSubject(lambda: made, self.epsilon or EPSILON, self.given)

    @cached_property
    def least_dim(self) -> int:  # type: ignore[override]
        """The number of directions where these are orthogonal."""
        plan = self._made.ask(0, self._made.init())
        return plan.offsets.shape[-2] if plan.law.orthogonal else 1

    @cached_property
    def by_tensor(self) -> bool:
        """Whether the law draws by tensor."""
        return self._made.ask(0, self._made.init()).law.by_tensor

    def layout(self, dim: int) -> Layout | None:
        """Return the tensors that a vector stands for, where the law asks."""
        return matrices(dim) if self.by_tensor else None

    def space(self, x: Tensor) -> FlatSpace:
        """Return a space at x."""
        return FlatSpace(x.clone(), self.layout(x.shape[-1]))

    def told(self, f: Function, space: FlatSpace, key: int, batch: Shape = (), state: Any = None) -> Estimate:
        """Return what `query` returns, from the first state or another."""
        return query(space, self._made, Everywhere(f), key, self._made.init() if state is None else state, batch)

    def estimate(self, f: Function, x: Tensor, key: int) -> Tensor:
        """Return the estimate of one query, dense."""
        space = self.space(x)
        return space.dense(self.told(f, space, key).gradient)

    @cached_property
    def batches(self) -> bool:  # type: ignore[override]
        """Whether a batch is of independent estimates."""
        return self.answers_batches and not self.is_coupled

    @cached_property
    def answers_batches(self) -> bool:
        """Whether the plan of a batch has the batch's shape."""
        try:
            estimate = self.told(_sum, self.space(_somewhere(self.least_dim)), 0, (3,))
        except (ValueError, RuntimeError, TypeError, IndexError):
            return False
        return all(plan.batch == (3,) for plan, _ in estimate.rounds) and all(
            term.coefficients.shape[:-1] == (3,) for term in estimate.gradient.terms
        )

    @cached_property
    def is_coupled(self) -> bool:
        """Whether the losses of one element of a batch change the estimate of another."""
        x = _somewhere(self.least_dim)
        plain, other = (self.told(f, self.space(x), 0, (3,)).gradient.coefficients for f in (_sum, _middle_changed))
        return not torch.equal(plain[[0, 2]], other[[0, 2]])

    def samples(self, f: Function, x: Tensor, key: int, count: int) -> Tensor:
        """Return what `zobench.estimate` samples, where the estimator batches."""
        if not self.batches:
            return super().samples(f, x, key, count)
        everywhere: Any = Everywhere(f)  # of which a plan takes the loss that it names
        return estimate(self._made, everywhere, x, key, count, layout=self.layout(x.shape[-1]))


def matrices(dim: int) -> Layout:
    """Return a layout of a matrix of two columns, and of one vector more where `dim` is odd."""
    shapes = {"matrix": (dim // 2, 2), "vector": (dim % 2,)}
    return Layout.of({name: shape for name, shape in shapes.items() if all(shape)})


def made_with(make: Make, epsilon: float) -> Estimator:
    """Return make(epsilon=epsilon), or make() where it has no such parameter.

    Raises:
        TypeError: that is no Estimator.
    """
    estimator = make(**taken(make, {"epsilon": epsilon}))
    if not isinstance(estimator, Estimator):
        raise TypeError(f"{make!r:.200} makes {estimator!r:.200}, which is no zobench.Estimator: see from_function")
    return estimator


def as_make(target: "Make | Estimator | str") -> Make:
    """Return make(epsilon) of a function, of an estimator, or of a method as command lines spell it.

    Raises:
        TypeError: it is none of them.
        ValueError: as for `methods.parse`.
    """
    if isinstance(target, str):
        return as_make(methods.parse(target))
    if isinstance(target, Estimator):
        one: Any = target
        names = {field.name for field in fields(one) if field.init} if is_dataclass(one) else set()
        return (lambda epsilon: replace(one, epsilon=epsilon)) if "epsilon" in names else (lambda: one)
    if not callable(target):
        raise TypeError(f"{target!r:.200} makes no estimator: give make(epsilon=1e-2), an Estimator or a method's name")
    return target


def _somewhere(least: int) -> Tensor:
    return torch.linspace(0.5, 1.0, max(2, least), dtype=torch.float64, device=CPU)


def _sum(x: Tensor) -> Tensor:
    return x.double().sin().sum(-1)


def _middle_changed(x: Tensor) -> Tensor:
    changes = torch.zeros(len(x), dtype=torch.float64, device=CPU)
    changes[1] = 0.7
    return _sum(x) + changes * x.double().square().sum(-1) if x.ndim > 1 else _sum(x)
