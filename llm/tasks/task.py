"""A task: where its questions come from, and how it is trained and judged."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from llm.tasks.example import Example
from llm.tasks.files import read
from llm.tasks.record import DataRecord
from llm.tasks.template import Template
from zobench.naming import require_known

REWARD = "reward"
OBJECTIVES = ("classification", "language-model", REWARD)
OF_TEXTS = ("f1", "exact-match")
METRICS = ("accuracy", "macro-f1", *OF_TEXTS, REWARD)


class Writing(NamedTuple):
    """How an answer is generated: at most so many tokens, up to the first line break or the end of the text."""

    tokens: int = 50
    one_line: bool = True


LINE = Writing()


class Item(NamedTuple):
    """An example, and the text that identifies it and decides its draw."""

    key: str
    example: Example


class Pools(NamedTuple):
    """The pool of training and development examples, the pool of test examples, and notes on both."""

    training: list[Item]
    test: list[Item]
    notes: tuple[str, ...] = ()


class Sizes(NamedTuple):
    """Default sizes; if a file is too small, dev gets at most `dev_share` of it and training gets the rest."""

    train: int = 1000
    dev: int = 500
    test: int = 1000
    dev_share: float = 1.0


USUAL = Sizes()


@dataclass(frozen=True)
class Split:
    """Disjoint examples; test is the same for every seed. Unpacks to train, dev, test.

    `notes` report differences from the request: smaller splits, rows left out.
    """

    train: list[Example]
    dev: list[Example]
    test: list[Example]
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[list[Example]]:
        return iter((self.train, self.dev, self.test))


@dataclass(frozen=True)
class Task:
    """Questions as a language model sees them.

    `pools` reads them from a folder, or from where they usually are (None). `candidates` are the continuations that all
    examples share, None where each has its own. `objective` is the loss: "classification" (the cross-entropy
    of the candidates' scores) or "language-model" (the log-probability of the right continuation); `metric` what is
    reported: "accuracy" or "macro-f1" of labels, "f1" or "exact-match" of written answers. `balanced` splits have
    equally many examples of each label.
    `content_free` is the prompt with every field left empty, where it has fields. `labels` are the names of the
    candidates in the data, and `template` is the prompt with its columns in braces. `ask` makes the example of a row
    without a label, whose label is 0, of a file that `read` reads. `writing` bounds answers that are generated, and
    `reward` judges them: (answer, example) -> a number from 0 to 1, the greater the better.

    Raises:
        UnknownNameError: no such objective or metric.
        ValueError: the objective or metric is the reward, and there is none; or the metric compares the words of
            written answers, but the task has labels.
    """

    name: str
    pools: Callable[[str | None], Pools]
    candidates: tuple[str, ...] | None = None
    objective: str = "classification"
    metric: str = "accuracy"
    balanced: bool = False
    sizes: Sizes = USUAL
    source: str = ""
    sample: Example | None = None
    content_free: Example | None = None
    labels: tuple[str, ...] = ()
    template: str | None = None
    ask: Callable[[DataRecord], Example] | None = None
    read: Callable[[Path], list[DataRecord]] = read
    writing: Writing = LINE
    reward: Callable[[str, Example], float] | None = None

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the labels in the order of the candidates: their own, or else the candidates' words."""
        return self.labels or tuple(text.strip() for text in self.candidates or ())

    def __post_init__(self) -> None:
        require_known(self.objective, OBJECTIVES, "objective")
        require_known(self.metric, METRICS, "metric")
        if REWARD in (self.objective, self.metric) and self.reward is None:
            raise ValueError(f"task {self.name} has no reward: give it another objective and metric")
        if self.candidates and self.metric in OF_TEXTS:
            raise ValueError(words_of_labels(self))


def columns(task: Task) -> tuple[str, ...]:
    """Return the columns of the prompt of a task, where it has a template."""
    return Template(task.template).columns if task.template is not None else ()


def words_of_labels(task: Task) -> str:
    """Return the refusal of a metric of written answers where there are labels."""
    return (
        f"task {task.name}: metric {task.metric} compares the words of written answers, but the task has labels: give "
        "metric macro-f1 (with the F1 of each label) or accuracy"
    )
