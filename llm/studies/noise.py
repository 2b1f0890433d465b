"""The noise report: how exact the losses of a real model are, and how much bias there is for a kernel to remove.

Along lines u the coefficient of the central difference is c = D_1 + delta, delta its truncation error. The bias
E[delta u] of a model cannot be sampled: its noise is sqrt(d) times the gradient. But |E[delta u]|^2 <= E[delta^2] for
E[u u^T] = I (project u on the bias and use Cauchy-Schwarz), so a few hundred lines bound it, and its component along
the gradient is E[delta D_1] / |grad f|, with |grad f|^2 = E[D_1^2].
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property

import torch
from torch import Tensor

from llm import tasks
from llm.model import loading
from llm.model.language_model import LanguageModel
from llm.objective import choose, data_notes
from llm.options.studies import LossOptions, NoiseOptions
from zobench import (
    AutoEpsilon,
    CentralStencil,
    Combination,
    Gaussian,
    InForwardSpace,
    LineEstimator,
    Term,
    derive,
    query,
    theory,
)
from zobench.auto import Choice
from zobench.run.options import unnamed
from zobench.run.progress import Speed, bar, note
from zobench.run.records import Row, Run
from zobench.space import require_reproducible

Loss = Callable[[], Tensor]


def run(options: NoiseOptions) -> None:
    """Run the command: NoiseOptions says what it does."""
    if options.lines < 2 or options.batch < 1 or not options.epsilons or not min(options.epsilons) > 0:
        raise ValueError(
            f"lines {options.lines}, batch {options.batch}, epsilons {options.epsilons}: give 2, 1 or more, and "
            "positive ones"
        )
    language_model = loading.load(options.model, options.device, options.dtype, options.trust_remote_code)
    task, loss = loss_of(options, language_model, options.batch)
    place = {"model": options.model, "task": task, "dtype": options.dtype, "weights": language_model.weights}
    record = Run(options.out, {"command": "noise", **asdict(options)}, unnamed(NoiseOptions))
    report = Report(record, InForwardSpace(language_model.model), loss, options, place)
    choice = report.choice()
    found = [report.at(epsilon) for epsilon in sorted({*options.epsilons, choice.epsilon})]
    print(table(found, choice, report.space.layout.dim))
    note(f"rows: {record.folder / 'rows.jsonl'}")


def loss_of(options: LossOptions, language_model: LanguageModel, examples: int) -> tuple[str, Loss]:
    """Return the name of the task and the losses of a fixed minibatch of it.

    Raises:
        ValueError: the objective has no gradient, or the loss is not the same twice.
    """
    task = tasks.find(options.task)
    train, _, _ = tasks.split(task, options.data, examples, 1, 1, options.seed)
    minimised = choose(options.objective, task)(language_model, max_tokens=options.max_tokens, bos=options.bos)
    if not minimised.differentiable:
        raise ValueError(
            f"objective {options.objective} has no gradient to compare with: give --objective classification"
        )
    batch = minimised.encode(train)
    for text in data_notes(minimised, {"train": batch}):
        note(text)
    loss = lambda: minimised.losses(batch)  # noqa: E731
    require_reproducible(loss)
    return task.name, loss


@dataclass(frozen=True, eq=False)
class Report:
    """The measurements of one loss; a measurement that the record holds is not repeated."""

    record: Run
    space: InForwardSpace
    loss: Loss
    options: NoiseOptions
    place: Row

    def choice(self) -> Choice:
        """Return what AutoEpsilon chooses: the row "noise-level"."""
        kept = self.record.find(kind="noise-level")
        if kept:
            return Choice(*(kept[-1][name] for name in ("epsilon", "stencil", "noise", "rounding", "slope", "third")))
        estimator = AutoEpsilon(lines=8)
        key = derive("noise report", self.options.seed)
        choice: Choice = query(self.space, estimator, self.loss, key, estimator.init()).state.choice
        parameters = self.space.layout.dim
        self.record.append({"kind": "noise-level", **self.place, **choice._asdict(), "parameters": parameters})
        return choice

    @cached_property
    def keys(self) -> list[int]:
        """The key of every line."""
        return [derive("lines", self.options.seed, line) for line in range(self.options.lines)]

    @cached_property
    def slopes(self) -> Tensor:
        """D_1 along every line, from one backward pass: u . grad f, u drawn again block by block."""
        self.space.module.zero_grad(set_to_none=True)
        self.loss().mean().backward()
        lines = (Combination((Term(Gaussian(), key, torch.ones(1, dtype=torch.float64)),)) for key in self.keys)
        shown = bar(lines, desc="slopes", unit="line", total=len(self.keys))
        slopes = torch.tensor([self.space.dot(line) for line in shown], dtype=torch.float64)
        self.space.module.zero_grad(set_to_none=True)
        return slopes

    def at(self, epsilon: float) -> Row:
        """Return the row of one epsilon: errors of the coefficients, and what they say of the bias."""
        kept = self.record.find(kind="noise-report", epsilon=epsilon)
        if kept:
            return kept[-1]
        slopes, estimator = self.slopes, LineEstimator(Gaussian(), CentralStencil(), epsilon)
        coefficients = []
        speed = Speed()
        with bar(self.keys, desc=f"epsilon {epsilon:.3g}", unit="line") as shown:
            for key in shown:
                plan, began = estimator.ask(key, ()), time.perf_counter()
                losses = self.space.losses(self.loss, plan)
                speed.see(plan.queries, time.perf_counter() - began)
                coefficients.append(float((plan.weights * losses).sum()))
                shown.set_postfix_str(f"loss {float(losses.mean()):.3f}, {speed}", refresh=False)
        delta, square = torch.tensor(coefficients, dtype=torch.float64) - slopes, float(slopes.square().mean())
        along, share = delta * slopes / square, delta.square() / square
        measured = {
            "gradient_norm": math.sqrt(square),
            "relative_error": math.sqrt(float(share.mean())),
            "relative_error_error": _root_error(share),
            "along_gradient": along.mean(),
            "along_gradient_error": along.std() / math.sqrt(len(along)),
        }
        place = {"kind": "noise-report", **self.place, "epsilon": epsilon, "lines": self.options.lines}
        self.record.append({**place, **measured})
        return self.record.rows[-1]


def _root_error(square: Tensor) -> float:
    mean = float(square.mean())
    return float(square.std()) / math.sqrt(len(square)) / (2 * math.sqrt(mean)) if mean > 0 else 0.0


def table(rows: list[Row], choice: Choice, parameters: int) -> str:
    """Return the rows as text, with the sentence they add up to."""
    lines = [
        f"noise of one evaluation {choice.noise:.2g}, of its rounding {choice.rounding:.2g}; "
        f"rms D_1 {choice.slope:.3g}, D_3 {choice.third:.3g}; recommended epsilon {choice.epsilon:.3g}",
        f"{'epsilon':>10}{'|error| / |D_1|, a bound on the bias':>40}{'bias along the gradient':>28}",
    ]
    for row in rows:
        bound = f"{row['relative_error']:.3g} +- {row['relative_error_error']:.1g}"
        along = f"{row['along_gradient']:+.2g} +- {row['along_gradient_error']:.1g}"
        lines.append(f"{row['epsilon']:10.3g}{bound:>40}{along:>28}")
    near = min(rows, key=lambda row: abs(math.log(row["epsilon"] / 1e-3)))
    lines.append(
        f"at epsilon {near['epsilon']:.3g} the bias that a kernel could remove is at most {near['relative_error']:.2g} "
        "of the gradient, noise included"
    )
    return "\n".join([*lines, expected_cosines(parameters)])


def expected_cosines(parameters: int) -> str:
    """Return in words the cosine of an estimate with the gradient that is to be expected, f locally linear."""
    told = []
    for n in (1, 1000):
        square = theory.cosine(LineEstimator(Gaussian(), CentralStencil(), 1e-3, n), parameters)
        told.append(f"{theory.mean_cosine(parameters, n):.2g} (root mean square {square:.2g}) along {n:,}")
    return (
        f"to expect in {parameters:,} weights, and no fault: a cosine of an estimate with the gradient of "
        f"{' and '.join(told)} Gaussian directions"
    )
