"""Objectives by name."""

from collections.abc import Callable
from functools import partial
from typing import Any

from llm.objective import metrics
from llm.objective.answers import AnswerObjective, Losses, MetricObjective, one_minus
from llm.objective.classification import Objective
from llm.tasks import Task
from zobench.naming import require_known
from zobench.spelling import own

TASKS_OWN = "task"
DIFFERENTIABLE: dict[str, type[Objective]] = {"classification": Objective, "language-model": AnswerObjective}
NAMES = (TASKS_OWN, *DIFFERENTIABLE, *metrics.METRICS)


def choose(name: str, task: Task) -> Callable[..., Objective]:
    """Return the function that makes the objective: (language_model, max_tokens=..., bos=...) -> Objective.

    Args:
        name: "task" for the task's own objective; "classification"; "language-model"; a metric, minimised as
            1 - metric; or "package.module:function", minimised itself: (answers, examples) -> the loss of each.
        task: gives the candidates, its own objective and the metric that evaluations report.

    Raises:
        UnknownNameError: no such objective.
        ValueError: the function cannot be imported or called.
    """
    metric = task.metric
    shared: dict[str, Any] = {"candidates": task.candidates, "metric": metric}
    if ":" in name:
        return partial(_judging, _imported(name), **shared)
    require_known(name, NAMES, "objective")
    if name == TASKS_OWN:
        name = task.objective
    if name in DIFFERENTIABLE:
        return partial(DIFFERENTIABLE[name].of, **shared)
    if task.candidates and name in metrics.OF_TEXTS:
        raise ValueError(
            f"objective {name} compares the words of written answers, but task {task.name} has labels: give "
            "--objective accuracy"
        )
    if name == "accuracy" and metric in metrics.OF_TEXTS:
        raise ValueError(f"task {task.name} is measured by {metric}: give --objective {metric} instead of accuracy")
    return partial(_judging, one_minus(name), **shared)


def _judging(
    loss: Losses, language_model: Any, candidates: Any, max_tokens: int | None, bos: int | None, metric: str
) -> Any:
    made = MetricObjective.of(language_model, candidates, max_tokens, bos, metric)
    return MetricObjective(language_model, made.candidates, max_tokens, bos, metric, loss)


def _imported(name: str) -> Losses:
    try:
        return own(name)
    except ValueError as error:
        raise ValueError(f"objective {error}") from error
