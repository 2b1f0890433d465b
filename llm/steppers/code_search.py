"""Search over the codes of a quantised model: a step of one to a few codes up or down, kept where the loss falls."""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llm.quantised.codes import Codes, search_
from llm.steppers.taken import Taken
from zobench import derive
from zobench.numbers import count
from zobench.random import streams
from zobench.run.journal import Record
from zobench.space import Shared

CODE_SEARCH = "code-search"
FORWARDS = 3


def searches_codes(method: str) -> bool:
    """Return whether a text spells a search of codes; any other text, from a file of others too, spells none."""
    return method.partition(":")[0] == CODE_SEARCH


@dataclass(frozen=True)
class CodeSearch:
    """q <- the best of q, q + d and q - d by the loss of the minibatch, d = +-1 at `size` random codes and 0 elsewhere.

    Codes stay within their range; equal losses leave q; a loss that is not finite is the worst. Cost: 3 loss
    evaluations. Source: openai/parameter-golf#1156, which polishes a quantised model so, 1,024 codes at a time.

    Raises:
        ValueError: size is no whole number from 1.
    """

    size: int = 1024

    def __post_init__(self) -> None:
        count("size", self.size, "give the number of codes that a step tries, from 1")


class CodeSearchStepper:
    """Takes steps of `CodeSearch` on the codes of a model, which are all that is trained of it.

    Raises:
        ValueError: the model is not quantised.
    """

    replays = True

    def __init__(self, model: nn.Module, search: CodeSearch) -> None:
        search_(model)
        self.search, self.codes, self.identity = search, Codes(model), repr(search)
        self.steps = self.forward_passes = self.backward_passes = 0

    @torch.no_grad()
    def step(self, key: int, losses: Callable[[], Tensor], watched: bool = False) -> Taken:
        """Try the two changes of a key and keep the best of three."""
        places, points = self._points(key)
        seen = []
        try:
            for codes in points:
                self.codes.write_(places, codes)
                seen.append(float(losses().double().mean()))
        except BaseException:
            self.codes.write_(places, points[0])
            raise
        return self._kept(Record(self.steps, key, tuple(seen), 0.0), places, points)

    def replay(self, record: Record) -> Taken:
        """Repeat a recorded step without a forward pass.

        Raises:
            ValueError: the record is not one of this search.
        """
        if len(record.losses) != FORWARDS or record.checksum != _best(record.losses):
            raise ValueError(f"step {record.step} was not taken by {self.identity}")
        return self._kept(record, *self._points(record.key))

    def recall(self, record: Record) -> Taken:
        """Count a recorded step before a checkpoint; the codes do not change."""
        self.steps += 1
        self.forward_passes += FORWARDS
        return Taken(record, min(filter(math.isfinite, record.losses), default=math.nan))

    def _points(self, key: int) -> tuple[Tensor, list[Tensor]]:
        """The places of a key, ascending, and the codes there: as they are, and one step to either side."""
        drawn = streams.integers(derive(key, "codes"), (self.search.size,), self.codes.count)
        places = drawn.unique()
        signs = streams.signs(derive(key, "signs"), 0, len(places)).long()
        return places, [self.codes.moved(places, steps) for steps in (torch.zeros_like(signs), signs, -signs)]

    def _kept(self, record: Record, places: Tensor, points: list[Tensor]) -> Taken:
        best = _best(record.losses)
        self.codes.write_(places, points[best])
        return self.recall(record._replace(checksum=best))

    def share(self, shared: Shared) -> None:
        """Raise ValueError: a step's three points are not shared out among ranks."""
        raise ValueError(f"{self.identity} takes its steps in one process: start it without torchrun")

    def settle(self) -> None:
        """Do nothing: no step is pending."""

    def reading(self) -> AbstractContextManager[None]:
        """Return the context of evaluations, which read the codes as they are."""
        return nullcontext()

    def checkpoint_state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the passes so far: the codes are the weights."""
        return {}, {"passes": str(self.forward_passes)}

    def restore(self, tensors: Mapping[str, Tensor], texts: Mapping[str, str], step: int) -> None:
        """Resume at a step."""
        self.forward_passes, self.steps = int(texts["passes"]), step

    def about(self) -> dict[str, Any]:
        """Return the entries of the stepper in the header of a journal."""
        return {"estimator": self.identity, "engine": "plain", "code_search": {"size": self.search.size}}


def _best(losses: tuple[float, ...]) -> int:
    """The number of the lowest loss, the first of equal ones."""
    seen = [loss if math.isfinite(loss) else math.inf for loss in losses]
    return seen.index(min(seen))
