"""The objective: cross-entropy over the candidates' mean log-probabilities, and accuracy by their argmax."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from llm.models import LanguageModel
from llm.tasks import Example


class Encoded(NamedTuple):
    """One tokenised prompt and the index of its candidate."""

    tokens: list[int]
    label: int


class Measured(NamedTuple):
    """Mean loss (nats) and accuracy over a set of examples, with the candidates' scores (examples, candidates)."""

    loss: float
    accuracy: float
    scores: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class Objective:
    """score_c = mean over the tokens of candidate c of log p(token | prompt, tokens before); loss = cross-entropy of
    the scores.

    Where every candidate is one token, one forward of the prompt serves them all: scores then differ from the
    definition by the normaliser, which is the same for all candidates and cancels in the loss. Otherwise each candidate
    is a row of its own. Logits are computed only at the positions that are scored, and the loss in float32.
    """

    language_model: LanguageModel
    candidates: tuple[tuple[int, ...], ...]
    max_tokens: int

    @classmethod
    def of(cls, language_model: LanguageModel, candidates: Sequence[str] | None, max_tokens: int) -> "Objective":
        """Return the objective over these candidate strings; prompts are cut from the left to `max_tokens`, BOS kept.

        Raises:
            ValueError: a candidate tokenises to nothing, two to the same, or the model cannot read `max_tokens`.
        """
        if candidates is None:
            raise ValueError("the examples of this task have candidates of their own, which cannot be scored yet")
        tokenize = language_model.tokenizer
        tokens = [tuple(tokenize(c, add_special_tokens=False)["input_ids"]) for c in candidates]
        for text, ids in zip(candidates, tokens, strict=True):
            if not ids:
                raise ValueError(f"candidate {text!r} tokenises to nothing: give a candidate with at least one token")
        if len(set(tokens)) < len(tokens):
            raise ValueError(f"candidates {tuple(candidates)} are not distinct as tokens: {tokens}")
        longest = max_tokens + max(map(len, tokens))
        limit = getattr(language_model.model.config, "max_position_embeddings", longest)
        if max_tokens < 2 or longest > limit:
            raise ValueError(f"max_tokens is {max_tokens}: {language_model.name} reads 2 to {limit} tokens in all")
        return cls(language_model, tuple(tokens), max_tokens)

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """Return the tokenised prompts, cut from the left with BOS kept."""
        if not examples:
            raise ValueError("the data set is empty")
        tokenizer = self.language_model.tokenizer
        rows = tokenizer([example.prompt for example in examples])["input_ids"]
        kept = 1 if rows[0][:1] == [tokenizer.bos_token_id] else 0
        cut = [ids if len(ids) <= self.max_tokens else ids[:kept] + ids[kept - self.max_tokens :] for ids in rows]
        return [Encoded(ids, example.label) for ids, example in zip(cut, examples, strict=True)]

    def scores(self, batch: Sequence[Encoded]) -> Tensor:
        """Return the candidates' scores, float32 (examples, candidates). Cost: one forward pass."""
        if all(len(c) == 1 for c in self.candidates):
            last = [(i, len(row.tokens) - 1) for i, row in enumerate(batch)]
            return self._logits([row.tokens for row in batch], last, [c[0] for c in self.candidates])
        rows = [row.tokens + list(c) for row in batch for c in self.candidates]
        starts = [len(row.tokens) for row in batch for _ in self.candidates]
        places = [
            (i, t - 1) for i, (row, start) in enumerate(zip(rows, starts, strict=True)) for t in range(start, len(row))
        ]
        targets = torch.tensor([rows[i][t + 1] for i, t in places], device=self.language_model.device)
        owners = torch.tensor([i for i, _ in places], device=targets.device)
        chosen = self._logits([row[:-1] for row in rows], places).log_softmax(-1).gather(1, targets[:, None])[:, 0]
        total = chosen.new_zeros(len(rows)).index_add(0, owners, chosen)
        lengths = torch.tensor([len(c) for c in self.candidates], device=total.device)
        return total.view(len(batch), -1) / lengths

    def losses(self, batch: Sequence[Encoded]) -> Tensor:
        """Return the cross-entropy of each example, float32 (examples,)."""
        labels = torch.tensor([row.label for row in batch], device=self.language_model.device)
        return functional.cross_entropy(self.scores(batch), labels, reduction="none")

    @torch.no_grad()
    def measure(self, examples: Sequence[Encoded], batch_size: int = 64) -> Measured:
        """Return loss and accuracy over the examples, in batches of similar length."""
        order = sorted(range(len(examples)), key=lambda i: len(examples[i].tokens))
        scores = torch.empty(len(examples), len(self.candidates))
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            scores[part] = self.scores([examples[i] for i in part]).cpu()
        labels = torch.tensor([row.label for row in examples])
        loss = functional.cross_entropy(scores, labels)
        right = (scores.argmax(1) == labels).double()
        right[~scores.isfinite().all(1)] = torch.nan  # no answer is not a wrong answer, let alone a right one
        return Measured(float(loss), float(right.mean()), scores, labels)

    def _logits(
        self, rows: list[list[int]], places: list[tuple[int, int]], tokens: list[int] | slice = slice(None)
    ) -> Tensor:
        """Float32 logits of `tokens` at (row, position) places, right-padded: under the causal mask no text sees the
        padding.
        """
        model, device = self.language_model.model, self.language_model.device
        longest = max(map(len, rows))
        pad = self.language_model.tokenizer.pad_token_id or 0
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
        inputs = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
        row, position = torch.tensor(places, device=device).T
        if _plain_head(model):
            states = model.base_model(**inputs).last_hidden_state[row, position]
            return functional.linear(states, model.get_output_embeddings().weight[tokens]).float()
        return model(**inputs).logits[row, position][:, tokens].float()


def _plain_head(model: Any) -> bool:
    """Whether logits are the output embedding of the last hidden state and nothing else."""
    scaled = ("final_logit_softcapping", "logit_scale", "logits_scaling")
    known = isinstance(model, PreTrainedModel) and model.config.model_type in ("opt", "llama", "gpt2", "qwen2", "qwen3", "mistral")
    head = model.get_output_embeddings()
    return known and head.bias is None and not any(getattr(model.config, name, None) for name in scaled)


def calibrated_accuracy(fitted: Measured, judged: Measured) -> float:
    """Return the accuracy of `judged` after scores were shifted by what `fitted` (training rows) says.

    Two candidates: the threshold on their score difference that is most accurate on `fitted`. More: each candidate's
    mean score is subtracted (batch calibration, Zhou et al. 2023).
    """
    if fitted.scores.shape[1] != 2:
        predicted = (judged.scores - fitted.scores.mean(0)).argmax(1)
        return float((predicted == judged.labels).double().mean())
    margin = (fitted.scores[:, 1] - fitted.scores[:, 0]).double()
    order = margin.sort().values
    thresholds = torch.cat((order[:1] - 1, (order[1:] + order[:-1]) / 2, order[-1:] + 1))
    hits = ((margin[None, :] > thresholds[:, None]).long() == fitted.labels).sum(1)
    best = thresholds[int(hits.argmax())]
    predicted = ((judged.scores[:, 1] - judged.scores[:, 0]).double() > best).long()
    return float((predicted == judged.labels).double().mean())
