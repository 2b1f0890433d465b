"""Language-model loss on the answer, and losses of the answers themselves, which have no gradient."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from llm.model.generation import greedy
from llm.objective import metrics
from llm.objective.classification import Judged, Objective, Reward
from llm.objective.encoding import Encoded
from llm.objective.measured import choices, chosen, right_answers
from llm.objective.scoring import answer_log_probs
from llm.tasks import Example
from llm.tasks.task import LINE
from zobench.layout import on_device

Losses = Callable[[Sequence[str], Sequence[Example]], Sequence[float] | Tensor]
"""(answers, examples) -> the loss of each example."""


@dataclass(frozen=True, eq=False)
class AnswerObjective(Objective):
    """loss = - mean over the tokens of the right answer of log p(token | prompt, tokens before).

    The right answer is candidates[label]. Examples with several candidates are answered by the best of them, those with
    one by greedy generation.
    """

    fewest: ClassVar[int] = 1

    def losses(self, batch: Sequence[Encoded]) -> Tensor:
        right = [self.options(row)[row.label] for row in batch]
        return -answer_log_probs(self.language_model, [row.tokens for row in batch], right)

    def judge(self, batch: Sequence[Encoded]) -> Judged:
        if _generated(self, batch):
            return Judged(self.losses(batch), None, written(self, batch))
        scores = self.scores(batch, normalised=True)
        right = on_device([row.label for row in batch], scores.device)
        return Judged(-scores.gather(1, right[:, None])[:, 0], scores, None)


@dataclass(frozen=True, eq=False)
class MetricObjective(Objective):
    """loss = a function of the answers: 1 - accuracy, 1 - F1, 1 - exact match, or any other.

    Answers are the best candidates, exactly as the examples have them (`choices`, else `candidates`), or greedily
    generated texts, stripped. The loss is piecewise constant in the weights: only methods without gradients can lower
    it. Cost of a loss: one forward pass, or for generated answers one for each new token of the longest.
    """

    loss: Losses | None = None

    differentiable: ClassVar[bool] = False
    fewest: ClassVar[int] = 1

    @torch.no_grad()
    def losses(self, batch: Sequence[Encoded]) -> Tensor:
        found = self.judge(batch).losses
        assert found is not None  # judge gives them
        return found

    def judge(self, batch: Sequence[Encoded]) -> Judged:
        examples = [_known(row) for row in batch]
        if _generated(self, batch):
            answers = written(self, batch)
            return Judged(self._of(answers, examples), None, answers)
        scores = self.scores(batch)
        return Judged(self._of(chosen(scores, examples), examples), scores, None)

    def _of(self, answers: Sequence[str | None], examples: Sequence[Example]) -> Tensor:
        """The losses of the answers, NaN where the model gave none."""
        assert self.loss is not None
        given = [(i, text) for i, text in enumerate(answers) if text is not None]
        found = torch.full((len(answers),), math.nan, dtype=self.language_model.wide)
        if given:
            values = self.loss([text for _, text in given], [examples[i] for i, _ in given])
            found[[i for i, _ in given]] = _checked(values, len(given), found.dtype)
        return found.to(self.language_model.device)


def one_minus(metric: str) -> Losses:
    """Return the loss 1 - metric, of a name in `llm.objective.metrics.METRICS`."""

    def losses(answers: Sequence[str], examples: Sequence[Example]) -> Tensor:
        if metric != "accuracy":
            return 1 - metrics.values(metric, answers, [right_answers(example) for example in examples])
        right = [text == choices(e)[e.label] for text, e in zip(answers, examples, strict=True)]
        return 1 - torch.tensor(right, dtype=torch.float64)

    return losses


def written(objective: Objective, batch: Sequence[Encoded]) -> list[str | None]:
    """Return what the model writes after each prompt; cost as `greedy`."""
    bounds = () if objective.writing == LINE else objective.writing
    return greedy(objective.language_model, [row.tokens for row in batch], *bounds)


def rewarded(reward: Reward) -> Losses:
    """Return the loss 1 - reward."""

    def losses(answers: Sequence[str], examples: Sequence[Example]) -> list[float]:
        return [1 - reward(text, example) for text, example in zip(answers, examples, strict=True)]

    return losses


def _generated(objective: Objective, batch: Sequence[Encoded]) -> bool:
    return all(len(objective.options(row)) == 1 for row in batch)


def _known(row: Encoded) -> Example:
    if row.example is None or not row.example.candidates:
        raise ValueError("this objective judges answers as texts: encode examples that have candidates")
    return row.example


def _checked(values: Sequence[float] | Tensor, count: int, dtype: torch.dtype) -> Tensor:
    found = torch.as_tensor(values, dtype=dtype).cpu()
    if found.shape != (count,) or not bool(found.isfinite().all()):
        raise ValueError(f"the objective gave {values!r} for {count} answers: give a finite loss for each")
    return found
