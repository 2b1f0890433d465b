"""Adapters by name: small trained parts that peft puts into a frozen model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llm.model.adapted import is_adapted, peft_library, quietly
from llm.model.language_model import LanguageModel
from zobench import derive
from zobench.naming import require_known
from zobench.products import widen_products_
from zobench.random import streams
from zobench.spelling import construct, spelled

STARTS = ("real", "random")


@dataclass(frozen=True)
class Lora:
    """W + (alpha / r) B A in the target layers: A (r, in) random, B (out, r) zero, so that the model begins as it was.

    Without `targets` they are peft's for the architecture: the projections of queries and values. There is no dropout.
    Defaults as MeZO's (arXiv 2305.17333).
    """

    r: int = 8
    alpha: float = 16.0
    targets: str = ""

    def __post_init__(self) -> None:
        _require_whole("r", self.r)
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, int | float) or not self.alpha > 0:
            raise ValueError(f"alpha is {self.alpha!r}: give a positive number")

    def put(self, language_model: LanguageModel, seed: int) -> Any:
        """Return the model of peft around this one.

        Raises:
            ValueError: the targets are no layers of the model, or peft does not know its architecture.
        """
        peft, model = peft_library(), language_model.model
        targets = _targets(model, str(self.targets))
        task = None if language_model.masked else peft.TaskType.CAUSAL_LM
        config = peft.LoraConfig(r=self.r, lora_alpha=self.alpha, target_modules=targets, task_type=task)
        model = peft.get_peft_model(model, config)
        widen_products_(model)
        return model


@dataclass(frozen=True)
class VirtualTokens:
    """So many places before every text; they begin as those of tokens drawn by the seed ("real"), or as standard
    normals ("random").
    """

    tokens: int
    init: str = "real"

    def __post_init__(self) -> None:
        _require_whole("tokens", self.tokens)
        require_known(self.init, STARTS, "init of an adapter")

    def put(self, language_model: LanguageModel, seed: int) -> Any:
        """Return the model of peft around this one. Cost: for a prefix with "real" one forward pass over the tokens.

        Raises:
            ValueError: the model is masked, or what it keeps of tokens is not what peft wants.
        """
        if language_model.masked:
            raise ValueError(
                f"{language_model.name} fills masks, but peft learns prefixes only for causal models: give lora"
            )
        begin = self.real(language_model, drawn(language_model, self.tokens, seed)) if self.init == "real" else None
        peft = peft_library()
        config = self.config(peft, language_model)(task_type=peft.TaskType.CAUSAL_LM, num_virtual_tokens=self.tokens)
        return _begun(peft.get_peft_model(language_model.model, config), begin)

    def real(self, language_model: LanguageModel, tokens: Tensor) -> Tensor:
        """Return what the places hold of real tokens, (tokens, numbers a place)."""
        raise NotImplementedError

    def config(self, peft: Any, language_model: LanguageModel) -> Callable[..., Any]:
        """Return what makes peft's configuration."""
        raise NotImplementedError


@dataclass(frozen=True)
class Prefix(VirtualTokens):
    """Keys and values of `tokens` places before every text, in every layer; MeZO's number and beginning."""

    tokens: int = 5

    def real(self, language_model: LanguageModel, tokens: Tensor) -> Tensor:
        return keys_and_values(language_model, tokens)

    def config(self, peft: Any, language_model: LanguageModel) -> Callable[..., Any]:
        return peft.PrefixTuningConfig  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Prompt(VirtualTokens):
    """Embeddings of `tokens` places before every text; ZO-Bench's number."""

    tokens: int = 10

    def real(self, language_model: LanguageModel, tokens: Tensor) -> Tensor:
        return language_model.model.get_input_embeddings()(tokens)  # type: ignore[no-any-return]

    def config(self, peft: Any, language_model: LanguageModel) -> Callable[..., Any]:
        width = language_model.model.get_input_embeddings().weight.shape[1]  # peft's own is OPT-350m's hidden size
        return partial(peft.PromptTuningConfig, token_dim=width)


ADAPTERS: dict[str, Callable[..., Lora | Prefix | Prompt]] = {"lora": Lora, "prefix": Prefix, "prompt": Prompt}


def parse(text: str) -> Lora | Prefix | Prompt:
    """Return the adapter of a command-line spelling, `"lora:r=8:alpha=16:targets=q_proj+v_proj"`.

    Raises:
        UnknownNameError: no such adapter or option.
        ValueError: a part is not option=value, or a value is out of range.
    """
    return construct(spelled(text, ADAPTERS), ADAPTERS, "adapter", "option of adapter {}:")


def check(text: str | None, recomputed: bool = False) -> None:
    """Raise ValueError unless the text spells an adapter that can be had here, or is None; `recomputed` says whether
    layers are read again in the backward pass.
    """
    if text is None:
        return
    if isinstance(parse(text), Prefix) and recomputed:
        raise ValueError(
            f"{text}: recomputed layers would append to its keys a second time: leave --gradient-checkpointing out"
        )
    peft_library()


def adapt(language_model: LanguageModel, text: str | None, seed: int) -> LanguageModel:
    """Return the model with the adapter of this spelling: it alone is trained. None leaves the model as it is.

    The adapter begins as the seed says, whatever was drawn before. Under a base in 16 bits it is held in float32.

    Raises:
        ValueError: the model has an adapter already, or as `parse` and the adapter.
    """
    if text is None:
        return language_model
    if is_adapted(language_model):
        raise ValueError(
            f"{language_model.name} has an adapter already: leave --adapter out, or give its base as --model"
        )
    with torch.random.fork_rng(devices=[]), quietly():
        torch.default_generator.manual_seed(derive("adapter", seed))
        model = parse(text).put(language_model, seed)
    return replace(language_model, model=model.eval())


def drawn(language_model: LanguageModel, count: int, seed: int) -> Tensor:
    """Return tokens of the vocabulary drawn by the seed, (count,)."""
    vocabulary = language_model.model.get_input_embeddings().weight.shape[0]
    return streams.integers(derive("adapter tokens", seed), (count,), vocabulary).to(language_model.device)


@torch.no_grad()
def keys_and_values(language_model: LanguageModel, tokens: Tensor) -> Tensor:
    """Return what every layer keeps of the tokens as the prefix of a text, (tokens, layers * 2 * heads * width).

    Cost: one forward pass, on one thread of the CPU, so that their number does not change a bit.
    """
    with _one_thread():
        kept = language_model.model(input_ids=tokens[None], use_cache=True).past_key_values
    pairs = [part[0] for layer in kept.layers for part in (layer.keys, layer.values)]  # (heads, tokens, width) each
    return torch.stack(pairs).permute(2, 0, 1, 3).flatten(1)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def _begun(adapted: Any, begin: Tensor | None) -> Any:
    """The model, its learnt places beginning as told."""
    weight = adapted.prompt_encoder["default"].embedding.weight
    if begin is not None:
        if begin.shape != weight.shape:
            raise ValueError(
                f"this architecture keeps {tuple(begin.shape)} numbers of the tokens where peft wants "
                f"{tuple(weight.shape)}: give --adapter prefix:init=random, or lora"
            )
        weight.copy_(begin)
    return adapted


def _targets(model: Any, text: str) -> Any:
    """The layers that LoRA is put into: those that are named, or peft's for the architecture."""
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as USUAL

    layers = [name for name, module in model.named_modules() if getattr(module, "weight", None) is not None]
    kinds = sorted({name.split(".")[-1] for name in layers if not name.split(".")[-1].isdigit()})
    kind = model.config.model_type
    if not text:
        if kind not in USUAL:
            raise ValueError(
                f"peft has no default targets for {kind}: give --adapter lora:targets=..., of {', '.join(kinds)}"
            )
        return USUAL[kind]
    for target in text.split("+"):
        if not any(name == target or name.endswith("." + target) for name in layers):
            require_known(target, kinds, f"target in {kind}")
    return text.split("+")


def _require_whole(name: str, value: int) -> None:
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} is {value!r}: give a whole number of 1 or more")
