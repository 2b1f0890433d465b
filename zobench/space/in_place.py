"""The plain engine: parameters are moved to the points of a plan and back."""

from collections.abc import Callable, Sequence

from zobench.space.closure import Value
from zobench.space.engine import Engine
from zobench.space.stored import STAY, Point, Step


class InPlace(Engine):
    """x <- x + sum of amount * u in the stored parameters, which stay at the last point until the next move: a
    two-point step takes three sweeps, the last of which is the way back and the update in one.

    The way to the points and back rounds. Holds nothing beside the model.
    """

    in_place = True

    def __init__(self) -> None:
        self.point: Point = {}

    def losses(self, loss: Callable[[], Value], points: Sequence[Point]) -> list[Value]:
        """Move to one point after the other."""
        losses = []
        for point in points:
            self.move_(point)
            losses.append(loss())
        return losses

    def replay_(self, points: Sequence[Point]) -> None:
        """Move as `losses` does, so that the parameters round as they did then."""
        for point in points:
            self.move_(point)

    def step_(self, step: Step) -> None:
        """Come back and take the step in one sweep."""
        self.move_({}, step)

    def flush_(self) -> None:
        """Come back."""
        self.move_({})

    def move_(self, point: Point, step: Step = STAY) -> None:
        """Replace x, wherever it is, by (1 - p d shrink) x + p sum of step u + sum of point u."""
        if not (self.point or point or step.amounts or step.shrink):
            return
        self.stored.prepare({**self.point, **point, **step.amounts})
        change = self.stored.change(step, self.way_back, point)
        if not (change.lines or change.shrink):
            self.point = point
            return
        self.stored.sweeps += 1
        with self.stored.writing():
            self.stored.write_(change)
            self.point = point  # within: an interrupt between the two lines must leave the parameters torn

    @property
    def way_back(self) -> Point:
        """From the point to x."""
        return {line: -amount for line, amount in self.point.items()}
