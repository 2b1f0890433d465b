"""The user's own data: a TOML file that names the files, the prompt and the labels."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from llm.tasks.decoding import lines
from llm.tasks.doubts import without_empty
from llm.tasks.example import Example
from llm.tasks.files import read
from llm.tasks.held_out import held_out
from llm.tasks.labels import lookup, require_continuations
from llm.tasks.official import Official, digest, has_answer
from llm.tasks.prompts import generated
from llm.tasks.published import PUBLISHED
from llm.tasks.record import DataRecord, notes_of
from llm.tasks.task import METRICS, OBJECTIVES, Item, Pools, Sizes, Task
from llm.tasks.template import Template
from zobench.naming import require_known

SIZES = Sizes(dev_share=1 / 3)
CHOICES = {"task": tuple(PUBLISHED), "objective": OBJECTIVES, "metric": METRICS}
Make = Callable[[DataRecord], Item]


@dataclass(frozen=True)
class TaskFile:
    """What a task file may say; data files are beside it, or in --data.

    `train` and `test` are .csv, .tsv, .jsonl or .json; without `test`, a quarter of `train` is held out (rows that
    share the column `group` stay together). `prompt` is a template over the columns. Then either `label`, a column,
    with the table `labels`: value = continuation (a template too); or `answer`, a column with the text to be written,
    or a list of right ones. `encoding`, `separator` and `quoting` say how files are read where that is not as usual.
    With `task`, a published one, the files are in its format, and prompt and labels may be left to it.
    """

    train: str
    test: str | None = None
    name: str | None = None
    task: str | None = None
    prompt: str | None = None
    label: str = "label"
    labels: dict[str, str] | None = None
    answer: str | None = None
    group: str | None = None
    objective: str | None = None
    metric: str | None = None
    balanced: bool = False
    encoding: str = "utf-8"
    separator: str | None = None
    quoting: bool | None = None


def load(file: Path) -> Task:
    """Return the task that a task file describes; data files are read when it is split.

    Raises:
        UnknownNameError: a key, or the value of one, is unknown; the message names the nearest.
        ValueError: the file is missing, is not TOML, or does not say what a task needs.
    """
    told = _told(file)
    official = PUBLISHED[told.task] if told.task else None
    left = official is not None and told.prompt is None and told.labels is None and told.answer is None
    make: Make
    if official is not None and left:
        make, candidates, usual = official.item, official.candidates, (official.objective, official.metric)
        empty = official.content_free
    else:
        make, candidates = _maker(file, told), _common(told)
        usual = ("classification" if candidates else "language-model", "f1" if told.answer else "accuracy")
        empty = _content_free(told, candidates)
    return Task(
        told.name or file.stem,
        _pools(file, told, official, make),
        candidates,
        told.objective or usual[0],
        told.metric or usual[1],
        told.balanced and candidates is not None,
        SIZES,
        source=f"{file.name}: {told.train}, {told.test or 'a quarter of it held out'}",
        content_free=empty,
    )


def _told(file: Path) -> TaskFile:
    text = lines(file)
    try:
        values = tomllib.loads("\n".join(text))
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, a number of too many digits, too deep a nesting
        raise ValueError(f"{file}: not TOML: {error}") from None
    known = [field.name for field in fields(TaskFile)]
    for key, value in values.items():
        require_known(key, known, f"key in {file}:")
        wanted = {"balanced": bool, "quoting": bool, "labels": dict}.get(key, str)
        if not isinstance(value, wanted):
            raise ValueError(f"{file}: {key} is {value!r}: give a {'table' if wanted is dict else wanted.__name__}")
        if key in CHOICES:
            require_known(str(value), CHOICES[key], f"{key} in {file}:")
    if "train" not in values:
        raise ValueError(f'{file}: no training file: give train = "my.csv" (or .tsv, .jsonl, .json)')
    told = TaskFile(**values)
    _check_format(file, told)
    return told


def _check_format(file: Path, told: TaskFile) -> None:
    if told.separator is not None and (len(told.separator) != 1 or told.separator in '"\r\n'):
        raise ValueError(f'{file}: separator is {told.separator!r}: give one character, such as ";" or "\\t"')
    usual = TaskFile(told.train)
    own = [key for key in ("encoding", "separator", "quoting") if getattr(told, key) != getattr(usual, key)]
    if told.task and own:
        raise ValueError(f"{file}: {', '.join(own)}: the files of a published task have a format of their own")


def _common(told: TaskFile) -> tuple[str, ...] | None:
    """The candidates, where no column is filled in them."""
    labels = told.labels or {}
    fixed = labels and not any(Template(text).columns for text in labels.values())
    return tuple(Template(text).fill(DataRecord("", {})) for text in labels.values()) if fixed else None


def _content_free(told: TaskFile, candidates: tuple[str, ...] | None) -> Example | None:
    """The prompt with every column empty, where the candidates are common."""
    prompt = Template(told.prompt or "")
    return (
        Example(prompt.fill(DataRecord("", dict.fromkeys(prompt.columns, ""))), 0, candidates) if candidates else None
    )


def _maker(file: Path, told: TaskFile) -> Make:
    """What makes an example of a record by template."""
    if told.prompt is None or (told.labels is None) == (told.answer is None):
        raise ValueError(f"{file}: a task wants prompt, and either a table [labels] or answer = COLUMN")
    if told.labels is not None and told.prompt.endswith(" "):
        raise ValueError(
            f"{file}: prompt ends in a space, which tokenizers count to the word that follows: put it in front of the "
            "continuations"
        )
    if told.answer is not None:
        return _written(Template(told.prompt.rstrip(" ")), told.answer)
    labels = told.labels or {}
    require_continuations(file, labels)
    return _labelled(Template(told.prompt), told.label, {name: Template(text) for name, text in labels.items()})


def _labelled(prompt: Template, column: str, labels: dict[str, Template]) -> Make:
    def make(record: DataRecord) -> Item:
        candidates = tuple(continuation.fill(record) for continuation in labels.values())
        if not all(map(str.strip, candidates)):
            raise ValueError(f"{record.where}: a continuation is empty: fill its columns, or leave the row out")
        made = Example(prompt.fill(record), lookup(record, column, list(labels)), candidates)
        return Item(digest(made), made)

    return make


def _written(prompt: Template, column: str) -> Make:
    def make(record: DataRecord) -> Item:
        value = record.value(column)
        answers = record.texts(column) if isinstance(value, list) else (record.shown(column),)
        if not all(text.strip() for text in answers):
            raise ValueError(f"{record.where}: {column} is {value!r}: give a text, or a list of right ones")
        made = generated(prompt.fill(record), answers)
        return Item(digest(made), made)

    return make


def _pools(file: Path, told: TaskFile, official: Official | None, make: Make) -> Callable[[str | None], Pools]:
    name, group = told.name or file.stem, told.group or (official.group if official else None)

    def pools(folder: str | None) -> Pools:
        place, notes = file.parent if folder is None else Path(folder), dict[str, None]()
        training = [(make(record), record) for record in _rows(told, official, place / told.train, notes)]
        items = [item for item, _ in training]
        if told.test is None:
            texts = (record.shown(group) if group else item.example.prompt for item, record in training)
            made = held_out(name, zip(items, texts, strict=True))
        else:
            made = Pools(items, [make(record) for record in _rows(told, official, place / told.test, notes)])
        return made._replace(notes=(*(f"{name}: {note}" for note in notes), *made.notes))

    return pools


def _rows(told: TaskFile, official: Official | None, file: Path, notes: dict[str, None]) -> list[DataRecord]:
    """The rows that can be used; what is to be told of the others is added to the notes, once."""
    records = official.read(file) if official else read(file, told.encoding, told.separator, told.quoting)
    notes |= dict.fromkeys(notes_of(records))
    if official:
        answered = [record for record in records if has_answer(record)]
        if len(answered) < len(records):
            notes[f"{file}: questions without an answer are left out: {len(records) - len(answered)}"] = None
        records = answered
    written = [Template(text) for text in (told.labels or {}).values()]
    prompt = Template(told.prompt).columns if told.prompt is not None else (official.group,) if official else ()
    others = (told.answer,) if told.answer else tuple(column for text in written for column in text.columns)
    kept, doubts = without_empty(records, prompt, others)
    notes |= dict.fromkeys(doubts)
    return kept
