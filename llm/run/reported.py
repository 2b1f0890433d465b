"""Rows against the journal that they report."""

import json
import math
from collections.abc import Iterator, Sequence

from llm.run.folder import JOURNAL
from zobench.run.journal import Contents, Event, Record
from zobench.run.records import Row, plain_row

START = "start"
"""The event that has no row."""
MEASURED = ("baseline", "evaluation", "also", "rounding", "final")
STEPS = ("step", "skipped")
TOLD = ("note", "environment", "failure", "divergence")
"""Rows that are not in the journal."""


def lasting(row: Row) -> Row:
    """Return a row without what differs when it is measured again."""
    return {name: value for name, value in row.items() if name not in ("seconds", "peak_mb")}


def disagreements(rows: Sequence[Row], contents: Contents, whole: bool = False) -> list[str]:
    """Return in words what rows say otherwise than the journal, or leave out.

    A kill may leave the last of what the journal holds without rows, unless they are to be `whole`; and rows may tell
    of steps beyond a journal that was cut back.
    """
    return [*_unknown(rows, contents, whole), *_missing(rows, contents, whole)]


def _unknown(rows: Sequence[Row], contents: Contents, whole: bool) -> Iterator[str]:
    """Rows of which the journal does not tell, or not so."""
    measured, seen = {_text(event.body) for event in contents.events}, set[str]()
    for number, row in enumerate(rows, 1):
        kind = row.get("kind")
        if kind in TOLD:
            continue
        text = _key(row)
        if text in seen:
            yield f"line {number}: {_name(row)} is there twice"
        seen.add(text)
        if kind not in (*MEASURED, *STEPS):
            yield f"line {number}: kind is {kind!r}, which no run writes"
        elif not whole and kind != "final" and _beyond(row, contents):
            continue
        elif (kind in MEASURED and text not in measured) or (kind in STEPS and not _fits(row, contents.records)):
            yield f"line {number}: {_name(row)} is not what {JOURNAL} holds"


def _missing(rows: Sequence[Row], contents: Contents, whole: bool) -> Iterator[str]:
    """What the journal holds and rows do not tell, though they tell something later."""
    present = {_key(row) for row in rows}
    wanted = list(_expected(contents))
    there = [index for index, (key, _) in enumerate(wanted) if key in present]
    last = len(wanted) if whole else max(there, default=0)
    lacking = [name for key, name in wanted[:last] if key not in present]
    if lacking:
        more = f", and {len(lacking) - 1} more" if lacking[1:] else ""
        yield f"no row of {lacking[0]}{more}, which the journal holds"


def _expected(contents: Contents) -> Iterator[tuple[str, str]]:
    """The key and the name of each row, in the order of the journal."""
    events = iter(sorted(contents.events, key=lambda event: event.step))
    event: Event | None = next(events, None)
    for step in range(len(contents.records) + 1):
        while event is not None and event.step <= step:
            if event.body.get("kind") != START:
                yield _key(event.body), _name(event.body)
            event = next(events, None)
        if step < len(contents.records):
            yield f"step {step}", f"step {step}"


def _beyond(row: Row, contents: Contents) -> bool:
    step = row.get("step")
    return row.get("when") == "end" or (type(step) is int and step >= len(contents.records))


def _fits(row: Row, records: Sequence[Record]) -> bool:
    """Whether a row tells of a step what its record does; the mean of losses is between the least and the greatest."""
    step = row.get("step")
    if type(step) is not int or not 0 <= step < len(records):
        return False
    record = records[step]
    if (row["kind"] == "skipped") != bool(record.skipped) or row.get("lr") != plain_row({"lr": record.lr})["lr"]:
        return False
    if record.skipped:
        return bool(row.get("reason") == record.skipped)
    loss = row.get("train_loss")
    if not isinstance(loss, int | float) or not all(map(math.isfinite, record.losses)):
        return not all(map(math.isfinite, record.losses))
    room = 1e-6 * max(map(abs, record.losses), default=0.0)
    return not record.losses or min(record.losses) - room <= loss <= max(record.losses) + room


def _key(row: Row) -> str:
    return f"step {row.get('step')}" if row.get("kind") in STEPS else _text(row)


def _text(row: Row) -> str:
    return json.dumps(lasting(row), sort_keys=True)


def _name(row: Row) -> str:
    which = row.get("name", row.get("set", ""))
    at = f" of step {row['step']}" if "step" in row else ""
    return f"{row.get('kind')}{f' {which!r:.40}' if which else ''}{at}"
