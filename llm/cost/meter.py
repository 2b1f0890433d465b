"""The cost of a piece of work."""

import time
from typing import Any

from llm.cost.memory import PeakMemory
from llm.model.language_model import LanguageModel
from llm.model.logits import inner
from zobench.run.records import Row


class Meter:
    """Counts what the `with` blocks of one meter cost: forward passes, seconds, peak memory.

    A forward pass is one call of the model on a batch, of however many rows: a step's batch has --batch examples, that
    of an evaluation up to 64, fewer where they are long. Greedy generation costs one for each new token of the longest
    answer in its batch.
    """

    def __init__(self, language_model: LanguageModel) -> None:
        self._reader = inner(language_model).base_model
        self._peak = PeakMemory(language_model.device)
        self.forward_passes, self.seconds = 0, 0.0

    def __enter__(self) -> "Meter":
        self._hook = self._reader.register_forward_pre_hook(self._count)
        self._peak.__enter__()
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began
        self._peak.__exit__()
        self._hook.remove()

    def _count(self, *_: Any) -> None:
        self.forward_passes += 1

    @property
    def row(self) -> Row:
        """The cost as columns of a row."""
        return {"forward_passes": self.forward_passes, "seconds": self.seconds, "peak_mb": self._peak.mb}


def together(*meters: Meter) -> Row:
    """Return the cost of several stretches: passes and seconds add up, the peak is the highest."""
    rows = [meter.row for meter in meters]
    sums = {name: sum(row[name] for row in rows) for name in ("forward_passes", "seconds")}
    return {**sums, "peak_mb": max((row["peak_mb"] for row in rows if row["peak_mb"] is not None), default=None)}
