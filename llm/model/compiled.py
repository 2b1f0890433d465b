"""Compilation of the forward by torch.compile: each layer by itself, or the base model as CUDA graphs."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from torch import nn

from llm.model import loading
from llm.model.language_model import LanguageModel
from llm.model.logits import inner
from zobench.space.streamed import layers_of

OFF, LAYERS, GRAPHS = "off", "layers", "cuda-graphs"
HOW: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        LAYERS: {"dynamic": True},
        GRAPHS: {"dynamic": True, "mode": "reduce-overhead"},
    }
)
"""What torch.compile is given. Sizes are symbols from the first call on: texts of another length compile nothing."""
GRAPHS_A_CODE = 64
"""Graphs that torch keeps of one function before it runs that function uncompiled: its own 8 do not suffice where
layers differ, minibatches have one row or several, with a mask or none, and gradients are taken or not."""


def require_possible(way: str, device: str) -> None:
    """Refuse, before anything is loaded, a compilation that the device or this machine cannot have.

    Raises:
        ValueError: CUDA graphs of another device; or the compiler that torch generates code for is not installed.
    """
    kind = loading.require_device(device).type
    if way == GRAPHS and kind != "cuda":
        raise ValueError(
            f"--compile {way} records graphs of a CUDA device, and --device is {device}: give --compile {LAYERS}, or "
            "--device cuda"
        )
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if kind == "cpu" and shutil.which(compiler) is None:
        raise ValueError(
            f"--compile {way} needs a C++ compiler for the code of a CPU, and {compiler} was not found: install it, "
            "name another one in the environment variable CXX, or leave --compile out"
        )
    if kind == "cuda" and importlib.util.find_spec("triton") is None:
        raise ValueError(
            f"--compile {way} needs the package triton for the code of a CUDA device: install it, or leave --compile "
            "out"
        )


def compile_(language_model: LanguageModel, way: str, backend: str = "inductor") -> None:
    """Let the layers of the model, or its base model, run compiled from their next call on: in place, so that modules,
    parameters and names stay. The first calls compile.

    Layers of one class and shape share their compiled code, also with those of another model in the process.

    Raises:
        ValueError: the model has no list of layers.
    """
    from torch._dynamo import config  # it takes seconds, and most runs compile nothing

    config.cache_size_limit = max(config.cache_size_limit, GRAPHS_A_CODE)
    modules = [inner(language_model).base_model] if way == GRAPHS else _layers(language_model)
    for module in modules:
        module.compile(backend=backend, **HOW[way])


def _layers(language_model: LanguageModel) -> list[nn.Module]:
    try:
        return list(layers_of(language_model.model))
    except ValueError:
        raise ValueError(
            f"{type(inner(language_model)).__name__} has no list of layers (a torch.nn.ModuleList of modules of one "
            f"class), which --compile {LAYERS} compiles one by one: leave --compile out"
        ) from None


@contextmanager
def eager(model: nn.Module) -> Iterator[None]:
    """The context in which a model runs uncompiled: where every call would compile anew, as with a cache of keys and
    values, whose layers differ by their number; or where operations are watched one by one.
    """
    held = {module: module._compiled_call_impl for module in model.modules() if module._compiled_call_impl is not None}
    for module in held:
        module._compiled_call_impl = None
    try:
        yield
    finally:
        for module, compiled in held.items():
            module._compiled_call_impl = compiled


@contextmanager
def compiling(way: str) -> Iterator[None]:
    """The context of the first forwards.

    Raises:
        ValueError: torch fails to compile them; the message has torch's first line.
    """
    if way == OFF:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        first = str(error).strip().splitlines()[:1]
        raise ValueError(
            f"torch.compile fails with this model ({type(error).__name__}: {''.join(first)}): leave --compile {way} out"
        ) from error
