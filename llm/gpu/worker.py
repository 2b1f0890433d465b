"""A process that does one job after the other: what hangs it or breaks its device ends the job, not the command."""

import gc
import time
import traceback
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from llm.gpu.job import Here, Job, SkippedError
from zobench.run.records import Row

ROW, END, SKIPPED, FAILED, LATE = "row", "end", "skipped", "failed", "late"
STARTING = 60.0
"""Seconds that a process may take to import torch and transformers, beside those of its job."""


class FailedError(Exception):
    """A job failed; the message says how."""


class LateError(Exception):
    """A job ran past its limit, and its process was ended."""


class Worker:
    """A process that lives until a job of it fails; the next job then has a new one."""

    def __init__(self, here: Here) -> None:
        self.here = here
        self._process: Any = None
        self._end: Any = None

    def rows(self, job: Job, seconds: float) -> Iterator[Row]:
        """Yield the rows of a job as they come.

        Raises:
            SkippedError: the job said that it cannot be done here.
            FailedError: it failed.
            LateError: it ran past `seconds`.
        """
        end, waiting = self._started()
        end.send(job)
        until = time.monotonic() + seconds + waiting
        while True:
            kind, what = self._received(end, until)
            if kind == ROW:
                yield what
            elif kind == END:
                return
            elif kind == SKIPPED:
                raise SkippedError(what)
            else:
                self.stop()  # an error of CUDA leaves no process in which the next job could run
                raise LateError(f"it ran past its limit of {seconds:.0f} s") if kind == LATE else FailedError(what)

    def _received(self, end: Connection, until: float) -> tuple[str, Any]:
        try:
            if end.poll(max(0.0, until - time.monotonic())):
                received: tuple[str, Any] = end.recv()
                return received
        except (EOFError, ConnectionError):
            process, self._process = self._process, None
            process.join(10)
            return FAILED, f"its process ended with status {process.exitcode}"
        return LATE, None

    def _started(self) -> tuple[Connection, float]:
        """The pipe to the process, and the seconds that it may take to start."""
        if self._process is not None:
            return self._end, 0.0
        context = get_context("spawn")
        self._end, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, self.here), daemon=True)
        self._process.start()
        other.close()
        return self._end, STARTING

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._end.close()  # an idle process ends by itself
            self._process.join(2)
            self._process.kill()
            self._process.join(10)
            self._process = None


def _serve(end: Connection, here: Here) -> None:
    """Do jobs until the other end is closed."""
    from llm.gpu.parts import PARTS

    while True:
        try:
            job: Job = end.recv()
        except EOFError:
            return
        try:
            for row in PARTS[job.part].rows(here, **job.arguments):
                end.send((ROW, row))
            end.send((END, None))
        except SkippedError as error:
            end.send((SKIPPED, str(error)))
        except Exception as error:  # any error of any part is a row
            where = traceback.extract_tb(error.__traceback__)[-1]
            said = " ".join(f"{type(error).__name__}: {error}".split())[:600]
            end.send((FAILED, f"{said} ({Path(where.filename).name}:{where.lineno})"))
        gc.collect()
        if here.device.startswith("cuda"):
            torch.cuda.empty_cache()
