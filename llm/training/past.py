"""The past of a run: its journal and its checkpoints, from which it is continued to the same weights."""

import json
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import torch
from torch import nn

from llm.training import checkpoint
from llm.training.checkpoint import Checkpoint
from llm.training.zeroth_order import ZerothOrder
from zobench.journal import FREE, Journal, JournalError, Record, describe, require_replayable
from zobench.progress import bar, note
from zobench.records import Row, environment, within

if TYPE_CHECKING:
    from llm.training.session import Session

JOURNAL, CHECKPOINTS = "journal.bin", "checkpoints"
OPTIONAL = ("micro_batch", "clip")
"""Options that change the bits of steps, in headers only where given: those of before have neither."""
ENVIRONMENT = ("zobench", "python", "torch", "commit", "cpu", "gpu")


class Past:
    """What a session has done. A zeroth-order run has a journal, and checkpoints that bound its replay; a first-order
    run has checkpoints alone, since scalars do not rebuild its steps. With --no-journal there is neither.

    `identity` is what the files of weights say of their run. Nothing is read or written before `resume`.
    """

    def __init__(self, session: "Session") -> None:
        self.session, self.folder = session, session.record.folder
        self.journal: Journal | None = None
        self.identity: dict[str, str] = {}

    def rows(self) -> list[Row]:
        """Return the rows of steps, in order."""
        return [row for row in self.session.record.rows if row.get("kind") in ("step", "skipped")]

    def resume(self) -> int:
        """Bring the trainer to where the run was and return the number of the next step.

        Raises:
            JournalError: the journal is damaged, missing, or of another run.
            ValueError: a checkpoint is of another run.
        """
        options = self.session.options
        if not (options.journal or self.session.selection.keeps):
            return 0
        about = header(self.session)
        self.identity = _identity(about)
        if not options.journal:
            self.session.selection.look()
            return 0
        return self._replay(about) if isinstance(self.session.trainer, ZerothOrder) else self._take_up()

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
        if not (options.journal and options.checkpoint_every):
            return
        self.sync()
        trainer.settle()
        tensors, said = checkpoint.weights(self.session.language_model.model), dict(self.identity)
        if self.journal:
            said["chain"] = f"{self.journal.chain[trainer.steps]:08x}"
        else:
            tensors |= trainer.tensors()
            said |= {"passes": f"{trainer.forward_passes} {trainer.backward_passes}"}
        checkpoint.save(within(self.folder, CHECKPOINTS), trainer.steps, tensors, said)

    def sync(self) -> None:
        """Force the journal to disk."""
        if self.journal:
            self.journal.sync()

    def close(self) -> None:
        """Sync and close the journal."""
        if self.journal:
            self.journal.close()

    def _replay(self, about: dict[str, Any]) -> int:
        trainer, file = self.session.trainer, within(self.folder, JOURNAL)
        require_replayable(trainer.rule)
        if self.rows() and not file.exists():
            raise JournalError(
                f"{self.folder} has rows of steps but no {JOURNAL}: it was recorded by an earlier version, or the "
                "journal was removed; it cannot be continued, give another --out"
            )
        self.journal = Journal(file, about)
        self.session.selection.look()
        records = self.journal.records
        if self.journal.cut:
            note(f"{file}: {self.journal.cut} bytes of an unfinished record {len(records)} were cut off")
        first = self._restored(len(records))
        with bar(records, shown=len(records) - first >= 100, desc="replay", unit="step") as shown:
            for record in shown:
                self.session.selection.again(record.step)
                trainer.replay([record], first)
                self.session.see(record)
                shown.set_postfix_str(f"train loss {record.loss:.3f}", refresh=False)
        if records:
            note(f"{self.folder}: continued at step {len(records)}, of which {first} came from a checkpoint")
        return len(records)

    def _latest(self, steps: int) -> Checkpoint | None:
        """The latest checkpoint of at most so many steps, from which missing weights can be reached."""
        missing = self.session.selection.missing
        return checkpoint.latest(
            self.folder / CHECKPOINTS, steps if missing is None else min(steps, missing), self.identity
        )

    def _restored(self, steps: int) -> int:
        """The number of steps that a checkpoint spares."""
        assert self.journal is not None
        kept = self._latest(steps)
        if kept is None:
            return 0
        if kept.metadata.get("chain") != f"{self.journal.chain[kept.step]:08x}":
            raise ValueError(f"{kept.file} does not belong to the journal beside it: remove it")
        checkpoint.restore(self.session.language_model.model, kept)
        return kept.step

    def _take_up(self) -> int:
        """Continue a first-order run from its latest checkpoint."""
        self.session.selection.look()
        trainer, rows = self.session.trainer, self.rows()
        kept = self._latest(self.session.options.steps)
        if kept is None:
            if rows:
                note(
                    f"{self.folder}: {trainer.identity} keeps numbers for every weight, which a journal of scalars "
                    "cannot rebuild, and there is no checkpoint (--checkpoint-every): it starts again from step 0"
                )
            return 0
        trainer.restore(checkpoint.restore(self.session.language_model.model, kept), kept.step)
        trainer.forward_passes, trainer.backward_passes = map(int, kept.metadata["passes"].split())
        before = [row for row in rows if row["step"] < kept.step]
        for row in before:
            loss = float("nan") if row["train_loss"] is None else row["train_loss"]
            self.session.see(Record(row["step"], 0, loss=loss, skipped=row["kind"] == "skipped"))
        self.session.seconds = before[-1]["seconds"] if before else 0.0
        return kept.step


def _identity(about: dict[str, Any]) -> dict[str, str]:
    text = json.dumps({k: v for k, v in about.items() if k not in FREE}, sort_keys=True)
    return {"run": f"{crc32(text.encode()):08x}"}


def header(session: "Session") -> dict[str, Any]:
    """Return what a journal says of its run: what must be equal for its records to be repeated, and where it ran."""
    options, trainer, model = session.options, session.trainer, session.language_model.model
    found = environment()
    about = {
        "estimator": trainer.identity,
        "rule": "SGD" if isinstance(trainer, ZerothOrder) else options.method,
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
    return about | ({"layout": describe(trainer.space.layout)} if isinstance(trainer, ZerothOrder) else {})


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
