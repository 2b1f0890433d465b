"""Keys: every random number is named, never counted.

A key is a 63-bit integer derived from names (experiment, step, direction, parameter, block). Equal names give
equal numbers whatever else was drawn before, so adding a method, a thread or a parameter changes no other draw.
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from operator import index
from typing import TypeVar

Item = TypeVar("Item")

Names = tuple[int | str, ...]

KEY_BITS = 63


def derive(*names: int | str) -> int:
    """Return the key of a path of names: 63 bits of BLAKE2b, so that it fits a JSON or a torch integer.

    `derive("run", 3) != derive("run", "3")`: integers and strings differ; anything else is a TypeError.

    >>> derive("run", 3) == derive("run", 3), derive("run", 3) == derive("run", "3")
    (True, False)
    """
    return _hashed(_joined(names))


def derive_each(firsts: Iterable[Names], seconds: Iterable[Names]) -> list[list[int]]:
    """Return keys[i][k] = derive(*firsts[i], *seconds[k]); no path is empty.

    >>> derive_each([("run", 3)], [("left",), ("right",)]) == [[derive("run", 3, "left"), derive("run", 3, "right")]]
    True
    """
    ends = [f"\x1f{_joined(second)}" for second in seconds]
    return [[_hashed(begin + end) for end in ends] for begin in map(_joined, firsts)]


def _joined(names: Names) -> str:
    try:
        return "\x1f".join([repr(name if isinstance(name, str) else index(name)) for name in names])
    except TypeError:
        raise TypeError(f"a key is derived from whole numbers and texts, got {names!r:.200}") from None


def _hashed(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") >> (64 - KEY_BITS)


def keyed(items: Iterable[Item], *names: int | str) -> Iterator[tuple[int, Item]]:
    """Pair the items with `derive(*names, 0)`, `derive(*names, 1)`, ...: one key a step."""
    for step, item in enumerate(items):
        yield derive(*names, step), item
