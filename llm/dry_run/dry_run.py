"""The dry run: prints what a training run would do and cost; nothing is written."""

import math
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from torch import nn

from llm import objective, tasks
from llm.cost.live import held, size_of
from llm.cost.streamed import in_memory
from llm.dry_run.several import Several
from llm.dry_run.tryout import SAMPLE, TIMED, Tryout, evaluated, tokens
from llm.model import loading
from llm.model.free_memory import free_memory
from llm.model.mapped import blocks_of
from llm.model.quantising import keeps_codes
from llm.model.streaming import in_slots
from llm.model.trainable import distinct, tensors
from llm.options.train import TrainOptions
from llm.quantised import Choice
from llm.quantised.model import planned_bytes
from llm.run.check import check
from llm.run.checkpoint import KEPT, weights
from llm.run.context import RunContext, prepare, sized, split_of
from llm.run.folder import JOURNAL, ROWS, existing
from llm.run.header import header
from llm.run.record import open_record
from llm.steppers.engines import STREAMED
from llm.steppers.method import TrainingMethod, ZerothOrderMethod
from llm.steppers.stepper import Stepper
from zobench import AutoEpsilon
from zobench.run.journal import read, require_same

MOMENTS = {"adamw": 2}
RECORD, ROW = 100, 250
"""Bytes of a step in the journal and in rows, about."""


def run(options: TrainOptions, test: bool = True) -> None:
    """Check what a run would check, estimate its memory before weights are loaded, load them, try a few steps and print
    what is to be expected. The weights of the folder of results, if it has some, are not read: the model is as at the
    start.

    Raises:
        ValueError: the run would be refused, or cannot fit in memory.
    """
    check(options)
    tasks.find(options.task)
    objective.choose(options.objective, tasks.find(options.task))
    several = Several.of(options)
    print("dry run: nothing is written")
    if _finished(options):
        return
    free = free_memory(options.device)
    _tell("estimate", _estimated(options, free))
    context = prepare(options, test)
    for note in context.notes:
        print(note)
    _tell("examples", _examples(context))
    if not context.method.takes_steps:
        _tell("trained", [f"nothing: {options.method} takes no step"])
        return
    stepper = context.stepper()
    _require_continuable(context, stepper)
    _tell("trained", _trained(context.language_model.model))
    tryout = Tryout.of(context, stepper)
    memory = _needed(context, tryout)
    _tell("memory", [*_memory(context, tryout, memory, free), *_while_loading(context)])
    _tell("passes", _passes(context, tryout))
    _tell("time", _time(context, tryout))
    if several:
        _tell("processes", [*_processes(several, context, tryout), *_on_this_machine(several, context, memory, free)])
    _tell("disk", _disk(context, stepper))


def _tell(name: str, lines: Sequence[str]) -> None:
    for i, line in enumerate(lines):
        print(f"{'' if i else name:12}{line}")


# What the folder of results holds


def _finished(options: TrainOptions) -> bool:
    """Whether the run is finished; refuses a folder that a run would refuse."""
    if not (Path(options.out) / ROWS).exists():
        return False
    record = open_record(sized(options, split_of(options)), read_only=True)
    if record.find(kind="final"):
        print(f"{options.out} holds a finished run: there is nothing to do")
        return True
    if record.rows and not options.resume:
        raise ValueError(f"{options.out} holds an unfinished run: give --resume, or another --out")
    return False


def _require_continuable(context: RunContext, stepper: Stepper) -> None:
    file = Path(context.options.out) / JOURNAL
    if not (context.options.journal and file.is_file()):
        return
    contents = read(file)
    require_same(contents.header, header(context, stepper), file)
    done = len(contents.records)
    print(f"{context.options.out} holds {done} of the {context.options.steps} steps, which would not be repeated")


# Memory


def _estimated(options: TrainOptions, free: int | None) -> list[str]:
    """The estimate from the configuration of the model; the weights are not read. If the configuration cannot be read,
    loading the model reports the reason.
    """
    chosen, held_as = options.quantisation(), "float32" if options.rounding == "master" else options.dtype
    try:
        blank = loading.skeleton(options.model, held_as, options.trust_remote_code, keeps_codes(chosen))
    except Exception:  # the real loader meets the same fault and reports it
        return ["none: the configuration of the model cannot be read alone"]
    streamed = options.engine == STREAMED
    format = chosen.format if isinstance(chosen, Choice) else None
    parts = {"weights": planned_bytes(blank.model, format)}
    if streamed:
        parts = in_memory(blank.model, format, in_slots(loading.require_device(options.device)))
    if TrainingMethod.parse(options.method).backpropagates and not (options.adapter or options.trained):
        parts["gradients"] = parts["weights"]
        parts["optimiser"] = MOMENTS.get(options.method, 0) * parts["weights"]
    total = sum(parts.values())
    said = ", ".join(f"{name} {_bytes(size)}" for name, size in parts.items() if size)
    count = sum(p.numel() for p in blank.model.parameters())
    lines = [
        f"{count:,} weights, by the configuration alone: {said}",
        f"{_bytes(total)} without activations; {_free(free, options.device)}",
    ]
    if streamed:
        copy = _bytes(planned_bytes(blank.model, format, wide=True))
        lines.append(
            f"on disk twice: {_bytes(_on_disk(options.model, blank.model))} of the model, which is only read, and "
            f"{copy} of a working copy"
        )
    if free is not None and total > free:
        _tell("estimate", lines)
        streams = "" if streamed else ", or --engine streamed, which keeps the weights on disk"
        lighter = "a zeroth-order --method, " if TrainingMethod.parse(options.method).backpropagates else ""
        raise ValueError(
            f"{options.model} needs {_bytes(total)}, but {_bytes(free)} are free on {options.device}, so that it was "
            f"not loaded: give a narrower --dtype, {lighter}another --device or another --model{streams}"
        )
    return lines


def _on_disk(name: str, blank: nn.Module) -> int:
    """The bytes of the files of a model."""
    file = loading.gguf_of(name)
    return file.stat().st_size if file else held(blank)


def _weights_held(model: nn.Module) -> int:
    """The bytes of the weights that are in memory at once, on the device that computes."""
    blocks = blocks_of(model)
    return sum(in_memory(model, slots=blocks.slots is not None).values()) if blocks else held(model)


def _needed(context: RunContext, tryout: Tryout) -> int:
    """The bytes of memory that the run needs, on the device of its weights."""
    kept = tryout.gradients + tryout.optimiser
    return _weights_held(context.language_model.model) + max(tryout.step_peak, tryout.evaluation_peak + kept)


def _while_loading(context: RunContext) -> list[str]:
    """The memory of the host, through which the weights come to another device."""
    blocks = blocks_of(context.language_model.model)
    if blocks and blocks.slots:
        pinned, whole = _bytes(blocks.slots.size), _bytes(blocks.size)
        return [
            f"{pinned} of pinned host memory, through which blocks come and go, and {whole} of all blocks in the page "
            f"cache of the host as far as it has room; {_free(free_memory('cpu'), 'cpu')}"
        ]
    if context.language_model.device.type == "cpu":
        return []
    size = _bytes(held(context.language_model.model))
    return [f"{size} of host memory while the weights are loaded; {_free(free_memory('cpu'), 'cpu')}"]


def _memory(context: RunContext, tryout: Tryout, total: int, free: int | None) -> list[str]:
    mapped = blocks_of(context.language_model.model)
    weights, kept = _weights_held(context.language_model.model), tryout.gradients + tryout.optimiser
    of = f" of {_bytes(mapped.size)}, at most three blocks at a time" if mapped else ""
    parts = [f"weights {_bytes(weights)}{of}"]
    if kept:
        parts.append(f"gradients {_bytes(tryout.gradients)}, optimiser {_bytes(tryout.optimiser)}")
    parts.append(f"activations and scratch {_bytes(tryout.step_peak - kept)} in a step")
    parts.append(f"{_bytes(tryout.evaluation_peak)} in an evaluation")
    lines = [", ".join(parts), f"{_bytes(total)} in all; {_free(free, context.options.device)}"]
    if free is not None and total > free:
        lines.append("this does not fit: lower --batch or --max-tokens, or give a narrower --dtype or another --device")
    return lines


# What is trained, and on what


def _trained(model: nn.Module) -> list[str]:
    kinds: Counter[str] = Counter()
    for each in tensors(model):
        kinds[_kind(model, each.name)] += each.size
    total, trained = sum(each.size for each in distinct(model)), kinds.total()
    shares = ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common())
    return [f"{trained:,} of {total:,} weights ({trained / total:.2%}): {shares}"]


def _kind(model: nn.Module, name: str) -> str:
    adapters = {"lora_": "LoRA", "prompt_encoder": "prompt or prefix"}
    owner = type(model.get_submodule(name.rpartition(".")[0])).__name__
    return next((kind for part, kind in adapters.items() if part in name), owner)


def _examples(context: RunContext) -> list[str]:
    lengths = {name: [row.whole for row in rows] for name, rows in vars(context.data).items() if rows}
    return [
        f"{name} {len(each)}: {mean(each):.0f} tokens on average, {max(each)} at most" for name, each in lengths.items()
    ]


# What steps and evaluations cost


def _probes(context: RunContext) -> int:
    """The number of times that epsilon is chosen again."""
    method = context.method
    estimator = method.estimator(context.options) if isinstance(method, ZerothOrderMethod) else None
    return math.ceil(context.options.steps / estimator.every) if isinstance(estimator, AutoEpsilon) else 0


def _passes(context: RunContext, tryout: Tryout) -> list[str]:
    steps, probe = context.options.steps, tryout.first - tryout.forward
    total, probes = tryout.forward * steps, _probes(context)
    least, most = min(tryout.each), max(tryout.each)
    lines = [f"{total:,} forward in {steps:,} steps of {tryout.forward}"]
    if least < most:
        lines = [f"about {total:,} forward in {steps:,} steps; the steps that were tried took {least} to {most}"]
    lines[0] += f", {tryout.backward * steps:,} backward" if tryout.backward else ", no backward"
    if probes:
        lines.append(f"and about {probe * probes:,} forward in {probes} probes of epsilon, as the first took {probe}")
    counts = {name: sum(len(rows) for _, rows in parts) for name, parts in evaluated(context).items()}
    also = f"{counts['also']:,} of extra evaluation sets, " if counts["also"] else ""
    lines.append(
        f"evaluations: {sum(counts.values()):,} examples: {counts['before']:,} before the first step, "
        f"{counts['dev']:,} of dev during training, {also}{counts['after']:,} of test at the end"
    )
    if tryout.skipped:
        lines.append(f"of the {2 + TIMED} steps tried, {len(tryout.skipped)} would be skipped: {tryout.skipped[0]}")
    return lines


def _time(context: RunContext, tryout: Tryout) -> list[str]:
    probe = (tryout.first - tryout.forward) * _probes(context) / max(1, tryout.forward)
    steps = tryout.seconds * (context.options.steps + probe)
    measured = [part for parts in evaluated(context).values() for part in parts]
    evaluations = tryout.seconds_a_token * sum(tokens(made, rows) for made, rows in measured)
    return [
        f"{tryout.seconds:.3g} s a step, {_duration(steps)} for all; {_duration(evaluations)} for evaluations; "
        f"{_duration(steps + evaluations)} together",
        *_moved(context.language_model.model),
        f"estimated now, from {TIMED} steps and {min(SAMPLE, len(context.data.dev))} examples of dev",
    ]


def _moved(model: nn.Module) -> list[str]:
    """What a step moves of a streamed model."""
    mapped = blocks_of(model)
    if mapped is None:
        return []
    lines = [
        f"{_bytes(mapped.size)} read from disk in a step, as far as the page cache does not have them, and "
        f"{_bytes(size_of(weights(model).values()))} written"
    ]
    if mapped.slots:
        lines.append("each block is copied to the device once for both points, and what is trained of it back")
    return lines


def _processes(several: Several, context: RunContext, tryout: Tryout) -> list[str]:
    """What torchrun's processes share of a step; one of them has tried it alone."""
    share, sent, examples = several.share, several.bytes_a_step(context.options.batch), len(context.data.dev)
    waited = tryout.seconds_a_token * tokens(context.objective, context.data.dev)
    lines = [
        f"{several.world}: {several.division}; each holds the whole model, and evaluates {share:.3g} of a step: about "
        f"{tryout.seconds * share:.3g} s a step with equal devices of their own, computed from the step of one process",
        f"{sent} bytes sent by each in a step, in {several.exchanges} exchanges",
        f"the others wait {_duration(waited)} while rank 0 evaluates {examples} examples of dev; --rank-timeout is "
        f"{_duration(context.options.rank_timeout)}",
    ]
    if waited > context.options.rank_timeout:
        lines.append("this is too short: raise --rank-timeout")
    return lines


def _on_this_machine(several: Several, context: RunContext, memory: int, free: int | None) -> list[str]:
    """What the processes of one machine take of its memory and its disk together; GPUs are of one process each."""
    count, mapped = several.local, blocks_of(context.language_model.model)
    if count < 2 or context.language_model.device.type != "cpu":
        return []
    lines = [f"{count} of them on this machine need {_bytes(count * memory)} of memory; {_free(free, 'cpu')}"]
    if mapped:
        folder = existing(Path(context.options.out))
        room = shutil.disk_usage(folder).free
        lines.append(
            f"and {_bytes(count * mapped.size)} of disk for {count} working copies; {_bytes(room)} are free below "
            f"{folder}"
        )
    if (free is not None and count * memory > free) or (mapped and count * mapped.size > room):
        lines.append("this does not fit: start fewer processes on a machine")
    return lines


def _disk(context: RunContext, stepper: Stepper) -> list[str]:
    options, model = context.options, context.language_model.model
    mapped = blocks_of(model)
    parts = {"working copy of the weights": mapped.size} if mapped else {}
    trained = size_of(weights(model).values())
    if options.save:
        parts["model"] = trained if options.adapter else held(model)
    if options.select == "best":
        parts["the best weights so far"] = 2 * trained
    if options.journal and options.checkpoint_every and options.steps >= options.checkpoint_every:
        one = trained + (size_of(stepper.checkpoint_state()[0].values()))
        parts["checkpoints"] = one * (1 + min(KEPT, options.steps // options.checkpoint_every))
    if options.journal:
        parts["rows and journal"] = options.steps * (ROW + RECORD)
    folder = existing(Path(options.out))
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} cannot be written: give another --out")
    free, total = shutil.disk_usage(folder).free, sum(parts.values())
    said = ", ".join(f"{name} {_bytes(size)}" for name, size in parts.items()) or "rows alone"
    lines = [f"{said}; {_bytes(total)} of {_bytes(free)} free below {folder}"]
    return (
        lines if total <= free else [*lines, "this does not fit: give --no-save, --checkpoint-every 0 or another --out"]
    )


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def _free(count: int | None, device: str) -> str:
    return f"free memory on {device} is unknown" if count is None else f"{_bytes(count)} are free on {device}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
