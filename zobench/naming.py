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
    raise UnknownNameError(f"unknown {what} {name!r}.{nearest(name, valid)} Known: {', '.join(valid) or 'none'}.")


SYNONYMS = {
    "normal": "gaussian", "bernoulli": "rademacher", "signs": "rademacher", "lowrank": "low-rank",
    "axes": "coordinate", "gpu": "cuda", "spsa": "n-spsa",
}  # fmt: skip
"""Other words for names of ours: too far from them in letters to be found."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return a sentence that asks for the nearest valid name, after a space; "" where none is near."""
    if SYNONYMS.get(name) in (valid := list(valid)):
        return f" Did you mean {SYNONYMS[name]!r}?"
    near = get_close_matches(str(name), valid, n=1, cutoff=0.4)
    return f" Did you mean {near[0]!r}?" if near else ""
