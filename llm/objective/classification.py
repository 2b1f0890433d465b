"""Candidate classification, and what every objective shares: tokenising, measuring."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional

from llm.model.language_model import LanguageModel
from llm.model.logits import position_limit, vocabulary_size
from llm.objective.chat import rendered
from llm.objective.encoding import Encoded, Encoder, require_distinct, require_labelled
from llm.objective.measured import Measured, chosen, measured, parts
from llm.objective.scoring import candidate_scores
from llm.tasks import Example
from llm.tasks.task import LINE, REWARD, Writing
from zobench.layout import on_device
from zobench.run.progress import bar

Reward = Callable[[str, Example], float]
"""(answer, example) -> a number from 0 to 1, the greater the better."""


class Judged(NamedTuple):
    """A batch after evaluation: losses (examples,), or None if they follow from the scores; scores (examples,
    candidates), or None if answers are generated; the answers as texts, or None if they follow from the scores.
    """

    losses: Tensor | None
    scores: Tensor | None
    answers: list[str | None] | None


@dataclass(frozen=True, eq=False)
class Objective:
    """Candidate classification: score_c = mean over the tokens of candidate c of log p(token | prompt, tokens before);
    loss = cross-entropy of the scores. The answer is the candidate of the greatest score.

    `candidates` are those of every example, or None where each example has its own. Logits are computed only at the
    positions that are scored, and the loss in float32, or in float64 of a float64 model.
    """

    language_model: LanguageModel
    candidates: tuple[tuple[int, ...], ...] | None
    max_tokens: int | None = None
    bos: int | None = None
    metric: str = "accuracy"
    writing: Writing = LINE
    reward: Reward | None = None

    differentiable: ClassVar[bool] = True
    fewest: ClassVar[int] = 2

    @classmethod
    def of(
        cls,
        language_model: LanguageModel,
        candidates: Sequence[str] | None,
        max_tokens: int | None = None,
        bos: int | None = None,
        metric: str = "accuracy",
        writing: Writing = LINE,
        reward: Reward | None = None,
    ) -> Self:
        """Return the objective over these candidate strings, or over each example's own.

        Args:
            language_model: what is trained or measured.
            candidates: those of all examples, or None.
            max_tokens: prompts are cut from the left to this many tokens and keep the first special token; None: to the
                number that the model reads, less the tokens that follow.
            bos: id of the first token in place of the tokenizer's; 0 is MeZO's choice for OPT, whose own is 2.
            metric: a name in `llm.objective.metrics.METRICS`.
            writing: bounds of answers that are generated.
            reward: what the metric "reward" is the mean of.

        Raises:
            ValueError: `bos` is no token of the model, a candidate tokenises to nothing, two to the same, or the model
                cannot read `max_tokens`.
        """
        known_tokens = vocabulary_size(language_model)
        if bos is not None and not 0 <= bos < known_tokens:
            raise ValueError(f"bos is {bos}: give the id of a token, from 0 to {known_tokens - 1}, or leave --bos out")
        objective = cls(language_model, None, max_tokens, bos, metric, writing, reward)
        if not candidates:
            objective._room(0)
            return objective
        known = objective.encoder.continuations(candidates)
        tokens = tuple(known[text] for text in candidates)
        require_distinct(candidates, tokens)
        objective._require_known(candidates, tokens)
        objective._room(max(map(len, tokens)))
        return cls(language_model, tokens, max_tokens, bos, metric, writing, reward)

    @property
    def encoder(self) -> Encoder:
        """The encoder, which turns texts into tokens."""
        return Encoder(self.language_model.tokenizer, self.max_tokens, self.bos, self.language_model.masked)

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """Return the tokenised examples, prompts cut from the left with the first special token kept.

        Raises:
            ValueError: there is no example, or one whose prompt or candidates cannot be read.
        """
        if not examples:
            raise ValueError("the data set is empty")
        shown = rendered(self.language_model.tokenizer, examples, self.language_model.name)
        texts = [example.prompt for example in shown]
        whole = self.encoder.whole(texts)
        self._require_known(texts, whole)
        pairs = zip(whole, examples, self._own_candidates(shown), strict=True)
        rows = [Encoded(ids, example.label, own, example, len(ids)) for ids, example, own in pairs]
        cut = self.encoder.cut(texts, whole, [self.room(row) for row in rows])
        return [row._replace(tokens=ids) for row, ids in zip(rows, cut, strict=True)]

    def room(self, row: Encoded) -> int | None:
        """Return the largest number of tokens that the prompt of an example may have, None if there is no bound.

        Raises:
            ValueError: the model cannot read `max_tokens` and what follows.
        """
        lengths = list(map(len, self.options(row)))
        return self._room(max(self.writing.tokens if len(lengths) == 1 else 0, *lengths))

    def _own_candidates(self, examples: Sequence[Example]) -> list[tuple[tuple[int, ...], ...]]:
        """The tokens of the candidates of each example, none where all share the objective's."""
        if self.candidates:
            return [()] * len(examples)
        for example in examples:
            require_labelled(example, self.fewest)
        known = self.encoder.continuations(c for example in examples for c in example.candidates)
        self._require_known(list(known), list(known.values()))
        found = []
        for example in examples:
            tokens = tuple(known[text] for text in example.candidates)
            require_distinct(example.candidates, tokens)
            found.append(tokens)
        return found

    def options(self, row: Encoded) -> Sequence[Sequence[int]]:
        """Return the tokens of the candidates of an example."""
        return row.candidates or self.candidates or ()

    def scores(self, batch: Sequence[Encoded], normalised: bool = False) -> Tensor:
        """Return the candidates' scores, (examples, most candidates), -inf where an example has fewer.

        Cost: one forward pass. `candidate_scores` says what `normalised` means.
        """
        prompts, candidates = [row.tokens for row in batch], [self.options(row) for row in batch]
        return candidate_scores(self.language_model, prompts, candidates, normalised)

    def losses(self, batch: Sequence[Encoded]) -> Tensor:
        """Return the loss of each example, (examples,). Cost: one forward pass."""
        labels = on_device([row.label for row in batch], self.language_model.device)
        return functional.cross_entropy(self.scores(batch), labels, reduction="none")

    def judge(self, batch: Sequence[Encoded]) -> Judged:
        """Return losses, scores or answers of a batch, from which an evaluation is made."""
        return Judged(None, self.scores(batch), None)

    @torch.no_grad()
    def measure(self, examples: Sequence[Encoded], batch_size: int = 64) -> Measured:
        """Return mean loss and metric over the examples, in batches of similar length."""
        counts = [len(self.options(row)) for row in examples]
        scores = torch.full((len(examples), max(counts)), -torch.inf, dtype=self.language_model.wide)
        losses = torch.empty(len(examples), dtype=self.language_model.wide)
        answers: list[str | None] = [None] * len(examples)
        judged = Judged(None, None, None)
        lengths = [len(row.tokens) + sum(len(c) - 1 for c in self.options(row)) for row in examples]
        with bar(total=len(examples), desc="evaluation", unit="example", delay=2, leave=False) as shown:
            for part in parts([len(row.tokens) for row in examples], lengths, batch_size):
                judged = self.judge([examples[i] for i in part])
                if judged.losses is not None:
                    losses[part] = judged.losses.cpu()
                if judged.scores is not None:
                    scores[part, : judged.scores.shape[1]] = judged.scores.cpu()
                for i, text in zip(part, judged.answers or (), strict=False):
                    answers[i] = text
                shown.update(len(part))
        labels = torch.tensor([row.label for row in examples])
        loss = functional.cross_entropy(scores, labels) if judged.losses is None else losses.mean()
        known = [row.example for row in examples]
        if self.metric == REWARD:
            texts = answers if judged.scores is None else chosen(scores, known)
            return self._rewarded(float(loss), labels, known, texts)
        if judged.scores is None:
            return measured(self.metric, float(loss), labels, known, answers=answers)
        return measured(self.metric, float(loss), labels, known, scores=scores, common=self.candidates is not None)

    def _rewarded(
        self, loss: float, labels: Tensor, examples: Sequence[Example | None], answers: Sequence[str | None]
    ) -> Measured:
        """The mean reward, and the share of answers whose reward is 1; NaN where the model gave an answer no number."""
        assert self.reward is not None
        pairs = zip(answers, examples, strict=True)
        found = [math.nan if text is None or e is None else self.reward(text, e) for text, e in pairs]
        mean, solved = sum(found) / len(found), sum(value >= 1 for value in found) / len(found)
        return Measured(loss, mean, None, labels, REWARD, {"solved": solved}, False)

    def _room(self, beyond: int) -> int | None:
        """The most tokens of a prompt after which so many more follow."""
        beyond = 0 if self.language_model.masked else beyond
        limit, name = position_limit(self.language_model), self.language_model.name
        if self.max_tokens is None:
            if limit is not None and limit - beyond < 2:
                raise ValueError(
                    f"{beyond} tokens follow a prompt, but {name} reads {limit} tokens in all: give shorter candidates"
                )
            return None if limit is None else limit - beyond
        limit = limit or self.max_tokens + beyond
        if self.max_tokens < 2 or self.max_tokens + beyond > limit:
            raise ValueError(
                f"max_tokens is {self.max_tokens} and up to {beyond} follow: {name} reads 2 to {limit} tokens in all"
            )
        return self.max_tokens

    def _require_known(self, texts: Sequence[str], rows: Sequence[Sequence[int]]) -> None:
        """Refuse tokens for which the model has no embedding."""
        size, name = vocabulary_size(self.language_model), self.language_model.name
        for text, ids in zip(texts, rows, strict=True):
            if ids and max(ids) >= size:
                token = self.language_model.tokenizer.convert_ids_to_tokens(max(ids))
                raise ValueError(
                    f"{text[-60:]!r} has the token {token!r} ({max(ids)}), but {name} has embeddings of {size} tokens: "
                    "give the tokenizer that belongs to it, or resize the embeddings"
                )
