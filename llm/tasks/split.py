"""Splits: training, development and test examples drawn by key."""

from collections.abc import Sequence
from typing import NamedTuple

from llm.tasks import checks
from llm.tasks.example import Example
from llm.tasks.task import Item, Pools, Split, Task
from zobench.random.keys import derive

POOL = "training and development"


class _Asked(NamedTuple):
    train: int | None
    dev: int | None
    test: int | None


def split(task: Task, data: str | None, train: int | None, dev: int | None, test: int | None, seed: int) -> Split:
    """Return `train`, `dev` and `test` examples: the first two drawn by the seed, the last the same for all seeds.

    A size of None is the task's own (`task.sizes`), less where the files have less; `Split.notes` then says so. A
    question in the test pool is never trained on; of equal training questions the first is kept, and none where their
    labels differ. The test pool is taken as it is.

    Raises:
        ValueError: a pool is empty or has fewer rows than asked for, or a label has no candidate.
    """
    asked = _Asked(train, dev, test)
    for name, size in asked._asdict().items():
        if size is not None and size < 1:
            raise ValueError(f"{name} is {size}: each split needs at least one example")
    pools = _pools(task, data)
    kept, notes = _distinct(task, pools)
    train, dev, shrunk = _training_sizes(task, _usable(task, kept), asked)
    tested, fewer = _test_size(task, _usable(task, pools.test), asked.test)
    chosen = _draw(task, kept, train + dev, derive("split", task.name, seed), POOL)
    judged = _draw(task, pools.test, tested, derive("test", task.name), "test")
    parts = {"training": chosen[:train], "dev": chosen[train:], "test": judged}
    notes_of_all = (*pools.notes, *notes, *shrunk, *fewer, *checks.notes(task, pools, parts))
    return Split(parts["training"], parts["dev"], judged, notes_of_all)


def for_evaluation(task: Task, data: str | None, most: int) -> tuple[list[Example], tuple[str, ...]]:
    """Return at most so many test examples, the first of those that `split` gives, and notes of them.

    Raises:
        ValueError: there are none, or a label has no candidate.
    """
    pools = _pools(task, data)
    rows = _usable(task, pools.test)
    if not rows:
        raise ValueError(f"task {task.name} has no test rows: give it a test file, or more rows")
    fewer = () if rows >= most else (f"{task.name}: there are {rows} test rows, fewer than {most}: all are used",)
    examples = _draw(task, pools.test, min(rows, most), derive("test", task.name), "test")
    return examples, (*pools.notes, *fewer, *checks.notes(task, pools._replace(training=[]), {"test": examples}))


def _pools(task: Task, data: str | None) -> Pools:
    pools = task.pools(data)
    _check(task, pools)
    return checks.settled(task, pools)


def _check(task: Task, pools: Pools) -> None:
    for item in (*pools.training, *pools.test):
        example = item.example
        if not 0 <= example.label < len(example.candidates):
            where = f"label {example.label} of {example.prompt[:60]!r}"
            raise ValueError(f"{where} is out of range: its candidates are {example.candidates}")
        if task.candidates is not None and example.candidates != task.candidates:
            raise ValueError(
                f"task {task.name} has the candidates {task.candidates}, but {example.prompt[:60]!r} has "
                f"{example.candidates}: give Task(candidates=None) where they differ"
            )


def _distinct(task: Task, pools: Pools) -> tuple[list[Item], list[str]]:
    """Training items without those of the test pool, repetitions and contradictions, and what to tell of it."""
    tested = {item.key for item in pools.test}
    labels: dict[str, set[int]] = {}
    first: dict[str, Item] = {}
    for item in pools.training:
        labels.setdefault(item.key, set()).add(item.example.label)
        first.setdefault(item.key, item)
    distinct = [item for item in first.values() if item.key not in tested]
    kept = [item for item in distinct if len(labels[item.key]) == 1]
    counts = {
        "are in the test set too": len(first) - len(distinct),
        "repeat another": len(pools.training) - len(first),
        "have two labels": len(distinct) - len(kept),
    }
    notes = [f"{task.name}: {count} training questions {what}: left out" for what, count in counts.items() if count]
    return kept, notes


def _usable(task: Task, items: Sequence[Item]) -> int:
    groups = _groups(task, items)
    return len(groups) * min(map(len, groups))


def _groups(task: Task, items: Sequence[Item]) -> list[list[Item]]:
    if not task.balanced:
        return [list(items)]
    classes = range(len(task.candidates or ()))
    return [[item for item in items if item.example.label == label] for label in classes]


def _training_sizes(task: Task, rows: int, asked: _Asked) -> tuple[int, int, list[str]]:
    """Sizes of train and dev; what was asked for stands, what was not takes the rest."""
    usual = asked.train or task.sizes.train, asked.dev or task.sizes.dev
    if sum(usual) <= rows or (asked.train and asked.dev):
        return *usual, []
    share = min(usual[1], int(rows * task.sizes.dev_share))
    dev = asked.dev or (rows - usual[0] if asked.train else share)
    train = asked.train or rows - dev
    if min(train, dev) < 1:
        raise ValueError(
            f"task {task.name} has {rows} {POOL} rows: {usual[0]} for training and {usual[1]} for dev leave nothing "
            "for one of them: give --train and --dev"
        )
    note = f"{task.name}: {rows} rows give {train} for training and {dev} for dev, not {usual[0]} and {usual[1]}"
    return train, dev, [note]


def _test_size(task: Task, rows: int, asked: int | None) -> tuple[int, list[str]]:
    if not rows:
        raise ValueError(f"task {task.name} has no test rows: give it a test file, or more rows")
    if asked is not None or rows >= task.sizes.test:
        return asked or task.sizes.test, []
    return rows, [f"{task.name}: there are {rows} test rows, fewer than {task.sizes.test}: all are used"]


def _draw(task: Task, items: Sequence[Item], count: int, key: int, what: str) -> list[Example]:
    """`count` examples in the order of their keys; where balanced, labels alternate."""
    groups = _groups(task, sorted(items, key=lambda item: derive(key, item.key)))
    wanted = -(-count // len(groups))
    fewest = min(len(group) for group in groups)
    if fewest < wanted:
        each = " of each label" if task.balanced else ""
        raise ValueError(
            f"task {task.name} has {fewest} {what} rows{each}, but {wanted} are requested: request fewer, or leave the "
            "sizes to the task"
        )
    return [group[i].example for i in range(wanted) for group in groups][:count]
