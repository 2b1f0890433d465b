"""Ranks: processes that evaluate the losses of one step together. Between them travel numbers, never parameters."""

import os
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from zobench.layout import CPU
from zobench.numbers import real

TIMEOUT = 600.0
"""Seconds that a rank waits for another one, unless told otherwise."""
GRACE = 3.0  # seconds in which those that wait for a lost rank tell that they are not it
FAILED = -1.0  # in place of a count: the rank has met an error of its own
PROBES, DATA, AUTO, ALONE = "probes", "data", "auto", "alone"
DIVISIONS = "auto, probes, data, or PROBESxDATA such as 2x2"


class RankError(OSError):
    """The ranks cannot go on together."""


class RankLostError(RankError):
    """A rank has ended, hangs, or met an error of its own."""


class RanksDifferError(RankError):
    """Ranks hold different weights, or were given different models, data or options."""


@dataclass(frozen=True)
class Division:
    """How a step is divided: rank r evaluates the points of slice r // data of `probes` slices of the plan's points, on
    slice r % data of `data` slices of the minibatch. There are probes * data ranks.
    """

    probes: int = 1
    data: int = 1

    @classmethod
    def parse(cls, text: str, world: int, points: int | None = None) -> "Division":
        """Return the division that a text names for so many ranks: "probes", "data", "2x3" (2 slices of the points, 3
        of the minibatch), or "auto": probes where the plan has at least as many points as there are ranks, else as many
        slices of the points as divide the ranks, and the rest of the minibatch.

        Args:
            text: the division.
            world: the number of ranks.
            points: the points of a plan; None if they are unknown, and then "auto" is "probes".

        Raises:
            ValueError: the text is none of these, or the slices are not as many as the ranks.
        """
        if text == AUTO:
            probes = max(p for p in range(1, world + 1) if world % p == 0 and p <= (points or world))
            return cls(probes, world // probes)
        if text in (PROBES, DATA):
            return cls(world, 1) if text == PROBES else cls(1, world)
        probes_text, cross, data_text = text.partition("x")
        if not (cross and probes_text.isdecimal() and data_text.isdecimal()):
            raise ValueError(f"ranks is {text!r}: give {DIVISIONS}")
        division = cls(int(probes_text), int(data_text))
        if division.probes * division.data != world:
            raise ValueError(
                f"ranks is {text!r}, which needs {division.probes * division.data} processes, but there are {world}: "
                f"give --nproc-per-node {division.probes * division.data}, or two factors of {world}"
            )
        return division

    def probe_of(self, rank: int) -> int:
        """Return the slice of the points that a rank evaluates."""
        return rank // self.data

    def part_of(self, rank: int) -> int:
        """Return the slice of the minibatch that a rank evaluates."""
        return rank % self.data

    def __str__(self) -> str:
        return f"{self.probes} slices of the points x {self.data} of the minibatch"


def slice_of(count: int, parts: int, index: int) -> range:
    """Return the places of slice `index` when `count` things are divided into `parts` contiguous slices, whose sizes
    differ by at most 1.
    """
    return range(count * index // parts, count * (index + 1) // parts)


def launched() -> bool:
    """Return whether this process is one of several that torchrun, or a launcher like it, has started."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first() -> bool:
    """Return whether this process is the only one, or number 0 of those that a launcher has started."""
    return not launched() or int(os.environ["RANK"]) == 0


def several() -> bool:
    """Return whether there are several processes: torch.distributed runs with them, or a launcher has started them."""
    return distributed.get_world_size() > 1 if distributed.is_initialized() else launched()


class Ranks:
    """This process among `world` of them, which is number `rank`. Every method is called by all ranks, in one order.

    Where torch.distributed runs already, it gets one more group, of the gloo backend; else it is started from the
    variables that torchrun and accelerate's launcher set. Numbers travel through the CPU, whatever device computes
    them: an exchange is some hundred bytes. `bytes` and `exchanges` count what this rank has sent. A wait ends after
    `timeout` seconds.

    Raises:
        ValueError: the timeout is not positive.
        RankLostError: a rank did not come within the timeout.
    """

    def __init__(self, timeout: float = TIMEOUT) -> None:
        seconds = real("timeout", timeout, "give seconds above 0", lambda value: value > 0)
        wait = timedelta(seconds=seconds)
        self.timeout, self.exchanges, self.bytes = seconds, 0, 0
        self._owns = not distributed.is_initialized()
        try:
            if self._owns:
                distributed.init_process_group("gloo", timeout=wait)
            self.group: Any = distributed.group.WORLD if self._owns else distributed.new_group(None, wait, "gloo")
        except RuntimeError as error:
            raise RankLostError(f"the ranks did not come together within {seconds:g} s: {error}") from error
        self.rank, self.world = distributed.get_rank(), distributed.get_world_size()

    def gather(self, work: Callable[[], Sequence[float]], most: int | None = None) -> list[list[float]]:
        """Return what work() gave on each rank, by rank: float64, to the bit. `most` is the largest number of values,
        where all ranks know it: the exchange is then one message of 8 (1 + most) bytes a rank, and else two.

        Raises:
            RankLostError: another rank has ended, did not answer within the timeout, or met an error in its work; an
                error of this rank's own is told to the others and raised as it is.
        """
        try:
            mine = [float(value) for value in work()]
        except BaseException:
            with suppress(RankError):
                self._exchange([FAILED, *[0.0] * (most or 0)])
            raise
        if most is None:
            counts = self._counted(self._exchange([float(len(mine))]))
            most = max(counts)
            rows = self._exchange(_padded(mine, most)) if most else [[] for _ in counts]
        else:
            rows = self._exchange([float(len(mine)), *_padded(mine, most)])
            counts = self._counted(rows)
            rows = [row[1:] for row in rows]
        return [row[:count] for row, count in zip(rows, counts, strict=True)]

    def _counted(self, rows: Sequence[Sequence[float]]) -> list[int]:
        failed = [rank for rank, row in enumerate(rows) if row[0] == FAILED]
        if failed:
            raise RankLostError(
                f"{_named(failed)} met an error, which it reports: the other ranks end too. Nothing that was "
                "computed is lost; the same command continues"
            )
        return [int(row[0]) for row in rows]

    def bytes_of_first(self, data: bytes = b"") -> bytes:
        """Return the bytes that rank 0 gave.

        Raises:
            RankLostError: as for `gather`.
        """
        size = int(self._exchange([float(len(data))])[0][0])
        buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8) if self.rank == 0 and size else _blank(size)
        if size:
            self._tried(lambda: distributed.broadcast(buffer, 0, self.group))
        self.bytes += size if self.rank == 0 else 0
        return buffer.numpy().tobytes()

    def require_same(self, what: str, mine: int) -> None:
        """Compare a number of up to 53 bits, such as a checksum, over the ranks.

        Raises:
            RanksDifferError: they differ; the message names the ranks that differ from the most, or from rank 0.
            RankLostError: as for `gather`.
        """
        values = [int(row[0]) for row in self.gather(lambda: [float(mine)], 1)]
        counts = Counter(values)
        ((usual, most),) = counts.most_common(1)
        usual = values[0] if counts[values[0]] == most else usual
        others = [rank for rank, value in enumerate(values) if value != usual]
        if others:
            raise RanksDifferError(
                f"{_named(others)} of {self.world} ranks has another {what} ({values[others[0]]:08x}) than the others "
                f"({usual:08x}): its machine, device or version of torch computes differently, or it was given another "
                "model; leave it out and give the same command again"
            )

    def close(self) -> None:
        """Leave: after it no rank waits for this one."""
        if self._owns and distributed.is_initialized():
            distributed.destroy_process_group()

    def _exchange(self, row: list[float]) -> list[list[float]]:
        mine = torch.tensor(row, dtype=torch.float64, device=CPU)
        rows = [torch.empty_like(mine) for _ in range(self.world)]
        self._tried(lambda: distributed.all_gather(rows, mine, self.group))
        self.exchanges += 1
        self.bytes += mine.nbytes
        return [each.tolist() for each in rows]

    def _tried(self, do: Callable[[], Any]) -> None:
        began = time.monotonic()
        try:
            do()
        except RuntimeError as error:
            lost, waited = self._lost(), time.monotonic() - began
            raise RankLostError(
                f"{_named(lost) if lost else 'another rank'} has ended or hangs: no answer in {waited:.3g} s (the "
                f"timeout is {self.timeout:g} s). Nothing that was computed is lost; the same command continues, with "
                "any number of ranks"
            ) from error

    def _lost(self) -> list[int]:
        """The ranks that do not tell, within a few seconds, that they wait too."""
        key = f"zobench/waiting/{self.exchanges}"
        lost = [rank for rank in range(self.world) if rank != self.rank]
        with suppress(Exception):  # the store may be of the process that has ended
            store = distributed.distributed_c10d._get_default_store()
            store.set(f"{key}/{self.rank}", "")
            ended = time.monotonic() + GRACE
            while lost and time.monotonic() < ended:
                lost = [rank for rank in lost if not store.check([f"{key}/{rank}"])]
                time.sleep(0.05)
            return lost
        return []


def checksum(tensors: Iterable[Tensor]) -> int:
    """Return the CRC-32 of the bytes of tensors, one after the other, on any device."""
    value = 0
    for tensor in tensors:
        octets = tensor.detach().reshape(-1).contiguous().view(torch.uint8).cpu()
        value = zlib.crc32(octets.numpy().data, value)
    return value


def _padded(values: list[float], size: int) -> list[float]:
    return values + [0.0] * (size - len(values))


def _blank(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, device=CPU)


def _named(ranks: Sequence[int]) -> str:
    return f"rank {', '.join(map(str, ranks))}"
