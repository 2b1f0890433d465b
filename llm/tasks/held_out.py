"""A test pool where there is none: a quarter of the rows, fixed by their texts."""

from collections.abc import Iterable

from llm import corpus
from llm.tasks.task import Item, Pools


def held_out(name: str, items: Iterable[tuple[Item, str]]) -> Pools:
    """Return the pools of items with their texts: `corpus.held_out` decides by the text, for every seed alike.

    Rows of one text, or of near-duplicates of it, fall on the same side.
    """
    pairs = [(item, corpus.held_out(text)) for item, text in items]
    kept, test = ([item for item, held in pairs if held is side] for side in (False, True))
    note = f"{name}: no test set: {len(test)} of {len(pairs)} rows are held out for it, fixed by a hash of their texts"
    return Pools(kept, test, (note,))
