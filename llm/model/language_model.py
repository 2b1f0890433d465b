"""A language model: torch's module, its tokenizer, and where its weights come from."""

from dataclasses import dataclass
from typing import Any

import torch

from llm.quantised.layers import QuantisedEmbedding

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A model in evaluation mode with its tokenizer; `weights` says where they come from."""

    name: str
    model: Any
    tokenizer: Any
    weights: str

    @property
    def device(self) -> torch.device:
        """The device of the inputs."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of hidden states: that in which token embeddings are read."""
        embeddings = self._unwrapped.get_input_embeddings()
        found: torch.dtype = embeddings.reads if isinstance(embeddings, QuantisedEmbedding) else embeddings.weight.dtype
        return found

    @property
    def wide(self) -> torch.dtype:
        """The dtype of logits and losses: float32, or float64 of a float64 model."""
        return torch.promote_types(self.dtype, torch.float32)

    @property
    def masked(self) -> bool:
        """Whether it fills masks (RoBERTa, BERT) instead of continuing texts."""
        return type(self._unwrapped).__name__.endswith("ForMaskedLM")

    @property
    def _unwrapped(self) -> Any:
        """The model without peft's wrapper, if it has one."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
