"""The past of a run: its journal and its checkpoints, from which it is continued to the same weights."""

import json
import math
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import torch
from torch import nn

from llm.run import checkpoint
from llm.run.checkpoint import Checkpoint
from llm.steppers.untrained import Untrained
from llm.steppers.zeroth_order import ZerothOrder
from zobench.random import streams
from zobench.run.journal import FREE, Journal, JournalError, Record, describe
from zobench.run.progress import bar, note
from zobench.run.records import Row, environment, plain_row, within

if TYPE_CHECKING:
    from llm.loop.session import Session

JOURNAL, CHECKPOINTS = "journal.bin", "checkpoints"
START = "start"
OPTIONAL = ("micro_batch", "clip")
"""Options that change the bits of steps, in headers only where given: those of before have neither."""
ENVIRONMENT = ("zobench", "python", "torch", "commit", "cpu", "gpu")


class Past:
    """What a session has done, in its journal: the steps as they were seen, and every measurement that decides about
    weights. Rows are a report of it: those that are missing are written again. Checkpoints bound the replay of a
    zeroth-order run; a first-order run goes on from its latest one. With --no-journal there is neither.

    `identity` is what the files of weights say of their run.

    Raises:
        JournalError: the journal is damaged, missing, or of another run.
    """

    def __init__(self, session: "Session") -> None:
        self.session, self.folder = session, session.record.folder
        self.journal: Journal | None = None
        self.identity: dict[str, str] = {}
        self._measured: list[Row] = []
        self._reported = 0
        options = session.options
        if isinstance(session.trainer, Untrained):
            return
        if options.journal or options.select == "best":
            about = header(session)
            self.identity = _identity(about)
            if options.journal:
                self._open(about)

    def _open(self, about: dict[str, Any]) -> None:
        file = within(self.folder, JOURNAL)
        if self.rows() and not file.exists():
            raise JournalError(
                f"{self.folder} has rows of steps but no {JOURNAL}: the journal was removed, or an earlier version "
                "recorded none; it cannot be continued, give another --out"
            )
        self.journal = Journal(file, about)
        if self.journal.cut:
            steps = len(self.journal.records)
            note(f"{file}: {self.journal.cut} bytes of an unfinished record after {steps} steps were cut off")
        self._measured = [event.body for event in self.journal.events]

    def rows(self) -> list[Row]:
        """Return the rows of steps, in order."""
        return [row for row in self.session.record.rows if row.get("kind") in ("step", "skipped")]

    def measured(self, kind: str, **wanted: Any) -> list[Row]:
        """Return what was measured, of this kind and with these values."""
        rows = (row for row in self._measured if row.get("kind") == kind)
        return [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]

    def keep(self, row: Row) -> Row:
        """Keep a measurement: in the journal, then in the rows; return it as it was kept.

        Raises:
            OSError: no space, or the like.
        """
        kept = plain_row(row)
        if self.journal:
            self.journal.note(kept)
        self._measured.append(kept)
        self._report(kept)
        return kept

    def _report(self, row: Row) -> None:
        if row.get("kind") != START and _lasting(row) not in map(_lasting, self.session.record.rows):
            self.session.record.append(row)

    def start_loss(self, measured: float) -> float:
        """Return the loss before the first step as the run measured it when it began."""
        if not self.measured(START):
            self.keep({"kind": START, "loss": measured})
        return float(self.measured(START)[0]["loss"])

    def resume(self) -> int:
        """Bring the trainer to where the run was and return the number of the next step.

        Raises:
            ValueError: a checkpoint is of another run, or the journal of another version of the estimator.
        """
        self.session.selection.look()
        if self.journal is None:
            return 0
        first = self._replay() if isinstance(self.session.trainer, ZerothOrder) else self._take_up()
        self._report_before(math.inf)
        return first

    def _report_before(self, step: float) -> None:
        """Report the measurements that stand before a step, in the order of the journal."""
        events = self.journal.events if self.journal else []
        while self._reported < len(events) and events[self._reported].step <= step:
            self._report(events[self._reported].body)
            self._reported += 1

    def append(self, record: Record) -> None:
        """Keep a step that was taken; every so many steps, the weights too.

        Raises:
            OSError: no space, or the like.
        """
        if self.journal:
            self.journal.append(record)
        every = self.session.options.checkpoint_every
        if every and (record.step + 1) % every == 0:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Keep the weights, if checkpoints are wanted."""
        trainer, options = self.session.trainer, self.session.options
        if not (self.journal and options.checkpoint_every):
            return
        self.sync()
        trainer.settle()
        tensors, said = trainer.kept()
        tensors = checkpoint.weights(self.session.language_model.model) | tensors
        said = said | self.identity | {"chain": f"{self.journal.marks[trainer.steps]:08x}"}
        checkpoint.save(within(self.folder, CHECKPOINTS), trainer.steps, tensors, said)

    def sync(self) -> None:
        """Force the journal to disk."""
        if self.journal:
            self.journal.sync()

    def close(self) -> None:
        """Sync and close the journal."""
        if self.journal:
            self.journal.close()

    def _replay(self) -> int:
        assert self.journal is not None
        trainer, records = self.session.trainer, self.journal.records
        first = self._restore(self._latest(len(records)))
        with bar(records[first:], shown=len(records) - first >= 100, desc="replay", unit="step") as shown:
            for record in shown:
                self._report_before(record.step)
                self.session.selection.again(record.step)
                taken = trainer.replay(record)
                self.session.see(taken)
                shown.set_postfix_str(f"train loss {taken.loss:.3f}", refresh=False)
        if records:
            note(f"{self.folder}: continued at step {len(records)}, of which {first} came from a checkpoint")
        return len(records)

    def _latest(self, steps: int) -> Checkpoint | None:
        """The latest checkpoint of at most so many steps, from which missing weights can be reached."""
        assert self.journal is not None
        missing = self.session.selection.missing
        most = steps if missing is None else min(steps, missing)
        kept = checkpoint.latest(self.folder / CHECKPOINTS, most, self.identity)
        if kept and kept.metadata.get("chain") != f"{self.journal.marks[kept.step]:08x}":
            raise ValueError(f"{kept.file} does not belong to the journal beside it: remove it")
        return kept

    def _restore(self, kept: Checkpoint | None) -> int:
        """Go on from a checkpoint; return its step. Those before it are seen as if they were taken."""
        assert self.journal is not None
        if kept is None:
            return 0
        trainer = self.session.trainer
        for record in self.journal.records[: kept.step]:
            self._report_before(record.step)
            self.session.see(trainer.recall(record))
        trainer.restore(checkpoint.restore(self.session.language_model.model, kept), kept.metadata, kept.step)
        return kept.step

    def _take_up(self) -> int:
        """Continue a first-order run from its latest checkpoint: the steps after it are taken again."""
        assert self.journal is not None
        steps = len(self.journal.records)
        kept = self._latest(steps)
        if steps and kept is None:
            note(
                f"{self.folder}: {self.session.trainer.identity} steps along gradients, which losses cannot rebuild, "
                "and there is no checkpoint (--checkpoint-every): the run starts again from step 0"
            )
        self.journal.truncate(kept.step if kept else 0)
        self._measured = [event.body for event in self.journal.events]
        self.session.evaluations.look()
        return self._restore(kept)


def _lasting(row: Row) -> Row:
    """A row without what differs when it is measured again."""
    return {name: value for name, value in row.items() if name not in ("seconds", "peak_mb")}


def _identity(about: dict[str, Any]) -> dict[str, str]:
    text = json.dumps({k: v for k, v in about.items() if k not in FREE}, sort_keys=True)
    return {"run": f"{crc32(text.encode()):08x}"}


def header(session: "Session") -> dict[str, Any]:
    """Return what a journal says of its run: what must be equal for its records to be repeated, and where it ran."""
    options, trainer, model = session.options, session.trainer, session.language_model.model
    found = environment()
    about = {
        "estimator": trainer.identity,
        "stream": streams.NAME,
        "rule": options.rule if isinstance(trainer, ZerothOrder) else options.method,
        "epsilon": options.epsilon,
        "weight_decay": float(options.weight_decay),
        "schedule": f"{options.schedule} from {options.lr!r}, {options.steps} steps, {options.warmup} of warm-up",
        "engine": trainer.engine if isinstance(trainer, ZerothOrder) else "plain",
        "rows": options.rows,
        "rounding": options.rounding,
        "model": options.model,
        "dtype": options.dtype,
        "device": options.device,
        "weights": fingerprint(model),
        "data": data_fingerprint(session),
        "keys": {name: list(names) for name, names in session.keys.items()},
        "environment": {name: found[name] for name in ENVIRONMENT},
    }
    if options.adapter:
        about["adapter"] = {"name": options.adapter, "seed": options.seed}
    if options.trained:
        about["trained"] = list(options.trained)
    if options.rates:
        about["rates"] = list(options.rates)
    if any(not p.requires_grad for p in model.parameters()):
        about["frozen"] = fingerprint(model, trained=False)
    about |= {name: value for name in OPTIONAL if (value := getattr(options, name)) is not None}
    if not isinstance(trainer, ZerothOrder):
        return about
    multipliers = dict(trainer.rule.groups.multipliers)
    return about | {"layout": describe(trainer.space.layout)} | ({"multipliers": multipliers} if multipliers else {})


@torch.no_grad()
def fingerprint(model: nn.Module, trained: bool = True) -> str:
    """Return 128 bits of BLAKE2b over names, shapes, dtypes and bytes of what training changes, or of what it does
    not.
    """
    digest = blake2b(digest_size=16)
    for name, tensor in checkpoint.weights(model, trained).items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
        digest.update(tensor.contiguous().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def data_fingerprint(session: "Session") -> str:
    """Return 128 bits of BLAKE2b over the encoded examples and the candidates."""
    data = session.data
    text = repr((data.train, data.dev, data.test, session.objective.candidates, session.options.batch))
    return blake2b(text.encode(), digest_size=16).hexdigest()


def journal_of(path: str | Path) -> Path:
    """Return the journal of a run's folder, or the path itself if it is a file."""
    place = Path(path)
    return place / JOURNAL if place.is_dir() else place
