"""The tasks over the two sets of short texts that come with the repository."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from llm.tasks import corpus
from llm.tasks.example import Example
from llm.tasks.task import Item, Pools, Sizes, Task

Read = Callable[[Path], list[corpus.Row]]


def shipped(name: str, suffix: str, candidates: tuple[str, ...], sample: str, sources: str, rows: Read) -> Task:
    """Return the task over shipped rows: the text, stripped, and the suffix; no model here was pretrained on its test
    pool.
    """

    def item(row: corpus.Row) -> Item:
        return Item(row.text.strip(), Example(row.text.strip() + suffix, row.label, candidates))

    return Task(
        name,
        _pools(rows, item),
        candidates,
        balanced=True,
        sizes=Sizes(500, 200, 300),
        source=f"shipped: {sources}",
        sample=Example(sample + suffix, 0, candidates),
        content_free=Example(suffix.lstrip(), 0, candidates),
        labels=corpus.CLASSES.get(name, ()),
        template="{text}" + suffix,
        ask=lambda record: Example(record.shown("text") + suffix, 0, candidates),
    )


def _pools(rows: Read, item: Callable[[corpus.Row], Item]) -> Callable[[str | None], Pools]:
    def divided(folder: Path) -> Pools:
        read = rows(folder)
        kept = [item(row) for row in read if not corpus.held_out(row.text)]
        return Pools(kept, [item(row) for row in read if corpus.held_out(row.text)])

    @cache
    def own() -> Pools:
        return divided(corpus.DATA)

    return lambda folder: divided(Path(folder)) if folder else own()


def _genres(folder: Path) -> list[corpus.Row]:
    """Normal messages, 0, and sentences of reviews, 1."""
    messages = [row for row in corpus.read("spam", folder) if row.label == 0]
    return messages + [replace(row, label=1) for row in corpus.read("sentences", folder)]


SPAM = shipped(
    "spam",
    " This message is",
    (" normal", " spam"),
    "Lunch at one?",
    "llm/data/spam.csv",
    lambda folder: corpus.read("spam", folder),
)
SENTENCES = shipped(
    "sentences",
    " It was",
    (" terrible", " great"),
    "I would not buy it again.",
    "llm/data/sentences.csv",
    lambda folder: corpus.read("sentences", folder),
)
GENRE = shipped(
    "genre",
    " This is a",
    (" message", " movie"),
    "Lunch at one?",
    "llm/data/spam.csv (normal), llm/data/sentences.csv",
    _genres,
)
SHIPPED = (SPAM, SENTENCES, GENRE)
