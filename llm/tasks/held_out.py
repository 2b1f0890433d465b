"""A test pool where there is none: a quarter of the rows, fixed by their texts."""

from collections.abc import Iterable

from llm.tasks.task import Item, Pools
from zobench.random.keys import KEY_BITS, derive

SHARE = 0.25


def held_out(name: str, items: Iterable[tuple[Item, str]]) -> Pools:
    """Return the pools of items with their texts, about a quarter of the texts in the test pool, for every seed alike.

    Rows whose texts differ in case and white space only fall on the same side.
    """
    pairs = [(item, _held(text)) for item, text in items]
    kept, test = ([item for item, held in pairs if held is side] for side in (False, True))
    note = f"{name}: no test set: {len(test)} of {len(pairs)} rows are held out for it, fixed by a hash of their texts"
    return Pools(kept, test, (note,))


def _held(text: str) -> bool:
    return bool(derive("held out", " ".join(text.casefold().split())) < SHARE * 2**KEY_BITS)
