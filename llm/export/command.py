"""Export: the tuned weights of a run as a folder that transformers or peft loads, with a model card."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from llm.export import adapter_folder, card, tuned
from llm.export.base_model import base_model
from llm.export.tuned import BaseSource, Tuned
from llm.model import loading
from llm.model.adapted import is_adapted
from llm.model.language_model import DTYPES
from llm.model.mapped import blocks_of
from llm.model.working_copy import move_
from llm.options.export import CODES, FORMATS, GGUF, ExportOptions
from llm.quantised import Choice, dense_, gguf_file, is_quantised
from llm.quantised.model import dense_dtype, layers
from llm.run import saved
from llm.run.folder import CONFIG, JOURNAL, MODEL, RECORD, ROWS, RunFolder, run_of
from llm.run.header import fingerprint
from llm.run.verify import results
from llm.steppers.first_order import backpropagates
from zobench.naming import require_known
from zobench.run import toml
from zobench.run.files import sync, sync_all
from zobench.run.progress import note, warn

MERGED = "with its adapter merged in"
PART = 1 << 20
"""Entries that are looked at at a time: what a test makes of them is in memory."""


def run(options: ExportOptions) -> None:
    """Run the command: ExportOptions says what it does."""
    goal = export(options)
    note(f"written to {goal}")
    note(f"next: {goal / 'README.md'} has the lines that load it")


def export(options: ExportOptions) -> Path:
    """Write the folder, aside until it is whole, and return it.

    Raises:
        UnknownNameError: no such dtype or source.
        ValueError: the folder holds something, there are no weights, or they do not fit the dtype.
        OSError: no space, or the like; nothing is left behind.
    """
    goal = require_empty(options.to)
    require_known(options.source, tuned.SOURCES, "source of weights")
    if options.dtype is not None:
        require_known(options.dtype, DTYPES, "dtype")
    require_known(options.format, FORMATS, "format of exports")
    if options.format == GGUF and (options.dtype or options.merge):
        raise ValueError("a GGUF file has the formats of the file it began with: leave --dtype and --merge out")
    if options.format == CODES and (options.dtype or options.merge):
        raise ValueError("codes and scales are written as they are: leave --dtype and --merge out")
    folder = Path(options.run).expanduser()
    record = run_of(folder) if folder.is_dir() else None
    adapter = adapter_folder.find(folder)
    if options.merge and adapter is None and not (record and record.config.get("adapter")):
        raise ValueError(f"{options.run} has no adapter to merge: leave --merge out")
    if record is not None:
        _require_sound(record, options.source)
    with _aside(goal) as aside:
        kept = adapter if record is None or options.source in ("auto", "model") else None
        made, weights = _adapter(options, kept, record, aside) if kept else _model(options, record, aside)
        if record is not None:
            _keep_record(record, aside / RECORD)
        saved.write_checksums(aside, None if options.merge or options.dtype else weights)
        (aside / "README.md").write_text(card.text(goal.resolve().name, made, record), encoding="utf-8")
    return goal


def require_empty(to: str | None) -> Path:
    """Return the folder to write.

    Raises:
        ValueError: none is given, or it is a file, or holds something.
    """
    if not to:
        raise ValueError("nowhere to write: give --to FOLDER")
    goal = Path(to).expanduser()
    if goal.exists() and (not goal.is_dir() or any(goal.iterdir())):
        raise ValueError(f"--to {to} holds something already: give a new or an empty folder")
    return goal


@contextmanager
def _aside(goal: Path) -> Iterator[Path]:
    """A folder beside the goal that becomes it if all goes well."""
    goal.parent.mkdir(parents=True, exist_ok=True)
    aside = goal.with_name(goal.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        sync_all(aside)
        with suppress(FileNotFoundError):
            goal.rmdir()  # it is empty
        aside.rename(goal)
        sync(goal.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


Written = tuple[card.Exported, str | None]
"""The description of the export, and the fingerprint of its weights before they were merged or converted."""


def _require_sound(record: RunFolder, source: str) -> None:
    """Refuse a journal or weights that are not what the run wrote, and tell of rows, which the card shows."""
    takes_model = source in ("auto", "model") and (record.folder / MODEL).is_dir()
    for one in results(record.folder, record.rows, record.config["journal"], takes_model):
        if one.bad and one.file == ROWS:
            warn(f"{record.folder}: {one}: the card shows what they say")
        elif one.bad:
            raise ValueError(
                f"{record.folder}: {one.file} is {one.state} ({one.why}): nothing was written; "
                + _other_source(record, one.file)
            )


def _other_source(record: RunFolder, damaged: str) -> str:
    """The undamaged sources of the weights of a run."""
    if not damaged.startswith(MODEL):
        return "restore it from a copy, or give --source model"
    if backpropagates(str(record.config["method"])):
        return "give --source checkpoint, or train again with another --out"
    return "give --source journal, which rebuilds the weights"


def _model(options: ExportOptions, record: RunFolder | None, aside: Path) -> Written:
    """Write a whole model."""
    places = BaseSource(options.model, options.device, options.trust_remote_code, aside.parent)
    source = tuned.find(record, options.source, places) if record else _untrained(options)
    model = source.language_model.model
    weights, codes = fingerprint(model), is_quantised(model) and not is_adapted(source.language_model)
    if record is not None and source.step == tuned.last_step(record) and tuned.selected(record) not in (None, weights):
        warn("the weights are not to the bit those that the run measured: they were made on another device or version")
    return _write(source, options, record, aside), None if codes else weights


def _untrained(options: ExportOptions) -> Tuned:
    """A model that is of no run: a GGUF file, say, to be had as a folder."""
    dtype = options.dtype or loading.dtype_of(options.run)
    kept = Choice(GGUF) if options.format == GGUF else None
    loaded = loading.load(options.run, options.device or "cpu", dtype, options.trust_remote_code, kept)
    return Tuned(loaded, 0, "as it was")


def _adapter(options: ExportOptions, adapter: Path, record: RunFolder | None, aside: Path) -> Written:
    """Write an adapter, or the base model with it merged in."""
    named = options.model or adapter_folder.base_of(adapter)
    step, base = tuned.last_step(record) if record else 0, base_model(named)
    if options.merge:
        held = record.held if record else loading.dtype_of(named)
        merged = adapter_folder.merged(
            adapter,
            lambda _, chosen: loading.load(named, options.device or "cpu", held, options.trust_remote_code, chosen),
        )
        return _write(Tuned(merged, step, MERGED), options, record, aside), None
    tensors = adapter_folder.copy(adapter, aside, base.name if base.on_hub else loading.folder_of(named), options.dtype)
    _require_finite(tensors.items(), options.dtype)
    made = card.exported(
        "peft", adapter_folder.masked(adapter), tensors.values(), (step, "as peft keeps it"), base, record
    )
    return made, tuned.selected(record) if record else None


def _write(source: Tuned, options: ExportOptions, record: RunFolder | None, aside: Path) -> card.Exported:
    """Write a model that was loaded; one that peft has adapted is an adapter, unless it is to be merged."""
    language_model, model = source.language_model, source.language_model.model
    if options.merge and is_adapted(language_model):
        dense_(model)
        model = model.merge_and_unload()
        source = source._replace(language_model=replace(language_model, model=model), origin=MERGED)
    if options.format == GGUF:
        return _gguf(source, options, record, aside)
    if options.format == CODES:
        _require_codes(source, options)
    densely = options.format != CODES and is_quantised(model) and not is_adapted(source.language_model)
    if densely and any(getattr(layer, "activations", None) for layer in layers(model).values()):
        note("the activations of these dense layers are not rounded; --format codes keeps how they are")
    _converted(model, densely, options.dtype, aside.parent)
    _require_finite(model.named_parameters(), options.dtype)
    loading.save(source.language_model, aside)
    base = base_model(str(options.model or (record.config["model"] if record else options.run)))
    return card.of_model(source.language_model, (source.step, source.origin), base, record)


def _converted(model: Any, densely: bool, dtype: str | None, beside: Path) -> None:
    """Make quantised layers dense, and bring all weights into a dtype; in mapped files layer by layer, into others."""
    dense, blocks = dense_dtype(model), blocks_of(model)

    def convert(part: nn.Module) -> None:
        if densely:
            dense_(part, dense)
        if dtype is not None:
            part.to(DTYPES[dtype])

    if blocks is None:
        convert(model)
    elif densely or dtype is not None:
        move_(model, beside, blocks.evict, convert)


def _require_codes(source: Tuned, options: ExportOptions) -> None:
    if not is_quantised(source.language_model.model) or is_adapted(source.language_model):
        raise ValueError(
            f"{options.run} has no codes: --format codes writes a model that was trained with --quantize or "
            "--fake-quantize; leave --format out"
        )


def _gguf(source: Tuned, options: ExportOptions, record: RunFolder | None, aside: Path) -> card.Exported:
    """Write the model as the GGUF file whose codes it has, with the scales of now."""
    language_model, model = source.language_model, source.language_model.model
    name = str(options.model or (record.config["model"] if record else options.run))
    like = loading.gguf_of(name)
    if like is None or not is_quantised(model) or is_adapted(language_model):
        raise ValueError(
            f"{options.run} has no codes of a GGUF file: --format gguf writes back a model that was trained with "
            "--quantize gguf; leave --format out"
        )
    _require_finite(model.named_parameters(), "float16")
    gguf_file.write(model, like, aside / "model.gguf")
    return card.of_model(language_model, (source.step, source.origin), base_model(name), record)


def _require_finite(weights: Iterable[tuple[str, Tensor]], dtype: str | None) -> None:
    """Refuse weights that are no finite numbers, such as those above what float16 holds."""
    for name, weight in weights:
        if not all(bool(part.isfinite().all()) for part in weight.detach().flatten().split(PART)):
            way = (
                "float16 holds up to 65,504; give --dtype bfloat16" if dtype == "float16" else "the run destroyed them"
            )
            raise ValueError(f"{name} has entries that are not finite: {way}")


def _keep_record(record: RunFolder, folder: Path) -> None:
    """Write what makes the weights again."""
    folder.mkdir()
    config = {"command": "train", **card.shown_config(record)}
    (folder / CONFIG).write_text(toml.dumps(config), encoding="utf-8")
    journal = card.journal_of(record)
    if journal is not None:
        shutil.copyfile(journal, folder / JOURNAL)
