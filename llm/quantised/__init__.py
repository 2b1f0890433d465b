"""Quantised models: weights of 8, 4 and 2 bits by groups, whose codes stay and whose scales are trained."""

from llm.quantised.formats import FORMATS, GGUF, Choice, Format, parse
from llm.quantised.keep_sign import KeepSign
from llm.quantised.layers import Quantised, QuantisedEmbedding, QuantisedLinear
from llm.quantised.model import (
    as_exported,
    check_model,
    codes_of,
    dense_,
    floats_,
    is_quantised,
    quantise_,
    round_,
    scale_names,
    widen_,
)

__all__ = [
    "FORMATS",
    "GGUF",
    "Choice",
    "Format",
    "KeepSign",
    "Quantised",
    "QuantisedEmbedding",
    "QuantisedLinear",
    "as_exported",
    "check_model",
    "codes_of",
    "dense_",
    "floats_",
    "is_quantised",
    "parse",
    "quantise_",
    "round_",
    "scale_names",
    "widen_",
]
