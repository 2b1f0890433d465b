"""The processes of torchrun, as a dry run tells of them."""

import os
from dataclasses import dataclass

from llm.loop.crew import points_of
from llm.options.train import TrainOptions
from llm.steppers.method import TrainingMethod
from zobench.distributed import Division, launched

NUMBER = 8
"""Bytes of a number that is exchanged."""
MEETING = 4
"""Numbers by which the ranks agree before each step."""


@dataclass(frozen=True)
class Several:
    """So many processes with this division of the points of a plan."""

    world: int
    division: Division
    points: int
    answers: int = 1
    local: int = 1
    """Processes on this machine."""

    @classmethod
    def of(cls, options: TrainOptions) -> "Several | None":
        """Return the processes that torchrun has started; None if this is the only one.

        Raises:
            ValueError: the method does not share its steps out, or --ranks does not suit their number.
        """
        if not launched():
            return None
        world, points = int(os.environ["WORLD_SIZE"]), points_of(options)
        answers = 2 if TrainingMethod.parse(options.method).needs_gradient else 1  # a slope comes with its loss
        local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
        return cls(world, Division.parse(options.ranks, world, points), points, answers, local)

    @property
    def most(self) -> int:
        """The most points that a process evaluates."""
        return -(-self.points // self.division.probes)

    @property
    def share(self) -> float:
        """The share of a step's evaluations that the slowest process takes."""
        return self.most / self.points / self.division.data

    @property
    def exchanges(self) -> int:
        """Exchanges of a step whose plan is the first one's, the meeting before it included."""
        return 2 if self.division.data == 1 else 4

    def bytes_a_step(self, batch: int) -> int:
        """Return the bytes that a process sends in such a step."""
        numbers = MEETING + 1 + self.answers * self.most
        if self.division.data > 1:
            numbers += 1 + self.answers * self.most * -(-batch // self.division.data)
        return NUMBER * numbers
