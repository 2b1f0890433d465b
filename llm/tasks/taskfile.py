"""The user's own data: a TOML file that names the files, the prompt and the labels."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from llm.tasks.decoding import lines
from llm.tasks.doubts import without_empty
from llm.tasks.example import Example
from llm.tasks.files import read
from llm.tasks.held_out import held_out
from llm.tasks.labels import lookup, require_continuations
from llm.tasks.messages import answered, conversation, question
from llm.tasks.official import Official, digest, has_answer
from llm.tasks.prompts import generated
from llm.tasks.published import PUBLISHED
from llm.tasks.record import DataRecord, notes_of
from llm.tasks.task import LINE, METRICS, OBJECTIVES, Item, Pools, Sizes, Task, Writing
from llm.tasks.template import Template
from zobench.naming import require_known

SIZES = Sizes(dev_share=1 / 3)
WANTED = {"balanced": bool, "quoting": bool, "chat": bool, "labels": dict, "new_tokens": int}
"""The types of keys that are no text."""
CHOICES = {"task": tuple(PUBLISHED), "objective": OBJECTIVES, "metric": METRICS}
Make = Callable[[DataRecord], Item]


@dataclass(frozen=True)
class TaskFile:
    """The keys of a task file; data files are in its folder, or in --data.

    `train` and `test` are .csv, .tsv, .jsonl or .json; without `test`, a quarter of `train` is held out (rows that
    share the column `group` stay together). `prompt` is a template over the columns. Then either `label`, a column,
    with the table `labels`: value = continuation (a template too); or `answer`, a column with the text to be written,
    or a list of right answers. With `chat` the prompt is what a user says (after `system`, where given), in the chat
    template of the model. Or `messages` is a column of conversations, lists of {role, content}, the last of which is
    the answer. `new_tokens` bounds generated answers. `encoding`, `separator` and `quoting` describe files of another
    format. With `task`, a published one, the files are in its format, and prompt and labels may be left to it.
    """

    train: str
    test: str | None = None
    name: str | None = None
    task: str | None = None
    prompt: str | None = None
    label: str = "label"
    labels: dict[str, str] | None = None
    answer: str | None = None
    messages: str | None = None
    chat: bool = False
    system: str | None = None
    new_tokens: int = LINE.tokens
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
    spec = _spec(file)
    official = PUBLISHED[spec.task] if spec.task else None
    left = official is not None and spec.prompt is None and spec.labels is None and spec.answer is None
    make: Make
    asked: Callable[[DataRecord], Example]
    if official is not None and left:
        make, candidates, usual = official.item, official.candidates, (official.objective, official.metric)
        empty, asked = official.content_free, official.ask
    else:
        make, candidates = _maker(file, spec), _common(spec)
        written = spec.answer or spec.messages
        usual = ("classification" if candidates else "language-model", "f1" if written else "accuracy")
        empty, asked = _content_free(spec, candidates), _asker(spec)
    return Task(
        spec.name or file.stem,
        _pools(file, spec, official, make),
        candidates,
        spec.objective or usual[0],
        spec.metric or usual[1],
        spec.balanced and candidates is not None,
        SIZES,
        source=f"{file.name}: {spec.train}, {spec.test or 'a quarter of it held out'}",
        content_free=empty,
        labels=tuple(spec.labels or ()),
        template=spec.prompt,
        ask=asked,
        read=partial(read, encoding=spec.encoding, separator=spec.separator, quoting=spec.quoting)
        if official is None
        else official.read,
        writing=Writing(spec.new_tokens, one_line=not (spec.chat or spec.messages)),
    )


def _spec(file: Path) -> TaskFile:
    text = lines(file)
    try:
        values = tomllib.loads("\n".join(text))
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, a number of too many digits, too deep a nesting
        raise ValueError(f"{file}: not TOML: {error}") from None
    known = [field.name for field in fields(TaskFile)]
    for key, value in values.items():
        require_known(key, known, f"key in {file}:")
        wanted = WANTED.get(key, str)
        if type(value) is not wanted:
            raise ValueError(f"{file}: {key} is {value!r}: give a {'table' if wanted is dict else wanted.__name__}")
        if key in CHOICES:
            require_known(str(value), CHOICES[key], f"{key} in {file}:")
    if "train" not in values:
        raise ValueError(f'{file}: no training file: give train = "my.csv" (or .tsv, .jsonl, .json)')
    spec = TaskFile(**values)
    _check_format(file, spec)
    return spec


def _check_format(file: Path, spec: TaskFile) -> None:
    if spec.separator is not None and (len(spec.separator) != 1 or spec.separator in '"\r\n'):
        raise ValueError(f'{file}: separator is {spec.separator!r}: give one character, such as ";" or "\\t"')
    usual = TaskFile(spec.train)
    own = [key for key in ("encoding", "separator", "quoting") if getattr(spec, key) != getattr(usual, key)]
    if spec.task and own:
        raise ValueError(f"{file}: {', '.join(own)}: the files of a published task have a format of their own")


def _common(spec: TaskFile) -> tuple[str, ...] | None:
    """The candidates, where no column is filled in them."""
    labels = spec.labels or {}
    fixed = labels and not any(Template(text).columns for text in labels.values())
    if not fixed:
        return None
    filled = (Template(text).fill(DataRecord("", {})) for text in labels.values())
    return tuple(text.strip() if spec.chat else text for text in filled)


def _content_free(spec: TaskFile, candidates: tuple[str, ...] | None) -> Example | None:
    """The prompt with every column empty, where the candidates are common."""
    if candidates is None:
        return None
    prompt = Template(spec.prompt or "")
    return _posed(spec, Example(prompt.fill(DataRecord("", dict.fromkeys(prompt.columns, ""))), 0, candidates))


def _posed(spec: TaskFile, example: Example) -> Example:
    """The example as the turns of a conversation, if it is one: a reply begins with no blank."""
    if not spec.chat:
        return example
    made = conversation(spec.system, example.prompt)._replace(label=example.label, answers=example.answers)
    return made._replace(candidates=tuple(text.strip() for text in example.candidates))


def _asker(spec: TaskFile) -> Callable[[DataRecord], Example]:
    """The function that makes the example of a record whose answer is unknown."""
    prompt, texts = Template(spec.prompt or ""), [Template(text) for text in (spec.labels or {}).values()]

    def ask(record: DataRecord) -> Example:
        if spec.messages is not None:
            return question(record, spec.messages)
        if not texts:
            return _posed(spec, generated(prompt.fill(record), ("",)))
        return _posed(spec, Example(prompt.fill(record), 0, tuple(text.fill(record) for text in texts)))

    return ask


def _maker(file: Path, spec: TaskFile) -> Make:
    """The function that makes an example of a record, by template."""
    if spec.messages is not None:
        others = [name for name in ("prompt", "labels", "answer", "system") if getattr(spec, name) is not None]
        if others or spec.chat:
            raise ValueError(f"{file}: messages are whole conversations: leave out {', '.join(others or ['chat'])}")
        return partial(_conversation, column=spec.messages)
    if spec.system is not None and not spec.chat:
        raise ValueError(f"{file}: system is of conversations: give chat = true, or leave it out")
    if spec.prompt is None or (spec.labels is None) == (spec.answer is None):
        raise ValueError(f"{file}: a task needs prompt, and either a table [labels] or answer = COLUMN")
    if spec.labels is not None and spec.prompt.endswith(" "):
        raise ValueError(
            f"{file}: prompt ends in a space, which tokenizers join to the word that follows: put it in front of the "
            "continuations"
        )
    if spec.answer is not None:
        return _written(spec, Template(spec.prompt.rstrip(" ")), spec.answer)
    labels = spec.labels or {}
    require_continuations(file, labels)
    return _labelled(spec, Template(spec.prompt), {name: Template(text) for name, text in labels.items()})


def _conversation(record: DataRecord, column: str) -> Item:
    made = answered(record, column)
    return Item(digest(made), made)


def _labelled(spec: TaskFile, prompt: Template, labels: dict[str, Template]) -> Make:
    def make(record: DataRecord) -> Item:
        candidates = tuple(continuation.fill(record) for continuation in labels.values())
        if not all(map(str.strip, candidates)):
            raise ValueError(f"{record.where}: a continuation is empty: fill its columns, or leave the row out")
        made = _posed(spec, Example(prompt.fill(record), lookup(record, spec.label, list(labels)), candidates))
        return Item(digest(made), made)

    return make


def _written(spec: TaskFile, prompt: Template, column: str) -> Make:
    def make(record: DataRecord) -> Item:
        value = record.value(column)
        answers = record.texts(column) if isinstance(value, list) else (record.shown(column),)
        if not all(text.strip() for text in answers):
            raise ValueError(f"{record.where}: {column} is {value!r}: give a text, or a list of right answers")
        made = _posed(spec, generated(prompt.fill(record), answers))
        return Item(digest(made), made)

    return make


def _pools(file: Path, spec: TaskFile, official: Official | None, make: Make) -> Callable[[str | None], Pools]:
    name, group = spec.name or file.stem, spec.group or (official.group if official else None)

    def pools(folder: str | None) -> Pools:
        base, notes = file.parent if folder is None else Path(folder), dict[str, None]()
        training = [(make(record), record) for record in _rows(spec, official, base / spec.train, notes)]
        items = [item for item, _ in training]
        if spec.test is None:
            texts = (record.shown(group) if group else item.example.prompt for item, record in training)
            made = held_out(name, zip(items, texts, strict=True))
        else:
            made = Pools(items, [make(record) for record in _rows(spec, official, base / spec.test, notes)])
        return made._replace(notes=(*(f"{name}: {note}" for note in notes), *made.notes))

    return pools


def _rows(spec: TaskFile, official: Official | None, file: Path, notes: dict[str, None]) -> list[DataRecord]:
    """The rows that can be used; what is to be spec of the others is added to the notes, once."""
    records = official.read(file) if official else read(file, spec.encoding, spec.separator, spec.quoting)
    notes |= dict.fromkeys(notes_of(records))
    if official:
        answered = [record for record in records if has_answer(record)]
        if len(answered) < len(records):
            notes[f"{file}: questions without an answer are left out: {len(records) - len(answered)}"] = None
        records = answered
    written = [Template(text) for text in (spec.labels or {}).values()]
    prompt = Template(spec.prompt).columns if spec.prompt is not None else (official.group,) if official else ()
    others = (spec.answer,) if spec.answer else tuple(column for text in written for column in text.columns)
    kept, doubts = without_empty(records, prompt, others)
    notes |= dict.fromkeys(doubts)
    return kept
