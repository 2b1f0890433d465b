"""How well a language model reads texts: the loss of each token, and perplexity per token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor
from transformers import OPTForCausalLM, PreTrainedTokenizerFast

IGNORED = -100


@torch.no_grad()
def perplexity(model: OPTForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> float:
    """Measure how well a model foretells texts, each cut at the longest the model reads.

    Returns:
        exp of the mean cross-entropy per token, BOS and padding not counted.
    """
    model.eval()
    documents = sorted(encode(tokenizer, texts, model.config.max_position_embeddings), key=len)
    losses = [token_losses(model, documents[i : i + 64]) for i in range(0, len(documents), 64)]
    return math.exp(torch.cat(losses).double().mean().item())


def shuffled_words(texts: Sequence[str], seed: int = 0) -> list[str]:
    """Destroy the order of the words and keep the words.

    Returns:
        the texts, the words of each in an order drawn from the seed.
    """
    random = Random(seed)
    return [" ".join(random.sample(words := text.split(), len(words))) for text in texts]


def encode(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], length: int) -> list[list[int]]:
    """Tokenise whole texts.

    Returns:
        the first `length` token ids of each text that has any, BOS included.
    """
    return [row[:length] for row in tokenizer(list(texts), verbose=False)["input_ids"] if len(row) > 1]


def token_losses(model: OPTForCausalLM, batch: list[list[int]]) -> Tensor:
    """Score a batch of tokenised texts.

    Returns:
        the cross-entropy of every token after BOS, as one vector, in nats.
    """
    longest = max(map(len, batch))
    ids = torch.tensor([row + [model.config.pad_token_id] * (longest - len(row)) for row in batch])
    # Padding is on the right, so under the causal mask no text sees it; only the loss must leave it out.
    targets = torch.tensor([row + [IGNORED] * (longest - len(row)) for row in batch])[:, 1:]
    real = targets != IGNORED
    states = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state[real]
    return torch.nn.functional.cross_entropy(model.lm_head(states), targets[real], reduction="none")
