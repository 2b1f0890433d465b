"""Docstrings as reStructuredText: they are plain text with Google's sections, and their formulas no markup."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

SECTION = re.compile(r"(Raises|Args|Returns|Yields|Example|Examples|Note|Attributes):$")
CODE = re.compile(r"`([^`]+)`")
MARKUP = re.compile(r"([\\*|]|_(?!\w))")


def as_rst(lines: Sequence[str]) -> list[str]:
    r"""Return the lines with * | \ and a final _ escaped outside of backticks, and indented lines as literal blocks.

    Below a section's title the indented lines are its items, which are left to napoleon.
    """
    found: list[str] = []
    for literal, group in groupby(_told(lines), key=lambda pair: pair[0]):
        text = "\n".join(line for _, line in group)
        found += ["", "::", "", *text.split("\n"), ""] if literal else escaped(text).split("\n")
    return found


def _told(lines: Sequence[str]) -> Iterator[tuple[bool, str]]:
    """Each line, and whether it belongs to an indented block outside of the sections."""
    in_section = literal = False
    for line in lines:
        if line.strip():
            indented = line.startswith(" ")
            in_section = in_section if indented else bool(SECTION.match(line))
            literal = indented and not in_section
        yield literal, line


def escaped(text: str) -> str:
    """Return the text with the marks of reStructuredText escaped outside of backticks, and backticks doubled."""
    parts = CODE.split(text)
    return "".join(rf"\ ``{part}``\ " if i % 2 else MARKUP.sub(r"\\\1", part) for i, part in enumerate(parts))
