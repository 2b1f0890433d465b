"""Checks of loaded weights: no tensor of the model may be missing, and a note names tensors of the file left out."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

UNWRAP = "save the model within the wrapper ({}), or take the word out of the names"
MERGE = "merge the adapter into the model before it is saved (merge_and_unload)"
WRAPPERS = {
    "_orig_mod.": UNWRAP.format("model._orig_mod of torch.compile"),
    "module.": UNWRAP.format("model.module of DistributedDataParallel"),
    "_fsdp_wrapped_module.": UNWRAP.format("of FSDP"),
    "base_model.model.": MERGE,
    "base_layer.": MERGE,
}
"""What names in a file have in them that a wrapper wrote, and what to do then."""
OLD_BUFFERS = ("masked_bias", "inv_freq", "position_ids")
"""Constants that older versions of transformers wrote beside the weights."""
SHOWN = 3


def left_out(model: Any, info: Mapping[str, Any], saved_as: str) -> list[str]:
    """Return the tensors of the file that match no parameter of the model, such as those of a classifier's head.

    Args:
        model: as `from_pretrained` returned it.
        info: its `output_loading_info`.
        saved_as: the class that the configuration names, "" where it names none.

    Raises:
        ValueError: a tensor of the model is not in the file, has another shape there, or a tensor of the file belongs
            into a layer that the configuration does not describe.
    """
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    for name, there, here in sorted(info["mismatched_keys"]):
        raise ValueError(
            f"{name} is {tuple(there)} in the file of weights, but {tuple(here)} by config.json: give the config.json "
            "that belongs to the weights"
        )
    if missing:
        raise ValueError(_incomplete(model, missing, unexpected, saved_as))
    inside = [name for name in unexpected if _inside(model, name)]
    if inside:
        raise ValueError(
            f"the file of weights has {len(inside)} tensors of layers that config.json does not describe "
            f"({_few(inside)}), and without them the model is a different one: give the config.json "
            "that belongs to the "
            "weights"
        )
    return unexpected


def without(names: Iterable[str], model: Any, saved_as: str) -> str:
    """Return in words which tensors a model was read without."""
    known = list(names)
    count = "1 tensor" if len(known) == 1 else f"{len(known)} tensors"
    origin = f" (saved as {saved_as})" if saved_as else ""
    return f"{type(model).__name__} has no parameter for {count} of the file{origin}, left out: {_few(known)}"


@contextmanager
def unreported() -> Iterator[None]:
    """Keep what transformers says of missing and unexpected tensors off stderr: `left_out` says it in words."""
    logger = logging.getLogger("transformers.modeling_utils")

    def other(record: logging.LogRecord) -> bool:
        return not any(text in record.getMessage() for text in ("LOAD REPORT", "checkpoint seem corrupted"))

    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


def _incomplete(model: Any, missing: list[str], unexpected: list[str], saved_as: str) -> str:
    read_as, total = type(model).__name__, len(model.state_dict())
    told = f"missing from the file of weights: {len(missing)} of the {total} tensors of {read_as} ({_few(missing)}), "
    told += "which would be random: "
    wrapper = _wrapper(set(missing), unexpected)
    if wrapper:
        return f"{told}names in the file have {wrapper!r} in them: {WRAPPERS.get(wrapper, 'take it out of the names')}"
    if saved_as and saved_as != read_as:
        return f"{told}the model was saved as {saved_as}: give one that was saved as a causal or masked language model"
    return f"{told}download the folder again, or save the whole model again"


def _wrapper(missing: set[str], unexpected: list[str]) -> str | None:
    """The part of the names in the file without which they are those of missing tensors."""
    for name in unexpected:
        for part in (*WRAPPERS, name.partition(".")[0] + "."):
            if part in name and name.replace(part, "", 1) in missing:
                return part
    return None


def _inside(model: Any, name: str) -> bool:
    """Whether a tensor of the file belongs to a module that has parameters, or into a list of layers."""
    owner, _, leaf = name.rpartition(".")
    if leaf in OLD_BUFFERS:
        return False
    layers = re.split(r"\.\d+\.", name)
    modules = dict(model.named_modules())
    base = getattr(model, "base_model_prefix", "")
    for prefix in ("", f"{base}."):
        known = modules.get(prefix + owner)
        if known is not None and any(True for _ in known.parameters(recurse=False)):
            return True
        if len(layers) > 1 and prefix + layers[0] in modules:
            return True
    return False


def _few(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
