"""What an optimizer without its module can notice of a run that trains nothing, or something else than is meant."""

import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.module import register_module_forward_pre_hook

from zobench.combination import Combination
from zobench.rule import SGD
from zobench.space import ParameterSpace

FLAT_STEPS = 10
NOISE = 0.5  # of the cosine, as in `llm train`


class Watch:
    """Warns, each thing once, of losses that depend on nothing, of steps that 16 bits round away, and of running
    statistics that move at perturbed weights; and notices when losses begin to draw random numbers.

    Steps 1, 4, 16, ... are looked at for what costs something, so that also what begins later is seen. Modules are not
    looked at where torch.compile is in use.
    """

    def __init__(self) -> None:
        self._steps = self._narrow_steps = self._flat = 0
        self._last: float | None = None
        self._told: set[str] = set()
        self.trusts_randomness = False

    @contextmanager
    def of_modules(self) -> Iterator[None]:
        """Look at the modules that are called meanwhile, if this step is one to look at."""
        self._steps += 1
        if not _is_power_of_4(self._steps) or "statistics" in self._told or _compiles():
            yield
            return
        handle = register_module_forward_pre_hook(self._see_module)
        try:
            yield
        finally:
            handle.remove()

    def _see_module(self, module: nn.Module, _: Any) -> None:
        if isinstance(module, _NormBase) and module.training and module.running_mean is not None:
            self._tell(
                "statistics",
                f"the closure runs a {type(module).__name__} in training mode: every evaluation moves its running "
                "statistics, several times a step and at perturbed weights; call eval() on it, or collect them anew by "
                "forward passes in training mode before the model is evaluated",
            )

    def see_losses(self, losses: Tensor) -> None:
        """Count steps in a row whose losses are the same at all points; of one point, the same as in the last step."""
        first = float(losses.flatten()[0])
        same = bool((losses == first).all()) and (losses.numel() > 1 or first == self._last)
        self._flat, self._last = self._flat + 1 if same else 0, first
        if self._flat >= FLAT_STEPS:
            resolution = float(np.spacing(np.float32(abs(first))))
            self._tell(
                "flat",
                f"in {FLAT_STEPS} steps in a row the loss was {first!r} at every point: nothing is trained. Likely the "
                "closure returns a loss that was computed outside of it, or uses other parameters than the optimizer "
                "(those of a copy, or of before load_state_dict(assign=True)); or the loss is too coarse: float32 "
                f"resolves {resolution:.1g} here (leave constants out, or sum in float64), accuracy far less",
            )

    def see_motion(self, space: ParameterSpace, gradient: Combination, rule: SGD, rates: Sequence[float]) -> None:
        """Compare a step of 16-bit parameters with what rounding leaves of it, before it is taken."""
        self._narrow_steps += 1
        if not _is_power_of_4(self._narrow_steps) or "rounding" in self._told:
            return
        lr = rule.rate(0)
        motion = space.narrow_motion(gradient, -lr, lr * rule.weight_decay, rule.groups)
        if math.isnan(motion.length) or motion.cosine >= NOISE:  # nothing was meant, or most of it is done
            return
        likeness = f", and the cosine of the intended and the realised step is {motion.cosine:.2f}"
        likeness = "" if math.isnan(motion.cosine) else likeness
        others = "" if space.rounding == "stochastic" else "give rounding='stochastic' (bfloat16), "
        self._tell(
            "rounding",
            f"16 bits round this step away: {motion.moved:.1%} of the 16-bit parameters move{likeness}, at learning "
            f"rates of {_range(rates)}: hold parameters in float32 (torch.autocast keeps forward passes in 16 bits), "
            f"{others}or raise the rate",
        )

    def _tell(self, what: str, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            warnings.warn(text, RuntimeWarning, stacklevel=2)


def randomness(space: ParameterSpace) -> list[Tensor]:
    """Return the states of torch's generators that losses on the space's devices may draw from."""
    devices = {segment.device for segment in space.layout.segments if segment.device.type == "cuda"}
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in sorted(devices, key=str))]


def drawn_since(before: Sequence[Tensor], space: ParameterSpace) -> bool:
    """Return whether random numbers were drawn since."""
    return not all(map(torch.equal, before, randomness(space)))


def _compiles() -> bool:
    """Whether torch.compile is in use: under a hook of all modules it would warn, and compile once more."""
    backends = getattr(sys.modules.get("torch._dynamo.eval_frame"), "cached_backends", {})
    return any(backend is not None for backend in backends.values())  # None: what torch disables compilation for


def _is_power_of_4(count: int) -> bool:
    return count & (count - 1) == 0 and count.bit_length() % 2 == 1


def _range(rates: Sequence[float]) -> str:
    known = sorted({rate for rate in rates if rate})
    return f"{known[0]:g}" if len(known) == 1 else f"{known[0]:g} to {known[-1]:g}"
