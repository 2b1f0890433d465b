"""What must hold on a device: its tests, the same directions as on a CPU, a journal that a CPU can replay."""

import importlib.util
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm.bench.setting import setting
from llm.gpu.job import Here, SkippedError
from llm.loop.train import train
from llm.model import loading
from llm.options.train import TrainOptions
from llm.run.journal import read_told, rebuild
from llm.steppers.engines import ENGINES
from zobench import derive, methods, query
from zobench.law import LAWS, LowRank
from zobench.layout import Layout, Segment
from zobench.random import normals, signs, words
from zobench.run.records import Row

ROOT = Path(__file__).parents[2]
TESTS = "tests/test_devices.py"
ULPS = 2
"""Units in the last place by which float32 normals of two devices may differ."""
FAR = 1e-5
"""By how much of their norm weights that a journal rebuilds on a CPU may differ."""
ENTRIES = 1 << 20
MISSED = 1e-3
"""Share of the spread of losses over points by which the losses of another engine may differ: rounding."""
RANGES = ((0, 1 << 20), (4099, 9973), ((1 << 34) - 3, (1 << 34) + 4096))


def tests(here: Here) -> Iterator[Row]:
    """Yield the outcome of the tests of devices: those marked `cuda`, or on a CPU the others."""
    missing = [name for name in ("pytest", "hypothesis") if importlib.util.find_spec(name) is None]
    if missing or not (ROOT / TESTS).is_file():
        raise SkippedError(f"not here: {' and '.join(missing) or TESTS}; the other checks need neither")
    marker = "cuda" if here.device.startswith("cuda") else "not cuda"
    command = [sys.executable, "-m", "pytest", TESTS, "-o", "addopts=", "-m", marker, "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    said = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or [""]
    failed = [line for line in said if line.startswith(("FAILED", "ERROR"))]
    yield {"kind": "gpu-check", "check": f"tests marked {marker}", "held": done.returncode == 0, "found": said[-1],
           "failed": failed[:20]}  # fmt: skip


def directions(here: Here) -> Iterator[Row]:
    """Yield a row for words, signs, normals, and the direction of each law: equal on the device and on the CPU."""
    device = torch.device(here.device)
    for stream, most in ((words, 0), (signs, 0), (normals, ULPS)):
        pairs = [
            (stream(key, start, stop), stream(key, start, stop, device=device))
            for key in (0, derive("gpu"), (1 << 64) - 1)
            for start, stop in RANGES
        ]
        worst = max(ulps(one, other.cpu()) for one, other in pairs)
        yield _check(f"{stream.__name__} of both devices", worst <= most, units_in_the_last_place=worst)
    for name, law in LAWS.items():
        one, other = (_direction(law, torch.device(place)) for place in ("cpu", here.device))
        relative = float((one - other).norm() / one.norm())
        yield _check(f"a direction of {name}", relative <= 1e-6, relative=relative)


def _direction(law: Any, device: torch.device) -> Tensor:
    layout = Layout(
        (Segment("w", 300 * 70, torch.float32, device, (300, 70)), Segment("b", 70, torch.float32, device, (70,)))
    )
    weights = normals(7, 0, layout.dim)
    bound = law.bind(layout, lambda b: weights[b.offset : b.offset + b.size].to(device)) if law.reads_weights else law
    draw = bound.direction(derive("gpu", "law"), 0, layout, ())
    parts = [
        torch.zeros(b.size, dtype=torch.float32) if (u := draw(b)) is None else u.cpu().float() for b in layout.blocks
    ]
    return torch.cat(parts).double()


def ulps(one: Tensor, other: Tensor) -> int:
    """Return by how many numbers between them float32 tensors differ at most, integers by their difference."""
    if not one.is_floating_point():
        return int((one - other).abs().max())
    places = [t.float().view(torch.int32).long() for t in (one, other)]
    ordered = [torch.where(p < 0, -(p & 0x7FFFFFFF), p) for p in places]
    return int((ordered[0] - ordered[1]).abs().max())


def engines(here: Here) -> Iterator[Row]:
    """Yield, for each engine and dtype, how far three steps of MeZO differ from those of the plain engine on a CPU;
    then how far the losses at all points of low-rank directions do, from one forward.
    """
    for dtype, most in (("float32", 1e-5), ("bfloat16", 1e-2)):
        expected = _stepped("plain", dtype, "cpu")
        for engine in ("plain", "in-forward"):
            stepped = _stepped(engine, dtype, here.device)
            worst = float((stepped - expected).norm() / expected.norm())
            yield _check(f"three steps, {engine}, {dtype}", worst <= most, relative=worst)
    expected, found = _points("plain", "cpu"), _points("batched", here.device)
    worst = float((found - expected).norm() / (expected - expected.mean()).norm())
    yield _check("losses of sixteen points in one forward", worst <= MISSED, of_their_spread=worst)


def _points(engine: str, device: str) -> Tensor:
    """The losses at both points of eight directions of rank 1."""
    bench, estimator = setting("opt-1m", "float32", 4, 16), methods.make("mezo", law=LowRank(1), n=8)
    bench.model.to(device)
    return ENGINES[engine](bench.model).losses(bench.loss, estimator.ask(derive("gpu", "points"), ()))


def _stepped(engine: str, dtype: str, device: str) -> Tensor:
    bench = setting("opt-1m", dtype, 4, 16)
    objective = bench.objective
    objective.language_model.model.to(device)
    space, estimator = ENGINES[engine](bench.model), methods.make("mezo")
    for step in range(3):
        estimate = query(space, estimator, bench.loss, derive("gpu", step), ())
        assert estimate.gradient is not None  # query returns only then
        space.step_(estimate.gradient, -1e-5)
    return space.vector() if engine == "plain" else _settled(space)


def _settled(space: Any) -> Tensor:
    space.settle_()
    vector: Tensor = space.vector()
    return vector


def replayed(here: Here, engine: str) -> Iterator[Row]:
    """Yield by how much the weights of a run on the device differ from those that a CPU rebuilds from its journal."""
    folder = here.out / f"trained-{engine}"
    sizes: dict[str, Any] = {"train": 64, "dev": 16, "test": 16, "batch": 8, "max_tokens": 32, "baselines": False}
    steps: dict[str, Any] = {"steps": 20 if here.small else 100, "eval_every": 100, "checkpoint_every": 0}
    train(TrainOptions(engine=engine, device=here.device, select="last", out=str(folder), lr=1e-3, **sizes, **steps))
    contents = read_told(folder / "journal.bin")
    rebuilt = rebuild(contents, device="cpu").model.state_dict()
    written = loading.load(str(folder / "model")).model.state_dict()
    began = loading.load("tiny-opt").model.state_dict()
    relative = _distance(rebuilt, written) / _distance(written)
    of_way = _distance(rebuilt, written) / _distance(written, began)
    yield _check(
        f"journal of {engine} replayed on the CPU", relative <= FAR, relative=relative, of_the_way=of_way,
        steps=len(contents.records),
    )  # fmt: skip


def _distance(one: dict[str, Tensor], other: dict[str, Tensor] | None = None) -> float:
    parts = [w.double() - other[name].double() if other else w.double() for name, w in one.items()]
    return math.sqrt(sum(float(part.square().sum()) for part in parts))


def _check(what: str, held: bool, **found: Any) -> Row:
    return {"kind": "gpu-check", "check": what, "held": held, **found}
