"""One command for whoever has a GPU: everything that one must show, most important first, within some minutes."""

import time
from dataclasses import asdict
from pathlib import Path

from llm.gpu import beside
from llm.gpu.job import Here, Job, SkippedError
from llm.gpu.parts import PARTS, jobs
from llm.gpu.worker import FailedError, LateError, Worker
from llm.model.loading import require_device
from llm.options.bench import GpuOptions
from zobench.naming import require_known
from zobench.run import exit_status
from zobench.run.progress import note
from zobench.run.records import Row, Run

LEAST = 30.0
"""Seconds that a job may take whatever its share, where so many are left."""


def run(options: GpuOptions) -> int:
    """Run the command: GpuOptions says what it does."""
    for name in options.parts:
        require_known(name, PARTS, "part")
    if options.minutes <= 0:
        raise ValueError(f"minutes is {options.minutes}: give a positive number")
    if options.prepare is not None:
        beside.prepare(Path(options.prepare), Path(options.beside))
        note(f"{options.beside}: {', '.join(beside.FOLDERS)}")
        return exit_status.OK
    require_device(options.device)
    record = Run(options.out, {"command": "gpu", **asdict(options)}, free=("minutes", "parts", "beside"))
    worker = Worker(Here(options.device, record.folder, Path(options.beside)))
    until, outcomes = time.monotonic() + 60 * options.minutes, []
    try:
        for job in jobs(options.parts, worker.here.small):
            outcomes.append(_do(worker, job, record, 60 * options.minutes, until))
            record.append(outcomes[-1])
            print(_line(outcomes[-1]), flush=True)
    finally:
        worker.stop()
    note(f"rows: {record.folder / 'rows.jsonl'}")
    return exit_status.DIFFERENT if any(row["status"] in ("failed", "wrong") for row in outcomes) else exit_status.OK


def _do(worker: Worker, job: Job, record: Run, whole: float, until: float) -> Row:
    """Do a job, append its rows as they come, and return the row of its outcome."""
    left, began = until - time.monotonic(), time.monotonic()
    row: Row = {"kind": "gpu-job", "part": job.part, "job": job.name, "device": worker.here.device}
    if left <= 0:
        return {**row, "status": "skipped", "reason": "no time is left: give more --minutes"}
    status, reason, wrong = "ok", "", []
    try:
        for measured in worker.rows(job, min(left, max(LEAST, PARTS[job.part].share * whole))):
            record.append(measured)
            wrong += [measured.get("check", "")] if measured.get("held") is False and "check" in measured else []
        if wrong:
            status, reason = "wrong", "; ".join(wrong)
    except SkippedError as error:
        status, reason = "skipped", str(error)
    except FailedError as error:
        status, reason = "failed", str(error)
    except LateError as error:
        status, reason = "late", str(error)
    return {**row, "status": status, "reason": reason, "seconds": time.monotonic() - began}


def _line(row: Row) -> str:
    reason = f": {row['reason']}" if row["reason"] else ""
    return f"{row['part']:12}{row['job']:28}{row['status']:8}{row.get('seconds', 0.0):7.1f} s{reason}"
