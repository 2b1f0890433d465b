"""Tasks: labelled texts, a prompt, and the candidates among which the model chooses."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from llm import corpus
from zobench.keys import derive
from zobench.naming import require_known


class Example(NamedTuple):
    """One question: the prompt, the continuations among which the model chooses, and the index of the right one.

    Where an answer is generated instead, `answers` are the right ones, and the one candidate is the training target.
    """

    prompt: str
    label: int
    candidates: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()


class Labelled(NamedTuple):
    """One text of a data set with its label."""

    text: str
    label: int


class Pools(NamedTuple):
    """Where training and development rows come from, and where test rows come from."""

    training: list[Labelled]
    test: list[Labelled]


class Split(NamedTuple):
    """Disjoint examples; test is the same for every seed."""

    train: list[Example]
    dev: list[Example]
    test: list[Example]


@dataclass(frozen=True)
class Task:
    """A classification task as a language model sees it; `balanced` splits have equally many rows of each label."""

    name: str
    suffix: str
    candidates: tuple[str, ...]
    pools: Callable[[str | None], Pools]
    balanced: bool

    def example(self, row: Labelled) -> Example:
        """Return the prompt of a row: its text, stripped, and the suffix."""
        return Example(row.text.strip() + self.suffix, row.label, self.candidates)


def shipped(name: str) -> Callable[[str | None], Pools]:
    """Return the reader of a data set that comes with the repository; its test pool was never pretrained on."""

    def pools(folder: str | None) -> Pools:
        rows = corpus.read(name, Path(folder)) if folder else corpus.read(name)
        kept = [Labelled(row.text, row.label) for row in rows if not corpus.held_out(row.text)]
        return Pools(kept, [Labelled(row.text, row.label) for row in rows if corpus.held_out(row.text)])

    return pools


def glue_sst2(folder: str | None) -> Pools:
    """Return SST-2 from a folder in GLUE's format (train.tsv, dev.tsv: sentence, label), or from the hub.

    Raises:
        ValueError: a file, a column or the `datasets` package is missing, or a label is not 0 or 1.
    """
    if folder is not None:
        return Pools(read_tsv(Path(folder) / "train.tsv"), read_tsv(Path(folder) / "dev.tsv"))
    try:
        from datasets import load_dataset
    except ImportError:
        raise ValueError("task sst2 wants --data FOLDER (train.tsv, dev.tsv), or: pip install datasets") from None
    sets = load_dataset("nyu-mll/glue", "sst2")
    parts = ([Labelled(row["sentence"], row["label"]) for row in sets[name]] for name in ("train", "validation"))
    return Pools(*parts)


def read_tsv(file: Path) -> list[Labelled]:
    """Return the rows of a tab-separated file with the columns sentence and label (0 or 1).

    Raises:
        ValueError: the file is missing or malformed; the message names file and line.
    """
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    with file.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        if not {"sentence", "label"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{file}:1: columns are {reader.fieldnames}, wanted sentence and label")
        rows = []
        for row in reader:
            if row["label"] not in ("0", "1"):
                raise ValueError(f"{file}:{reader.line_num}: label {row['label']!r} is neither 0 nor 1")
            rows.append(Labelled(row["sentence"], int(row["label"])))
        return rows


TASKS = {
    task.name: task
    for task in (
        Task("spam", " This message is", (" normal", " spam"), shipped("spam"), balanced=True),
        Task("sentences", " It was", (" terrible", " great"), shipped("sentences"), balanced=True),
        Task("sst2", " It was", (" terrible", " great"), glue_sst2, balanced=False),
    )
}


def find(name: str) -> Task:
    """Return a task by name.

    Raises:
        UnknownNameError: no such task; the message names the nearest.
    """
    require_known(name, TASKS, "task")
    return TASKS[name]


def split(task: Task, data: str | None, train: int, dev: int, test: int, seed: int) -> Split:
    """Return `train`, `dev` and `test` examples: the first two drawn by the seed, the last the same for all seeds.

    Raises:
        ValueError: a pool is empty or has fewer rows than asked for, or a label has no candidate.
    """
    if min(train, dev, test) < 1:
        raise ValueError(f"train is {train}, dev {dev}, test {test}: each split wants at least one example")
    pools = task.pools(data)
    tested_texts = {row.text.strip() for row in pools.test}
    pools = pools._replace(training=[row for row in pools.training if row.text.strip() not in tested_texts])
    for row in (*pools.training, *pools.test):
        if not 0 <= row.label < len(task.candidates):
            raise ValueError(f"label {row.label} of {row.text[:60]!r} is out of range: the task has {task.candidates}")
    chosen = _draw(task, pools.training, train + dev, derive("split", task.name, seed), "training and development")
    tested = _draw(task, pools.test, test, derive("test", task.name), "test")
    examples = [task.example(row) for row in chosen]
    return Split(examples[:train], examples[train:], [task.example(row) for row in tested])


def _draw(task: Task, rows: Sequence[Labelled], count: int, key: int, what: str) -> list[Labelled]:
    """`count` distinct texts in the order of their keys; where balanced, labels alternate.

    Of equal texts the first is kept, and none where their labels differ.
    """
    labels: dict[str, set[int]] = {}
    for row in rows:
        labels.setdefault(row.text.strip(), set()).add(row.label)
    distinct = [Labelled(text, found.pop()) for text, found in labels.items() if len(found) == 1]
    order = sorted(distinct, key=lambda row: derive(key, row.text))
    classes = len(task.candidates) if task.balanced else 1
    wanted = -(-count // classes)
    groups = [[row for row in order if row.label == c] for c in range(classes)] if task.balanced else [order]
    fewest = min(len(group) for group in groups)
    if fewest < wanted:
        each = " of each label" if task.balanced else ""
        raise ValueError(f"task {task.name} has {fewest} {what} rows{each}, but {wanted} are asked for: ask for fewer")
    return [group[i] for i in range(wanted) for group in groups][:count]
