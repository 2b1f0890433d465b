"""The problems by name, one row each."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

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
from zobench.problem import Problem
from zobench.random.keys import derive
from zobench.spelling import made, own, spelled, taken


@dataclass(frozen=True)
class CatalogueEntry:
    """A row of the table: what a problem is called, what it is, and what makes it."""

    name: str
    line: str
    build: Callable[..., ExactProblem]

    @property
    def options(self) -> dict[str, Any]:
        """The options of `make` for this problem, with their defaults."""
        return {name: p.default for name, p in inspect.signature(self.build).parameters.items()}


ENTRIES = (
    CatalogueEntry("quadratic", "y^T A y / 2", partial(ridge_polynomial, "quadratic")),
    CatalogueEntry("cubic", "quadratic + sum_j c3 (v_j . y)^3 / 6", partial(ridge_polynomial, "cubic")),
    CatalogueEntry("quartic", "cubic + sum_j c4 (v_j . y)^4 / 24", partial(ridge_polynomial, "quartic")),
    CatalogueEntry("sextic", "quartic + sum_j c6 (v_j . y)^6 / 720", partial(ridge_polynomial, "sextic")),
    CatalogueEntry("separable", "a polynomial of degree 2, 3, 4 or 6 along each axis", separable_polynomial),
    CatalogueEntry("styblinski-tang", "a quartic with two minima along each axis", StyblinskiTang),
    CatalogueEntry("rastrigin", "a parabola with cosine ripples along each axis", Rastrigin),
    CatalogueEntry("levy", "parabolas times squared sines along each axis", Levy),
    CatalogueEntry("rosenbrock", "a curved valley through neighbouring coordinates, of degree 4", Rosenbrock),
    CatalogueEntry("ackley", "ripples around a kink", Ackley),
    CatalogueEntry("logistic", "penalised logistic regression on normal data", synthetic_logistic),
    CatalogueEntry(
        "logistic-real", "penalised logistic regression on scikit-learn's breast cancer data", breast_cancer
    ),
    CatalogueEntry("mlp", "a network with one hidden layer of tanh units", mlp),
)
NAMES = tuple(entry.name for entry in ENTRIES)
"""The names that `make` knows."""
"""The spelling of a user's own problem on the command line."""
SHARED = ("dim", "condition", "rotated", "seed")
"""Options that suites give to every problem that has them."""


def table() -> tuple[CatalogueEntry, ...]:
    """Return the rows: name, what it is, options with defaults."""
    return ENTRIES


def make(
    name: str, dim: int | None = None, condition: float | None = None, rotated: bool | None = None, **options: Any
) -> ExactProblem:
    """Return a named problem, `make("quartic", 16, condition=10.0, rotated=True, seed=0)`; what is None or left out is
    the problem's default. Options in the name, `"quartic:cubic=2"`, come first.

    `"package.module:function:depth=2"` is what a function of one's own makes, a `zobench.problem.Problem`: of dim,
    condition, rotated and seed it is given those that it has parameters for.

    Raises:
        UnknownNameError: no such problem, or an option it does not have; the message names the nearest.
        ValueError: an option's value is out of range, or a function of one's own is not found or makes no problem.
        ImportError: the problem's data are in a package that is not installed.
    """
    name, named = spelling = spelled(name, NAMES)
    first = {"dim": dim, "condition": condition, "rotated": rotated}
    options = {option: value for option, value in first.items() if value is not None} | options
    if spelling.is_own:
        return _own(name, options, named)
    require_known(name, NAMES, "problem")
    entry, options = ENTRIES[NAMES.index(name)], options | named
    for option in options:
        require_known(option, entry.options, f"option of problem {name!r}:")
    return entry.build(**{option: _plain(option, value, entry.options[option]) for option, value in options.items()})


def _own(name: str, shared: dict[str, Any], named: dict[str, Any]) -> ExactProblem:
    """The problem that a user's own function returns."""
    suits = taken(own(name), shared) | {option: value for option, value in shared.items() if option not in SHARED}
    problem = made(name, {**suits, **named})
    lacking = [needed for needed in ("dim", "gradient") if not hasattr(problem, needed)]
    if lacking or not callable(problem):
        why = f"has no .{lacking[0]}" if lacking else "cannot be called"
        raise ValueError(f"{name!r} makes {problem!r}, which is no zobench.problem.Problem: it {why}")
    count("dim", problem.dim, f"give {name!r} a number of variables, 1 or more")
    return cast(ExactProblem, problem)  # the suites refuse what they need and it lacks


def _plain(option: str, value: Any, default: Any) -> Any:
    """A number as Python's, of the kind of the option's default."""
    kind = int if option == "dim" else type(default)
    rules: dict[type, Callable[[], Any]] = {
        bool: lambda: flag(option, value),
        int: lambda: count(option, value, least=None),
        float: lambda: real(option, value),
    }
    return rules[kind]() if kind in rules and value is not None else value


def start(problem: Problem, seed: int = 0) -> Tensor:
    """Return a point (d,) around the centre: centre + radius z / sqrt(d), z ~ N(0, I); a problem of one's own that
    names neither has centre 0 and radius 1.
    """
    offset = normal(derive("start", seed, problem.dim), (problem.dim,))
    radius: float = getattr(problem, "radius", 1.0)
    point: Tensor = getattr(problem, "centre", 0.0) + offset * radius / problem.dim**0.5
    return point
