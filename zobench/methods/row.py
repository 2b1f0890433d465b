"""A row of the table of methods."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from zobench.estimator import Estimator, LineEstimator
from zobench.law import Gaussian, Law
from zobench.maps import IDENTITY, CoefficientMap
from zobench.rule import table as rules
from zobench.rule.rule import UpdateRule
from zobench.rule.schedule import Schedule
from zobench.spelling import spelled
from zobench.stencil import CentralStencil, Stencil


class Axes(NamedTuple):
    """What a method is composed of: the laws, stencils, maps and rules of its default options, by class name."""

    law: str
    stencil: str
    map: str
    rule: str

    def __str__(self) -> str:
        return " x ".join(self)


@dataclass(frozen=True)
class Method:
    """A row of the table: what the literature calls a method, and how it is composed here. `rule` is the spelling of
    the update rule that its paper uses, `memory` what a step holds beside the model, `rate` the paper's schedule, by
    the learning rate.
    """

    name: str
    formula: str
    evaluations: str
    source: str
    build: Callable[..., Estimator]
    rule: str = "sgd"
    memory: str = "none"
    rate: Callable[[float], float | Schedule] = float

    @property
    def options(self) -> dict[str, Any]:
        """The options of `make` for this method, with their defaults."""
        return {name: p.default for name, p in inspect.signature(self.build).parameters.items()}

    @property
    def axes(self) -> Axes:
        """The composition; an estimator of several rounds or plans is a stencil of its own name."""
        made = self.build()
        line = getattr(made, "line", made)
        law, coefficients = getattr(line, "law", None), getattr(line, "map", IDENTITY)
        stencil = getattr(made, "stencil", made)
        return Axes(_word(law), _word(stencil), _word(coefficients), spelled(self.rule).name)

    def update_rule(self, lr: float, **shared: Any) -> UpdateRule:
        """Return the update rule of the paper at this learning rate; `shared` are weight_decay and groups."""
        return rules.parse(self.rule, lr=self.rate(lr), **shared)


def along_lines(
    stencil: Callable[[], Stencil],
    coefficients: CoefficientMap = IDENTITY,
    directions: Law = Gaussian(),
    lines: int = 1,
    reach: float = 1e-3,
) -> Callable[..., Estimator]:
    """What builds a method that is this stencil along lines, with these defaults of its options."""

    def build(
        epsilon: float = reach, n: int = lines, law: Law = directions, map: CoefficientMap = coefficients
    ) -> Estimator:
        return LineEstimator(law, stencil(), epsilon, n, map)

    return build


CENTRAL = along_lines(CentralStencil)


def _word(part: object) -> str:
    return "-" if part is None else type(part).__name__.removesuffix("Stencil")
