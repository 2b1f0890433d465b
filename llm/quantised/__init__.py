"""Quantised models: weights of 8, 4 and 2 bits by groups, whose scales are trained, or that are trained as they are
rounded in every forward.
"""

from llm.quantised.fake import (
    all_trained_,
    as_written_,
    fake_layers,
    is_fake_quantised,
)
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
    scale_names,
    widen_,
)
from llm.quantised.schemes import SCHEMES, Quantisation, Scheme, quantisation

__all__ = [
    "FORMATS",
    "GGUF",
    "SCHEMES",
    "Choice",
    "Format",
    "KeepSign",
    "Quantisation",
    "Quantised",
    "QuantisedEmbedding",
    "QuantisedLinear",
    "Scheme",
    "all_trained_",
    "as_exported",
    "as_written_",
    "check_model",
    "codes_of",
    "dense_",
    "fake_layers",
    "floats_",
    "is_fake_quantised",
    "is_quantised",
    "parse",
    "quantisation",
    "quantise_",
    "scale_names",
    "widen_",
]
