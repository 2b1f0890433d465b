"""A step of several processes against one process with as many threads, side by side; and on paper for many ranks."""

import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, NamedTuple

from zobench.distributed import Division
from zobench.run.records import Row
from zobench.run.timing import alternating

WORKER = "llm.bench.rank"


class Job(NamedTuple):
    """So many processes of so many threads each, which divide a step so; "" is one process."""

    processes: int
    threads: int
    ranks: str = ""

    @property
    def name(self) -> str:
        """The job in words."""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return (
            f"1 process, {threads}" if not self.ranks else f"{self.processes} processes, {self.ranks}, {threads} each"
        )


JOBS = (Job(1, 2), Job(1, 1), Job(2, 1, "probes"), Job(2, 1, "data"))


def measure(size: str, dtype: str, batch: int, tokens: int, repetitions: int) -> list[Row]:
    """Return a row for each job: seconds of a MeZO step (in-forward, deferred), in turn, and the bytes and exchanges of
    one rank. All processes live at once, and those of other jobs wait.
    """
    words = [size, dtype, str(batch), str(tokens)]
    with ExitStack() as running:
        steps = {job.name: running.enter_context(_started(job, words)) for job in JOBS}
        told = {name: step() for name, step in steps.items()}
        seconds = alternating(steps, repetitions)
    about = {"kind": "bench-distributed", "size": size, "dtype": dtype, "batch": batch, "tokens": tokens}
    return [{**about, "job": job.name, **job._asdict(), **told[job.name], "seconds": seconds[job.name]} for job in JOBS]


@contextmanager
def _started(job: Job, words: Sequence[str]) -> Iterator[Callable[[], Row]]:
    """The processes of a job, and what lets them take one step and returns what rank 0 has sent for it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    processes = [_process(job, rank, where, words) for rank in range(job.processes)]

    def step() -> Row:
        for process in processes:
            _pipe(process.stdin).write("step\n")
            _pipe(process.stdin).flush()
        answers = [_pipe(process.stdout).readline().split() for process in processes]
        if not all(answers):
            raise RuntimeError(f"a process of the benchmark ({job.name}) has ended")
        return {"bytes": int(answers[0][0]), "exchanges": int(answers[0][1])}

    try:
        yield step
    finally:
        for process in processes:
            _pipe(process.stdin).close()
        for process in processes:
            process.wait(60)
            _pipe(process.stdout).close()


def _process(job: Job, rank: int, where: dict[str, str], words: Sequence[str]) -> "subprocess.Popen[str]":
    ranks = {**where, "WORLD_SIZE": str(job.processes), "RANK": str(rank)} if job.ranks else {}
    command = [sys.executable, "-m", WORKER, *words, job.ranks or "alone"]
    environment = {**os.environ, **ranks, "OMP_NUM_THREADS": str(job.threads)}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None  # it was asked for
    return pipe


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text."""
    whole = statistics.median(rows[0]["seconds"])
    lines = [f"{'distributed':38}{'seconds':>10}{'of the first':>14}{'bytes':>8}{'exchanges':>11}"]
    for row in rows:
        middle = statistics.median(row["seconds"])
        lines.append(f"{row['job']:38}{middle:10.3f}{middle / whole:14.2f}{row['bytes']:8}{row['exchanges']:11}")
    return "\n".join(lines)


def markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a table of a page."""
    whole, fastest = (of(rows[0]["seconds"]) for of in (statistics.median, min))
    lines = [
        "| processes | seconds a step | of the first | of the first, fastest steps | bytes a rank sends | exchanges |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        middle, least = statistics.median(row["seconds"]), min(row["seconds"])
        lines.append(
            f"| {row['job']} | {middle:.3f} | {middle / whole:.2f} | {least / fastest:.2f} | {row['bytes'] or ''} | "
            f"{row['exchanges'] or ''} |"
        )
    return "\n".join(lines)


class Paper(NamedTuple):
    """What a step on many devices is computed from; the defaults are OPT-13b in bfloat16 on a GPU of 400 Tflop/s in
    products and 4.8 TB/s of memory, and a network of 200 us an exchange and 50 GB/s.
    """

    parameters: float = 13e9
    bytes_each: int = 2
    examples: int = 16
    tokens: int = 300
    flops: float = 4e14
    memory: float = 4.8e12
    latency: float = 2e-4
    network: float = 5e10

    def seconds(self, points: int, division: Division) -> float:
        """Return 2 N tokens / flops for each point and example of the slowest rank, one pass that reads and writes the
        weights, and the exchanges.
        """
        most, examples = -(-points // division.probes), -(-self.examples // division.data)
        forwards = most * examples * self.tokens * 2 * self.parameters / self.flops
        update = 2 * self.parameters * self.bytes_each / self.memory
        exchanges = 0 if division == Division() else 2 if division.data == 1 else 4
        return forwards + update + exchanges * self.latency

    def gradients(self, ranks: int) -> float:
        """Return the seconds of an all-reduce of one gradient on a ring: 2 (W - 1) / W of its bytes."""
        return 2 * (ranks - 1) / ranks * self.parameters * self.bytes_each / self.network


def on_paper(paper: Paper | None = None, worlds: Sequence[int] = (1, 2, 4, 8, 16, 32)) -> str:
    """Return a table of a page: steps of 2 and of 64 points on so many ranks and on 64 for 64 points, computed and not
    measured. Two points on 16 examples occupy 32 ranks at most.
    """
    paper = paper or Paper()
    lines = [
        "| ranks | 2 points: points x minibatch | seconds | speed-up | 64 points: points x minibatch | seconds | "
        "speed-up | an all-reduce of gradients, seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for world in (*worlds, 64):
        cells = []
        for points in (2, 64):
            division = Division.parse("auto", world, points)
            if division.data > paper.examples:
                cells += ["more than 16 examples", "", ""]
                continue
            seconds, alone = paper.seconds(points, division), paper.seconds(points, Division())
            cells += [f"{division.probes} x {division.data}", f"{seconds:.3g}", f"{alone / seconds:.1f}"]
        lines.append(f"| {world} | {' | '.join(cells)} | {paper.gradients(world):.2g} |")
    return "\n".join(lines)
