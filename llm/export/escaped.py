"""Texts that files bring into a model card: one line each, with no markup, no links and no places of theirs."""

import re
from pathlib import Path

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
LONGEST = 300
_MARKUP = re.compile(r"[^\w .,;:()'%/=+-]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.", re.IGNORECASE)
"""Letters that could be markup, HTML or an address of which Markdown makes a link."""


def line(text: object) -> str:
    """Return a text in one line, without control characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())


def plain(text: object) -> str:
    """Return a text that Markdown shows as it is; a long one is cut. What could be markup is written as entities, which
    never are.
    """
    whole = line(text)
    whole = whole if len(whole) <= LONGEST else whole[: LONGEST - 3] + "..."
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", whole)


def code(text: str) -> str:
    """Return a text as code within a line, or plain where it has in it what could end the code."""
    return plain(text) if re.search("[`<|]", text) or line(text) != text else f"`{text}`"


def placeless(name: str) -> str:
    """Return the name of a model or a task; of a path, which says where it is on this machine, the last part."""
    here = name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1 or Path(name).exists()
    return Path(name.replace("\\", "/")).name or line(name) if here or name.endswith(".toml") else name
