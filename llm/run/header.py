"""The header of a run's journal: what must be equal for its records to be repeated, and where it ran."""

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn

from llm.model.compiled import OFF
from llm.model.mapped import MappedBlocks, blocks_of
from llm.quantised import codes_of, is_quantised
from llm.run import calibrated, checkpoint
from llm.run.context import RunContext
from llm.steppers.stepper import Stepper
from zobench.random import streams
from zobench.run.journal import FREE
from zobench.run.records import environment

OPTIONAL = ("micro_batch", "clip", "anchor_examples")
"""Options that change the bits of steps, in headers only where given: those of before have neither."""
ENVIRONMENT = ("zobench", "python", "torch", "commit", "cpu", "gpu")


def header(context: RunContext, stepper: Stepper) -> dict[str, Any]:
    """Return the header of a run."""
    options, model = context.options, context.language_model.model
    machine = environment()
    about: dict[str, Any] = {
        "stream": streams.NAME,
        "rule": context.method.rule(options),
        "epsilon": options.epsilon,
        "weight_decay": float(options.weight_decay),
        "schedule": schedule(vars(options)),
        "rows": options.rows,
        "rounding": options.rounding,
        "model": options.model,
        "dtype": options.dtype,
        "device": options.device,
        "weights": fingerprint(model),
        "data": data_fingerprint(context),
        "keys": {name: list(names) for name, names in context.keys.items()},
        "environment": {name: machine[name] for name in ENVIRONMENT},
    }
    if options.compile != OFF:
        about["compile"] = options.compile
    if options.adapter:
        about["adapter"] = {"name": options.adapter, "seed": options.seed}
    if options.trained:
        about["trained"] = list(options.trained)
    if options.rates:
        about["rates"] = list(options.rates)
    if any(not p.requires_grad for p in model.parameters()):
        about["frozen"] = fingerprint(model, trained=False)
    if options.quantize:
        about["quantised"] = {"name": options.quantize, "group": options.group}
    about |= calibrated.about(model, options)
    if is_quantised(model):
        about["codes"] = codes_fingerprint(model)
    about |= {name: value for name in OPTIONAL if (value := getattr(options, name)) is not None}
    return {**stepper.about(), **about}


def schedule(config: Mapping[str, Any]) -> str:
    """Return the schedule of the learning rate in words."""
    return "{schedule} from {lr!r}, {steps} steps, {warmup} of warm-up".format_map(config)


def identity(about: Mapping[str, Any]) -> dict[str, str]:
    """Return what the files of weights say of their run: a checksum of its header."""
    text = json.dumps({k: v for k, v in about.items() if k not in FREE}, sort_keys=True)
    return {"run": f"{crc32(text.encode()):08x}"}


@torch.no_grad()
def fingerprint(model: nn.Module, trained: bool = True) -> str:
    """Return 128 bits of BLAKE2b over names, shapes, dtypes and bytes of what training changes, or of what it does
    not.
    """
    return _digest(checkpoint.weights(model, trained), blocks_of(model))


@torch.no_grad()
def codes_fingerprint(model: nn.Module) -> str:
    """Return the fingerprint of the codes of a quantised model."""
    return _digest(codes_of(model), blocks_of(model))


def _digest(tensors: Mapping[str, Tensor], mapped: MappedBlocks | None = None) -> str:
    digest = blake2b(digest_size=16)
    for name, tensor in tensors.items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
        digest.update(checkpoint.octets(tensor))
        if mapped is not None:
            mapped.let_go(tensor)
    return digest.hexdigest()


def data_fingerprint(context: RunContext) -> str:
    """Return 128 bits of BLAKE2b over the encoded examples and the candidates."""
    data = context.data
    text = repr((data.train, data.dev, data.test, context.objective.candidates, context.options.batch))
    return blake2b(text.encode(), digest_size=16).hexdigest()
