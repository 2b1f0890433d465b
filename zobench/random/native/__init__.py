"""The streams and the sweep over a parameter in C: drawn and applied in one pass, with the numbers of the eager path.

Compiled once by the machine's C compiler and kept in the user's cache folder. It is used only where it gives the
numbers of `eager` and the sums of torch to the bit, which is tried when it is loaded; without a compiler, or with
ZOBENCH_NATIVE=0, torch does the same in more passes.
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
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zobench.random import eager

SOURCES = tuple(Path(__file__).parent / name for name in ("sweep.c", "masks.c", "octets.h", "draw.h"))
FLAGS = (
    "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fno-strict-aliasing",
    "-shared", "-fPIC", *(("-mprefer-vector-width=512",) if platform.machine() in ("x86_64", "AMD64") else ()),
)  # fmt: skip
_turned_off = False
TYPES = {torch.float32: 0, torch.bfloat16: 1}
WEIGHT_TYPES = {**TYPES, torch.float64: 2}
BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float64: torch.int64}
DRAWN_TYPES = {torch.float32: 0, torch.float64: 2, torch.int64: 3}
NORMALS, SIGNS, LOW_RANK, WORDS = range(4)
NO_MEMORY = 1


class NativeStream(NamedTuple):
    """What a direction is in one segment: scale times the normals, or the signs, of the stream of `key`.

    Instead of drawn numbers, `factors` (left (rows, rank), right (rank, columns), float32) are those of a matrix: entry
    (i, j) is sum_k left[i, k] right[k, j], each product and each sum rounded. `mask` keeps entries: bit j (of octet
    j // 8, the lowest first; uint8 (size + 7) // 8) is whether entry j is kept; the others are 0.
    """

    key: int = 0
    signs: bool = False
    factors: tuple[Tensor, Tensor] | None = None
    mask: Tensor | None = None
    scale: float = 1.0


class NativeMask(NamedTuple):
    """A mask to be made: bit j of `octets`, uint8 ((size + 7) // 8), is whether the magnitude of entry j is at most
    `bound`.
    """

    bound: float
    octets: Tensor

    @classmethod
    def empty(cls, bound: float, size: int) -> "NativeMask":
        """Return a mask that no sweep has made yet."""
        return cls(bound, _empty_octets(size))


NativeLine = tuple[NativeStream, Sequence[float]]
"""A direction's stream, and its amounts: one for the stored values or one for each point."""


class _Line(ctypes.Structure):
    _fields_ = (
        ("key", ctypes.c_uint64),
        ("amounts", ctypes.POINTER(ctypes.c_float)),
        ("mask", ctypes.c_void_p),
        ("left", ctypes.c_void_p),
        ("right", ctypes.c_void_p),
        ("mask_bytes", ctypes.c_int64),
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
        ("rounding", ctypes.c_uint64),
        ("count", ctypes.c_int64),
        ("stored_bytes", ctypes.c_int64),
        ("target_bytes", ctypes.c_int64),
        ("small", ctypes.c_void_p),
        ("small_bytes", ctypes.c_int64),
        ("pending_count", ctypes.c_int32),
        ("line_count", ctypes.c_int32),
        ("points", ctypes.c_int32),
        ("type", ctypes.c_int32),
        ("target_type", ctypes.c_int32),
        ("round_at_random", ctypes.c_int32),
        ("keep", ctypes.c_float),
        ("bound", ctypes.c_float),
    )


class UnreadableError(ValueError):
    """Memory that C would misread."""


class NativeSweep:
    """stored <- keep * stored + sum of amount * u over `pending`; targets[p] <- that + sum of amounts[p] * u over
    `lines`.

    All are vectors of one length, float32 or bfloat16 without gaps on the CPU; the targets have one dtype. With a
    `rounding` key (bfloat16) the stored values are rounded once and at random. The mask `small` is of the stored values
    after that.

    Raises:
        UnreadableError: a tensor is not such a vector, or a mask or factor is of another type.
        ValueError: when swept, the number of amounts, or the size of a mask or factor, does not fit.
    """

    def __init__(
        self,
        stored: Tensor,
        keep: float,
        pending: Sequence[NativeLine],
        lines: Sequence[NativeLine],
        targets: Sequence[Tensor],
        rounding: int | None,
        small: NativeMask | None = None,
    ) -> None:
        self._held = (stored, targets, pending, lines, small)  # and with them the memory that the pointers name
        self._taken = ctypes.c_int64(0)
        count, target = stored.numel(), targets[0].dtype if targets else torch.float32
        places = [_address(each, count, target) for each in targets]
        self._sweep = _Sweep(
            _address(stored, count, stored.dtype), (ctypes.c_void_p * len(places))(*places), _lines(pending),
            _lines(lines), rounding or 0, count, stored.nbytes, targets[0].nbytes if targets else 0,
            None if small is None else _octets(small.octets), 0 if small is None else small.octets.nbytes, len(pending),
            len(lines), len(targets), TYPES[stored.dtype], TYPES[target], rounding is not None, keep,
            0.0 if small is None else small.bound,
        )  # fmt: skip

    def take(self) -> None:
        """Sweep the pieces that no other caller has taken; the interpreter goes on meanwhile.

        Raises:
            MemoryError: no memory for a few chunks.
            ValueError: a number of amounts, a mask or a factor does not fit the vectors or the targets.
        """
        _require_done(_library().sweep(ctypes.byref(self._sweep), ctypes.byref(self._taken)))


def _address(values: Tensor, count: int, dtype: torch.dtype) -> int:
    """Where the numbers of a tensor lie: every pointer to one that C is given comes from here."""
    if values.device.type == "cpu" and values.layout == torch.strided and values.dtype == dtype and dtype in TYPES:
        place = values.data_ptr()
        if values.is_contiguous() and values.numel() == count and place % values.itemsize == 0:
            return place
    raise UnreadableError(
        f"a native call needs {count} contiguous numbers of one dtype (float32 or bfloat16) on the CPU, got "
        f"{values.dtype} {tuple(values.shape)} on {values.device}, {values.layout}"
    )


def _require_done(code: int) -> None:
    if code == NO_MEMORY:
        raise MemoryError("the native sweep found no memory for its chunks")
    if code:
        raise ValueError("the native code refused a call: a length is not that of its buffer")


def _lines(lines: Sequence[NativeLine]) -> Any:
    return (_Line * len(lines))(*(_line(stream, amounts) for stream, amounts in lines))


def _line(stream: NativeStream, amounts: Sequence[float]) -> _Line:
    count = len(amounts)
    line = _Line(stream.key, (ctypes.c_float * count)(*amounts), amount_count=count, scale=stream.scale)
    if stream.signs:
        line.kind = SIGNS
    if stream.mask is not None:
        line.mask, line.mask_bytes = _octets(stream.mask), stream.mask.nbytes
    if stream.factors is not None:
        left, right = stream.factors
        line.kind, line.rank, line.columns = LOW_RANK, right.shape[0], right.shape[-1]
        line.left, line.right = (_address(part, part.numel(), torch.float32) for part in stream.factors)
        line.left_count, line.right_count = left.numel(), right.numel()
    return line


def _empty_octets(entries: int) -> Tensor:
    return torch.empty((entries + 7) // 8, dtype=torch.uint8, device="cpu")


def _octets(mask: Tensor) -> int:
    """Where the octets of a mask lie."""
    if mask.device.type != "cpu" or mask.dtype != torch.uint8 or not mask.is_contiguous():
        raise UnreadableError(f"a mask wants contiguous octets (uint8) on the CPU, got {mask.dtype} on {mask.device}")
    return mask.data_ptr()


def status() -> str:
    """Return "in use", or why the native sweep is not."""
    return _loaded()[1]


def available() -> bool:
    """Whether the native sweep is in use."""
    return not _turned_off and _loaded()[0] is not None


def is_turned_off() -> bool:
    """Whether torch is to do it for now, on every device."""
    return _turned_off


@contextmanager
def turned_off() -> Iterator[None]:
    """Let torch do what the native sweep does, in the whole process: to compare them."""
    global _turned_off
    before, _turned_off = _turned_off, True
    try:
        yield
    finally:
        _turned_off = before


def words(key: int, start: int, stop: int, device: torch.device) -> Tensor:
    """Return words start to stop - 1 of a stream, int64."""
    return _drawn(_library(), WORDS, key, start, stop, torch.int64)


def signs(key: int, start: int, stop: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return signs start to stop - 1 of a stream, float32 or float64."""
    return _drawn(_library(), SIGNS, key, start, stop, dtype)


def normals(key: int, start: int, stop: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return normals start to stop - 1 of a stream, float32 or float64."""
    return _drawn(_library(), NORMALS, key, start, stop, dtype)


def rows(keys: Sequence[Sequence[int]], counts: Sequence[int], signs: bool, dtype: torch.dtype) -> Tensor:
    """Return the first counts[k] signs or normals of the stream of each keys[i][k], side by side in row i, float32 or
    float64, in one call.
    """
    out = torch.empty(len(keys), sum(counts), dtype=dtype, device="cpu")
    named = [key for row in keys for key in row]
    code = _library().draw_rows(
        SIGNS if signs else NORMALS, DRAWN_TYPES[dtype], (ctypes.c_uint64 * len(named))(*named), len(named),
        (ctypes.c_int64 * len(counts))(*counts), len(counts), out.data_ptr(), out.nbytes,
    )  # fmt: skip
    _require_done(code)
    return out


def reads(weights: Tensor) -> bool:
    """Whether `small` takes these weights."""
    plain = weights.device.type == "cpu" and weights.ndim == 1 and weights.is_contiguous()
    return plain and weights.dtype in WEIGHT_TYPES and available()


def small(weights: Tensor, bound: Tensor) -> Tensor:
    """Return octets, uint8 ((n + 7) // 8): bit j % 8 of octet j // 8, the lowest first, is whether the magnitude of
    weight j is at most the bound, a number of their dtype.

    Args:
        weights: (n,), float32, bfloat16 or float64 without gaps on the CPU.
        bound: the greatest magnitude, not negative, of one element.
    """
    octets = _empty_octets(weights.numel())
    bits = bound.view(BITS[weights.dtype]).item()
    place = (WEIGHT_TYPES[weights.dtype], weights.data_ptr(), weights.nbytes)
    _require_done(_library().keep_small(*place, bits, weights.numel(), octets.data_ptr(), octets.numel()))
    return octets


def at_random(key: int, start: int, stop: int, limit: int) -> Tensor:
    """Return octets, uint8 ((stop - start + 7) // 8): bit j % 8 of octet j // 8, the lowest first, is whether word
    start + j of a stream is below a limit; `start` is a multiple of 4.
    """
    octets = _empty_octets(stop - start)
    _require_done(_library().keep_at_random(key, start, limit, stop - start, octets.data_ptr(), octets.numel()))
    return octets


def _drawn(library: Any, kind: int, key: int, start: int, stop: int, dtype: torch.dtype) -> Tensor:
    out = torch.empty(stop - start, dtype=dtype, device="cpu")
    counter, skip = divmod(start, 128 if kind == SIGNS else 4)
    low, high = counter & 0xFFFFFFFFFFFFFFFF, counter >> 64
    code = library.draw(kind, DRAWN_TYPES[dtype], key, low, high, skip, out.data_ptr(), stop - start, out.nbytes)
    _require_done(code)
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
    u64, i64 = ctypes.c_uint64, ctypes.c_int64
    library.draw.argtypes = (ctypes.c_int, ctypes.c_int, u64, u64, u64, i64, ctypes.c_void_p, i64, i64)
    library.draw_rows.argtypes = (
        ctypes.c_int, ctypes.c_int, ctypes.POINTER(u64), i64, ctypes.POINTER(i64), i64, ctypes.c_void_p, i64,
    )  # fmt: skip
    library.sweep.argtypes = (ctypes.POINTER(_Sweep), ctypes.POINTER(i64))
    library.keep_small.argtypes = (ctypes.c_int, ctypes.c_void_p, i64, u64, i64, ctypes.c_void_p, i64)
    library.keep_at_random.argtypes = (u64, u64, u64, i64, ctypes.c_void_p, i64)
    for function in (library.draw, library.draw_rows, library.sweep, library.keep_small, library.keep_at_random):
        function.restype = ctypes.c_int
    return library


def _built(compiler: str) -> Path:
    """The compiled library, built if it is not there; its name tells source, flags, compiler and processor."""
    identity = "\n".join((*(source.read_text() for source in SOURCES), *FLAGS, compiler, _processor()))
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    file = cache_home / "zobench" / f"sweep-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as aside:
            out, code = Path(aside) / file.name, [str(source) for source in SOURCES if source.suffix == ".c"]
            subprocess.run(
                [compiler, *FLAGS, *code, "-o", str(out), "-lm"], check=True, capture_output=True, timeout=120
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
    place, device = (0x123456789ABCDEF0, 5, 5005), torch.device("cpu")
    if not torch.equal(_drawn(library, WORDS, *place, torch.int64), eager.words(*place, device)):
        return False
    for kind, draw in ((SIGNS, eager.signs), (NORMALS, eager.normals)):
        for dtype in (torch.float32, torch.float64):
            if not torch.equal(_drawn(library, kind, *place, dtype), draw(*place, dtype, device)):
                return False
    return all(_sums_alike(library, dtype) for dtype in TYPES)


def _sums_alike(library: Any, dtype: torch.dtype) -> bool:
    """Whether sums are rounded as torch does here: once where the processor multiplies and adds in one."""
    x, u = (eager.normals(key, 0, 10_007, torch.float32, torch.device("cpu")) for key in (1, 2))
    ours, theirs = x.to(dtype), x.to(dtype).mul_(0.9).add_(u, alpha=0.3)
    job = NativeSweep(ours, 0.9, [(NativeStream(2), [0.3])], [], [], None)
    _require_done(library.sweep(ctypes.byref(job._sweep), ctypes.byref(job._taken)))
    return torch.equal(ours, theirs)
