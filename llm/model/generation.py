"""Greedy generation: the most probable token, again and again, until a line ends."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from llm.model.compiled import eager
from llm.model.language_model import LanguageModel
from llm.model.logits import inner, learns_a_prompt, logits_at, padded, padding, takes, wide

MAX_NEW_TOKENS = 50


@torch.no_grad()
def greedy(
    language_model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int = MAX_NEW_TOKENS,
    one_line: bool = True,
    cache: bool = True,
) -> list[str | None]:
    """Return what the model writes after each prompt up to the end of text, or (`one_line`) its first line break,
    stripped.

    The prompts run as one batch and leave it as they end. With `cache` they are padded on the left and keys and values
    are kept; without it, or where the architecture takes no position ids or peft learns a prompt, whole rows padded on
    the right are read again for each token: slower, and the same tokens to rounding. None stands for an answer during
    which a logit was not finite.

    Cost: one forward pass for each new token of the longest answer.
    """
    kept = cache and takes(inner(language_model), "position_ids") and not learns_a_prompt(language_model)
    advance = _Cached(language_model, prompts) if kept else _Whole(language_model, prompts)
    answers: list[list[int]] = [[] for _ in prompts]
    broken: set[int] = set()
    ends = _Ends(language_model, one_line)
    running, going = list(range(len(prompts))), list(range(len(prompts)))
    latest = torch.empty(0, dtype=torch.long, device=language_model.device)
    with eager(language_model.model):
        for _ in range(max_new_tokens):
            logits = advance(latest, going)
            latest = logits.argmax(-1)
            finite = logits.amax(-1).isfinite().tolist()
            broken |= {i for i, ok in zip(running, finite, strict=True) if not ok}
            for i, token in zip(running, latest.tolist(), strict=True):
                answers[i].append(token)
            going = [k for k, i in enumerate(running) if i not in broken and not ends(answers[i][-1])]
            running = [running[k] for k in going]
            if not running:
                break
            latest = latest[going]
    texts = language_model.tokenizer.batch_decode(answers, skip_special_tokens=True)
    texts = [text.split("\n")[0] for text in texts] if one_line else texts
    return [None if i in broken else text.strip() for i, text in enumerate(texts)]


class _Ends:
    """Whether a token ends an answer: the end of the text, or of one line a token with a line break in it."""

    def __init__(self, language_model: LanguageModel, one_line: bool) -> None:
        self.one_line, self.tokenizer = one_line, language_model.tokenizer
        ends = getattr(getattr(inner(language_model), "generation_config", None), "eos_token_id", None)
        ends = ends if isinstance(ends, list) else [ends]
        self.known = {token: True for token in (*ends, self.tokenizer.eos_token_id) if token is not None}

    def __call__(self, token: int) -> bool:
        if token not in self.known:
            self.known[token] = self.one_line and "\n" in self.tokenizer.decode([token])
        return self.known[token]


class _Cached:
    """Left-padded rows, of which only the latest token is read."""

    def __init__(self, language_model: LanguageModel, prompts: Sequence[Sequence[int]]) -> None:
        self.model, device = inner(language_model), language_model.device
        longest, pad = max(map(len, prompts)), padding(language_model)
        self.ids = torch.tensor([[pad] * (longest - len(row)) + list(row) for row in prompts], device=device)
        self.mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts], device=device)
        self.positions = (self.mask.cumsum(1) - 1).clamp(min=0)
        self.past: Any = None
        self.last = {"logits_to_keep": 1} if takes(self.model, "logits_to_keep") else {}

    def __call__(self, latest: Tensor, going: list[int]) -> Tensor:
        if self.past is not None:
            if len(going) < len(self.mask):
                index = torch.tensor(going, device=latest.device)
                self.past.batch_select_indices(index)
                self.mask, self.positions = self.mask[index], self.positions[index]
            self.ids, self.positions = latest[:, None], self.positions[:, -1:] + 1
            self.mask = torch.cat((self.mask, self.mask.new_ones(len(latest), 1)), 1)
        inputs = {"input_ids": self.ids, "attention_mask": self.mask, "position_ids": self.positions}
        found = self.model(**inputs, past_key_values=self.past, use_cache=True, **self.last)
        self.past = found.past_key_values
        logits: Tensor = found.logits
        return wide(logits[:, -1])


class _Whole:
    """Right-padded rows, read from their beginning for every token."""

    def __init__(self, language_model: LanguageModel, prompts: Sequence[Sequence[int]]) -> None:
        self.language_model, self.rows = language_model, [list(row) for row in prompts]

    def __call__(self, latest: Tensor, going: list[int]) -> Tensor:
        if len(latest):
            self.rows = [[*self.rows[k], token] for k, token in zip(going, latest.tolist(), strict=True)]
        places = [(i, len(row) - 1) for i, row in enumerate(self.rows)]
        return logits_at(self.language_model, padded(self.language_model, self.rows), places)
