"""Errors that name the nearest valid name."""

from collections.abc import Iterable
from difflib import get_close_matches


class UnknownNameError(ValueError):
    """A name that is not in the table, method, problem or configuration it was looked up in."""


def require_known(name: str, valid: Iterable[str], what: str) -> None:
    """Raise UnknownNameError, with the nearest valid name and the whole list, unless `name` is valid.

    Raises:
        UnknownNameError: `name` is not among `valid`; `what` says what kind of name it is.
    """
    valid = list(valid)
    if name in valid:
        return
    near = get_close_matches(str(name), valid, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UnknownNameError(f"unknown {what} {name!r}.{hint} Known: {', '.join(valid) or 'none'}.")
