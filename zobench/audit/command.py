"""A program in any language as a plain function (f, x, seed, epsilon) -> estimate, over lines of JSON.

For each estimate the program reads a line {"x": [...], "seed": 1, "epsilon": 0.01}. It may write {"point": [...]} as
often as it likes, and reads {"value": 0.5} for each, the value of f there. {"estimate": [...]} ends the estimate; then
it reads the next line, or the end of its input. It flushes what it writes.
"""

import json
import select
import shlex
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

SECONDS = 60.0
MOST_POINTS = 100_000


class Program:
    """A running program that is asked for estimates; it is started once, without a shell.

    Raises:
        ValueError: the command line cannot be started.
    """

    def __init__(self, command: str, seconds: float = SECONDS) -> None:
        self.command, self.seconds = command, seconds
        try:
            words = shlex.split(command)
            self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except (OSError, ValueError, IndexError) as error:
            raise ValueError(f"--command {command!r} cannot be started: {error}") from None
        self._rest = b""

    def __call__(self, f: Callable[[Any], float], x: Any, seed: int, epsilon: float) -> Any:
        """Return the estimate that the program answers with.

        Raises:
            ValueError: it ends, is silent for too long, or writes another line than a point or an estimate.
        """
        self._write({"x": np.asarray(x).tolist(), "seed": seed, "epsilon": epsilon})
        for _ in range(MOST_POINTS):
            answer = self._read()
            if "estimate" in answer:
                return self._vector(answer["estimate"], len(x))
            self._write({"value": float(f(self._vector(answer.get("point"), len(x))))})
        raise ValueError(f"--command {self.command!r} asked for {MOST_POINTS} points in one estimate")

    def close(self) -> None:
        """End the program."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # what it did not read is lost with it
                pipe.close()

    def _write(self, line: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(line).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ValueError(self._ended()) from None

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while b"\n" not in self._rest:
            if not select.select([self._process.stdout], [], [], self.seconds)[0]:
                raise ValueError(f"--command {self.command!r} wrote no line for {self.seconds:g} s: does it flush?")
            chunk = self._process.stdout.read1()  # type: ignore[attr-defined]
            if not chunk:
                raise ValueError(self._ended())
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or not {"point", "estimate"} & answer.keys():
            raise ValueError(
                f'--command {self.command!r} wrote {line[:80]!r}: give {{"point": [...]}} or {{"estimate": [...]}}'
            )
        return answer

    def _vector(self, numbers: Any, dim: int) -> Any:
        try:
            vector = np.asarray(numbers, dtype=np.float64)
        except (TypeError, ValueError):
            vector = np.empty(0)
        if vector.shape != (dim,):
            raise ValueError(f"--command {self.command!r} wrote {str(numbers)[:80]}, which is no list of {dim} numbers")
        return vector

    def _ended(self) -> str:
        return f"--command {self.command!r} ended with status {self._process.wait()} before its estimate"
