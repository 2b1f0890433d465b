"""Scores of candidates: the mean log-probability of each one's tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor

from llm.model.language_model import LanguageModel
from llm.model.logits import Place, Targets, chosen_logits, log_probs, logits_at, padded
from llm.objective.packing import Asked, Candidates, Tokens, arranged, can_pack, moved, packed, plain
from zobench.layout import on_device


def candidate_scores(
    language_model: LanguageModel,
    prompts: Sequence[Tokens],
    candidates: Candidates,
    normalised: bool = False,
    pack: bool = True,
) -> Tensor:
    """Return the score of each prompt's candidates, (prompts, most candidates), -inf where a prompt has fewer: float32,
    or float64 of a float64 model.

    score_c = mean over the tokens of candidate c of log p(token | prompt, tokens before). Where every candidate is one
    token, logits serve unless `normalised`: they differ from the definition by the normaliser, which is the same for
    all candidates of a prompt and cancels in every comparison. Otherwise a prompt and its candidates are one text where
    the architecture and the lengths allow (`pack`), or else each candidate is a text of its own. Texts share rows where
    the architecture allows.

    Cost: one forward pass.
    """
    single = all(len(c) == 1 for cs in candidates for c in cs)
    if single and not normalised:
        return _single(language_model, prompts, candidates)
    if language_model.masked:
        inputs, targets, owners = _at_masks(language_model, prompts, candidates)
    elif pack and can_pack(language_model, prompts, candidates):
        inputs, targets, owners = packed(language_model, prompts, candidates)
    else:
        inputs, targets, owners = _separate(language_model, prompts, candidates)
    chosen = log_probs(language_model, inputs, targets)
    lengths = on_device([len(c) for cs in candidates for c in cs], chosen.device)
    total = chosen.new_zeros(len(lengths)).index_add(0, on_device(owners, chosen.device), chosen)
    return _table(total / lengths, [len(cs) for cs in candidates])


def answer_log_probs(language_model: LanguageModel, prompts: Sequence[Tokens], answers: Sequence[Tokens]) -> Tensor:
    """Return the mean log-probability of each prompt's answer tokens, (prompts,). Cost: one forward pass."""
    return candidate_scores(language_model, prompts, [(answer,) for answer in answers], True, pack=False)[:, 0]


def _single(language_model: LanguageModel, prompts: Sequence[Tokens], candidates: Candidates) -> Tensor:
    """Logits of one-token candidates: at the mask, or after the last token."""
    inputs, starts = arranged(language_model, [plain(prompt) for prompt in prompts])
    places = moved(first_places(language_model, prompts), starts)
    tokens = [[c[0] for c in cs] for cs in candidates]
    if all(row == tokens[0] for row in tokens):
        return logits_at(language_model, inputs, places, tokens[0])
    counts = [len(row) for row in tokens]
    filled = [row + row[:1] * (max(counts) - len(row)) for row in tokens]
    found = chosen_logits(language_model, inputs, places, filled)
    beyond = torch.arange(max(counts), device=found.device) >= on_device(counts, found.device)[:, None]
    return found.masked_fill(beyond, -torch.inf)


def first_places(language_model: LanguageModel, prompts: Sequence[Tokens]) -> list[Place]:
    """Return where the first token after each prompt, or the one at its mask, is foretold."""
    if language_model.masked:
        mask = language_model.tokenizer.mask_token_id
        return [(i, list(prompt).index(mask)) for i, prompt in enumerate(prompts)]
    return [(i, len(prompt) - 1) for i, prompt in enumerate(prompts)]


def _at_masks(language_model: LanguageModel, prompts: Sequence[Tokens], candidates: Candidates) -> Asked:
    """One-token candidates, which the mask of each prompt is to become."""
    pairs = [(i, c[0]) for i, cs in enumerate(candidates) for c in cs]
    targets = Targets(first_places(language_model, prompts), [i for i, _ in pairs], [token for _, token in pairs])
    return padded(language_model, prompts), targets, list(range(len(pairs)))


def _separate(language_model: LanguageModel, prompts: Sequence[Tokens], candidates: Candidates) -> Asked:
    """A row for each candidate, with the tokens of all rows as targets."""
    pairs = [(prompt, c) for prompt, cs in zip(prompts, candidates, strict=True) for c in cs]
    places = [(i, len(prompt) - 1 + t) for i, (prompt, c) in enumerate(pairs) for t in range(len(c))]
    inputs, starts = arranged(language_model, [plain([*prompt, *c[:-1]]) for prompt, c in pairs])
    targets = Targets(moved(places, starts), list(range(len(places))), [token for _, c in pairs for token in c])
    return inputs, targets, [i for i, _ in places]


def _table(values: Tensor, counts: list[int]) -> Tensor:
    """Values in rows of `counts`, filled with -inf on the right."""
    if min(counts) == max(counts):
        return values.view(len(counts), -1)
    row = [i for i, count in enumerate(counts) for _ in range(count)]
    column = [k for count in counts for k in range(count)]
    index = on_device(row, values.device), on_device(column, values.device)
    return values.new_full((len(counts), max(counts)), -torch.inf).index_put(index, values)
