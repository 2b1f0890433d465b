"""Materialised checkpoints: safetensors, written aside, forced to disk and renamed; the last two are kept."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from llm.model.trainable import distinct
from llm.quantised.codes import searched_codes
from zobench.run.files import sync
from zobench.run.progress import warn

KEPT = 2
FORMAT = "zobench checkpoint 1"
UNFINISHED = ("*.safetensors.part", ".tmp??????")
"""Names of files that are being written; the second is safetensors' own, of a file as large as the weights."""


class Checkpoint(NamedTuple):
    """The file of the weights before `step`, and what it says of the run it is of."""

    step: int
    file: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def weights(model: nn.Module, trained: bool = True) -> dict[str, Tensor]:
    """Return the parameters that training changes, or those that it does not, tied ones once; codes that a search
    changes belong to the first.
    """
    found = {each.name: each.parameter.detach() for each in distinct(model) if each.parameter.requires_grad is trained}
    return found | searched_codes(model) if trained else found


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Write a checkpoint and remove all but the last two.

    Raises:
        OSError: no space, or the like; the checkpoints before are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"step-{step:08d}.safetensors"
    write(file, step, tensors, metadata)
    clear(folder)
    return file


def write(file: Path, step: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write one file: aside, forced to disk, renamed.

    Raises:
        OSError: no space, or the like; the file is what it was.
    """
    clear(file.parent)
    partial = _aside(file)
    own = {name: _alone(tensor) for name, tensor in tensors.items()}
    said = {**metadata, "format": FORMAT, "step": str(step), "checksum": _checksum(own)}
    try:
        _write(partial, own, said)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        reason = f"{file}: {error}: what was kept before is there; make room and give the same command again"
        raise OSError(reason) from error
    os.replace(partial, file)
    sync(file.parent)


def clear(folder: Path) -> None:
    """Remove all but the last two checkpoints, and what a killed process was writing; nobody may be writing there."""
    unfinished = [file for name in UNFINISHED for file in folder.glob(name) if file.is_file()]
    for left in (*files(folder)[KEPT:], *unfinished):
        left.unlink()


def _aside(file: Path) -> Path:
    return file.with_name(file.name + ".part")


def _write(file: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    try:
        save_file(dict(tensors), file, metadata)
    except Exception as error:  # safetensors has an error of its own for everything
        raise OSError(str(error)) from error
    sync(file)


def files(folder: Path) -> list[Path]:
    """Return the files of the checkpoints, the latest first."""
    return sorted(folder.glob("step-*.safetensors"), reverse=True)


def chained(marks: Sequence[int], step: int) -> dict[str, str]:
    """Return what a checkpoint says of the journal before its step, by the checksums of a journal up to each step."""
    return {"chain": f"{marks[step]:08x}"}


def is_chained(checkpoint: Checkpoint, marks: Sequence[int]) -> bool:
    """Return whether a checkpoint is of a journal with these checksums."""
    return checkpoint.step < len(marks) and chained(marks, checkpoint.step).items() <= checkpoint.metadata.items()


def latest(
    folder: Path, most: int, metadata: Mapping[str, str], marks: Sequence[int] | None = None
) -> Checkpoint | None:
    """Return the latest sound checkpoint of at most this step; one that is damaged is told on stderr and passed over.
    `marks` are the checksums of the journal, where there is one.

    Raises:
        ValueError: a sound one is of another run, whose metadata are others, or not of the journal.
    """
    for file in files(folder):
        try:
            checkpoint = load(file)
        except ValueError as error:
            warn(f"{error}: ignored")
            continue
        require_same_run(checkpoint, metadata)
        if checkpoint.step > most:
            warn(f"{file} is of step {checkpoint.step}, later than {most}: ignored")
        elif marks is None or is_chained(checkpoint, marks):
            return checkpoint
        else:
            raise ValueError(f"{file} does not belong to the journal beside it: remove it")
    return None


def require_same_run(checkpoint: Checkpoint, metadata: Mapping[str, str]) -> None:
    """Raise ValueError if what a checkpoint says of its run is not this."""
    differing = [name for name, value in metadata.items() if checkpoint.metadata.get(name) != value]
    if differing:
        names = ", ".join(differing)
        raise ValueError(f"{checkpoint.file} is of another run ({names}): remove it, or give another --out")


def load(file: Path) -> Checkpoint:
    """Return a checkpoint.

    Raises:
        ValueError: the file is damaged, or no checkpoint.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 not a dict
        step = int(metadata.get("step", ""))
    except Exception as error:  # safetensors has an error of its own for everything
        raise ValueError(f"{file} is no whole checkpoint ({error})") from None
    if metadata.get("format") != FORMAT or metadata.get("checksum") != _checksum(tensors) or step < 0:
        raise ValueError(f"{file} is no checkpoint of this program, or does not have its checksum")
    return Checkpoint(step, file, tensors, metadata)


@torch.no_grad()
def restore(model: nn.Module, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Put the weights of a checkpoint into the model and return its other tensors.

    Raises:
        ValueError: names, shapes or dtypes are not those of the model.
    """
    mine = weights(model)
    for name, parameter in mine.items():
        kept = checkpoint.tensors.get(name)
        if kept is None or (kept.shape, kept.dtype) != (parameter.shape, parameter.dtype):
            raise ValueError(f"{checkpoint.file} does not fit the model at {name}: remove it, or give another --out")
    for name, parameter in mine.items():
        parameter.copy_(checkpoint.tensors[name])
    return {name: tensor for name, tensor in checkpoint.tensors.items() if name not in mine}


def _alone(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where it is part of a larger storage."""
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole and tensor.is_contiguous() else tensor.contiguous().clone()


def octets(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor, as they lie in a contiguous copy on the CPU."""
    flat: Any = tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat)


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    total = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        about = f"{name} {tuple(tensor.shape)} {tensor.dtype};"
        total = crc32(octets(tensor), crc32(about.encode(), total))
    return f"{total:08x}"
