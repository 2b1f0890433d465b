"""The baselines by name."""

from dataclasses import fields

from llm.baselines.baseline import Baseline
from llm.baselines.calibrated import Calibrated
from llm.baselines.in_context import InContext
from llm.baselines.linear_probing import LinearProbing
from llm.baselines.zero_shot import ZeroShot
from zobench.naming import require_known
from zobench.spelling import spelled

BASELINES: dict[str, type[Baseline]] = {
    "zero-shot": ZeroShot,
    "calibrated": Calibrated,
    "icl": InContext,
    "linear-probing": LinearProbing,
}


def known(text: str) -> bool:
    """Whether a command-line spelling is that of a baseline."""
    return text.partition(":")[0] in BASELINES


def parse(text: str) -> Baseline:
    """Return the baseline of a command-line spelling, `"icl:shots=16"`.

    Raises:
        UnknownNameError: no such baseline or option.
        ValueError: a part is not option=value, or a value is out of range.
    """
    name, options = spelled(text, BASELINES)
    require_known(name, BASELINES, "baseline")
    valid = [field.name for field in fields(BASELINES[name])]  # type: ignore[arg-type]
    for option in options:
        require_known(option, valid, f"option of {name}")
    return BASELINES[name](**options)
