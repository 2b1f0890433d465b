"""A folder of a model with random weights, written layer by layer: never in memory as a whole."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from llm.bench.setting import random_opt
from llm.model import loading
from llm.model.language_model import DTYPES
from llm.model.streaming import INDEX
from llm.options.bench import SIZES, RandomModelOptions
from zobench import derive
from zobench.naming import require_known
from zobench.random import normals
from zobench.run.progress import bar, note
from zobench.space.streamed import layers_of, owners

SPREAD = 0.02
"""Standard deviation of the entries of matrices, as OPT's configuration has it."""


def run(options: RandomModelOptions) -> None:
    """Run the command: RandomModelOptions says what it does.

    Raises:
        UnknownNameError: no such size or dtype.
        ValueError: the folder exists.
    """
    require_known(options.size, SIZES, "size")
    require_known(options.dtype, DTYPES, "dtype")
    if Path(options.out).exists():
        raise ValueError(f"{options.out} exists: give --out a new folder")
    count = write(Path(options.out), options.size, options.dtype, options.seed)
    note(f"{options.out}: {count:,} random weights in {options.dtype}")


def write(folder: Path, size: str, dtype: str, seed: int) -> int:
    """Write the model with the tokenizer of tiny-opt, and return the number of its weights."""
    model = random_opt(size, dtype, "meta")
    parts, names = _parts(model), list[tuple[str, str]]()
    folder.mkdir(parents=True)
    with bar(parts, desc="random model", unit="file") as shown:
        for number, part in enumerate(shown, 1):
            file = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
            save_file({name: drawn(name, p, seed) for name, p in part.items()}, folder / file, {"format": "pt"})
            names += [(name, file) for name in part]
    index = {"metadata": {}, "weight_map": dict(names)}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    model.config.architectures, model.config.dtype = [type(model).__name__], DTYPES[dtype]
    model.config.save_pretrained(folder)
    loading.load("tiny-opt").tokenizer.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def _parts(model: nn.Module) -> list[dict[str, nn.Parameter]]:
    """The parameters of each layer, and before them the rest."""
    of_layer = owners(layers_of(model))
    found: dict[int, dict[str, nn.Parameter]] = {}
    for name, p in model.named_parameters():
        found.setdefault(of_layer.get(p, -1), {})[name] = p
    return [found[k] for k in sorted(found)]


def drawn(name: str, parameter: Tensor, seed: int) -> Tensor:
    """Return random values of a parameter: of a matrix with standard deviation SPREAD, of a norm's gain 1, of a bias
    0.
    """
    if parameter.ndim == 1:
        return torch.full(parameter.shape, float(name.endswith("weight")), dtype=parameter.dtype)
    values, key = torch.empty(parameter.numel(), dtype=parameter.dtype), derive("random model", seed, name)
    for start, stop in _spans(parameter.numel()):
        values[start:stop] = normals(key, start, stop) * SPREAD
    return values.view(parameter.shape)


def _spans(count: int, size: int = 1 << 22) -> Iterator[tuple[int, int]]:
    return ((start, min(start + size, count)) for start in range(0, count, size))
