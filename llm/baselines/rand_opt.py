"""RandOpt: random guesses around the weights, of which the best vote."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from llm.baselines.baseline import Baseline, BaselineSetting, Outcome
from llm.objective import Encoded, Measured, measured
from zobench import Gaussian, InForwardSpace, Plan, derive
from zobench.numbers import count, real, store


@dataclass(frozen=True)
class RandOpt(Baseline):
    """n models x + sigma u_i, u_i ~ N(0, I), are measured on the training examples; the `best` of them, by accuracy and
    then by loss, vote on each answer, ties decided by their mean probability. No step is taken.

    Cost: n forward passes of the training examples, and `best` of dev and of test: prediction is not free. The weights
    are perturbed where layers read them, so that they stay as they are. The loss is that of the mean probability.
    Source: arXiv 2603.12228; compare at equal forward passes.

    Raises:
        ValueError: n or best is no positive integer, best is above n, or sigma is not positive.
    """

    n: int = 30
    best: int = 5
    sigma: float = 1e-3
    about: ClassVar[str] = "guesses x + sigma u around the weights: the best on train vote (n=30, best=5, sigma=1e-3)"

    def __post_init__(self) -> None:
        n = count("n", self.n, "give the number of guesses, from 1")
        best = count("best", self.best, "give the number of guesses that vote, from 1")
        if best > n:
            raise ValueError(f"best is {best}, but there are n = {n} guesses: give at most {n}")
        sigma = real("sigma", self.sigma, "give the standard deviation of a guess, such as 1e-3", lambda s: s > 0)
        store(self, n=n, best=best, sigma=sigma)

    def check_setting(self, setting: BaselineSetting) -> None:
        if any(row.example is None or not row.example.candidates for row in (*setting.train, *setting.test)):
            raise ValueError("randopt votes on candidates, but answers of this task are generated: give another method")

    def measure(self, setting: BaselineSetting) -> Outcome:
        space = InForwardSpace(setting.objective.language_model.model)
        fitted = [self._at(space, setting, guess, setting.train) for guess in range(self.n)]
        ranked = sorted(range(self.n), key=lambda guess: (-fitted[guess].accuracy, fitted[guess].loss))
        chosen = ranked[: self.best]
        dev, test = (self._vote(space, setting, chosen, rows) for rows in (setting.dev, setting.test))
        return Outcome(dev, test, {"guesses": chosen, "train_accuracy": fitted[chosen[0]].accuracy})

    def _at(self, space: InForwardSpace, setting: BaselineSetting, guess: int, rows: list[Encoded]) -> Measured:
        """The measurement of a guess, evaluated as one point on a line."""
        results: list[Measured] = []

        def loss() -> Tensor:
            results.append(setting.objective.measure(rows))
            return torch.tensor(results[-1].loss, dtype=torch.float64)

        offset = torch.full((1, 1), self.sigma, dtype=torch.float64)
        space.losses(loss, Plan(Gaussian(), derive("randopt", setting.seed, guess), offset, torch.zeros_like(offset)))
        space.settle_()
        return results[-1]

    def _vote(
        self, space: InForwardSpace, setting: BaselineSetting, guesses: list[int], rows: list[Encoded]
    ) -> Measured:
        each = [self._at(space, setting, guess, rows) for guess in guesses]
        scores = torch.stack([one.scores.double() for one in each if one.scores is not None])
        probabilities = scores.softmax(-1).mean(0)
        votes = torch.nn.functional.one_hot(scores.argmax(-1), scores.shape[-1]).sum(0)
        labels = each[0].labels
        loss = -float(probabilities[torch.arange(len(labels)), labels].log().mean())
        known = [row.example for row in rows]
        ranked = torch.where(scores[0].isfinite(), votes + probabilities / 2, -torch.inf)
        return measured(each[0].metric, loss, labels, known, scores=ranked, common=each[0].common)
