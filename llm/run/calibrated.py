"""Smoothing factors in the header of a journal: a run that is continued or repeated takes them from there."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import nn

from llm.options.train import TrainOptions
from llm.quantised import Scheme, is_fake_quantised
from llm.quantised.smoothing import as_text, from_text_
from llm.run.folder import JOURNAL
from zobench.run.journal import read

ENTRY = "fake_quantised"
FACTORS = "log_smoothing"


def about(model: nn.Module, options: TrainOptions) -> dict[str, Any]:
    """Return what a header says of a fake-quantised model: its scheme, and the factors that calibration found."""
    if not is_fake_quantised(model):
        return {}
    found = {FACTORS: as_text(model)} if options.smoothing else {}
    return {ENTRY: {"scheme": options.fake_quantize, "smoothing": options.smoothing, **found}}


def scheme_of(header: Mapping[str, Any]) -> Scheme | None:
    """Return the scheme that a header tells, None where it tells none.

    Raises:
        ValueError: it is no scheme.
    """
    said = header.get(ENTRY)
    if said is None:
        return None
    if not isinstance(said, dict) or not isinstance(said.get("scheme"), str):
        raise ValueError(f"{ENTRY} of the header is {said!r}: wanted its scheme")
    return Scheme.of(said["scheme"])


def smooth_as_(model: nn.Module, header: Mapping[str, Any]) -> bool:
    """Set the smoothing factors to those of a header, and return whether it has some.

    Raises:
        ValueError: they are of another model, or cannot be read.
    """
    text = (header.get(ENTRY) or {}).get(FACTORS)
    if text is None or not is_fake_quantised(model):
        return False
    from_text_(model, str(text))
    return True


def continue_(model: nn.Module, options: TrainOptions) -> bool:
    """Take the smoothing factors of the journal in the folder of a run, if it has one, and return whether it had some
    for this model; where they are not of this run, its header refuses to continue it.
    """
    file = Path(options.out) / JOURNAL
    if options.journal and file.is_file():
        with suppress(ValueError):  # the loop reads the journal again and reports what is wrong with it
            return smooth_as_(model, read(file).header)
    return False
