"""The epsilon suite: the epsilon that chooses itself against the best of a fine grid, and against a fixed one.

A cell is a problem, a dtype to which values are rounded, and a noise level relative to |f(x)|. What is compared is the
excess, the mean over many lines of (coefficient - D_1)^2: what an estimate's error has beyond that of exact directional
derivatives along the same lines.
"""

import math
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from synthetic import problems
from synthetic.noise import Rounding
from synthetic.options import EpsilonOptions
from zobench import CentralStencil, Combination, Gaussian, LineEstimator, Term, derive, query
from zobench.auto import AutoEpsilon, Choice
from zobench.noise import Evaluate, Function, NoiseModel, NoisySpace, errors
from zobench.plan import Plan
from zobench.run.progress import bar, note
from zobench.run.records import Row, Run
from zobench.spelling import spelled

GOOD = 2.0

SEEDED = ("quadratic", "cubic", "quartic", "sextic", "logistic")


@dataclass(frozen=True)
class RoundedNoise(NoiseModel):
    """f(x) + scale xi, rounded to a dtype."""

    scale: float
    dtype: str

    def losses(self, evaluate: Evaluate, f: Function, plan: Plan) -> Tensor:
        """Return the noisy losses, rounded."""
        return Rounding(self.dtype)(evaluate(f, plan) + self.scale * errors(plan))

    def deviation(self, f: Any, x: Tensor) -> float:
        """Return the root of both variances."""
        return math.hypot(self.scale, Rounding(self.dtype).deviation(f, x))


class EpsilonCell:
    """One problem at one point, seen through one noise."""

    def __init__(self, name: str, dtype: str, noise: float, options: EpsilonOptions) -> None:
        self.name, self.dtype, self.noise, self.options = name, dtype, noise, options
        self.problem = _problem(name, options)
        self.x = problems.start(self.problem, options.seed)
        self.model = RoundedNoise(noise * float(self.problem(self.x).abs()), dtype)
        self.key = derive("epsilon", options.seed, name)
        self._slopes: Tensor | None = None

    @property
    def identity(self) -> Row:
        """The columns that distinguish this cell's row from the others."""
        return {"problem": self.name, "dtype": self.dtype, "noise": self.noise}

    def excess(self, epsilon: float) -> float:
        """Return the mean of (coefficient - D_1)^2 of the central difference, over the same lines and noise for all
        epsilons; infinite where a loss is not finite.
        """
        space = NoisySpace(self.x, self.model)
        estimator = LineEstimator(Gaussian(), CentralStencil(), epsilon)
        plan = estimator.ask(self.key, (), (self.options.directions,))
        coefficients = (plan.weights * space.losses(self.problem, plan)).sum(-1)
        if self._slopes is None:
            lines = space.dense(Combination((Term(plan.law, plan.key, torch.ones_like(coefficients)),)))
            self._slopes = lines @ self.problem.gradient(self.x)
        off = float((coefficients[:, 0] - self._slopes).square().mean())
        return off if math.isfinite(off) else math.inf

    @property
    def slope_square(self) -> float:
        """The mean of D_1^2 over the lines."""
        assert self._slopes is not None
        return float(self._slopes.square().mean())

    def choose(self, trial: int) -> tuple[float, int]:
        """Return one choice of epsilon, and the evaluations it took."""
        estimator = AutoEpsilon(lines=self.options.lines, start=self.options.start)
        space = NoisySpace(self.x, self.model)
        estimate = query(space, estimator, self.problem, derive(self.key, "choice", trial), estimator.init())
        choice: Choice = estimate.state.choice
        return choice.epsilon, choice.evaluations


def run(options: EpsilonOptions) -> None:
    """Run the command: EpsilonOptions says what it does."""
    if options.choices < 1 or options.directions < 2:
        raise ValueError(f"choices {options.choices}, directions {options.directions}: give 1 or more, and 2 or more")
    cells = list(_cells(options))
    record = Run(options.out, {"command": "epsilon", **asdict(options)})
    with bar(cells, unit="cell") as progress:
        for cell in progress:
            if not record.find(kind="epsilon", **cell.identity):
                row = measure(cell)
                record.append(row)
                progress.set_postfix_str(f"{cell.name} {cell.dtype} {cell.noise:g}: {row['ratio']:.2f}")
    print(table(record.rows))
    note(f"rows: {record.folder / 'rows.jsonl'}")


def _problem(name: str, options: EpsilonOptions) -> Any:
    own, base = spelled(name, problems.NAMES).is_own, name.partition(":")[0]
    if base == "mlp":
        return problems.make(name, seed=options.seed)
    seeded: dict[str, Any] = {"seed": options.seed} if own or base in SEEDED else {}
    return problems.make(name, options.dim, **seeded)


def _cells(options: EpsilonOptions) -> Iterator[EpsilonCell]:
    for name in options.problem:
        for dtype in options.dtypes:
            for noise in options.noises:
                yield EpsilonCell(name, dtype, noise, options)


def measure(cell: EpsilonCell) -> Row:
    """Return the row of one cell."""
    grid = [10 ** (k / 12) for k in range(-60, 31)]  # 1e-5 to 316, a factor of 1.21 apart
    excesses = {epsilon: cell.excess(epsilon) for epsilon in grid}
    best = min(grid, key=excesses.__getitem__)
    chosen = [cell.choose(trial) for trial in range(cell.options.choices)]
    reached = sorted((cell.excess(epsilon), epsilon) for epsilon, _ in chosen)
    excess, epsilon = reached[len(reached) // 2]
    fixed = cell.excess(cell.options.fixed)
    return {
        **{"kind": "epsilon", **cell.identity, "dim": cell.problem.dim, "slope_square": cell.slope_square},
        **{"best_epsilon": best, "best_excess": excesses[best], "auto_epsilon": epsilon, "auto_excess": excess},
        **{"ratio": excess / excesses[best], "worst_ratio": reached[-1][0] / excesses[best]},
        "within": sum(value <= GOOD * excesses[best] for value, _ in reached) / len(reached),
        **{"fixed_epsilon": cell.options.fixed, "fixed_excess": fixed, "fixed_ratio": fixed / excesses[best]},
        **{"evaluations": statistics.mean(count for _, count in chosen), "choices": len(chosen)},
    }


def table(rows: list[Row]) -> str:
    """Return every cell as text, and the shares within a factor 2 of the best."""
    titles = f"{'best':>9}{'auto':>9}{'ratio':>8}{'worst':>9}{'fixed ratio':>13}{'evaluations':>13}"
    lines = [f"{'problem':17}{'dtype':10}{'noise':>8}{titles}"]
    cells = [row for row in rows if row["kind"] == "epsilon"]
    for row in cells:
        fixed = math.inf if row["fixed_ratio"] is None else row["fixed_ratio"]
        lines.append(
            f"{row['problem']:17}{row['dtype']:10}{row['noise']:8g}{row['best_epsilon']:9.2g}{row['auto_epsilon']:9.2g}"
            f"{row['ratio']:8.2f}{row['worst_ratio']:9.3g}{fixed:13.3g}{row['evaluations']:13.0f}"
        )
    good = sum(row["ratio"] <= GOOD for row in cells)
    single = sum(row["within"] for row in cells) / len(cells)
    fixed = sum((row["fixed_ratio"] or math.inf) <= GOOD for row in cells)
    lines.append(
        f"within a factor 2 of the best: {good} of {len(cells)} cells ({good / len(cells):.0%}) by the median choice, "
        f"{single:.0%} of single choices; the fixed epsilon: {fixed} cells"
    )
    return "\n".join(lines)
