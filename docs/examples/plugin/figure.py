"""python figure.py FILE: the bias of the estimator against epsilon, from an audit of zobench."""

import sys
import tempfile
from pathlib import Path

import pandas

from zobench import figures
from zobench.__main__ import main as zobench

TARGET = "zobench_staircase:Staircase"
AUDIT = ["audit", TARGET, "--problem", "smooth", "--epsilons", "0.1,0.2,0.4,0.8", "--samples", "500"]


def rows(folder: Path) -> pandas.DataFrame:
    """Run the audit; return its rows of bias."""
    if zobench([*AUDIT, "--out", str(folder)]):
        sys.exit("a check failed: see the table above")
    return pandas.read_json(folder / "rows.jsonl", lines=True).query("kind == 'bias'")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = rows(Path(folder) / "audit")
    with figures.printed_on(figures.Sheet(width=3.4, names={TARGET: "Staircase, n = 4"})):
        figures.write([("bias", figures.bias(found))], Path(sys.argv[1]))
