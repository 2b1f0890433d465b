"""The sweep over a parameter in C: drawn and applied in one pass, with the numbers of the eager path.

Compiled once by the machine's C compiler and kept in the user's cache folder. It is used only where it gives torch's
own numbers to the bit, which is tried when it is loaded; without a compiler, or with ZOBENCH_NATIVE=0, torch does the
same in more passes.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from operator import index
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

SOURCE = Path(__file__).parent / "sweep.c"
FLAGS = (
    "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fno-strict-aliasing",
    "-shared", "-fPIC", *(("-mprefer-vector-width=512",) if platform.machine() in ("x86_64", "AMD64") else ()),
)  # fmt: skip
_turned_off = False
LOW_RANK = 2
TYPES = {torch.float32: 0, torch.bfloat16: 1}
NO_MEMORY = 1
GROUP = 16
"""Fewer numbers than this torch draws in another way."""


class NativeStream(NamedTuple):
    """What a direction is in one block: scale times the normals, or the signs, that torch draws from `seed`.

    Instead of drawn numbers, `factors` (left (rows, rank), right (rank, columns), float32) are those of the block's
    matrix: entry (i, j) is sum_k left[i, k] right[k, j], each product and each sum rounded. `mask` keeps entries: bit j
    (of octet j // 8, the lowest first; uint8 (size + 7) // 8) is whether entry j of the block is kept; the others are
    0. The blocks of a segment have one kind, one scale, one pair of factors, and all of them or none a mask.
    """

    seed: int = 0
    signs: bool = False
    factors: tuple[Tensor, Tensor] | None = None
    mask: Tensor | None = None
    scale: float = 1.0


class NativeLine(NamedTuple):
    """A direction's streams, one seed and mask a block, as NativeStream; and its amounts, one for the stored values or
    one for each point.
    """

    signs: bool
    seeds: Sequence[int]
    amounts: Sequence[float]
    factors: tuple[Tensor, Tensor] | None = None
    masks: Sequence[Tensor] | None = None
    scale: float = 1.0

    @classmethod
    def of(cls, streams: Sequence[NativeStream], amounts: Sequence[float]) -> "NativeLine | None":
        """Return the line of the streams of all blocks of a segment; None where they are not of one kind."""
        first, masks = streams[0], [each.mask for each in streams if each.mask is not None]
        if any((x.signs, x.scale) != (first.signs, first.scale) or x.factors is not first.factors for x in streams):
            return None
        if masks and len(masks) < len(streams):
            return None
        seeds = [] if first.factors else [each.seed for each in streams]
        return cls(first.signs, seeds, amounts, first.factors, masks or None, first.scale)


class _Line(ctypes.Structure):
    _fields_ = (
        ("seeds", ctypes.POINTER(ctypes.c_uint32)),
        ("amounts", ctypes.POINTER(ctypes.c_float)),
        ("masks", ctypes.POINTER(ctypes.c_void_p)),
        ("mask_bytes", ctypes.POINTER(ctypes.c_int64)),
        ("left", ctypes.c_void_p),
        ("right", ctypes.c_void_p),
        ("seed_count", ctypes.c_int64),
        ("mask_count", ctypes.c_int64),
        ("left_count", ctypes.c_int64),
        ("right_count", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("amount_count", ctypes.c_int32),
        ("kind", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("scale", ctypes.c_float),
    )


class _Sweep(ctypes.Structure):
    _fields_ = (
        ("stored", ctypes.c_void_p),
        ("targets", ctypes.POINTER(ctypes.c_void_p)),
        ("pending", ctypes.POINTER(_Line)),
        ("lines", ctypes.POINTER(_Line)),
        ("rounding", ctypes.POINTER(ctypes.c_uint32)),
        ("count", ctypes.c_int64),
        ("block", ctypes.c_int64),
        ("stored_bytes", ctypes.c_int64),
        ("target_bytes", ctypes.c_int64),
        ("rounding_count", ctypes.c_int64),
        ("pending_count", ctypes.c_int32),
        ("line_count", ctypes.c_int32),
        ("points", ctypes.c_int32),
        ("type", ctypes.c_int32),
        ("target_type", ctypes.c_int32),
        ("keep", ctypes.c_float),
    )


class NativeSweep:
    """stored <- keep * stored + sum of amount * u over `pending`; targets[p] <- that + sum of amounts[p] * u over
    `lines`.

    All are vectors of one length that `readable` is true of; the targets have one dtype. A line has a seed for each
    block of `block` entries, 16 or more of them. With `rounding` (bfloat16; a seed for each block) the stored values
    are rounded once and at random.

    Raises:
        ValueError: a tensor is not such a vector, or a mask or factor is of another type; when swept, the number of
            seeds or amounts, or the size of a mask or factor, does not fit.
    """

    def __init__(
        self,
        stored: Tensor,
        block: int,
        keep: float,
        pending: Sequence[NativeLine],
        lines: Sequence[NativeLine],
        targets: Sequence[Tensor],
        rounding: Sequence[int] | None,
    ) -> None:
        self._held = (stored, targets, pending, lines)  # and with them the memory that the pointers name
        self._taken = ctypes.c_int64(0)
        count, target = stored.numel(), targets[0].dtype if targets else torch.float32
        places = [_address(each, count, target) for each in targets]
        self._sweep = _Sweep(
            _address(stored, count, stored.dtype), (ctypes.c_void_p * len(places))(*places), _lines(pending),
            _lines(lines), None if rounding is None else _seeds(rounding), count, block, stored.nbytes,
            targets[0].nbytes if targets else 0, 0 if rounding is None else len(rounding), len(pending), len(lines),
            len(targets), TYPES[stored.dtype], TYPES[target], keep,
        )  # fmt: skip

    def take(self) -> None:
        """Sweep the blocks that no other caller has taken; the interpreter goes on meanwhile.

        Raises:
            MemoryError: no memory for a few chunks.
            ValueError: a number of seeds or amounts, a mask or a factor does not fit the blocks or the targets.
        """
        _require_done(_library().sweep(ctypes.byref(self._sweep), ctypes.byref(self._taken)))


def readable(values: Tensor) -> bool:
    """Whether C can work on a tensor's memory: float32 or bfloat16 without gaps on the CPU."""
    here = values.device.type == "cpu" and values.layout == torch.strided and values.dtype in TYPES
    return here and values.is_contiguous() and values.data_ptr() % values.itemsize == 0


def _address(values: Tensor, count: int, dtype: torch.dtype) -> int:
    """Where the numbers of a tensor lie: every pointer to one that C is given comes from here."""
    if not readable(values) or values.dtype != dtype or values.numel() != count:
        raise ValueError(
            f"a native call needs {count} contiguous numbers of one dtype (float32 or bfloat16) on the CPU, got "
            f"{values.dtype} {tuple(values.shape)} with strides {tuple(values.stride())} on {values.device}"
        )
    return values.data_ptr()


def _require_done(code: int) -> None:
    if code == NO_MEMORY:
        raise MemoryError("the native sweep found no memory for its chunks")
    if code:
        raise ValueError("the native code refused a call: a length is not that of its buffer, or below 16")


def _lines(lines: Sequence[NativeLine]) -> Any:
    return (_Line * len(lines))(*map(_line, lines))


def _line(line: NativeLine) -> _Line:
    found = _Line(_seeds(line.seeds), _floats(line.amounts), scale=line.scale, kind=int(line.signs))
    found.seed_count, found.amount_count = len(line.seeds), len(line.amounts)
    if line.masks is not None:
        found.masks = (ctypes.c_void_p * len(line.masks))(*map(_octets, line.masks))
        found.mask_bytes = (ctypes.c_int64 * len(line.masks))(*(mask.nbytes for mask in line.masks))
        found.mask_count = len(line.masks)
    if line.factors is not None:
        left, right = line.factors
        found.kind, found.rank, found.columns = LOW_RANK, right.shape[0], right.shape[-1]
        found.left, found.right = (_address(part, part.numel(), torch.float32) for part in line.factors)
        found.left_count, found.right_count = left.numel(), right.numel()
    return found


def _octets(mask: Tensor) -> int:
    """Where the octets of a mask lie."""
    if mask.device.type != "cpu" or mask.dtype != torch.uint8 or not mask.is_contiguous():
        raise ValueError(f"a mask wants contiguous octets (uint8) on the CPU, got {mask.dtype} on {mask.device}")
    return mask.data_ptr()


def _floats(values: Sequence[float]) -> Any:
    return (ctypes.c_float * len(values))(*values)


def _seeds(keys: Sequence[int]) -> Any:
    return (ctypes.c_uint32 * len(keys))(*(key & 0xFFFFFFFF for key in keys))


def status() -> str:
    """Return "in use", or why the native sweep is not."""
    return _loaded()[1]


def available() -> bool:
    """Whether the native sweep is in use."""
    return not _turned_off and _loaded()[0] is not None


@contextmanager
def turned_off() -> Iterator[None]:
    """Let torch do what the native sweep does, in the whole process: to compare them."""
    global _turned_off
    before, _turned_off = _turned_off, True
    try:
        yield
    finally:
        _turned_off = before


def normals(seed: int, count: int) -> Tensor:
    """Return float32 (count,) with the numbers of torch.randn under a CPU generator of this seed; 16 or more.

    Raises:
        ValueError: count is below 16.
    """
    return _normals(_library(), index(seed), index(count))


def _normals(library: Any, seed: int, count: int) -> Tensor:
    out = torch.empty(count, dtype=torch.float32, device="cpu")
    _require_done(library.normals(seed & 0xFFFFFFFF, _address(out, count, torch.float32), count, out.nbytes))
    return out


def _library() -> Any:
    library, reason = _loaded()
    if library is None:
        raise RuntimeError(f"the native sweep is not in use: {reason}")
    return library


@cache
def _loaded() -> tuple[Any, str]:
    if os.environ.get("ZOBENCH_NATIVE", "1") == "0":
        return None, "turned off by ZOBENCH_NATIVE=0"
    compiler = os.environ.get("CC") or next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return None, "no C compiler was found"
    try:
        library = _declared(ctypes.CDLL(str(_built(compiler))))
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"it could not be built: {error}"
    return (library, "in use") if _agrees(library) else (None, "its numbers are not those of torch on this machine")


def _declared(library: Any) -> Any:
    """The library with the types of its arguments, so that ctypes refuses others."""
    library.normals.argtypes = (ctypes.c_uint32, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    library.sweep.argtypes = (ctypes.POINTER(_Sweep), ctypes.POINTER(ctypes.c_int64))
    library.normals.restype = library.sweep.restype = ctypes.c_int
    return library


def _built(compiler: str) -> Path:
    """The compiled library, built if it is not there; its name tells source, flags, compiler and processor."""
    told = "\n".join((SOURCE.read_text(), *FLAGS, compiler, _processor()))
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    file = cache_home / "zobench" / f"sweep-{hashlib.sha256(told.encode()).hexdigest()[:16]}.so"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as aside:
            out = Path(aside) / file.name
            subprocess.run(
                [compiler, *FLAGS, str(SOURCE), "-o", str(out), "-lm"], check=True, capture_output=True, timeout=120
            )
            out.replace(file)  # whole or not at all, also where two processes build it
    return file


def _processor() -> str:
    """What tells processors apart whose instructions differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


def _agrees(library: Any) -> bool:
    seeds, count = (0, 5, 2**32 - 1), 10_007
    if not all(torch.equal(_normals(library, seed, count), _of_torch(seed, count)) for seed in seeds):
        return False
    return all(_sums_alike(library, dtype) for dtype in TYPES)


def _of_torch(seed: int, count: int) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(count, dtype=torch.float32, device="cpu", generator=generator)


def _sums_alike(library: Any, dtype: torch.dtype) -> bool:
    """Whether sums are rounded as torch does here: once where the processor multiplies and adds in one."""
    x, u = (_of_torch(seed, 10_007) for seed in (1, 2))
    ours, theirs = x.to(dtype), x.to(dtype).mul_(0.9).add_(u, alpha=0.3)
    job = NativeSweep(ours, len(x), 0.9, [NativeLine(False, [2], [0.3])], [], [], None)
    _require_done(library.sweep(ctypes.byref(job._sweep), ctypes.byref(job._taken)))
    return torch.equal(ours, theirs)
