"""A folder as a whole: whether each file of a run, or of an export of one, is what was written."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm.run import checkpoint, saved
from llm.run.finding import DAMAGED, MISSING, SOUND, UNCHECKED, Finding
from llm.run.folder import BEST, CHECKPOINTS, CONFIG, ENVIRONMENT, JOURNAL, MODEL, RECORD, ROWS, RunFolder
from llm.run.header import identity, schedule
from llm.run.reported import disagreements
from zobench.run import journal_version1
from zobench.run.journal import Contents, read, version_of
from zobench.run.records import Row, checksum

SAME = ("model", "dtype", "device", "epsilon", "weight_decay", "rows", "rounding", "micro_batch", "clip")
"""What config.toml and the header of the journal both say."""
NAMED = ("method", "seed", "lr", "provenance")
"""What config.toml and every measurement say."""
OLD = "an earlier version wrote no checksum of it"


@dataclass(frozen=True)
class Journalled:
    """The journal of a folder, where it can be read, and what was found of the file."""

    contents: Contents | None
    finding: Finding

    @classmethod
    def of(cls, file: Path, wanted: bool = True) -> "Journalled":
        """Read it; it is missing only if it is `wanted`."""
        if not file.exists():
            kept_none = Finding(file.name, UNCHECKED, "baselines and --no-journal keep none")
            return cls(None, Finding(file.name, MISSING, "the run kept one") if wanted else kept_none)
        try:
            if version_of(file) == 1:
                count = len(journal_version1.read(file).records)
                text = f"{count} records of version 1, each with its checksum and in its place"
                return cls(None, Finding(file.name, SOUND, text))
            contents = read(file)
        except ValueError as error:
            return cls(None, Finding(file.name, DAMAGED, str(error)))
        counts = f"{len(contents.records)} steps and {len(contents.events)} measurements"
        text = f"{counts}, each with its checksum in its place"
        if contents.torn:
            text += f"; then {contents.torn} bytes of a record that was not finished: a continued run cuts them off"
        return cls(contents, Finding(file.name, SOUND, text))

    @property
    def final(self) -> Row | None:
        """What the journal holds of the end of the run, if it has ended."""
        events = self.contents.events if self.contents else ()
        return next((event.body for event in reversed(events) if event.body.get("kind") == "final"), None)


def findings(folder: Path) -> Iterator[Finding]:
    """Check every file of a folder of a run or of an export; a folder with a journal alone has only that. Nothing is
    changed, and no model loaded.

    Cost: every file is read once.
    """
    if not (folder / CONFIG).exists() and (folder / RECORD).is_dir():
        yield from _exported(folder)
    elif not (folder / CONFIG).exists() and not (folder / ROWS).exists():
        kept = Journalled.of(folder / JOURNAL)
        yield kept.finding
        yield from _checkpoints(folder, kept.contents)
    else:
        yield from _run(folder)


def results(folder: Path, rows: list[Row], journal: bool, model: bool) -> Iterator[Finding]:
    """Check what readers of a run take: journal, rows and the selected weights; `journal` and `model` say whether it is
    to have these.
    """
    final = next((row for row in reversed(rows) if row.get("kind") == "final"), {})
    kept = Journalled.of(folder / JOURNAL, journal and "fingerprint" in final)
    yield kept.finding
    yield _rows(rows, kept)
    if model:
        yield from _model(folder, kept.final or final)


def _run(folder: Path) -> Iterator[Finding]:
    try:
        run = RunFolder.read(folder)
    except (ValueError, OSError) as error:
        name = next((n for n in (ROWS, ENVIRONMENT) if str(folder / n) in str(error)), CONFIG)
        yield Finding(name, DAMAGED if (folder / name).exists() else MISSING, str(error))
        yield Journalled.of(folder / JOURNAL).finding
        return
    finals = run.rows_of("final")
    steps = any(row.get("kind") in ("step", "skipped") for row in run.rows)
    kept = Journalled.of(folder / JOURNAL, steps)
    yield _config(run, kept.contents)
    lacking = Finding(ENVIRONMENT, MISSING, "it says what the run ran on")
    yield Finding(ENVIRONMENT, UNCHECKED, "a report for readers") if run.environment else lacking
    yield kept.finding
    yield _rows(run.rows, kept)
    yield from _checkpoints(folder, kept.contents)
    yield from _best(run, kept)
    final = kept.final or (finals[-1] if finals else None)
    if final is not None and ((folder / MODEL).exists() or (run.config["save"] and "fingerprint" in final)):
        yield from _model(folder, final)


def _config(run: RunFolder, contents: Contents | None) -> Finding:
    told = run.environment.get("config")  # older runs have none
    if told is not None and told != checksum(run.folder / CONFIG):
        return Finding(CONFIG, DAMAGED, "its checksum is not the one that environment.json has")
    if contents is None:
        return Finding(CONFIG, UNCHECKED, "there is no journal to compare it with")
    config, header = run.config, contents.header
    said: dict[str, tuple[Any, Any]] = {name: (config[name], header.get(name)) for name in SAME}
    keys = header.get("keys") or {}
    said["seed"] = config["seed"], (keys.get("key") or [None])[-1]
    said["schedule"] = schedule(config), header.get("schedule")
    measured = next((event.body for event in contents.events if "method" in event.body), {})
    said |= {name: (config[name], measured[name]) for name in NAMED if name in measured}
    names = [f"{name}: {one!r} there, {other!r} in the journal" for name, (one, other) in said.items() if one != other]
    if names:
        return Finding(CONFIG, DAMAGED, "; ".join(names))
    return Finding(CONFIG, SOUND, "as the header of the journal has it")


def _rows(rows: list[Row], kept: Journalled) -> Finding:
    if kept.contents is None:
        return Finding(ROWS, UNCHECKED, "there is no journal to compare them with")
    ended = any(row.get("kind") == "final" for row in rows)
    differences = disagreements(rows, kept.contents, whole=ended or kept.final is not None)
    if differences:
        more = f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
        return Finding(ROWS, DAMAGED, "; ".join(differences[:3]) + more)
    return Finding(ROWS, SOUND, f"{len(rows)} rows, as the journal has them")


def _checkpoints(folder: Path, contents: Contents | None) -> Iterator[Finding]:
    for file in checkpoint.files(folder / CHECKPOINTS):
        name = f"{CHECKPOINTS}/{file.name}"
        try:
            kept = checkpoint.load(file)
        except ValueError as error:
            yield Finding(name, DAMAGED, str(error))
            continue
        if contents is None:
            yield Finding(name, SOUND, "it has its checksum; there is no journal to compare it with")
        elif checkpoint.is_chained(kept, contents.marks):
            yield Finding(name, SOUND, "it has its checksum and that of the journal")
        else:
            yield Finding(name, DAMAGED, "it is sound, but not of this journal")


def _best(run: RunFolder, kept_by: Journalled) -> Iterator[Finding]:
    file, contents = run.folder / BEST, kept_by.contents
    if not file.exists():
        if run.config["select"] == "best" and kept_by.final is None and _evaluated(contents):
            yield Finding(BEST, MISSING, "it holds the weights of the lowest dev loss; the same command rebuilds them")
        return
    try:
        kept = checkpoint.load(file)
    except ValueError as error:
        yield Finding(BEST, DAMAGED, str(error))
        return
    if contents is not None and kept.metadata.get("run") != identity(contents.header)["run"]:
        yield Finding(BEST, DAMAGED, "it is sound, but of another run")
    else:
        yield Finding(BEST, SOUND, f"it has its checksum, and the weights of step {kept.step}")


def _evaluated(contents: Contents | None) -> bool:
    """Whether the weights of an evaluation were kept, before its record was written."""
    return contents is not None and any(event.body.get("kind") == "evaluation" for event in contents.events)


def _model(folder: Path, final: Row) -> Iterator[Finding]:
    if "fingerprint" in final:
        yield from saved.check(folder / MODEL, final["fingerprint"])
    else:
        yield Finding(MODEL, UNCHECKED, OLD)


def _exported(folder: Path) -> Iterator[Finding]:
    """The files of an export against its checksums, and these against the copy of the journal."""
    kept = Journalled.of(folder / RECORD / JOURNAL, wanted=False)
    yield kept.finding._replace(file=f"{RECORD}/{JOURNAL}")
    if not (folder / saved.FILE).exists() and "fingerprint" not in (kept.final or {}):
        yield Finding(folder.name, UNCHECKED, OLD)
        return
    weights = (kept.final or {}).get("fingerprint")
    with suppress(ValueError, OSError):  # `check` tells it
        weights = weights if saved.checksums(folder)["fingerprint"] else None
    yield from saved.check(folder, weights)
