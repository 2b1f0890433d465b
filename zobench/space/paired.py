"""The paired engine: in-forward, for two points at once that share one drawing of the direction."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from zobench.space.closure import Value
from zobench.space.in_forward import InForward, View
from zobench.space.meeting import Job, Meeting, Read, Work, in_two_threads
from zobench.space.scratch import Scratch
from zobench.space.stored import Point, Stored


class Paired(InForward):
    """Two points x + a u and x + b u at once on a CPU, each in a thread with half of torch's threads: f must be safe to
    call from two threads. Losses and parameters stay bit-identical. Holds two perturbed parameters, and the activations
    of two forwards.

    Raises:
        ValueError: when attached, as InForward; or the module has recurrent layers of torch.
    """

    least_blocks = 2  # with fewer, waiting for the other thread costs more than drawing the block twice

    def attach(self, stored: Stored) -> None:
        """Find the modules that own parameters."""
        super().attach(stored)
        if any(isinstance(owner, nn.RNNBase) for owner in self.owners):
            raise ValueError(
                "paired is True, but torch's recurrent layers keep the weights that they read: give paired=False"
            )
        # On a GPU two forwards queue on one stream: a second thread would add memory and gain no time.
        self.pairs = all(segment.device.type == "cpu" for segment in stored.layout.segments)

    def losses(self, loss: Callable[[], Value], points: Sequence[Point]) -> list[Value]:
        """Evaluate at two points at a time; at an odd one, and on other devices, as InForward."""
        together = len(points) // 2 * 2 if self.pairs else 0
        pairs = [self._together(loss, points[k : k + 2]) for k in range(0, together, 2)]
        return [found for pair in pairs for found in pair] + super().losses(loss, points[together:])

    def _together(self, loss: Callable[[], Value], pair: Sequence[Point]) -> list[Value]:
        meeting, targets = Meeting(), Scratch()

        def look(index: int) -> Value:
            try:
                return self.seen_by(_SharedView(self, pair, index, meeting, targets), loss)
            finally:
                meeting.leave(index)  # also after an error: the other thread must not wait for this one

        with self.looking(pair[0], len(pair)):
            return in_two_threads(look, partial(meeting.leave, 0))


class _SharedView(View):
    """What one of two threads reads; where both read the same, each parameter is filled for both in one pass."""

    def __init__(
        self, engine: InForward, points: Sequence[Point], index: int, meeting: Meeting, targets: Scratch
    ) -> None:
        super().__init__(engine, points, index)
        self.meeting, self.targets = meeting, targets

    def fill(
        self, name: str, fresh: Callable[[Scratch], Tensor], make: Callable[..., Job], wanted: Tensor | None = None
    ) -> Tensor:
        """A target of this thread, filled by whoever is here."""

        def both() -> Work:
            update, finish = self.engine.pending_with(name)
            targets = [fresh(self.targets), fresh(self.targets)]
            return Work(make(update, self.lines((0, 1)), targets), targets, finish)

        if len(self.blocks(name)) >= self.engine.least_blocks:
            mine = self.meeting.over(self.index, Read(name, wanted), both, partial(self.take, name))
            if mine is not None:
                return mine
            # The other thread may still write the pending step of this parameter: read it only afterwards.
            self.meeting.wait_for(self.index, name)
            with self.engine.flushing:  # the other thread reads something else, or nothing any more
                self.engine.write_pending([name])
        return super().fill(name, fresh, make, wanted)
