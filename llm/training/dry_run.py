"""The dry run: what a training run would do and cost, told before it; nothing is written."""

import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor, nn

from llm import models, objective, tasks
from llm.models import LanguageModel
from llm.objective import Encoded, Objective
from llm.training.checkpoint import KEPT, weights
from llm.training.first_order import FIRST_ORDER, FirstOrder
from llm.training.live import LiveMemory
from llm.training.options import TrainOptions, check
from llm.training.past import JOURNAL, header
from llm.training.record import open_record, require_rows
from llm.training.session import Session, sized, split_of
from llm.training.zeroth_order import ZerothOrder
from zobench import AutoEpsilon, derive
from zobench.journal import read, require_same

TIMED, SECONDS = 3, 30.0
"""Steps that are timed: so many, or fewer where they take longer."""
SAMPLE = 64
"""Examples of an evaluation that are timed, and the longest ones whose memory is measured."""
MOMENTS = {"adamw": 2}
RECORD, ROW = 100, 250
"""Bytes of a step in the journal and in rows, about."""


def run(options: TrainOptions) -> None:
    """Check what a run would check, estimate its memory before weights are loaded, load them, try a few steps and print
    what is to be expected. The weights of the folder of results, if it has some, are not read: the model is as at the
    start.

    Raises:
        ValueError: the run would be refused, or cannot fit in memory.
    """
    check(options)
    tasks.find(options.task)
    objective.choose(options.objective, tasks.find(options.task))
    print("dry run: nothing is written")
    if _finished(options):
        return
    free = free_memory(options.device)
    _tell("estimate", _estimated(options, free))
    session = Session(options)
    _require_continuable(session)
    for note in session.notes:
        print(note)
    _tell("trained", _trained(session.language_model.model))
    _tell("examples", _examples(session))
    trial = Trial.of(session)
    _tell("memory", _memory(session, trial, free))
    _tell("passes", _passes(session, trial))
    _tell("time", _time(session, trial))
    _tell("disk", _disk(session))


def _tell(name: str, lines: Sequence[str]) -> None:
    for i, line in enumerate(lines):
        print(f"{'' if i else name:12}{line}")


# What the folder of results holds


def _finished(options: TrainOptions) -> bool:
    """Whether there is nothing to do; refuses a folder that a run would refuse."""
    if not (Path(options.out) / "rows.jsonl").exists():
        return False
    record = open_record(sized(options, split_of(options)), look=True)
    require_rows(record)
    if record.find(kind="final"):
        print(f"{options.out} holds a finished run: nothing would be done")
        return True
    if record.rows and not options.resume:
        raise ValueError(f"{options.out} holds an unfinished run: give --resume, or another --out")
    return False


def _require_continuable(session: Session) -> None:
    file = Path(session.options.out) / JOURNAL
    if not (session.options.journal and file.is_file() and isinstance(session.trainer, ZerothOrder)):
        return
    contents = read(file)
    require_same(contents.header, header(session), file)
    done = len(contents.records)
    print(f"{session.options.out} holds {done} of the {session.options.steps} steps, which would not be repeated")


# Memory


def free_memory(device: str) -> int | None:
    """Return the bytes that are free on a device, None where nobody says; on a CPU what Linux calls available, within
    the limit of the control group.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    group = Path("/sys/fs/cgroup")
    try:
        return min(free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # no limit, or another system
        return free


def size_of(tensors: Iterator[Tensor] | Sequence[Tensor]) -> int:
    """Return the bytes of tensors, those that share memory once."""
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def held(model: nn.Module) -> int:
    """Return the bytes of a model's parameters and buffers."""
    return size_of([*model.parameters(), *model.buffers()])


def _estimated(options: TrainOptions, free: int | None) -> list[str]:
    """What the configuration of the model says; the weights are not read. Where it cannot be read, loading says why."""
    master = options.rounding == "master"
    try:
        blank = models.skeleton(options.model, "float32" if master else options.dtype, options.trust_remote_code)
    except Exception:  # whatever it is, the real loader meets it too, and has words for it
        return ["none: the configuration of the model cannot be read alone"]
    parts = {"weights": held(blank.model)}
    if options.method in FIRST_ORDER:
        parts["gradients"] = parts["weights"]
        parts["optimiser"] = MOMENTS.get(options.method, 0) * parts["weights"]
    parts["activations"] = _activations(options, blank)
    total = sum(parts.values())
    said = ", ".join(f"{name} {_bytes(size)}" for name, size in parts.items() if size)
    count = sum(p.numel() for p in blank.model.parameters())
    line = f"{count:,} weights, from the configuration alone: {said}; {_bytes(total)} of {_free(free)} free"
    if free is not None and total > free:
        _tell("estimate", [line])
        raise ValueError(
            f"{options.model} wants {_bytes(total)}, but {_bytes(free)} are free on {options.device}: it was not loaded; "
            "give a narrower --dtype, a zeroth-order --method, a smaller --batch or --max-tokens, or another --device"
        )
    return [line]


def _activations(options: TrainOptions, blank: LanguageModel) -> int:
    """What a pass over the longest examples takes, without numbers; 0 where that cannot be done."""
    try:
        chosen = objective.choose(options.objective, tasks.find(options.task))
        made = chosen(blank, max_tokens=options.max_tokens, bos=options.bos)
        batch = longest(made, made.encode(split_of(options).train), options.batch)
        with torch.set_grad_enabled(options.method in FIRST_ORDER), LiveMemory() as memory:
            made.losses(batch)
    except Exception:  # an operation that needs numbers, or data that the run is going to refuse in its own words
        return 0
    return memory.peak


def longest(made: Objective, rows: Sequence[Encoded], count: int) -> list[Encoded]:
    """Return the examples with the most tokens, candidates included."""
    return sorted(rows, key=lambda r: len(r.tokens) + sum(map(len, made.options(r))), reverse=True)[:count]


def _memory(session: Session, trial: "Trial", free: int | None) -> list[str]:
    model = held(session.language_model.model)
    kept = trial.gradients + trial.optimiser
    total = model + max(trial.step_peak, trial.evaluation_peak + kept)
    parts = [f"weights {_bytes(model)}"]
    if kept:
        parts.append(f"gradients {_bytes(trial.gradients)}, optimiser {_bytes(trial.optimiser)}")
    parts.append(f"activations and scratch {_bytes(trial.step_peak - kept)} in a step")
    parts.append(f"{_bytes(trial.evaluation_peak)} in an evaluation")
    lines = [", ".join(parts), f"{_bytes(total)} of {_free(free)} free on {session.options.device}"]
    if free is not None and total > free:
        lines.append("this does not fit: lower --batch or --max-tokens, or give a narrower --dtype or another --device")
    return lines


# What is trained, and on what


def _trained(model: nn.Module) -> list[str]:
    kinds: Counter[str] = Counter()
    seen: set[int] = set()
    total = trained = 0
    for name, p in model.named_parameters():
        if p.data_ptr() in seen:
            continue
        seen.add(p.data_ptr())
        total += p.numel()
        if p.requires_grad:
            trained += p.numel()
            kinds[_kind(model, name)] += p.numel()
    shares = ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common())
    return [f"{trained:,} of {total:,} weights ({trained / total:.2%}): {shares}"]


def _kind(model: nn.Module, name: str) -> str:
    adapters = {"lora_": "LoRA", "prompt_encoder": "prompt or prefix"}
    owner = type(model.get_submodule(name.rpartition(".")[0])).__name__
    return next((kind for part, kind in adapters.items() if part in name), owner)


def _examples(session: Session) -> list[str]:
    made, most = session.objective, session.options.max_tokens
    encoder = replace(made.encoder, max_tokens=10**9)
    lines = []
    for name in ("train", "dev", "test"):
        rows = getattr(session.data, name)
        lengths = [len(ids) for ids in encoder.prompts([row.example.prompt for row in rows])]
        cut = sum(length > most for length in lengths)
        lines.append(
            f"{name} {len(rows)}: {mean(lengths):.0f} tokens in the mean, {max(lengths)} at most; --max-tokens {most} "
            f"cuts {cut} ({cut / len(rows):.1%})"
        )
    return lines


# What steps and evaluations cost


@dataclass(frozen=True)
class Trial:
    """What a few steps and evaluations took: bytes, loss evaluations and seconds, of a step and of an example."""

    step_peak: int
    evaluation_peak: int
    gradients: int
    optimiser: int
    first: int
    forward: int
    backward: int
    seconds: float
    seconds_an_example: float
    skipped: tuple[str, ...]

    @classmethod
    def of(cls, session: Session) -> "Trial":
        """Take steps on the longest examples with memory measured, then a few as a run takes them, timed."""
        trainer, made = session.trainer, session.objective
        batch = longest(made, session.data.train, session.options.batch)
        reasons, counts, seconds = [], [], []

        def step(rows: Sequence[Encoded]) -> None:
            before = trainer.forward_passes, trainer.backward_passes
            began = time.perf_counter()
            key = derive(*session.keys["key"], trainer.steps)
            record = trainer.step(key, lambda: made.losses(rows))
            seconds.append(time.perf_counter() - began)
            counts.append((trainer.forward_passes - before[0], trainer.backward_passes - before[1]))
            if record.skipped:
                reasons.append(str((record.extra or {}).get("reason")))

        with LiveMemory() as memory:
            step(batch)
            step(batch)  # with the optimiser's memory in place
        gradients = size_of([p.grad for p in session.language_model.model.parameters() if p.grad is not None])
        optimiser = size_of(list(trainer.tensors().values())) if isinstance(trainer, FirstOrder) else 0
        ended = time.perf_counter() + SECONDS
        while len(seconds) < 2 + TIMED and (len(seconds) == 2 or time.perf_counter() < ended):
            step(session.minibatch(trainer.steps))
        trainer.settle()
        peak, an_example = _evaluated(session)
        (first, _), (forward, backward) = counts[0], counts[-1]
        took = median(seconds[2:])
        return cls(memory.peak, peak, gradients, optimiser, first, forward, backward, took, an_example, tuple(reasons))


def _evaluated(session: Session) -> tuple[int, float]:
    """Peak bytes of an evaluation's longest batch, and seconds an example of a usual one."""
    made, rows = session.objective, session.data.dev
    ordered = longest(made, rows, len(rows))
    sample = ordered[:: math.ceil(len(rows) / SAMPLE)]
    began = time.perf_counter()
    made.measure(sample)
    seconds = time.perf_counter() - began
    with LiveMemory() as memory:
        made.measure(longest(made, [*rows, *session.data.test], SAMPLE))
    return memory.peak, seconds / len(sample)


def evaluated(session: Session) -> dict[str, int]:
    """Return how many examples a run measures: before its steps, among them, and after."""
    data, options = session.data, session.options
    times = math.ceil(options.steps / options.eval_every) + 1
    return {
        "before": len(data.train) + len(data.dev) + len(data.test),
        "dev": times * len(data.dev),
        "after": len(data.test),
    }


def _probes(session: Session) -> int:
    """How often epsilon is chosen anew."""
    estimator = getattr(session.trainer, "estimator", None)
    return math.ceil(session.options.steps / estimator.every) if isinstance(estimator, AutoEpsilon) else 0


def _passes(session: Session, trial: Trial) -> list[str]:
    steps, probe = session.options.steps, trial.first - trial.forward
    total, probes = trial.forward * steps, _probes(session)
    lines = [f"{total:,} forward in {steps:,} steps of {trial.forward}"]
    lines[0] += f", {trial.backward * steps:,} backward" if trial.backward else ", none backward"
    if probes:
        lines.append(f"and about {probe * probes:,} forward in {probes} probes of epsilon, as the first took {probe}")
    counts = evaluated(session)
    lines.append(
        f"evaluations: {sum(counts.values()):,} examples: {counts['before']:,} before the first step, "
        f"{counts['dev']:,} of dev on the way, {counts['after']:,} of test at the end"
    )
    if trial.skipped:
        lines.append(f"of the {2 + TIMED} steps tried, {len(trial.skipped)} would be skipped: {trial.skipped[0]}")
    return lines


def _time(session: Session, trial: Trial) -> list[str]:
    probe = (trial.first - trial.forward) * _probes(session) / max(1, trial.forward)
    steps = trial.seconds * (session.options.steps + probe)
    evaluations = trial.seconds_an_example * sum(evaluated(session).values())
    return [
        f"{trial.seconds:.3g} s a step, {_duration(steps)} for all; {_duration(evaluations)} for evaluations; "
        f"{_duration(steps + evaluations)} together",
        f"an estimate of this moment, from {TIMED} steps and {min(SAMPLE, len(session.data.dev))} examples of dev",
    ]


def _disk(session: Session) -> list[str]:
    options, model = session.options, session.language_model.model
    parts: dict[str, int] = {}
    if options.save:
        parts["model"] = held(model)
    if options.journal and options.checkpoint_every and options.steps >= options.checkpoint_every:
        optimiser = session.trainer.tensors().values() if isinstance(session.trainer, FirstOrder) else ()
        one = size_of([*weights(model).values(), *optimiser])
        parts["checkpoints"] = one * (1 + min(KEPT, options.steps // options.checkpoint_every))
    if options.journal:
        parts["rows and journal"] = options.steps * (ROW + RECORD * isinstance(session.trainer, ZerothOrder))
    place = _existing(Path(options.out))
    if not os.access(place, os.W_OK):
        raise PermissionError(f"{place} cannot be written: give another --out")
    free, total = shutil.disk_usage(place).free, sum(parts.values())
    said = ", ".join(f"{name} {_bytes(size)}" for name, size in parts.items()) or "rows alone"
    lines = [f"{said}; {_bytes(total)} of {_bytes(free)} free below {place}"]
    return lines if total <= free else [*lines, "this does not fit: give --no-save, --checkpoint-every 0 or another --out"]


def _existing(path: Path) -> Path:
    """The nearest folder above that is there, or the path itself."""
    path = path.resolve()
    return path if path.exists() or path == path.parent else _existing(path.parent)


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def _free(count: int | None) -> str:
    return "what nobody says is" if count is None else _bytes(count)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
