"""The contract of a baseline."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from llm.objective import Encoded, Measured, Objective
from llm.tasks import Task


@dataclass(frozen=True, eq=False)
class BaselineSetting:
    """What a baseline may use: encoded examples, the objective over an untouched model, the seed for what it draws.

    `note` tells the user something, and keeps it in a row.
    """

    task: Task
    objective: Objective
    train: list[Encoded]
    dev: list[Encoded]
    test: list[Encoded]
    seed: int
    note: Callable[[str], None]


class Outcome(NamedTuple):
    """The measurements on dev and test, and further columns of the row."""

    dev: Measured
    test: Measured
    columns: Mapping[str, Any] = {}


class Baseline(ABC):
    """A frozen dataclass whose fields are the options, and whose repr is its identity in rows."""

    about: ClassVar[str]

    def check(self, task: Task) -> None:  # noqa: B027 most suit every task
        """Raise ValueError, before anything is loaded, where the task does not suit the baseline."""

    def check_setting(self, setting: BaselineSetting) -> None:  # noqa: B027
        """Raise ValueError, before anything is measured or written, where model or data do not suit the baseline."""

    @abstractmethod
    def measure(self, setting: BaselineSetting) -> Outcome:
        """Return what the model does on dev and test; its weights are not changed."""
