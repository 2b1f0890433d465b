"""Trainable tensors of a model and their learning rates, chosen by patterns of tensor names."""

import math
import re
from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import nn

from llm.quantised import fake_layers, floats_, is_quantised
from llm.quantised.fake import OWN

SCALES = "*.scales"
"""What is trained of a quantised model by default."""


class Tied(NamedTuple):
    """A parameter, or parameters that share one memory: all their names, the first of which stands for them."""

    names: tuple[str, ...]
    parameter: nn.Parameter

    @property
    def name(self) -> str:
        """The first name."""
        return self.names[0]

    @property
    def size(self) -> int:
        """The number of entries."""
        return self.parameter.numel()


class Rate(NamedTuple):
    """A learning rate and the pattern of the tensors that have it."""

    pattern: str
    rate: float


def distinct(model: nn.Module) -> list[Tied]:
    """Return the parameters of a model; tied ones are one, under every name they have."""
    found: dict[tuple[int, bool], Tied] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        place = (p.data_ptr(), p.requires_grad)
        names = found[place].names if place in found else ()
        found[place] = Tied((*names, name), p)
    return list(found.values())


def tensors(model: nn.Module) -> list[Tied]:
    """Return the trainable parameters of a model that have entries, tied ones once."""
    return [each for each in distinct(model) if each.parameter.requires_grad and each.size]


def select(model: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze the tensors that no pattern matches; without patterns all tensors stay trainable, or of a quantised model
    its scales alone, or of a fake-quantised one all but smoothing and clipping. Codes are no tensors that are trained.

    Raises:
        ValueError: a pattern fits no trainable tensor; the message names near ones.
    """
    if is_quantised(model) and not hasattr(model, "peft_config"):
        model.requires_grad_(True)
        patterns = patterns or (SCALES,)
    for layer in fake_layers(model).values():
        for name in OWN:
            layer.get_parameter(name).requires_grad_(bool(patterns))
    if patterns:
        _freeze_others(model, patterns)
    floats_(model)


def _freeze_others(model: nn.Module, patterns: Sequence[str]) -> None:
    known = tensors(model)
    kept = {name for pattern in patterns for each in _fitting(pattern, known, "--trained") for name in each.names}
    for name, p in model.named_parameters(remove_duplicate=False):
        if name not in kept:
            p.requires_grad_(False)


def hold_frozen(model: nn.Module, dtype: torch.dtype) -> None:
    """Keep frozen tensors in the dtype in which layers read them, instead of converting them in every forward pass."""
    for parameter in model.parameters():
        if not parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def trained_note(model: nn.Module) -> str:
    """Return in words how much of the model is trained."""
    known = tensors(model)
    count, total = sum(each.size for each in known), sum(p.numel() for p in model.parameters())
    return f"trained: {count:,} of {total:,} weights, in {len(known)} tensors"


def parse_rates(texts: Sequence[str]) -> list[Rate]:
    """Return the rates of `pattern=rate`, in their order.

    Raises:
        ValueError: a text is not of this form, or its rate is not positive.
    """
    rates = []
    for text in texts:
        pattern, equals, number = text.rpartition("=")
        try:
            rate = float(number)
        except ValueError:
            rate = math.nan
        if not equals or not pattern or not (math.isfinite(rate) and rate > 0):
            raise ValueError(f"--rates {text!r}: give pattern=rate with a positive rate, such as *.bias=1e-3")
        rates.append(Rate(pattern.strip(), rate))
    return rates


def multipliers(model: nn.Module, texts: Sequence[str], lr: float) -> dict[str, float]:
    """Return the rates of the trainable tensors in units of `lr`, by first names, where they are not 1.

    Raises:
        ValueError: as `parse_rates`; a pattern decides about no tensor; or lr is 0.
    """
    rates = parse_rates(texts)
    if rates and not lr > 0:
        raise ValueError(f"lr is {lr}: --rates are stored as multiples of --lr: give a positive --lr")
    found: dict[str, float] = {}
    known = tensors(model)
    for pattern, rate in rates:
        fitting = _fitting(pattern, known, "--rates")
        left = [each for each in fitting if each.name not in found]
        if not left:
            raise ValueError(
                f"--rates {pattern!r} matches only tensors that earlier patterns match: write it before them"
            )
        found |= {each.name: rate / lr for each in left}
    return {name: multiplier for name, multiplier in found.items() if multiplier != 1.0}


def _fitting(pattern: str, known: Sequence[Tied], option: str) -> list[Tied]:
    found = [each for each in known if any(fnmatchcase(name, pattern) for name in each.names)]
    if found:
        return found
    names = [name for each in known for name in each.names]
    parts = sorted({part for name in names for part in (*name.split("."), name)})
    near = get_close_matches(re.sub(r"[*?\[\]]", "", pattern).strip("."), parts, n=3, cutoff=0.5)
    hint = f"; near: {', '.join(near)}" if near else ""
    raise ValueError(
        f"{option} {pattern!r} matches none of the {len(known)} trainable tensors{hint}; the first tensor is {names[0]}"
    )
