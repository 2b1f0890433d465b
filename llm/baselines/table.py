"""The baselines by name."""

from llm.baselines.baseline import Baseline
from llm.baselines.calibrated import Calibrated
from llm.baselines.in_context import InContext
from llm.baselines.linear_probing import LinearProbing
from llm.baselines.rand_opt import RandOpt
from llm.baselines.zero_shot import ZeroShot
from zobench.spelling import construct, spelled

BASELINES: dict[str, type[Baseline]] = {
    "zero-shot": ZeroShot,
    "calibrated": Calibrated,
    "icl": InContext,
    "linear-probing": LinearProbing,
    "randopt": RandOpt,
}


def parse(text: str) -> Baseline:
    """Return the baseline of a command-line spelling, `"icl:shots=16"`.

    Raises:
        UnknownNameError: no such baseline or option.
        ValueError: a part is not option=value, or a value is out of range.
    """
    return construct(spelled(text, BASELINES), BASELINES, "baseline")
