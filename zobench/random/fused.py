"""The seam to the Triton kernels: what they can do in one pass over a parameter, and when they are used."""

import ctypes
import importlib.util
import os
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from zobench.layout import on_device
from zobench.random import eager, native
from zobench.random.native import NativeLine, UnreadableError

DTYPES = (torch.float32, torch.bfloat16)
MOST_POINTS = 2
NORMALS, SIGNS, HALVES, WORDS = range(4)
BLOCK = {NORMALS: 1024, SIGNS: 4096, HALVES: 1024, WORDS: 1024}
AT_A_TIME = 128
"""A program begins at a multiple of so many numbers: those that four words make signs of."""
FAR = 1 << 62
"""Beyond this number of a stream the kernels' counters of 64 bits might not do."""


def available(device: torch.device) -> bool:
    """Whether kernels are used on a device: on CUDA where Triton is installed, unless ZOBENCH_NATIVE=0 or the native
    sweep is turned off.
    """
    if device.type != "cuda" or native.is_turned_off() or os.environ.get("ZOBENCH_NATIVE", "1") == "0":
        return False
    return _installed()


@cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


class FusedSweep:
    """What `NativeSweep` does, on a device, with normals or signs, of at most two targets.

    Raises:
        UnreadableError: a tensor, a line or the number of targets is of another kind.
    """

    def __init__(
        self,
        stored: Tensor,
        keep: float,
        pending: Sequence[NativeLine],
        lines: Sequence[NativeLine],
        targets: Sequence[Tensor],
        rounding: int | None,
    ) -> None:
        if len(targets) > MOST_POINTS or len({t.dtype for t in targets}) > 1:
            raise UnreadableError(f"{len(targets)} targets: a kernel fills two of one dtype")
        for tensor in (stored, *targets):
            _require_vector(tensor, stored)
        self._stored, self._keep, self._targets, self._rounding = stored, keep, targets, rounding
        self._kind = _kind([*pending, *lines])
        self._counts = len(pending), len(lines) if targets else 0
        self._table = table([*pending, *(lines if targets else ())], stored.device)
        self._waiting = iter((True,))  # whoever gets it launches: a second launch would write the pending step twice

    def take(self) -> None:
        """Launch the kernel, once, whoever calls."""
        if not next(self._waiting, False):
            return
        stored, (pending, lines), count = self._stored, self._counts, self._stored.numel()
        if not count or not (pending or self._targets or self._keep != 1.0):
            return
        targets = [*self._targets, stored, stored][:2]
        block = BLOCK[SIGNS if self._kind == SIGNS else NORMALS]
        _kernels().sweep[(-(-count // block),)](
            stored, *targets, self._table, count, self._keep, *_words(self._rounding or 0), PENDING=pending,
            LINES=lines, POINTS=len(self._targets), COLUMNS=self._table.shape[1], KIND=self._kind,
            DECAYS=self._keep != 1.0, AT_RANDOM=self._rounding is not None and (pending > 0 or self._keep != 1.0),
            BLOCK=block, enable_fp_fusion=False,
        )  # fmt: skip


def words(key: int, start: int, stop: int, device: torch.device) -> Tensor:
    """Return words start to stop - 1 of a stream, int64."""
    return eager.words(key, start, stop, device) if stop > FAR else _drawn(WORDS, key, start, stop, torch.int64, device)


def signs(key: int, start: int, stop: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return signs start to stop - 1 of a stream, float32 or float64."""
    if stop > FAR:
        return eager.signs(key, start, stop, dtype, device)
    return _drawn(SIGNS, key, start, stop, dtype, device)


def normals(key: int, start: int, stop: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return normals start to stop - 1 of a stream, float32 or, in torch's operations, float64."""
    if stop > FAR or dtype == torch.float64:
        return eager.normals(key, start, stop, dtype, device)
    return _drawn(NORMALS, key, start, stop, dtype, device)


def _drawn(kind: int, key: int, start: int, stop: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    first, block = start - start % AT_A_TIME, BLOCK[kind]
    out = torch.empty(stop - first, dtype=dtype, device=device)
    if len(out):
        grid = (-(-len(out) // block),)
        _kernels().draw[grid](
            out, *_words(key), first, len(out), KIND=kind, BLOCK=block, enable_fp_fusion=False
        )  # fmt: skip
    return out[start - first :]


def fits(lines: Sequence[NativeLine]) -> bool:
    """Return whether kernels draw these lines in one pass: normals or signs, of one kind, without masks or factors."""
    kinds = {stream.signs for stream, _ in lines}
    return len(kinds) < 2 and all(stream.mask is None and stream.factors is None for stream, _ in lines)


def draws_rows(width: int, dtype: torch.dtype) -> bool:
    """Return whether kernels draw single rows of a matrix of this width, whose directions have this dtype."""
    return width % AT_A_TIME == 0 and dtype == torch.float32


def add_rows(target: Tensor, wanted: Tensor, lines: Sequence[NativeLine]) -> None:
    """Add to row i of a target sum of amount u over the lines, which `fits` is true of, u the entries of row wanted[i]
    of a matrix, which `draws_rows` is true of.
    """
    width, kind = target.shape[-1], _kind(lines)
    if not len(wanted) or not lines:
        return
    block = BLOCK[kind]
    _kernels().rows[(len(wanted), -(-width // block))](
        target, wanted, table(lines, target.device), width, LINES=len(lines), COLUMNS=3 + len(lines[0][1]), KIND=kind,
        BLOCK=block, enable_fp_fusion=False,
    )  # fmt: skip


def table(lines: Sequence[NativeLine], device: torch.device) -> Tensor:
    """Return keys, scales and amounts as a kernel reads them, int32 (lines or 1, 3 and the amounts). The host does not
    wait for it to arrive.
    """
    most = max((len(amounts) for _, amounts in lines), default=1)
    rows = [
        [*_words(stream.key), _bits(stream.scale), *map(_bits, amounts), *[0] * (most - len(amounts))]
        for stream, amounts in lines
    ]
    return on_device(rows or [[0] * 4], device, torch.int32)


def _words(key: int) -> tuple[int, int]:
    """The two words of a key, as signed integers of 32 bits."""
    low, high = key & 0xFFFFFFFF, key >> 32
    return low - (low >> 31 << 32), high - (high >> 31 << 32)


def _bits(number: float) -> int:
    """The bits of a number in float32, as a signed integer; converted as for the native sweep."""
    return int.from_bytes(bytes(ctypes.c_float(number)), sys.byteorder, signed=True)


def _kind(lines: Sequence[NativeLine]) -> int:
    """The kind of numbers that all lines have."""
    if not fits(lines):
        raise UnreadableError("a kernel draws normals or signs, of one kind in a pass, without masks or factors")
    return SIGNS if lines and lines[0][0].signs else NORMALS


def _require_vector(tensor: Tensor, stored: Tensor) -> None:
    same = tensor.device == stored.device and tensor.numel() == stored.numel()
    if not (same and tensor.dtype in DTYPES and tensor.is_contiguous()):
        raise UnreadableError(f"{tensor.dtype} {tuple(tensor.shape)}: a kernel reads contiguous float32 or bfloat16")


@cache
def _kernels() -> Any:
    from zobench.random import kernels  # needs Triton

    return kernels
