"""Objectives by name."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from llm.objective import metrics
from llm.objective.answers import AnswerObjective, Losses, MetricObjective, one_minus, rewarded
from llm.objective.classification import Objective
from llm.tasks import Task
from llm.tasks.task import REWARD
from zobench.naming import require_known
from zobench.spelling import own

TASKS_OWN = "task"
DIFFERENTIABLE: dict[str, type[Objective]] = {"classification": Objective, "language-model": AnswerObjective}
NAMES = (TASKS_OWN, *DIFFERENTIABLE, *metrics.METRICS, REWARD)


def choose(name: str, task: Task) -> Callable[..., Objective]:
    """Return the function that makes the objective: (language_model, max_tokens=..., bos=...) -> Objective.

    Args:
        name: "task" for the task's own objective; "classification"; "language-model"; a metric, minimised as
            1 - metric; "reward", minimised as 1 - reward of the task; or "package.module:function", minimised itself:
            (answers, examples) -> the loss of each.
        task: gives the candidates, its own objective and the metric that evaluations report.

    Raises:
        UnknownNameError: no such objective.
        ValueError: the function cannot be imported or called.
    """
    metric = task.metric
    own = {name: getattr(task, name) for name in ("writing", "reward") if hasattr(task, name)}
    shared: dict[str, Any] = {"candidates": task.candidates, "metric": metric, **own}
    if ":" in name:
        return partial(_judging, _imported(name), **shared)
    require_known(name, NAMES, "objective")
    if name == TASKS_OWN:
        name = task.objective
    if name in DIFFERENTIABLE:
        return partial(DIFFERENTIABLE[name].of, **shared)
    if name == REWARD:
        if task.reward is None:
            raise ValueError(f"task {task.name} has no reward: give another objective, such as package.module:function")
        return partial(_judging, rewarded(task.reward), **shared)
    if task.candidates and name in metrics.OF_TEXTS:
        raise ValueError(
            f"objective {name} compares the words of written answers, but task {task.name} has labels: give "
            "--objective accuracy"
        )
    if name == "accuracy" and metric in metrics.OF_TEXTS:
        raise ValueError(f"task {task.name} is measured by {metric}: give --objective {metric} instead of accuracy")
    return partial(_judging, one_minus(name), **shared)


def _judging(loss: Losses, language_model: Any, **about: Any) -> Any:
    return replace(MetricObjective.of(language_model, **about), loss=loss)


def _imported(name: str) -> Losses:
    try:
        return own(name)
    except ValueError as error:
        raise ValueError(f"objective {error}") from error
