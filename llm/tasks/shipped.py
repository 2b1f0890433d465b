"""The two sets of short texts that come with the repository."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from llm.tasks import corpus
from llm.tasks.example import Example
from llm.tasks.task import Item, Pools, Sizes, Task


def shipped(name: str, suffix: str, candidates: tuple[str, ...], sample: str) -> Task:
    """Return the task over a shipped set: the text, stripped, and the suffix; no model here was pretrained on its test
    pool.
    """

    def item(row: corpus.Row) -> Item:
        return Item(row.text.strip(), Example(row.text.strip() + suffix, row.label, candidates))

    return Task(
        name,
        _pools(name, item),
        candidates,
        balanced=True,
        sizes=Sizes(500, 200, 300),
        source=f"shipped: llm/data/{name}.csv",
        sample=Example(sample + suffix, 0, candidates),
        content_free=Example(suffix.lstrip(), 0, candidates),
        labels=corpus.CLASSES[name],
        template="{text}" + suffix,
        ask=lambda record: Example(record.shown("text") + suffix, 0, candidates),
    )


def _pools(name: str, item: Callable[[corpus.Row], Item]) -> Callable[[str | None], Pools]:
    def divided(rows: list[corpus.Row]) -> Pools:
        kept = [item(row) for row in rows if not corpus.held_out(row.text)]
        return Pools(kept, [item(row) for row in rows if corpus.held_out(row.text)])

    @cache
    def own() -> Pools:
        return divided(corpus.read(name))

    return lambda folder: divided(corpus.read(name, Path(folder))) if folder else own()


SHIPPED = (
    shipped("spam", " This message is", (" normal", " spam"), "Lunch at one?"),
    shipped("sentences", " It was", (" terrible", " great"), "I would not buy it again."),
)
