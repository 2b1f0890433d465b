"""`python -m llm journal show | verify | replay | diff`: what a run's journal says, and the weights rebuilt from it."""

import argparse
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from llm.model import loading, streaming, trainable
from llm.model.adapters import adapt
from llm.model.language_model import DTYPES, LanguageModel
from llm.model.mapped import blocks_of
from llm.options.journal import OWN_PARTS
from llm.quantised import Choice, Quantisation, as_written_, codes_of, is_quantised
from llm.quantised.codes import search_
from llm.run import calibrated, checkpoint, saved
from llm.run.folder import CONFIG, JOURNAL, MODEL, RECORD, ROWS, existing, journal_of
from llm.run.header import codes_fingerprint, fingerprint
from llm.run.verify import Journalled, findings
from llm.steppers.code_search import CodeSearch, CodeSearchStepper
from llm.steppers.engines import STREAMED, rounded
from llm.steppers.stepper import Stepper
from llm.steppers.zeroth_order import ZerothOrderStepper
from zobench import Estimator, methods
from zobench import rule as rules
from zobench.groups import Groups
from zobench.identity import restore
from zobench.random import streams
from zobench.run import journal_version1
from zobench.run.exit_status import DIFFERENT, OK
from zobench.run.journal import Contents, Record, describe, differing, other_stream, read, version_of
from zobench.run.journal_format import OLD
from zobench.run.progress import bar, warn
from zobench.spelling import names_code


def show(arguments: argparse.Namespace) -> int:
    """Print the header, the last steps and what was measured between them."""
    file = _file(arguments.run)
    if version_of(file) == 1:
        return _show_version1(file, arguments.last)
    contents = read(file)
    _show_header(contents.header)
    records = contents.records
    skipped = sum(bool(record.skipped) for record in records)
    print(f"{'steps':14}{len(records)}, {skipped} of them skipped, {sum(r.seconds for r in records):.1f} seconds")
    counts = Counter(str(event.body.get("kind")) for event in contents.events)
    print(f"{'measured':14}{', '.join(f'{count} {kind}' for kind, count in counts.items()) or 'nothing'}")
    if contents.torn:
        print(f"{'torn':14}{contents.torn} bytes of a record that was not finished")
    print(f"{'step':>8} {'mean loss':>12} {'lr':>10} {'key':>20}  losses")
    for record in records[-arguments.last :] if arguments.last > 0 else ():
        print(f"{record.step:8} {_mean(record):12.6g} {record.lr:10.3g} {record.key:20}  {_what(record)}")
    return OK


def _show_header(header: dict[str, Any]) -> None:
    for name, value in header.items():
        known = name == "layout" and isinstance(value, list)
        text = f"{len(value)} tensors, {_entries(value)} weights" if known else _shortened(value)
        print(f"{name:14}{text}")


def _shortened(value: Any) -> str:
    """The value as JSON, long texts in it cut."""
    if isinstance(value, dict):
        value = {k: f"{v[:24]}... ({len(v)} characters)" if len(str(v)) > 200 else v for k, v in value.items()}
    return json.dumps(value)


def _show_version1(file: Path, last: int) -> int:
    contents = journal_version1.read(file)
    _show_header(contents.header)
    print(f"{'version':14}1, of {len(contents.records)} steps. {OLD}")
    for record in contents.records[-last:] if last > 0 else ():
        print(f"{record.step:8} {record.loss:12.6g} {record.lr:10.3g} {record.key:20}  {record.coefficients[:8]}")
    return OK


def _entries(layout: list[Any]) -> int:
    return sum(row[1] for row in layout if isinstance(row, list) and len(row) > 1 and isinstance(row[1], int))


def _mean(record: Record) -> float:
    return fmean(record.losses) if record.losses else math.nan


def _what(record: Record) -> str:
    more = " ..." if len(record.losses) > 8 else ""
    seen = " ".join(f"{loss:.8g}" for loss in record.losses[:8]) + more
    return f"{seen}  skipped: {record.skipped}" if record.skipped else seen


def verify(arguments: argparse.Namespace) -> int:
    """Check every file of a run or of an export: print a line with the result for each file, and change nothing."""
    folder = Path(arguments.run)
    if not folder.is_dir():
        results = [Journalled.of(_file(arguments.run)).finding]
    elif not any((folder / name).exists() for name in (JOURNAL, CONFIG, ROWS, RECORD)):
        raise ValueError(f"{folder} has no {JOURNAL} and no {CONFIG}: give the folder of a run or of an export")
    else:
        results = list(findings(folder))
    for one in results:
        print(one)
    sound = not any(one.bad for one in results)
    if not arguments.replay:
        return OK if sound else DIFFERENT
    return _replayed(arguments) if sound else DIFFERENT


def _replayed(arguments: argparse.Namespace) -> int:
    """Compare what a run or an export wrote with what its journal rebuilds."""
    folder, record = Path(arguments.run), Path(arguments.run) / RECORD
    exported = not (folder / CONFIG).exists() and record.is_dir()
    contents = read(_file(str(record) if exported else arguments.run))
    base = rebuild(contents, selected_step(contents), **_given(arguments))
    written = folder if exported else journal_of(folder).parent / MODEL
    return _compare(base, written, arguments.device or _text(contents.header, "device"))


def replay(arguments: argparse.Namespace) -> int:
    """Rebuild the weights from only the base model and the journal, and compare them with the weights of the run."""
    contents, folder = read_told(_file(arguments.run)), journal_of(arguments.run).parent
    taken, selected = len(contents.records), selected_step(contents)
    steps = min(taken, taken if selected is None else selected) if arguments.steps is None else arguments.steps
    beside = existing(Path(arguments.out)) if arguments.out else None
    base = rebuild(contents, steps, **_given(arguments), beside=beside)
    weights = fingerprint(base.model)
    print(f"{steps} steps repeated" + (f" of {taken}" if steps < taken else "") + f"; weights {weights}")
    if arguments.out:
        saved.save(base, Path(arguments.out), weights)
        print(f"written to {arguments.out}")
    if arguments.steps is not None and arguments.steps != (taken if selected is None else selected):
        print(f"{folder / MODEL} has the weights of another step: not compared")
        return OK
    return _compare(base, folder / MODEL, arguments.device or _text(contents.header, "device"))


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the command line says of the base model and of the user's own parts."""
    return {name: getattr(arguments, name) for name in ("model", "device", "trust_remote_code", *OWN_PARTS)}


def read_told(file: Path) -> Contents:
    """Return what a journal holds, and say what a torn tail leaves out.

    Raises:
        JournalError: as for `zobench.run.journal.read`.
    """
    contents = read(file)
    if contents.torn:
        warn(f"{file}: {contents.torn} bytes of an unfinished record after {len(contents.records)} steps are left out")
    return contents


def rebuild(
    contents: Contents,
    steps: int | None = None,
    model: str | None = None,
    device: str | None = None,
    trust_remote_code: bool = False,
    method: str | None = None,
    rule: str | None = None,
    engine: str | None = None,
    beside: Path | None = None,
) -> LanguageModel:
    """Return the base model with the steps of a journal repeated, without a forward pass.

    Args:
        contents: the journal.
        steps: how many of its steps, all where not given.
        model: the base model, if it is not the one that the journal names.
        device: device on which the steps are repeated; by default the device of the journal.
        trust_remote_code: run the code that comes with the model.
        method: the spelling of the estimator, where it is not one of zobench's own parts.
        rule: the spelling of the update rule, likewise: a journal imports no module.
        engine: the spelling of the engine, likewise.
        beside: the folder on whose disk a run of the streamed engine has its working copy.

    Raises:
        ValueError: the base model is another one, or the steps cannot be repeated.
    """
    header, taken = contents.header, len(contents.records)
    if steps is not None and not 0 <= steps <= taken:
        raise ValueError(f"steps is {steps}, but the journal has {taken}")
    _require_repeatable(header)
    name, place = model or _text(header, "model"), device or _text(header, "device")
    held = "float32" if header.get("rounding") == "master" else _text(header, "dtype")
    engine_of_run, quantised = str(header.get("engine")), _quantised(header)
    base = streaming.load_for(engine_of_run, name, place, held, trust_remote_code, quantised, beside)
    base = _adapted(base, header.get("adapter"))
    calibrated.smooth_as_(base.model, header)
    search = _search(header)
    if search is None:
        trainable.select(base.model, list(map(str, header.get("trained") or ())))
    else:
        search_(base.model)
    begun = fingerprint(base.model), fingerprint(base.model, False)
    codes = codes_fingerprint(base.model) if is_quantised(base.model) else None
    same = (begun[0], codes) == (header.get("weights"), header.get("codes"))
    if not same or header.get("frozen") not in (None, begun[1]):
        raise ValueError(f"{name} does not have the weights this journal began with: give the base model as --model")
    records = contents.records[:steps]
    if search is None:
        stepper: Stepper = _stepper(header, base.model, records, method, rule, engine)
    else:
        stepper = CodeSearchStepper(base.model, search)
    _repeat(stepper, records)
    as_written_(base.model)
    return base


def selected_step(contents: Contents) -> int | None:
    """Return the step whose weights a finished run wrote; None of a run that is not finished."""
    finals = [event.body for event in contents.events if event.body.get("kind") == "final"]
    return finals[-1].get("selected_step") if finals else None


def _quantised(header: dict[str, Any]) -> Quantisation | None:
    """How the base was quantised, as the header tells it."""
    about = header.get("quantised")
    if about is None:
        return calibrated.scheme_of(header)
    if not isinstance(about, dict) or not isinstance(about.get("name"), str):
        raise ValueError(f"quantised of the header is {about!r}: wanted its name and group")
    return Choice.of(about["name"], about.get("group", 32))


def _adapted(base: LanguageModel, about: Any) -> LanguageModel:
    """The base with the adapter that the header tells, as it began."""
    if about is None:
        return base
    if not isinstance(about, dict) or not isinstance(about.get("name"), str) or type(about.get("seed")) is not int:
        raise ValueError(f"adapter of the header is {about!r}: wanted its name and seed")
    return adapt(base, about["name"], about["seed"])


def _require_repeatable(header: dict[str, Any]) -> None:
    """Raise ValueError where the header says that losses do not rebuild the steps here."""
    if header.get("rows", "all") != "all":
        raise ValueError(
            "the directions of this run live on the rows that its minibatches touched, which the journal does not "
            "hold: continue the run, which replays it with its data"
        )
    if "layout" not in header and "code_search" not in header:
        raise ValueError(
            f"{header.get('rule')!r} takes gradient steps, which recorded losses cannot rebuild: give the command of "
            "the run again to continue it, or export its latest checkpoint with --source checkpoint"
        )
    told = other_stream(header, streams.NAME)
    if told:
        raise ValueError(
            f"{told}: repeat its steps with that version, or take the weights that the run wrote (its folder model, or "
            "`python -m llm export` with --source checkpoint)"
        )


def _repeat(stepper: Stepper, records: Sequence[Record]) -> None:
    with bar(records, desc="replay", unit="step") as shown:
        for record in shown:
            try:
                taken = stepper.replay(record)
            except Exception as error:  # whatever a record that fits no estimator leads to
                raise ValueError(f"step {record.step} cannot be repeated: {type(error).__name__}: {error}") from error
            shown.set_postfix_str(f"train loss {taken.loss:.3f}", refresh=False)
    stepper.settle()


def _search(header: dict[str, Any]) -> CodeSearch | None:
    """The search of codes that the header tells, None where steps are of another kind."""
    about = header.get("code_search")
    if about is None:
        return None
    if not isinstance(about, dict) or type(about.get("size")) is not int:
        raise ValueError(f"code_search of the header is {about!r}: wanted its size")
    return CodeSearch(about["size"])


def _stepper(
    header: dict[str, Any],
    model: Any,
    records: Sequence[Record],
    method: str | None = None,
    rule: str | None = None,
    engine: str | None = None,
) -> ZerothOrderStepper:
    how = rounded(str(header.get("rounding", "nearest")), str(header.get("dtype")))
    decay = header.get("weight_decay")
    if not isinstance(decay, int | float):
        raise ValueError(f"the header's weight_decay is {decay!r}: wanted a number")
    rates = [record.lr for record in records]
    groups = Groups(header.get("multipliers") or {})
    made = rules.parse(
        _named(header, "rule", rule),
        lr=lambda step: rates[step] if step < len(rates) else 0.0,
        weight_decay=decay,
        groups=groups,
    )
    named, most = _named({"engine": "plain", **header}, "engine", engine), header.get("clip")
    stepper = ZerothOrderStepper(model, _estimator(header, method), made, named, *how, most=most)
    if describe(stepper.space.layout) != header["layout"]:
        raise ValueError("the parameters of the model are not those of the journal: another version of transformers?")
    return stepper


def _named(header: dict[str, Any], part: str, given: str | None) -> str:
    """The rule or engine that the header tells, if it is zobench's or the command line names it too: a file imports no
    module.
    """
    name = _text(header, part)
    if given is None and names_code(name):
        raise ValueError(
            f"the {part} of this journal, {name!r}, is of a module of its own: if you trust it, repeat the steps by "
            f"`python -m llm journal replay` with --{part} {name}"
        )
    if given not in (None, name):
        raise ValueError(f"--{part} is {given}, and the journal is of {name}")
    return name


def _estimator(header: dict[str, Any], method: str | None) -> Estimator:
    """The estimator that the header tells, or the one of `method` if it is the same: a file imports no module."""
    text = _text(header, "estimator")
    if method is None:
        try:
            return restore(text)
        except ValueError as error:
            raise ValueError(
                f"{error}; if it is of a module of your own, repeat the steps by `python -m llm journal replay` with "
                "--method package.module:function"
            ) from None
    estimator = methods.parse(method, **{name: header[name] for name in ("epsilon",) if header.get(name) is not None})
    if repr(estimator) != text:
        raise ValueError(f"--method {method} makes {estimator!r}, and the journal is of {text}")
    return estimator


def _compare(rebuilt: LanguageModel, folder: Path, device: str) -> int:
    """Say how the rebuilt weights differ from those that the run wrote, if it did."""
    if not folder.is_dir():
        return OK
    kinds = {kind: name for name, kind in DTYPES.items()}
    dtype = loading.dtype_of(str(folder)) if is_quantised(rebuilt.model) else kinds[rebuilt.model.dtype]
    engine = STREAMED if blocks_of(rebuilt.model) else "in-forward"
    written, mine = (
        checkpoint.weights(model) | checkpoint.weights(model, trained=False) | codes_of(model)
        for model in (streaming.load_for(engine, str(folder), device, dtype).model, rebuilt.model)
    )
    if mine.keys() != written.keys():
        raise ValueError(f"{folder} has other parameters than the journal")
    if all(torch.equal(mine[name], written[name]) for name in mine):
        print(f"equal to the bit to {folder}")
        return OK
    error = math.sqrt(sum(float((mine[n].double() - written[n].double()).square().sum()) for n in mine))
    size = math.sqrt(sum(float(w.double().square().sum()) for w in written.values()))
    print(f"differs from {folder} by {error / size:.2g} of its norm")
    return DIFFERENT


def diff(arguments: argparse.Namespace) -> int:
    """Say what differs between two journals: keys of the headers, and the first step."""
    one, other = read(_file(arguments.run)), read(_file(arguments.other))
    names = differing(one.header, other.header, free=())
    for name in names:
        print(f"{name}: {_brief(one.header.get(name))} | {_brief(other.header.get(name))}")
    pairs = zip(one.records, other.records, strict=False)
    first = next((a.step for a, b in pairs if _identity(a) != _identity(b)), None)
    lengths = len(one.records), len(other.records)
    if first is not None:
        a, b = one.records[first], other.records[first]
        print(f"the first step that differs is {first}:\n  {_what(a)}\n  {_what(b)}")
    else:
        print(f"the first {min(lengths)} steps are equal; there are {lengths[0]} and {lengths[1]}")
    same = first is None and lengths[0] == lengths[1] and not differing(one.header, other.header)
    return OK if same else DIFFERENT


def _identity(record: Record) -> str:
    """All but the time a step took; NaN is equal to itself."""
    return repr(record._replace(seconds=0.0))


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _text(header: dict[str, Any], name: str) -> str:
    value = header.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} of the header is {value!r}: wanted a text")
    return value


def _file(path: str) -> Path:
    file = journal_of(path)
    if not Path(path).exists():
        raise ValueError(f"{path}: no such folder: give the folder of a training run, or a journal file")
    if not file.is_file():
        raise ValueError(
            f"{path} has no journal ({file.name}): baselines and --no-journal keep none; if it was removed, restore it "
            "from a copy"
        )
    return file
