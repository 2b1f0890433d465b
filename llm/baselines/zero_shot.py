"""Zero-shot: the model as it is."""

from dataclasses import dataclass
from typing import ClassVar

from llm.baselines.baseline import Outcome, Setting
from llm.tasks import Task


@dataclass(frozen=True)
class ZeroShot:
    """The objective's own measurement of the untouched model. Cost: the forward passes of dev and test."""

    about: ClassVar[str] = "the model as it is"

    def check(self, task: Task) -> None:
        """Do nothing: every task has a zero-shot answer."""

    def measure(self, setting: Setting) -> Outcome:
        return Outcome(setting.objective.measure(setting.dev), setting.objective.measure(setting.test))
