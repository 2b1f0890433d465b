"""A model that answers the rows of a task: labels with their probabilities, or written answers."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

from llm import objective, tasks
from llm.model import loading
from llm.objective import Objective
from llm.objective.answers import written
from llm.objective.measured import choices
from llm.options.evaluate import AUTO
from llm.run import reading
from llm.run.folder import run_of
from llm.tasks import Example, Task
from llm.tasks.record import DataRecord
from zobench.spelling import names_code


class Prediction(NamedTuple):
    """The answer to a row: the name of the best label with the probability of each, or what the model wrote.

    `probabilities` are softmax of the scores of the candidates, as in the loss of classification; empty for written
    answers. `answer` is None where the model gave a number that is not finite.
    """

    answer: str | None
    probabilities: Mapping[str, float]

    @property
    def probability(self) -> float | None:
        """The probability of the answer; None where it was written, or there is none."""
        return None if self.answer is None else self.probabilities.get(self.answer)


@dataclass
class Predictor:
    """Answers rows in batches: mappings of columns, or texts where the prompt has one column. It takes rows as they
    come and yields a Prediction each, so that a stream of any length needs the memory of a batch.

        predictor = Predictor.load("runs/x/model", task="my.toml")
        for row, found in zip(rows, predictor(rows)):
            print(row, found.answer, found.probability)

    `cut` counts the prompts so far that were longer than the model reads, or than the bound.
    """

    task: Task
    objective: Objective
    batch: int = 64
    cut: int = field(default=0, init=False)

    @classmethod
    def load(
        cls,
        model: str,
        task: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        batch: int = 64,
        max_tokens: int | None = None,
        bos: int | None = None,
        trust_remote_code: bool = False,
        engine: str = AUTO,
        beside: str | None = None,
    ) -> "Predictor":
        """Return the predictor of a model.

        Args:
            model: a model by any name that `llm train` takes, or the folder of a run.
            task: the task whose prompt and labels are used; by default that of the run that wrote the model.
            device: where it computes.
            dtype: dtype of the weights.
            batch: rows that are answered at once.
            max_tokens: length limit of prompts; by default that of the run.
            bos: id of the first token; by default that of the run.
            trust_remote_code: allow the model to run Python code of its own.
            engine: "in-forward" for a model in memory, "streamed" for one whose weights stay on disk, "auto" as the run
                that wrote it.
            beside: a file or folder on whose disk the working copy of a streamed model lies; by default that of
                temporary files.

        Raises:
            ValueError: the model or the task cannot be used, or the task cannot ask without labels.
        """
        if batch < 1:
            raise ValueError(f"batch is {batch}: give 1 or more rows")
        loading.dtype_of(model)  # a folder that is not there is told before a task that is not named
        run = run_of(Path(model)) if Path(model).is_dir() else None
        config: Mapping[str, Any] = run.config if run else {}
        name = task or config.get("task")
        if task is None and name is not None and names_code(str(name)):
            raise ValueError(f"the run of {model} names the task {name}, which runs code: if you trust it, give --task")
        if name is None:
            raise ValueError(f"{model} is not the model of a run, which would say its task: give --task")
        found = tasks.find(str(name))
        if found.ask is None:
            raise ValueError(f"task {name} does not say how rows without labels are asked: give Task(ask=...)")
        language_model = reading.load(engine, model, device, dtype, trust_remote_code, None, beside)
        make = objective.choose("language-model" if found.objective == "reward" else found.objective, found)
        most, first = max_tokens or config.get("max_tokens"), config.get("bos") if bos is None else bos
        return cls(found, make(language_model, max_tokens=most, bos=first), batch)

    def __call__(self, rows: Iterable[str | Mapping[str, Any] | DataRecord]) -> Iterator[Prediction]:
        """Yield the prediction of each row, in order.

        Raises:
            ValueError: a row lacks a column of the prompt; the message names it.
        """
        records = (self._record(number, row) for number, row in enumerate(rows, 1))
        while part := list(islice(records, self.batch)):
            yield from self._answers([self._asked(record) for record in part])

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels that all rows share; none where answers are written or each row has its own."""
        return self.task.label_names

    def _asked(self, record: DataRecord) -> Example:
        assert self.task.ask is not None
        return self.task.ask(record)

    def _record(self, number: int, row: str | Mapping[str, Any] | DataRecord) -> DataRecord:
        if isinstance(row, DataRecord):
            return row
        if isinstance(row, Mapping):
            return DataRecord(f"row {number}", row)
        columns = tasks.columns(self.task)
        if len(columns) != 1:
            raise ValueError(f"row {number} is a text, but the columns are {', '.join(columns)}: give a mapping")
        return DataRecord(f"row {number}", {columns[0]: row})

    @torch.inference_mode()
    def _answers(self, examples: Sequence[Example]) -> Iterator[Prediction]:
        rows = self.objective.encode(examples)
        self.cut += sum(len(row.tokens) < row.whole for row in rows)
        if all(len(self.objective.options(row)) == 1 for row in rows):
            return iter([Prediction(text, {}) for text in written(self.objective, rows)])
        normalised = self.task.objective == "language-model"
        scores = self.objective.scores(rows, normalised).double().cpu()
        return iter([self._best(example, row) for example, row in zip(examples, scores.tolist(), strict=True)])

    def _best(self, example: Example, scores: list[float]) -> Prediction:
        known = self.task.label_names
        names = known if len(known) == len(example.candidates) else tuple(text.strip() for text in choices(example))
        own = scores[: len(names)]
        if not all(map(math.isfinite, own)):
            return Prediction(None, {})
        shares = torch.tensor(own, dtype=torch.float64).softmax(0).tolist()
        best = max(range(len(names)), key=own.__getitem__)
        return Prediction(names[best], dict(zip(names, shares, strict=True)))
