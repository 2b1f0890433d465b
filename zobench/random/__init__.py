"""Random numbers by name: keys, the counter-based streams that they name, and the backends that draw them."""

from zobench.random.streams import normals, signs, words

__all__ = ["normals", "signs", "words"]
