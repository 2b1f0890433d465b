"""A plan's losses, evaluated by several ranks: each a slice of the points, on a slice of the minibatch."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from zobench.distributed import Division, Ranks, slice_of
from zobench.layout import CPU
from zobench.space.closure import Value, each_value, loss_and_slope, losses_and_slopes, queue, read
from zobench.space.engine import Engine
from zobench.space.stored import Point

Asked = Callable[[Callable[[], Any]], list[Any]]
"""What returns the loss and the slope of a function that is asked for both."""


class Shared:
    """Evaluates the points of plans together with the other ranks. A loss is computed by the ranks of one slice of the
    points, and the number that all ranks are told comes from one of them: so all take the same step, to the bit.

    With one slice of the minibatch a loss is f() as one process computes it. With several, f() on a rank is the loss of
    its slice, a number or one for each example: the loss of the whole is f(x) = mean of all these values, the slices in
    the order of the ranks, taken as one process takes the mean of a minibatch that it computes in the same parts.

    An engine that works in place walks to the points of other ranks as well, since the way there rounds.
    """

    def __init__(self, ranks: Ranks, division: Division) -> None:
        self.ranks, self.division = ranks, division

    def losses(self, engine: Engine, f: Callable[[], Any], lines: Sequence[Sequence[Point]]) -> list[float]:
        """Return the losses at all points of these lines, one after the other. Cost on a rank: its slice of them, and
        one exchange, or three where the minibatch is divided.
        """
        count = sum(map(len, lines))
        if self.division.data == 1:
            return self._whole(count, lambda: read(_own(engine, partial(queue, f), lines, self._own(count))))
        return self._means(count, lambda: _own(engine, partial(each_value, f), lines, self._own(count)))

    def slopes(self, jobs: Sequence[Callable[[Asked], list[Any]]]) -> list[float]:
        """Return loss and slope of each line, one after the other; a job gets what asks a loss for both."""
        mine = self._own(len(jobs))

        def own(ask: Asked) -> list[Any]:
            return [value for i in mine for value in jobs[i](ask)]

        if self.division.data == 1:
            return self._whole(len(jobs), lambda: own(loss_and_slope), 2)
        return self._means(len(jobs), lambda: own(losses_and_slopes), 2)

    def mean(self, f: Callable[[], Any]) -> float:
        """Return f() where the parameters are."""
        if self.division.data == 1:
            return self.ranks.gather(lambda: read([queue(f)]), 1)[0][0]
        return self._means(1, lambda: [each_value(f)] if self._own(1) else [])[0]

    def _own(self, count: int) -> range:
        return slice_of(count, self.division.probes, self.division.probe_of(self.ranks.rank))

    def _by_probe(self, rows: list[list[float]]) -> list[list[float]]:
        """What the first rank of each slice of the points gave."""
        return rows[:: self.division.data]

    def _whole(self, count: int, work: Callable[[], list[float]], each: int = 1) -> list[float]:
        most = each * -(-count // self.division.probes)
        return list(chain(*self._by_probe(self.ranks.gather(work, most))))

    def _means(self, count: int, work: Callable[[], list[Any]], each: int = 1) -> list[float]:
        """The means over the slices of the minibatch, each taken by one rank: processors sum in different orders."""
        values: list[Tensor] = []

        def flat() -> list[float]:
            values.extend(work())
            sizes = {value.numel() for value in values}
            if len(sizes) > 1:
                raise ValueError(f"the loss returned {sorted(sizes)} values at points of one step: return as many")
            return torch.cat([value.double().to(CPU) for value in values]).tolist() if values else []

        rows, size = self.ranks.gather(flat), self.division.data
        first = self.ranks.rank - self.division.part_of(self.ranks.rank)

        def means() -> list[float]:
            if self.ranks.rank != first or not values:
                return []
            parts = [
                torch.tensor(row, dtype=torch.float64, device=CPU).view(len(values), -1)
                for row in rows[first : first + size]
            ]
            return read([row.to(values[0]).mean() for row in torch.cat(parts, 1)])

        most = each * -(-count // self.division.probes)
        return list(chain(*self._by_probe(self.ranks.gather(means, most))))


def _own(engine: Engine, loss: Callable[[], Value], lines: Sequence[Sequence[Point]], own: range) -> list[Any]:
    """The values at those points of all lines that are this rank's."""
    begun, parts = 0, []
    for points in lines:
        first, last = (min(max(place - begun, 0), len(points)) for place in (own.start, own.stop))
        parts.append((points[:first], points[first:last], points[last:]))
        begun += len(points)
    if not engine.in_place:
        if not own:
            engine.flush_()  # nothing is read that would write what is pending
        by_line = engine.losses_of_lines(loss, [mine for _, mine, _ in parts if mine])
        return [value for line in by_line for value in line]
    values: list[Any] = []
    for before, mine, after in parts:
        if before:
            engine.replay_(before)
        if mine:
            values += engine.losses(loss, mine)
        if after:
            engine.replay_(after)
    return values
