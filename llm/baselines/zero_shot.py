"""Zero-shot: the untrained model."""

from dataclasses import dataclass
from typing import ClassVar

from llm.baselines.baseline import Baseline, BaselineSetting, Outcome


@dataclass(frozen=True)
class ZeroShot(Baseline):
    """The objective's own measurement of the untouched model. Cost: the forward passes of dev and test."""

    about: ClassVar[str] = "the untrained model"

    def measure(self, setting: BaselineSetting) -> Outcome:
        return Outcome(setting.objective.measure(setting.dev), setting.objective.measure(setting.test))
