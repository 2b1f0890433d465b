"""Expressions in an adapter's configuration, which peft matches with the name of every layer: only quick ones pass."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

LONGEST = 100
"""Letters in a layer's name, for the count."""
MOST = 10**7
"""Ways in which an expression may be tried on a name: about a second for all layers of a model."""
LETTER = r"\\[.\-dw]|[\w. -]|\[[\w.-]+\]"
TOKENS = re.compile(rf"(?P<atom>{LETTER})(?P<repeat>[*+?]\??)?|(?P<open>\((?:\?:)?)|(?P<mark>[|)^$])")


def require_quick(config: Mapping[str, Any], file: object) -> None:
    """Refuse expressions that could be matched for ever: a repeated group such as (a+)+, or too many choices.

    Raises:
        ValueError: there is one; the message names its key.
    """
    for key, text in _expressions(config):
        if text != "all-linear" and ways(text) > MOST:
            raise ValueError(
                f"{file}: {key} is {text!r:.100}, an expression whose matching may not end: give a list of names "
                "of layers, or an expression without repeated groups"
            )


def ways(text: str) -> float:
    """Return a bound on the ways in which an expression can be tried on one name; infinity where it has more in it than
    names, dots, classes, choices, and repeated letters.

    A sequence multiplies, a choice adds, and a letter with * or + can end anywhere in the name.
    """
    open_groups, tried, at = [(0, 1)], 1, 0  # of each open group: ways of its choices that ended, and of this one
    while at < len(text):
        token = TOKENS.match(text, at)
        if token is None:
            return float("inf")
        at = token.end()
        ended, tried = open_groups.pop()
        if token["open"]:
            open_groups += [(ended, tried), (0, 1)]
        elif token["mark"] == ")":
            if not open_groups:
                return float("inf")
            before, outside = open_groups.pop()
            open_groups.append((before, outside * (ended + tried)))
        elif token["mark"] == "|":
            open_groups.append((ended + tried, 1))
        else:
            factor = {"*": LONGEST, "+": LONGEST, "?": 2}.get((token["repeat"] or " ")[0], 1)
            open_groups.append((ended, tried * factor))
    return sum(open_groups[0]) if len(open_groups) == 1 else float("inf")


def _expressions(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in ("target_modules", "exclude_modules", "layers_pattern"):
        value = config.get(key)
        listed = value if key == "layers_pattern" and isinstance(value, list) else [value]
        yield from ((key, text) for text in listed if isinstance(text, str))
    for key in ("rank_pattern", "alpha_pattern"):
        table = config.get(key)
        yield from ((key, text) for text in table) if isinstance(table, dict) else ()
