"""A streamed step on the device, whose layers lie on the host, beside the same step with all of the model there."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch

from llm.bench import random_model
from llm.bench.setting import of_model, waited
from llm.cost.memory import MIB, PeakMemory
from llm.gpu.cells import ZO2_GB
from llm.gpu.job import Here
from llm.model import loading, streaming
from llm.model.language_model import LanguageModel
from llm.run.header import fingerprint
from llm.steppers.engines import make_space
from zobench import More, derive, methods
from zobench.run.records import Row

STEPS = 8
HELD, STREAMED = "in-forward", "streamed"


def stepped(here: Here, size: str, dtype: str, batch: int, tokens: int) -> Iterator[Row]:
    """Yield the seconds and the peak memory of steps of both engines, whether their losses and weights are equal to the
    bit, and ZO2's claim with the number beside it.
    """
    about = {"size": size, "dtype": dtype, "batch": batch, "tokens": tokens}
    here.out.mkdir(parents=True, exist_ok=True)
    found, rows = [], {}
    with tempfile.TemporaryDirectory(dir=here.out) as folder:
        place = Path(folder) / "model"
        random_model.write(place, size, dtype, 0)
        for engine in (HELD, STREAMED):
            row, bits = _steps(engine, _loaded(engine, here, place, dtype), about, 3 if here.small else STEPS)
            rows[engine] = {"kind": "gpu-streamed", "engine": engine, **about, **row}
            yield rows[engine]
            found.append(bits)
    equal = [one == other for one, other in zip(*found, strict=True)]
    yield {"kind": "gpu-check", "check": "streamed steps equal in-forward's to the bit", "held": all(equal), **about,
           "losses_equal": equal[0], "weights_equal": equal[1]}  # fmt: skip
    yield {"kind": "gpu-claim", **about, "source": "ZO2 (README, weights on the host)",
           "claim": "memory of a streamed step, GB", "claimed": ZO2_GB.get(size),
           "measured": rows[STREAMED]["peak_mb"] * MIB / 1e9}  # fmt: skip


def _loaded(engine: str, here: Here, place: Path, dtype: str) -> LanguageModel:
    if engine == STREAMED:  # in slots on a CPU, too
        return streaming.load(str(place), here.device, dtype, beside=place.parent, slots=True)
    return loading.load(str(place), here.device, dtype)


def _steps(engine: str, loaded: LanguageModel, about: Row, steps: int) -> tuple[Row, tuple[list[float], str]]:
    """What steps of MeZO take after the first, which has nothing pending; all losses, and the weights at the end."""
    bench, space = of_model(loaded.model, **about), make_space(loaded.model, engine, "nearest", None)
    estimator = methods.make("mezo")
    losses: list[float] = []
    seconds: list[float] = []

    @torch.inference_mode()
    def step() -> None:
        plan = estimator.ask(derive("gpu", "streamed", len(seconds)), ())
        found = space.losses(bench.loss, plan)
        losses.extend(found.flatten().tolist())
        told = estimator.tell(plan, found, ())
        assert not isinstance(told, More)  # of two points
        space.step_(told.gradient, -1e-5)

    with PeakMemory(bench.device) as peak:
        for _ in range(steps):
            began = time.perf_counter()
            waited(bench.device, step)()
            seconds.append(time.perf_counter() - began)
    space.settle_()
    row = {"seconds": median(seconds[1:]), "peak_mb": peak.mb, "reserved_mb": peak.reserved_mb, "steps": steps}
    return row, (losses, fingerprint(loaded.model))
