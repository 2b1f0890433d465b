"""Several texts in one row: fewer padded places, and a prompt passes once through the model for all its candidates."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from llm.model.language_model import LanguageModel
from llm.model.logits import CAUSAL_HEADS, Place, Targets, learns_a_prompt, padded, padding
from zobench.layout import on_device

Tokens = Sequence[int]
Candidates = Sequence[Sequence[Tokens]]  # of each prompt
Asked = tuple[dict[str, Any], Targets, list[int]]
"""Inputs, targets, and the candidate (numbered through the batch) that each target belongs to."""


class Text(NamedTuple):
    """Token ids, their positions, and the branch of each: 0 of the prompt, which all branches see, k of candidate k."""

    tokens: list[int]
    positions: list[int]
    branches: list[int]


def plain(tokens: Tokens) -> Text:
    """Return a text of one branch."""
    return Text(list(tokens), list(range(len(tokens))), [0] * len(tokens))


def takes_masks(language_model: LanguageModel, reach: int) -> bool:
    """Return whether the architecture takes a mask and positions of its own for texts of up to `reach` tokens."""
    config = language_model.model.config
    window = getattr(config, "sliding_window", None)
    known = config.model_type in CAUSAL_HEADS and config._attn_implementation in ("sdpa", "eager")
    return known and not learns_a_prompt(language_model) and (window is None or reach <= window)


def can_pack(language_model: LanguageModel, prompts: Sequence[Tokens], candidates: Candidates) -> bool:
    """Return whether a prompt and its candidates can be one text, and hold fewer tokens so than apart."""
    reach = max(len(p) + max(map(len, cs)) for p, cs in zip(prompts, candidates, strict=True))
    if not takes_masks(language_model, reach):
        return False
    longest = max(len(p) + sum(len(c) - 1 for c in cs) for p, cs in zip(prompts, candidates, strict=True))
    return len(prompts) * longest <= sum(map(len, candidates)) * (reach - 1)


def packed(language_model: LanguageModel, prompts: Sequence[Tokens], candidates: Candidates) -> Asked:
    """Return what to ask of the model: one text for each prompt.

    A text is the prompt and every candidate but for its last token; each candidate's positions go on from the prompt's,
    and it attends to the prompt and to itself. Its first token is foretold at the prompt's last place, which all share.
    """
    texts = []
    shared: list[tuple[int, int, int]] = []  # place, token, owner
    further: list[tuple[int, int, int]] = []
    places: list[Place] = [(i, len(prompt) - 1) for i, prompt in enumerate(prompts)]
    owner = 0
    for i, (prompt, answers) in enumerate(zip(prompts, candidates, strict=True)):
        text = plain(prompt)
        for k, answer in enumerate(answers, 1):
            shared.append((i, answer[0], owner))
            for j, token in enumerate(answer[1:]):
                further.append((len(places), token, owner))
                places.append((i, len(text.tokens) + j))
            text.tokens.extend(answer[:-1])
            text.positions.extend(range(len(prompt), len(prompt) + len(answer) - 1))
            text.branches.extend([k] * (len(answer) - 1))
            owner += 1
        texts.append(text)
    where, tokens, owners = map(list, zip(*shared, *further, strict=True))
    inputs, starts = arranged(language_model, texts)
    return inputs, Targets(moved(places, starts), where, tokens), owners


def arranged(language_model: LanguageModel, texts: Sequence[Text]) -> tuple[dict[str, Any], list[Place]]:
    """Return the model's inputs, and for each text the place of its first token.

    Where the architecture takes a mask of its own, texts share rows that are no longer than the longest text: longest
    first, each goes into the first row with room for it. No text sees another. Otherwise each text is a row.
    """
    lengths = [len(text.tokens) for text in texts]
    reach = 1 + max(max(text.positions) for text in texts)
    starts = _first_fit(lengths) if takes_masks(language_model, reach) else [(i, 0) for i in range(len(texts))]
    branched = any(any(text.branches) for text in texts)
    if not branched and max(starts)[0] == len(texts) - 1:
        starts = [(i, 0) for i in range(len(texts))]
        return padded(language_model, [text.tokens for text in texts]), starts
    return _inputs(language_model, texts, starts), starts


def moved(places: Sequence[Place], starts: Sequence[Place]) -> list[Place]:
    """Return where places (text, position in it) lie in the rows of `arranged`."""
    return [(starts[text][0], starts[text][1] + position) for text, position in places]


def _first_fit(lengths: Sequence[int]) -> list[Place]:
    """Row and first position of each text: first fit, the longest first (at most 11/9 of the fewest rows, and 6/9)."""
    used: list[int] = []
    starts: list[Place] = [(0, 0)] * len(lengths)
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((r for r, length in enumerate(used) if length + lengths[i] <= max(lengths)), len(used))
        if row == len(used):
            used.append(0)
        starts[i] = (row, used[row])
        used[row] += lengths[i]
    return starts


def _inputs(language_model: LanguageModel, texts: Sequence[Text], starts: Sequence[Place]) -> dict[str, Any]:
    device, shape = language_model.device, (1 + max(row for row, _ in starts), max(len(t.tokens) for t in texts))
    ids, positions, owners, branches = (
        [[value] * shape[1] for _ in range(shape[0])] for value in (padding(language_model), 0, -1, 0)
    )
    for number, (text, (row, start)) in enumerate(zip(texts, starts, strict=True)):
        cut = slice(start, start + len(text.tokens))
        ids[row][cut], positions[row][cut] = text.tokens, text.positions
        owners[row][cut], branches[row][cut] = [number] * len(text.tokens), text.branches
    owner, branch = (on_device(values, device) for values in (owners, branches))
    earlier = torch.ones(shape[1], shape[1], dtype=torch.bool, device=device).tril()
    along = (branch == 0)[:, None, :] | (branch[:, None, :] == branch[:, :, None])
    seen = earlier & along & (owner[:, None, :] == owner[:, :, None])
    dtype = language_model.dtype  # `model.dtype` would be that of the first parameter: of scales, where it is quantised
    mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill(~seen, torch.finfo(dtype).min)
    inputs = {"input_ids": on_device(ids, device), "position_ids": on_device(positions, device)}
    return {**inputs, "attention_mask": mask[:, None], "use_cache": False}
