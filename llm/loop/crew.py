"""The processes of one run: what rank 0, which keeps the run, tells the others, and what they tell it."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

import torch

from llm.options.train import TrainOptions
from llm.run import checkpoint
from llm.run.context import RunContext
from llm.run.header import header, identity
from llm.steppers.method import TrainingMethod, ZerothOrderMethod
from llm.steppers.stepper import ALONE, Stepper
from zobench.distributed import Division, RankError, Ranks, checksum
from zobench.plan import SLOPE
from zobench.run.exit_status import BAD_INPUT, INTERRUPTED
from zobench.run.journal import Record, read
from zobench.space import Shared

BEGIN, JOIN, STEP, END, LEAVE = range(5)
"""What rank 0 says when the ranks meet: load the model; get the journal; take a step; all steps are taken; the run
cannot go on here.
"""
AT_MOST = 0.25
"""Share of the timeout that a rank which catches up lets the others wait at once."""


class Crew:
    """The ranks of a run. Before every step they meet: rank 0 says what comes next, each says whether it got a signal
    to end. Rank 0 alone reads and writes the run's folder; the others need the base model, the data and what rank 0
    sends them: the journal, whose steps they repeat, so that a rank may come to a run at any step.

    Raises:
        ValueError: the method does not share its steps out, --ranks does not suit the number of processes, or the
            timeout is not positive.
        RankLostError: a process did not come.
    """

    def __init__(self, options: TrainOptions) -> None:
        world = int(os.environ["WORLD_SIZE"])
        self.division = Division.parse(options.ranks, world, points_of(options))
        if options.compare_every < 0:
            raise ValueError(f"compare_every is {options.compare_every}: give a number of steps, or 0 for never")
        self.ranks = Ranks(options.rank_timeout)
        self.shared = Shared(self.ranks, self.division)
        self.every, self._compared = options.compare_every, False
        self._waiting = True  # whether the other ranks wait for what rank 0 says
        if options.device == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.leads and self._waiting and not isinstance(error, RankError):
            interrupted = isinstance(error, KeyboardInterrupt)
            self._say(LEAVE, INTERRUPTED if interrupted else BAD_INPUT if error else 0)
        if not isinstance(error, RankError):
            self.ranks.close()

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.ranks.rank == 0

    def __str__(self) -> str:
        return f"{self.ranks.world} processes: {self.division}"

    # What rank 0 says

    def begin(self) -> None:
        """Let the others load the model."""
        self._say(BEGIN)

    def join(self, context: RunContext, stepper: Stepper, journal: Path | None) -> None:
        """Send the journal to the others, who repeat its steps meanwhile; call it before the first step is taken, with
        the model as it was loaded.

        Raises:
            RanksDifferError: a rank has another model, other data or other options.
        """
        self._say(JOIN)
        self._require_same_run(context, stepper)
        self.ranks.bytes_of_first(journal.read_bytes() if journal else b"")

    def wait(self) -> None:
        """Wait until all ranks have repeated the steps of the journal."""
        self._catch_up(lambda: False)

    def go(self, stepper: Stepper, context: RunContext, interrupted: bool) -> bool:
        """Let all take a step; return False if one of them is to end.

        Raises:
            RanksDifferError: the weights of a rank differ.
        """
        if not self._meet(STEP, interrupted)[1]:
            self._waiting = False
            return False
        self._compare_if_due(stepper, context)
        self._waiting = False
        return True

    def stepped(self) -> None:
        """Note that the others wait again."""
        self._waiting = True

    def end(self, stepper: Stepper, context: RunContext) -> None:
        """Let the others leave: all steps are taken.

        Raises:
            RanksDifferError: the weights of a rank differ.
        """
        self._say(END)
        self._waiting = False
        self._compare(stepper, context)

    # What the others do

    def told_to_begin(self) -> bool:
        """Wait for rank 0, and return whether the run goes on."""
        return self._heard(False) == BEGIN

    def follow(self, context: RunContext, stepper: Stepper, interrupted: Callable[[], bool]) -> bool:
        """Do what rank 0 says until the next step is to be taken, and return whether there is one.

        Raises:
            KeyboardInterrupt: a rank got a signal to end.
            RanksDifferError: this rank or another one differs.
        """
        while True:
            said = self._heard(interrupted())
            if said == JOIN:
                self._join(context, stepper)
            elif said == END:
                self._compare(stepper, context)
                return False
            elif said == STEP:
                self._compare_if_due(stepper, context)
                return True
            else:
                return False

    def _join(self, context: RunContext, stepper: Stepper) -> None:
        self._require_same_run(context, stepper)
        data = self.ranks.bytes_of_first()
        records = iter(_records(data))

        def repeat() -> bool:
            record = next(records, None)
            if record is not None:
                stepper.replay(record)
            return record is not None

        self._catch_up(repeat)

    # What all do

    def _catch_up(self, repeat: Callable[[], bool]) -> None:
        """Repeat until it returns False on every rank, and let nobody wait for longer than a share of the timeout."""

        def some() -> list[float]:
            ended = time.monotonic() + AT_MOST * self.ranks.timeout
            while time.monotonic() < ended:
                if not repeat():
                    return [0.0]
            return [1.0]

        while any(row[0] for row in self.ranks.gather(some, 1)):
            pass

    def _say(self, word: int, status: int = 0) -> None:
        self._meet(word, False, status)
        self._waiting = word not in (END, LEAVE)

    def _heard(self, interrupted: bool) -> int:
        """What rank 0 says; KeyboardInterrupt if a rank is to end."""
        (word, status), goes_on = self._meet(STEP, interrupted)
        if not goes_on or (word == LEAVE and status == INTERRUPTED):
            raise KeyboardInterrupt
        if word == LEAVE and status:
            raise RankError("rank 0 ended with an error, which it reports: the other ranks end too")
        return word

    def _meet(self, word: int, interrupted: bool, status: int = 0) -> tuple[tuple[int, int], bool]:
        """What rank 0 says, and whether no rank is to end."""
        rows = self.ranks.gather(lambda: [word, status, float(interrupted)], 3)
        return (int(rows[0][0]), int(rows[0][1])), not any(row[2] for row in rows)

    def _require_same_run(self, context: RunContext, stepper: Stepper) -> None:
        own = identity(header(context, stepper))["run"]
        self.ranks.require_same("base model, data or options", int(own, 16))

    def _compare_if_due(self, stepper: Stepper, context: RunContext) -> None:
        if self.every and (stepper.steps % self.every == 0 or not self._compared):
            self._compare(stepper, context)

    def _compare(self, stepper: Stepper, context: RunContext) -> None:
        if self.every:
            stepper.settle()
            weights = checkpoint.weights(context.language_model.model)
            self.ranks.require_same(f"checksum of the weights after step {stepper.steps}", checksum(weights.values()))
        self._compared = True


def points_of(options: TrainOptions) -> int:
    """Return the points of the first plan of a method.

    Raises:
        ValueError: the method does not share its steps out.
    """
    method = TrainingMethod.parse(options.method)
    if not isinstance(method, ZerothOrderMethod):
        raise ValueError(ALONE.format(options.method))
    estimator = method.estimator(options)
    plan = estimator.ask(0, estimator.init())
    return plan.offsets.shape[-2] if plan.asks == SLOPE else plan.queries


def _records(journal: bytes) -> list[Record]:
    """The steps of a journal's bytes, without its file."""
    if not journal:
        return []
    with TemporaryDirectory() as folder:
        file = Path(folder) / "journal.bin"
        file.write_bytes(journal)
        return list(read(file).records)
