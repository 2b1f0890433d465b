"""Quantised layers of a model that is loaded: rounded from its weights, or with the codes of a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from llm.model.adapted import CHOSEN
from llm.model.free_memory import give_back
from llm.model.language_model import LanguageModel
from llm.quantised import Choice, Quantisation, Scheme, blank, check_model, folder, gguf_file
from llm.quantised import quantise_ as round_layers_
from llm.quantised.fake import check_fake, fake_quantise_


def keeps_codes(chosen: Quantisation | None) -> bool:
    """Return whether the codes of a GGUF file are kept as they are."""
    return isinstance(chosen, Choice) and chosen.format is None


def holds_codes(source: Path, chosen: Quantisation | None) -> bool:
    """Return whether codes are read from a file: of a GGUF file that is kept as it is, or a folder of codes."""
    return folder.is_folder(source) or keeps_codes(chosen)


def require_possible(
    name: str, source: Path, gguf: str | None, chosen: Quantisation | None, skeleton: Callable[[], LanguageModel]
) -> None:
    """Refuse, before any weight is read, what cannot be quantised so.

    Raises:
        ValueError: the model holds codes already, is no GGUF file whose codes are to be kept, or as `check_model` and
            `check_fake`.
    """
    if chosen is None:
        return
    if folder.is_folder(source) and not gguf:
        option = "--fake-quantize" if isinstance(chosen, Scheme) else "--quantize"
        raise ValueError(f"model {name!r} is quantised already: leave {option} out")
    if keeps_codes(chosen):
        if gguf is None:
            raise ValueError(
                f"--quantize gguf keeps the codes of a GGUF file, but model {name!r} is none: give --quantize int4"
            )
        gguf_file.reader(source / gguf)
        return
    try:
        made = skeleton().model
    except Exception:  # the real loader meets the same fault and reports it
        return
    if isinstance(chosen, Scheme):
        check_fake(made)
    elif chosen.format is not None:
        check_model(made, chosen.format)


def filled(make: Callable[[], Any], source: Path, gguf: str | None, dtype: torch.dtype) -> Any:
    """Return the model that `make` makes, with the numbers of a file of codes; no dense model is held meanwhile."""
    model = blank.blank(make)
    if gguf:
        gguf_file.fill_(model, source / gguf, dtype)
        setattr(model, CHOSEN, Choice("gguf"))
    else:
        folder.fill_(model, source, dtype)
    give_back()
    return model


def quantise_(model: Any, chosen: Quantisation | None) -> None:
    """Quantise a dense model that was loaded, or let it be so in every forward. The C library gives back what rounding
    took, which otherwise stays with the process and is more than the codes.
    """
    if isinstance(chosen, Scheme):
        fake_quantise_(model, chosen)
    elif chosen is not None and chosen.format is not None:
        round_layers_(model, chosen.format)
        give_back()
        setattr(model, CHOSEN, chosen)


def told(origin: str, chosen: Quantisation | None) -> str:
    """Return in words where quantised weights come from."""
    if chosen is None:
        return origin
    if isinstance(chosen, Scheme):
        return f"{origin}, rounded to {chosen.name}"
    if chosen.format is None:
        return f"{origin}, its codes kept"
    return f"{origin}, quantised to {chosen.name} in groups of {chosen.group}"
