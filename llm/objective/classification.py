"""Candidate classification, and what every objective shares: tokenising, measuring."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional

from llm.generation import MAX_NEW_TOKENS
from llm.logits import position_limit
from llm.models import LanguageModel
from llm.objective.encoding import Encoded, Encoder, require_distinct, require_labelled
from llm.objective.measured import Measured, measured, parts
from llm.objective.scoring import candidate_scores
from llm.tasks import Example


class Judged(NamedTuple):
    """A batch after evaluation: losses (examples,), or None where scores say them; scores (examples, candidates), or
    None where answers are generated; the answers as texts, or None where scores say them.
    """

    losses: Tensor | None
    scores: Tensor | None
    answers: list[str | None] | None


@dataclass(frozen=True, eq=False)
class Objective:
    """Candidate classification: score_c = mean over the tokens of candidate c of log p(token | prompt, tokens before);
    loss = cross-entropy of the scores. The answer is the candidate of the greatest score.

    `candidates` are those of every example, or None where each example has its own. Logits are computed only at the
    positions that are scored, and the loss in float32.
    """

    language_model: LanguageModel
    candidates: tuple[tuple[int, ...], ...] | None
    max_tokens: int
    bos: int | None = None
    metric: str = "accuracy"

    differentiable: ClassVar[bool] = True
    fewest: ClassVar[int] = 2

    @classmethod
    def of(
        cls,
        language_model: LanguageModel,
        candidates: Sequence[str] | None,
        max_tokens: int,
        bos: int | None = None,
        metric: str = "accuracy",
    ) -> Self:
        """Return the objective over these candidate strings, or over each example's own.

        Args:
            language_model: what is trained or measured.
            candidates: those of all examples, or None.
            max_tokens: prompts are cut from the left to so many, the first special token kept.
            bos: id of the first token in place of the tokenizer's; 0 is MeZO's choice for OPT, whose own is 2.
            metric: a name in `llm.metrics.METRICS`.

        Raises:
            ValueError: a candidate tokenises to nothing, two to the same, or the model cannot read `max_tokens`.
        """
        objective = cls(language_model, None, max_tokens, bos, metric)
        if not candidates:
            objective._require_room(0)
            return objective
        known = objective.encoder.continuations(candidates)
        tokens = tuple(known[text] for text in candidates)
        require_distinct(candidates, tokens)
        objective._require_room(max(map(len, tokens)))
        return cls(language_model, tokens, max_tokens, bos, metric)

    @property
    def encoder(self) -> Encoder:
        """What makes tokens of texts."""
        return Encoder(self.language_model.tokenizer, self.max_tokens, self.bos, self.language_model.masked)

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """Return the tokenised examples, prompts cut from the left with the first special token kept.

        Raises:
            ValueError: there is no example, or one whose prompt or candidates cannot be read.
        """
        if not examples:
            raise ValueError("the data set is empty")
        prompts = self.encoder.prompts([example.prompt for example in examples])
        if self.candidates:
            return [Encoded(ids, e.label, (), e) for ids, e in zip(prompts, examples, strict=True)]
        for example in examples:
            require_labelled(example, self.fewest)
        known = self.encoder.continuations(c for example in examples for c in example.candidates)
        rows = []
        for ids, example in zip(prompts, examples, strict=True):
            tokens = tuple(known[text] for text in example.candidates)
            require_distinct(example.candidates, tokens)
            rows.append(Encoded(ids, example.label, tokens, example))
        generated = MAX_NEW_TOKENS if any(len(row.candidates) == 1 for row in rows) else 0
        self._require_room(max(generated, *(len(c) for row in rows for c in row.candidates)))
        return rows

    def options(self, row: Encoded) -> Sequence[Sequence[int]]:
        """Return the tokens of the candidates of an example."""
        return row.candidates or self.candidates or ()

    def scores(self, batch: Sequence[Encoded], normalised: bool = False) -> Tensor:
        """Return the candidates' scores, float32 (examples, most candidates), -inf where an example has fewer.

        Cost: one forward pass. `candidate_scores` says what `normalised` means.
        """
        prompts, candidates = [row.tokens for row in batch], [self.options(row) for row in batch]
        return candidate_scores(self.language_model, prompts, candidates, normalised)

    def losses(self, batch: Sequence[Encoded]) -> Tensor:
        """Return the loss of each example, float32 (examples,). Cost: one forward pass."""
        labels = torch.tensor([row.label for row in batch], device=self.language_model.device)
        return functional.cross_entropy(self.scores(batch), labels, reduction="none")

    def judge(self, batch: Sequence[Encoded]) -> Judged:
        """Return what an evaluation keeps of a batch."""
        return Judged(None, self.scores(batch), None)

    @torch.no_grad()
    def measure(self, examples: Sequence[Encoded], batch_size: int = 64) -> Measured:
        """Return mean loss and metric over the examples, in batches of similar length."""
        counts = [len(self.options(row)) for row in examples]
        scores = torch.full((len(examples), max(counts)), -torch.inf, dtype=torch.float32)
        losses = torch.empty(len(examples), dtype=torch.float32)
        answers: list[str | None] = [None] * len(examples)
        judged = Judged(None, None, None)
        lengths = [len(row.tokens) + sum(len(c) - 1 for c in self.options(row)) for row in examples]
        for part in parts([len(row.tokens) for row in examples], lengths, batch_size):
            judged = self.judge([examples[i] for i in part])
            if judged.losses is not None:
                losses[part] = judged.losses.cpu()
            if judged.scores is not None:
                scores[part, : judged.scores.shape[1]] = judged.scores.cpu()
            for i, text in zip(part, judged.answers or (), strict=False):
                answers[i] = text
        labels = torch.tensor([row.label for row in examples])
        loss = functional.cross_entropy(scores, labels) if judged.losses is None else losses.mean()
        known = [row.example for row in examples]
        if judged.scores is None:
            return measured(self.metric, float(loss), labels, known, answers=answers)
        return measured(self.metric, float(loss), labels, known, scores=scores, common=self.candidates is not None)

    def _require_room(self, beyond: int) -> None:
        """Refuse prompts which the model cannot read together with so many tokens after them."""
        beyond = 0 if self.language_model.masked else beyond
        limit = position_limit(self.language_model) or self.max_tokens + beyond
        if self.max_tokens < 2 or self.max_tokens + beyond > limit:
            raise ValueError(
                f"max_tokens is {self.max_tokens} and up to {beyond} follow: {self.language_model.name} reads 2 to "
                f"{limit} tokens in all"
            )
