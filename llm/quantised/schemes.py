"""Schemes of training for quantisation: how many bits weights have, and how many activations."""

from itertools import product
from typing import NamedTuple

from llm.quantised.formats import FORMATS, Choice, Format
from zobench.naming import require_known

FULL = 16
"""Activations of "16 bits" are not rounded: they have the dtype of the model."""
SMOOTHING = 0.75
"""The exponent alpha of ZeroQAT's smoothing."""


class Scheme(NamedTuple):
    """Weights of `weights` bits by channels, activations of `activations` bits by tokens, None where they stay."""

    name: str
    weights: int
    activations: int | None

    @classmethod
    def of(cls, name: str | None) -> "Scheme | None":
        """Return the scheme of a name; None where nothing is quantised.

        Raises:
            UnknownNameError: no such scheme.
        """
        if name is None:
            return None
        require_known(name, SCHEMES, "scheme of fake quantisation")
        return SCHEMES[name]

    def format(self, columns: int) -> Format:
        """Return the format of a matrix of so many columns: a row, which is an output channel, is one group."""
        name = f"int{self.weights}-asymmetric"
        return Format(name, *FORMATS[name], columns)


SCHEMES = {
    f"w{weights}a{activations}": Scheme(
        f"w{weights}a{activations}", weights, None if activations == FULL else activations
    )
    for weights, activations in product((8, 4, 2), (FULL, 8, 4))
}
"""Schemes by name: w8a16, w8a8, w8a4, w4a16, ..., w2a4."""


Quantisation = Choice | Scheme
"""How a model is quantised: on loading, or in every forward."""


def quantisation(quantize: str | None, group: int, fake_quantize: str | None) -> Quantisation | None:
    """Return how the options say that a model is quantised, None where they do not.

    Raises:
        UnknownNameError: no such format or scheme.
        ValueError: both are given, or as `Choice.of`.
    """
    chosen, scheme = Choice.of(quantize, group), Scheme.of(fake_quantize)
    if chosen is not None and scheme is not None:
        raise ValueError(
            f"--quantize {quantize} and --fake-quantize {fake_quantize}: the first trains scales of weights that are "
            "rounded once, the second weights that are rounded in every forward: leave one out"
        )
    return chosen or scheme


def check_smoothing(alpha: float) -> None:
    """Refuse an exponent of smoothing that is none.

    Raises:
        ValueError: it is below 0 or above 1.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"smoothing is {alpha}: give an exponent from 0 (no smoothing) to 1, such as {SMOOTHING}")
