"""A prompt and all its candidates in one row: the prompt passes through the model once, and so do the parameters."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from llm.model.language_model import LanguageModel
from llm.model.logits import CAUSAL_HEADS, Place, Targets, learns_a_prompt, padding
from zobench.layout import on_device

Tokens = Sequence[int]
Candidates = Sequence[Sequence[Tokens]]  # of each prompt
Asked = tuple[dict[str, Any], Targets, list[int]]
"""Inputs, targets, and the candidate (numbered through the batch) that each target belongs to."""


def can_pack(language_model: LanguageModel, prompts: Sequence[Tokens], candidates: Candidates) -> bool:
    """Return whether the architecture takes a mask of its own, and packed rows hold fewer tokens than separate ones."""
    config = language_model.model.config
    reach = max(len(p) + max(map(len, cs)) for p, cs in zip(prompts, candidates, strict=True))
    window = getattr(config, "sliding_window", None)
    known = config.model_type in CAUSAL_HEADS and config._attn_implementation in ("sdpa", "eager")
    if not known or learns_a_prompt(language_model) or (window is not None and reach > window):
        return False
    longest = max(len(p) + sum(len(c) - 1 for c in cs) for p, cs in zip(prompts, candidates, strict=True))
    return len(prompts) * longest <= sum(map(len, candidates)) * (reach - 1)


def packed(language_model: LanguageModel, prompts: Sequence[Tokens], candidates: Candidates) -> Asked:
    """Return what to ask of the model: one row for each prompt.

    A row is the prompt and every candidate but for its last token; each candidate's positions go on from the prompt's,
    and it attends to the prompt and to itself. Its first token is foretold at the prompt's last place, which all share.
    """
    rows, positions, segments = [], [], []
    shared: list[tuple[int, int, int]] = []  # place, token, owner
    further: list[tuple[int, int, int]] = []
    places: list[Place] = [(i, len(prompt) - 1) for i, prompt in enumerate(prompts)]
    owner = 0
    for i, (prompt, answers) in enumerate(zip(prompts, candidates, strict=True)):
        row, position, segment = list(prompt), list(range(len(prompt))), [0] * len(prompt)
        for k, answer in enumerate(answers, 1):
            shared.append((i, answer[0], owner))
            for j, token in enumerate(answer[1:]):
                further.append((len(places), token, owner))
                places.append((i, len(row) + j))
            row += answer[:-1]
            position += range(len(prompt), len(prompt) + len(answer) - 1)
            segment += [k] * (len(answer) - 1)
            owner += 1
        rows.append(row)
        positions.append(position)
        segments.append(segment)
    where, tokens, owners = map(list, zip(*shared, *further, strict=True))
    return _inputs(language_model, rows, positions, segments), Targets(places, where, tokens), owners


def _inputs(
    language_model: LanguageModel, rows: list[list[int]], positions: list[list[int]], segments: list[list[int]]
) -> dict[str, Any]:
    longest, device = max(map(len, rows)), language_model.device

    def filled(parts: list[list[int]], value: int) -> Tensor:
        return on_device([part + [value] * (longest - len(part)) for part in parts], device)

    segment = filled(segments, -1)
    earlier = torch.ones(longest, longest, dtype=torch.bool, device=device).tril()
    seen = earlier & ((segment == 0)[:, None, :] | (segment[:, None, :] == segment[:, :, None]))
    dtype = language_model.model.dtype
    mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill(~seen, torch.finfo(dtype).min)
    inputs = {
        "input_ids": filled(rows, padding(language_model)),
        "position_ids": filled(positions, 0),
        "attention_mask": mask[:, None],
    }
    return {**inputs, "use_cache": False}
