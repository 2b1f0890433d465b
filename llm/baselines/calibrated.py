"""Calibrated zero-shot: the model as it is, less its liking for some candidates."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from llm.baselines.baseline import Baseline, BaselineSetting, Outcome
from llm.objective import Encoded, Measured, calibration, shifted
from llm.tasks import Task
from zobench.naming import require_known

HOW = ("training", "content-free")


@dataclass(frozen=True)
class Calibrated(Baseline):
    """The answer is argmax_c score_c - shift_c.

    how="training": the shift is fitted on the training examples, `llm.objective.calibration`: with two candidates the
    threshold of most hits, with more each one's mean score (batch calibration, Zhou et al. 2023, arXiv 2309.17249).
    how="content-free": it is the score of candidate c after the prompt with every field left empty (contextual
    calibration, Zhao et al. 2021, arXiv 2102.09690); no example is needed. MeZO's `--sfc` is this, with the whole
    prompt empty for most tasks of SuperGLUE.

    Cost: the forward passes of dev and test, and of the training examples or of the one empty prompt.
    """

    how: str = "training"
    about: ClassVar[str] = "zero-shot, scores shifted: how=training (fitted on train) or content-free (empty prompt)"

    def __post_init__(self) -> None:
        require_known(self.how, HOW, "how of calibrated")

    def check(self, task: Task) -> None:
        if task.candidates is None:
            raise ValueError(
                f"calibrated shifts scores of candidates that all examples share; those of task {task.name} have their "
                "own, or answers that are generated: give --method zero-shot"
            )
        if self.how == "content-free" and task.content_free is None:
            raise ValueError(
                f"task {task.name} does not say what its prompt is without content (a Python function gives examples, "
                "no template): give --method calibrated, or describe it in a task file"
            )

    def measure(self, setting: BaselineSetting) -> Outcome:
        shift = self._shift(setting)
        dev, test = (self._judged(setting, part, shift) for part in (setting.dev, setting.test))
        return Outcome(dev, test, {"shift": (shift - shift.mean()).tolist()})

    def _judged(self, setting: BaselineSetting, part: list[Encoded], shift: Tensor) -> Measured:
        return shifted(setting.objective.measure(part), shift, [row.example for row in part])

    def _shift(self, setting: BaselineSetting) -> Tensor:
        if self.how == "training":
            return calibration(setting.objective.measure(setting.train))
        assert setting.task.content_free is not None  # check has seen to it
        empty = setting.objective.measure(setting.objective.encode([setting.task.content_free])).scores
        assert empty is not None  # candidates are common
        return empty[0].double()
