"""The zeroth-order trainer: an estimator, a module space and SGD; forward passes only."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from zobench import SGD, AutoEpsilon, Combination, Estimator, ModuleSpace, query
from zobench.auto import Choice
from zobench.records import Row
from zobench.rule import Schedule
from zobench.space import require_resolved


class ZerothOrder:
    """Takes steps on a model in place, and replays those that rows recorded.

    Raises:
        ValueError: epsilon is below the resolution of the weights.
    """

    def __init__(self, model: nn.Module, estimator: Estimator, rate: Schedule, weight_decay: float) -> None:
        self.estimator, self.space = estimator, ModuleSpace(model)
        if not isinstance(estimator, AutoEpsilon):
            require_resolved(self.space, estimator.epsilon)
        self.rule = SGD(rate, weight_decay)
        self.memory, self.state = self.rule.init(self.space), estimator.init()
        self.identity = repr(estimator)
        self.forward_passes = self.backward_passes = 0

    @property
    def steps(self) -> int:
        """Steps taken."""
        return int(self.memory)

    def step(self, key: int, losses: Callable[[], Tensor]) -> Row:
        """Take one step and return its row: what replay needs, and the mean loss of the points looked at.

        Raises:
            FloatingPointError: a loss or a coefficient is not finite; the weights are those before the step.
        """
        probing = isinstance(self.estimator, AutoEpsilon) and self.estimator.due(self.state)
        told = query(self.space, self.estimator, losses, key, self.state)
        self.forward_passes += told.info["queries"]
        seen = told.info["losses"]
        if not bool(seen.isfinite().all()):
            self.space.settle_()
            raise FloatingPointError(f"losses {seen.flatten().tolist()} at step {self.steps}: lower --lr or --epsilon")
        assert told.gradient is not None  # query returns only then
        lr = self.rule.rate(self.memory)
        self.memory = self.rule.apply_(self.space, told.gradient, self.memory)
        self.state = told.state
        coefficients = told.info["coefficients"].tolist()
        row = {"train_loss": float(seen.mean()), "lr": lr, "key": key, "coefficients": coefficients}
        return {**row, "epsilon": told.info["epsilon"], "choice": told.info["choice"]} if probing else row

    def replay(self, rows: list[Row]) -> int:
        """Take recorded steps again without a forward pass; return the number of the next step.

        Each walks to its points as it did then, so that the weights round as they did, and tells the estimator, so that
        its state goes on: the result is equal to the bit.
        """
        for row in rows:
            if row.get("choice"):
                self._probed(row["key"], Choice(*row["choice"]))
            plan = self.estimator.ask(row["key"], self.state)
            told = self.estimator.tell(plan, self.space.losses(lambda: 0.0, plan), self.state)
            assert told.gradient is not None  # a row is one round
            (term,) = told.gradient.terms
            coefficients = torch.tensor(row["coefficients"], dtype=torch.float64)
            gradient = Combination((term._replace(coefficients=coefficients),))
            self.memory, self.state = self.rule.apply_(self.space, gradient, self.memory), told.state
            self.forward_passes = row["forward_passes"]
        return len(rows)

    def _probed(self, key: int, choice: Choice) -> None:
        """Walk to the points of a recorded probe, and make its choice again."""
        assert isinstance(self.estimator, AutoEpsilon)
        for reaches in choice.rounds:
            self.space.losses(lambda: 0.0, self.estimator.probe(key, reaches))
        self.state = self.estimator.resumed(self.steps, choice)
