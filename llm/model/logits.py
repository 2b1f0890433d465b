"""Logits of a language model at chosen places only: what a loss does not read is not computed."""

import inspect
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llm.model.language_model import LanguageModel
from llm.quantised import QuantisedEmbedding, QuantisedLinear
from zobench.layout import on_device
from zobench.products import linear

Place = tuple[int, int]  # row, position

CHUNK = 2**25  # logits held at once, in elements
CAUSAL_HEADS = ("opt", "llama", "gpt2", "qwen2", "qwen3", "mistral", "gpt_neox")
MASKED_HEADS = {"roberta": "lm_head", "xlm-roberta": "lm_head", "camembert": "lm_head", "bert": "cls"}
COUNTING_FROM_PADDING = ("roberta", "xlm-roberta", "camembert")
SCALED = ("final_logit_softcapping", "logit_scale", "logits_scaling")


class Targets(NamedTuple):
    """Tokens whose log-probabilities are wanted: target j is foretold at places[where[j]], `where` ascending."""

    places: list[Place]
    where: list[int]
    tokens: list[int]


def wide(values: Tensor) -> Tensor:
    """Return the values in float32, or in float64 if that is their dtype: what logits and losses are computed in."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def padded(language_model: LanguageModel, rows: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return the model's inputs for rows of token ids, padded on the right: under the causal mask no text sees it."""
    device = language_model.device
    longest = max(map(len, rows))
    pad = padding(language_model)
    ids = on_device([[*row, *[pad] * (longest - len(row))] for row in rows], device)
    mask = on_device([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device)
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    return inputs if language_model.masked else {**inputs, "use_cache": False}


def logits_at(
    language_model: LanguageModel, inputs: dict[str, Any], places: list[Place], tokens: list[int] | slice = slice(None)
) -> Tensor:
    """Return the logits of `tokens` (default: the vocabulary) at the places, (places, tokens), as wide as `wide` says.

    Cost: one forward pass, in which the head sees nothing but the places where the architecture is known.
    """
    model, device = inner(language_model), language_model.device
    chosen = tokens if isinstance(tokens, slice) else on_device(tokens, device)
    head = None if learns_a_prompt(language_model) else _head(model)
    if head is None:
        return wide(_whole_model(language_model.model, inputs, places)[:, chosen])
    row, position = on_device(places, device).T
    states = model.base_model(**inputs).last_hidden_state[row, position]
    if isinstance(head, QuantisedLinear):
        return wide(head(states) if isinstance(chosen, slice) else head.at(states, chosen))
    if isinstance(head, torch.nn.Linear):
        return wide(linear(states, head.weight[chosen]))
    logits: Tensor = head(states)
    return wide(logits[:, chosen])


def states_at(language_model: LanguageModel, inputs: dict[str, Any], places: list[Place]) -> Tensor:
    """Return the hidden states that the head reads at the places, (places, hidden). Cost: one forward pass."""
    row, position = on_device(places, language_model.device).T
    found: Tensor = inner(language_model).base_model(**inputs).last_hidden_state[row, position]
    return found


def chosen_logits(
    language_model: LanguageModel, inputs: dict[str, Any], places: list[Place], tokens: Sequence[Sequence[int]]
) -> Tensor:
    """Return the logits of as many tokens at each place, other ones at each, (places, tokens a place)."""
    known = sorted({token for row in tokens for token in row})
    column = {token: i for i, token in enumerate(known)}
    index = on_device([[column[token] for token in row] for row in tokens], language_model.device)
    return logits_at(language_model, inputs, places, known).gather(1, index)


def log_probs(language_model: LanguageModel, inputs: dict[str, Any], targets: Targets) -> Tensor:
    """Return log p of each target at its place, (targets,), never more than CHUNK logits at once.

    Cost: one forward pass. With gradients the graph holds all logits.
    """
    model, device = inner(language_model), language_model.device
    head = None if learns_a_prompt(language_model) else _head(model)
    where, tokens = (on_device(part, device) for part in (targets.where, targets.tokens))
    if not isinstance(head, torch.nn.Linear):
        logits = logits_at(language_model, inputs, targets.places)
        return logits[where, tokens] - logits.logsumexp(-1)[where]
    row, position = on_device(targets.places, device).T
    states, read = model.base_model(**inputs).last_hidden_state[row, position], _reader(head)
    size = max(1, CHUNK // head.out_features)
    found = []
    for start in range(0, len(states), size):
        logits = wide(read(states[start : start + size]))
        first, last = (bisect_left(targets.where, end) for end in (start, start + size))
        local = where[first:last] - start
        found.append(logits[local, tokens[first:last]] - logits.logsumexp(-1)[local])
    return torch.cat(found)


def learns_a_prompt(language_model: LanguageModel) -> bool:
    """Whether peft puts tokens, keys or values of its own before every text: inputs must then pass through peft."""
    adapters = getattr(language_model.model, "peft_config", None) or {}
    return any(adapter.is_prompt_learning for adapter in adapters.values())


def position_limit(language_model: LanguageModel) -> int | None:
    """The longest row the model reads, less the tokens that peft puts before it, or None where it does not say."""
    config = language_model.model.config
    limit: int | None = getattr(config, "max_position_embeddings", None)
    if limit is None:
        return None
    if language_model.masked and config.model_type in COUNTING_FROM_PADDING:
        limit -= int(config.pad_token_id) + 1
    adapters = getattr(language_model.model, "peft_config", None) or {}
    virtual = [int(adapter.num_virtual_tokens) for adapter in adapters.values() if adapter.is_prompt_learning]
    return limit - sum(virtual)


def vocabulary_size(language_model: LanguageModel) -> int:
    """Return the number of tokens that the model has embeddings of; its tokenizer may know more."""
    table = inner(language_model).get_input_embeddings()
    return table.num_embeddings if isinstance(table, QuantisedEmbedding) else len(table.weight)


def padding(language_model: LanguageModel) -> int:
    """Return the token that fills rows up. It is masked, so that any one the model has will do."""
    pad = language_model.tokenizer.pad_token_id or 0
    return pad if pad < vocabulary_size(language_model) else 0


def takes(model: Any, name: str) -> bool:
    """Whether the forward of the model has an argument of this name."""
    return name in inspect.signature(model.forward).parameters


def inner(language_model: LanguageModel) -> Any:
    """Return the model of transformers, from whatever peft has wrapped around it."""
    model = language_model.model
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _head(model: Any) -> Any:
    """The layers that turn hidden states into logits, for known architectures: a Linear without bias, or more."""
    kind, name = model.config.model_type, MASKED_HEADS.get(model.config.model_type, "")
    if type(model).__name__.endswith("ForMaskedLM"):
        return getattr(model, name, None)
    head = model.get_output_embeddings()
    plain = kind in CAUSAL_HEADS and head.bias is None
    return head if plain and not any(getattr(model.config, scale, None) for scale in SCALED) else None


def _reader(head: torch.nn.Linear) -> Callable[[Tensor], Tensor]:
    """States -> logits of the vocabulary. A dense matrix is read once for all calls; codes are dequantised in tiles."""
    return head if isinstance(head, QuantisedLinear) else partial(linear, weight=head.weight[:])


def _whole_model(model: Any, inputs: dict[str, Any], places: list[Place]) -> Tensor:
    """Logits through the model's own forward, of the positions that some row wants if it can be told."""
    device = inputs["input_ids"].device
    row, position = on_device(places, device).T
    logits: Tensor
    if not hasattr(model, "peft_config") and takes(model, "logits_to_keep"):
        kept = sorted({position for _, position in places})
        logits = model(**inputs, logits_to_keep=on_device(kept, device)).logits
        return logits[row, on_device([bisect_left(kept, position) for _, position in places], device)]
    logits = model(**inputs).logits
    return logits[row, position + logits.shape[1] - inputs["input_ids"].shape[1]]
