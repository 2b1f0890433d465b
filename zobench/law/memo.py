"""What is drawn once for several steps, such as the frames of a subspace: kept for the latest two keys."""

from collections.abc import Hashable
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=2)
def memo(key: int, of: Hashable) -> dict[Hashable, Any]:
    """Return the dictionary of what was drawn from this key for `of`: an empty one, or the one returned before. All is
    a function of the key, so that a dictionary that is lost is only drawn again.
    """
    return {}
