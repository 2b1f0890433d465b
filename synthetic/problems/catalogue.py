"""The problems by name, one row each."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from synthetic.problems.ackley import Ackley
from synthetic.problems.draws import normal
from synthetic.problems.exact import ExactProblem
from synthetic.problems.logistic import breast_cancer, synthetic_logistic
from synthetic.problems.mlp import mlp
from synthetic.problems.ridge import ridge_polynomial
from synthetic.problems.rosenbrock import Rosenbrock
from synthetic.problems.separable import Levy, Rastrigin, StyblinskiTang, separable_polynomial
from zobench.naming import require_known
from zobench.numbers import count, flag, real
from zobench.random.keys import derive


@dataclass(frozen=True)
class Entry:
    """A row of the table: what a problem is called, what it is, and what makes it."""

    name: str
    line: str
    build: Callable[..., ExactProblem]

    @property
    def options(self) -> dict[str, Any]:
        """The options of `make` for this problem, with their defaults."""
        return {name: p.default for name, p in inspect.signature(self.build).parameters.items()}


ENTRIES = (
    Entry("quadratic", "y^T A y / 2", partial(ridge_polynomial, "quadratic")),
    Entry("cubic", "quadratic + sum_j c3 (v_j . y)^3 / 6", partial(ridge_polynomial, "cubic")),
    Entry("quartic", "cubic + sum_j c4 (v_j . y)^4 / 24", partial(ridge_polynomial, "quartic")),
    Entry("sextic", "quartic + sum_j c6 (v_j . y)^6 / 720", partial(ridge_polynomial, "sextic")),
    Entry("separable", "a polynomial of degree 2, 3, 4 or 6 along each axis", separable_polynomial),
    Entry("styblinski-tang", "a quartic with two minima along each axis", StyblinskiTang),
    Entry("rastrigin", "a parabola with cosine ripples along each axis", Rastrigin),
    Entry("levy", "parabolas times squared sines along each axis", Levy),
    Entry("rosenbrock", "a curved valley through neighbouring coordinates, of degree 4", Rosenbrock),
    Entry("ackley", "ripples around a kink", Ackley),
    Entry("logistic", "penalised logistic regression on normal data", synthetic_logistic),
    Entry("logistic-real", "penalised logistic regression on the breast cancer data of scikit-learn", breast_cancer),
    Entry("mlp", "a network with one hidden layer of tanh units", mlp),
)
NAMES = tuple(entry.name for entry in ENTRIES)
"""The names that `make` knows."""


def table() -> tuple[Entry, ...]:
    """Return the rows: name, what it is, options with defaults."""
    return ENTRIES


def make(
    name: str, dim: int | None = None, condition: float | None = None, rotated: bool | None = None, **options: Any
) -> Any:
    """Return a named problem, `make("quartic", 16, condition=10.0, rotated=True, seed=0)`; what is None or left out is
    the problem's default.

    Raises:
        UnknownNameError: no such problem, or an option it does not have; the message names the nearest.
        ValueError: an option's value is out of range.
        ImportError: the problem's data are in a package that is not installed.
    """
    require_known(name, NAMES, "problem")
    entry = ENTRIES[NAMES.index(name)]
    first = {"dim": dim, "condition": condition, "rotated": rotated}
    options = {option: value for option, value in first.items() if value is not None} | options
    for option in options:
        require_known(option, entry.options, f"option of problem {name!r}:")
    return entry.build(**{option: _plain(option, value, entry.options[option]) for option, value in options.items()})


def _plain(option: str, value: Any, default: Any) -> Any:
    """A number as Python's, of the kind of the option's default."""
    kind = int if option == "dim" else type(default)
    rules: dict[type, Callable[[], Any]] = {
        bool: lambda: flag(option, value),
        int: lambda: count(option, value, least=None),
        float: lambda: real(option, value),
    }
    return rules[kind]() if kind in rules and value is not None else value


def start(problem: ExactProblem, seed: int = 0) -> Tensor:
    """Return a point (d,) around the centre: centre + radius z / sqrt(d), z ~ N(0, I)."""
    offset = normal(derive("start", seed, problem.dim), (problem.dim,))
    return problem.centre + offset * problem.radius / problem.dim**0.5
