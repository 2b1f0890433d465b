"""Runs of a toy study, cheap enough to be killed often."""

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from llm.studies import queue
from llm.studies.queue import Queue


@dataclass(frozen=True)
class Toy:
    """Writes three steps to a journal, continuing one that it finds, and then the sum of them; who makes it at the same
    time as another process is told.
    """

    number: int
    study: Path

    @property
    def name(self):
        return f"toy/{self.number}"

    @property
    def folder(self):
        return self.study / str(self.number)

    def done(self):
        return (self.folder / "sum").exists()

    def make(self):
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "journal").open("a+") as journal:
            try:
                fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)  # told of, never waited for
            except BlockingIOError:
                tell(self.study / "overlaps", self.name)
            for step in range(len((self.folder / "journal").read_text().splitlines()), 3):
                time.sleep(0.01)
                journal.write(f"{self.number * step}\n")
                journal.flush()
            total = sum(map(int, (self.folder / "journal").read_text().split()))
            (self.folder / f"sum.{os.getpid()}").write_text(str(total))
            os.replace(self.folder / f"sum.{os.getpid()}", self.folder / "sum")
            tell(self.study / "made", self.name)


@dataclass(frozen=True)
class Meeting(Toy):
    """Ends when as many runs of the study have begun as there are workers."""

    workers: int = 2

    def make(self):
        self.folder.mkdir()
        deadline = time.monotonic() + 60
        while sum(path.is_dir() and path.name.isdecimal() for path in self.study.iterdir()) < self.workers:
            assert time.monotonic() < deadline, "one run waits for another"
            time.sleep(0.05)
        (self.folder / "sum").write_text(str(os.getpid()))


def tell(file, line):
    """Add a line to a file that several processes write."""
    with file.open("a") as stream:
        stream.write(f"{line}\n")


def main(folder, runs):
    """Work in a study until all of its runs are done."""
    queue.POLL = 0.02
    Queue(folder).finish([Toy(number, folder) for number in range(runs)])


def command(argv):
    """Give a command of the language-model suite."""
    from llm.__main__ import main

    torch.set_num_threads(1)
    raise SystemExit(main(argv))
