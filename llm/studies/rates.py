"""Learning rates chosen on development data, and steps that cost alike."""

import math
from collections.abc import Callable, Iterable, Sequence

from llm.options.train import TrainOptions
from llm.steppers.method import TrainingMethod
from zobench.run.progress import warn
from zobench.run.records import Row, Run

BACKWARD = 2
"""Forward passes that a backward pass costs, as usually counted: gradients of activations and of weights."""


def chosen_rate(record: Run, method: str, rates: Sequence[float], loss_at: Callable[[float], float]) -> float:
    """Return the rate of least loss, and keep the choice as a row; one at an edge of the rates is told.

    Raises:
        ValueError: the loss is infinite at every rate.
    """
    losses = [loss_at(lr) for lr in rates]
    loss, lr = min(zip(losses, rates, strict=True))
    if not math.isfinite(loss):
        raise ValueError(f"{method} diverged at every learning rate of {tuple(rates)}: give smaller learning rates")
    kept, row = record.find(kind="chosen", method=method), {"lr": lr, "rates": list(rates), "dev_losses": losses}
    if not kept or kept[-1]["lr"] != lr:
        record.append({"kind": "chosen", "method": method, **row})
    if at_edge := edge(lr, rates):
        warn(
            f"{method}: {at_edge}. The best rate may lie beyond, and reports do not compare this method: "
            "give more learning rates"
        )
    return lr


def edge(lr: float, rates: Sequence[float]) -> str:
    """Return which edge of the rates tried the chosen one is, in words; empty inside."""
    if len(set(rates)) == 1:
        return f"only one learning rate was tried, {lr:g}"
    ends = {min(rates): "smallest", max(rates): "largest"}
    return f"the best learning rate, {lr:g}, is the {ends[lr]} tried" if lr in ends else ""


def beyond(lr: float, rates: Sequence[float]) -> float | None:
    """Return the rate to try next where the best one is at an edge of the rates: as far beyond it as its neighbour is
    within; None where it is inside, or there is one rate only.
    """
    ordered = sorted(set(rates))
    if len(ordered) < 2 or lr not in (ordered[0], ordered[-1]):
        return None
    neighbour = ordered[1] if lr == ordered[0] else ordered[-2]
    return float(f"{lr * lr / neighbour:.2g}")


def mean_dev_loss(finals: Iterable[Row], last: int = 1) -> float:
    """Return the mean dev loss of runs, infinite if one diverged: of each its final one, or the mean of the `last`
    evaluations of its learning curve. A rate that falls to 0 hides in the final loss how unsteady a run was.
    """
    losses = [_dev_loss(row, last) for row in finals]
    return sum(losses) / len(losses)


def _dev_loss(row: Row, last: int) -> float:
    losses = [row["dev_loss"]] if last == 1 else [loss for _, loss, _ in row["curve"][-last:]]
    return math.inf if None in losses or row["status"] != "ok" else sum(losses) / len(losses)


def forward_passes_a_step(method: str, epsilon: float | str, **sizes: int | None) -> int:
    """Return the forward passes that a step costs: loss evaluations, or a forward pass and a backward one as BACKWARD.

    Probes of an automatic epsilon come on top, and are counted in rows. `sizes` are batch, train and anchor_examples:
    a loss of all training examples counts one pass for each minibatch's worth of them.

    Raises:
        ValueError: steps of the method cost differently, and it declares no number to count.
    """
    options = TrainOptions(method=method, epsilon=epsilon, **sizes)  # type: ignore[arg-type]
    return TrainingMethod.parse(method).forward_passes_a_step(options, BACKWARD)
