"""Write a run into a folder until there is no room: python tests/full.py FOLDER."""

import resource
import sys
from pathlib import Path

from zobench.run.journal import Journal, Record, read
from zobench.run.records import Run

KEYS = {"key": ["directions", 0], "minibatch": ["minibatch", 0]}
HEADER = {"estimator": "", "keys": KEYS, "weight_decay": 0.0, "environment": {}}


def fill(folder: Path, limit: int | None = None) -> str:
    """What is told when a write fails, after a look at what was kept; no file may grow beyond `limit` bytes."""
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    run, journal = Run(folder, {"lr": 1}), Journal(folder / "journal.bin", HEADER)
    step, told = 0, ""
    while not told:
        try:
            journal.append(Record(step, 2 * step + 1, (0.5,) * 50))
            run.append({"kind": "step", "step": step, "text": "x" * 200})
            step += 1
        except OSError as error:
            told = str(error)
    kept, rows = read(folder / "journal.bin"), (folder / "rows.jsonl").read_bytes()
    assert step > 3 and kept.torn == 0 and len(kept.records) in (step, step + 1)
    assert rows.count(b"\n") == step and rows.endswith(b"}\n")
    return told


if __name__ == "__main__":
    print(fill(Path(sys.argv[1])))
