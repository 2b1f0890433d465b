"""Computed memory of quantised models up to 70 billion parameters: python -m llm.quantised.sizes prints the table."""

from collections.abc import Iterable
from typing import NamedTuple

from llm.quantised.formats import FORMATS, Format

GIB = 2**30


class Size(NamedTuple):
    """The weights of a model: those of its Linear layers, and the others (embedding, head where it is not tied, norms,
    biases), as its published configuration counts them.
    """

    name: str
    linear: int
    other: int

    @property
    def total(self) -> int:
        """All weights."""
        return self.linear + self.other


def llama(name: str, hidden: int, inner: int, layers: int, vocabulary: int, grouped: float, tied: bool = False) -> Size:
    """Return the size of a Llama; `grouped` is the number of key-value heads over that of heads."""
    attention = hidden * hidden * (2 + 2 * grouped)
    linear = layers * (attention + 3 * hidden * inner)
    return Size(name, round(linear), vocabulary * hidden * (1 if tied else 2) + (2 * layers + 1) * hidden)


def opt(name: str, hidden: int, layers: int) -> Size:
    """Return the size of an OPT: 12 h^2 weights a layer, an embedding of tokens that is the head, one of positions."""
    other = (50272 + 2050) * hidden + layers * 13 * hidden + 2 * hidden
    return Size(name, layers * 12 * hidden * hidden, other)


SIZES = (
    llama("SmolLM2-135M", 576, 1536, 30, 49152, 1 / 3, tied=True),
    opt("OPT-1.3B", 2048, 24),
    llama("Llama-2-7B", 4096, 11008, 32, 32000, 1.0),
    llama("Llama-2-13B", 5120, 13824, 40, 32000, 1.0),
    opt("OPT-30B", 7168, 48),
    llama("Llama-2-70B", 8192, 28672, 80, 32000, 1 / 8),
)
"""Sizes by the published configurations."""
SHOWN = ("int8", "int4", "int4-asymmetric", "int2")


def held_gib(size: Size, format: Format) -> float:
    """Return the GiB of a model whose scales are trained: codes, scales in float32 and zero points in float16 of the
    Linear layers, and the other weights in bfloat16.
    """
    floats = (4 + 2 * format.asymmetric) / format.group
    return (size.linear * (format.bits / 8 + floats) + 2 * size.other) / GIB


def table(sizes: Iterable[Size] = SIZES) -> str:
    """Return the memory of weights in GiB, in Markdown: computed, without activations."""
    formats = [Format(name, *FORMATS[name]) for name in SHOWN]
    lines = ["| model (computed) | weights | float32 | bfloat16 | " + " | ".join(SHOWN) + " |"]
    lines.append("|---|" + "---|" * (3 + len(SHOWN)))
    for size in sizes:
        cells = [f"{4 * size.total / GIB:.3g}", f"{2 * size.total / GIB:.3g}"]
        cells += [f"{held_gib(size, format):.3g}" for format in formats]
        lines.append(f"| {size.name} | {size.total / 1e9:.3g}e9 | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
