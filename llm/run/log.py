"""The log of a run: its journal, and the rows that report it."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from llm.run.folder import JOURNAL
from llm.run.reported import START, disagreements, lasting
from zobench.run.journal import Contents, Event, Journal, JournalError, Record
from zobench.run.progress import note
from zobench.run.records import Row, Run, plain_row, within


class RunLog:
    """What a run has done: the steps as they were seen, and every measurement that decides about weights, in the
    journal; rows are a report of it, and those that are missing are written again. Without a header there is no
    journal, and rows are all. `evaluated_to` is the step of the last evaluation.

    Raises:
        JournalError: the journal is damaged, missing, or of another run.
    """

    def __init__(self, record: Run, header: Mapping[str, Any] | None) -> None:
        self.record, self.folder = record, record.folder
        self.journal = None if header is None else self._opened(header)
        self._measured: list[Row] = [event.body for event in self.events]
        self._reported = 0
        self.evaluated_to = self._last_evaluation()
        self._rows_to = 1 + max((row["step"] for row in self._step_rows()), default=-1)

    def _opened(self, header: Mapping[str, Any]) -> Journal:
        file = within(self.folder, JOURNAL)
        if self._step_rows() and not file.exists():
            raise JournalError(
                f"{self.folder} has rows of steps but no {JOURNAL}: the journal was removed, or an earlier version "
                "recorded none; it cannot be continued, give another --out"
            )
        journal = Journal(file, header)
        if journal.cut:
            steps = len(journal.records)
            note(f"{file}: {journal.cut} bytes of an unfinished record after {steps} steps were cut off")
        self._require_rows(journal)
        return journal

    def _require_rows(self, journal: Journal) -> None:
        faults = disagreements(self.record.rows, Contents(journal.header, journal.records, journal.events))
        if faults:
            raise JournalError(
                f"{self.folder / 'rows.jsonl'} is damaged ({faults[0]}): remove it and give the same command again, "
                "which writes the rows again from the journal"
            )

    @property
    def file(self) -> Path:
        """Where the journal is."""
        return self.folder / JOURNAL

    @property
    def records(self) -> Sequence[Record]:
        """The steps that the journal held when it was opened."""
        return self.journal.records if self.journal else ()

    @property
    def events(self) -> Sequence[Event]:
        """The measurements that the journal holds."""
        return self.journal.events if self.journal else ()

    @property
    def marks(self) -> Sequence[int]:
        """The checksums of the journal up to each step."""
        return self.journal.marks if self.journal else ()

    def _step_rows(self) -> list[Row]:
        return [row for row in self.record.rows if row.get("kind") in ("step", "skipped")]

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
        if kept["kind"] == "evaluation":
            self.evaluated_to = max(self.evaluated_to, kept["step"])
        self._report(kept)
        return kept

    def _report(self, row: Row) -> None:
        if row.get("kind") == START:
            return
        alike = self.record.find(**{name: row[name] for name in ("kind", "step") if name in row})
        if lasting(row) not in map(lasting, alike):
            self.record.append(row)

    def start_loss(self, measured: float) -> float:
        """Return the loss before the first step as the run measured it when it began."""
        if not self.measured(START):
            self.keep({"kind": START, "loss": measured})
        return float(self.measured(START)[0]["loss"])

    def append(self, record: Record) -> None:
        """Keep a step that was taken.

        Raises:
            OSError: no space, or the like.
        """
        if self.journal:
            self.journal.append(record)

    def append_row(self, row: Row, sync: bool = False) -> None:
        """Report a step, unless its row is there."""
        if row["step"] >= self._rows_to:
            self.record.append(row, sync=sync)

    def report_before(self, step: float = math.inf) -> None:
        """Report the measurements that stand before a step, in the order of the journal."""
        while self._reported < len(self.events) and self.events[self._reported].step <= step:
            self._report(self.events[self._reported].body)
            self._reported += 1

    def truncate(self, steps: int) -> None:
        """Forget all after so many steps."""
        if self.journal:
            self.journal.truncate(steps)
            self._measured = [event.body for event in self.journal.events]
            self.evaluated_to = self._last_evaluation()

    def _last_evaluation(self) -> int:
        return max((row["step"] for row in self.measured("evaluation")), default=0)

    def fail(self, step: int, names: Row, error: Exception) -> None:
        """Tell in rows that a run with these names ended with an error at a step."""
        reason = f"{type(error).__name__}: {error}"
        with suppress(OSError):  # a full disk takes no row about itself
            self.record.append({"kind": "failure", "step": step, **names, "reason": reason})

    def tell(self, notes: Sequence[str]) -> None:
        """Print notes, and keep them in rows."""
        for text in notes:
            note(text)
            if not self.record.find(kind="note", note=text):
                self.record.append({"kind": "note", "note": text})

    def sync(self) -> None:
        """Force the journal to disk."""
        if self.journal:
            self.journal.sync()

    def close(self) -> None:
        """Sync and close the journal."""
        if self.journal:
            self.journal.close()
