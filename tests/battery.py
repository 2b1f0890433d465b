"""Dieharder on the words of the streams, by a pipe: `python tests/battery.py --out results/random`.

Two sources: one stream from its begin on, and 1,024 directions of one parameter, a word of each in turn. Each p-value
of dieharder is a row in rows.jsonl; one below 1e-6 or above 1 - 1e-6 is a failure. Tests that are there already are
left out, so that an interrupted battery continues. The source "planted" repeats one bit in 64 and must fail.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from zobench import derive
from zobench.random import streams, words

DEFAULT = -1
TESTS = dict.fromkeys((0, 1, 2, 3, 4, *range(8, 14), 15, 16, 17, 100, 101, 102, *range(204, 210)), (DEFAULT,)) | {
    200: tuple(range(1, 13)),
    201: (2, 3, 4, 5),
    202: (2, 3, 4, 5),
    203: (0, 1, 3, 7, 15),
}
"""The tests that dieharder calls good, each with its ntuples: those of its `-a`, but for 203, sums over lags, which
it takes from 0 to 32 (a hundred million words a lag more)."""

DIRECTIONS = 1024
PIECE = 1 << 20


def one_stream(key: int) -> Iterator[bytes]:
    """Yield the words of one stream."""
    for start in range(0, 1 << 60, PIECE):
        yield words(key, start, start + PIECE).numpy().astype("<u4").tobytes()


def many_directions(key: int) -> Iterator[bytes]:
    """Yield a word of each direction in turn."""
    keys, each = [derive(key, index, "weight") for index in range(DIRECTIONS)], PIECE // DIRECTIONS
    for start in range(0, 1 << 60, each):
        drawn = torch.stack([words(k, start, start + each) for k in keys], -1)
        yield drawn.flatten().numpy().astype("<u4").tobytes()


def half_of_them(key: int) -> Iterator[bytes]:
    """Yield words whose lowest bit is that of the word before: planted."""
    for piece in one_stream(key):
        drawn = np.frombuffer(piece, "<u4").copy()
        drawn[1::2] = drawn[1::2] & ~np.uint32(1) | drawn[::2] & np.uint32(1)
        yield drawn.tobytes()


SOURCES = {"one stream": one_stream, "many directions": many_directions, "planted": half_of_them}


def dieharder(source: str, key: int, test: int, ntuple: int) -> list[dict[str, object]]:
    """Return a row for each p-value of a test."""
    began, command = time.monotonic(), ["dieharder", "-g", "200", "-d", str(test)]
    command += [] if ntuple == DEFAULT else ["-n", str(ntuple)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=False)
    assert process.stdin and process.stdout
    sent = 0
    try:
        for piece in SOURCES[source](key):
            process.stdin.write(piece)
            sent += len(piece)
    except BrokenPipeError:
        pass
    text = process.stdout.read().decode()
    process.wait()
    about = {"kind": "battery", "stream": streams.NAME, "source": source, "key": key, "test": test, "bytes": sent}
    about["seconds"] = round(time.monotonic() - began, 1)
    parts = [[part.strip() for part in line.split("|")] for line in text.splitlines() if line.count("|") == 5]
    found = [part for part in parts if part[1].isdigit()]
    names = ("name", "ntup", "samples", "repetitions", "p", "assessment")
    if not found:
        raise RuntimeError(f"dieharder -d {test} gave no p-value and ended with status {process.returncode}: {text}")
    return [{**about, **dict(zip(names, part, strict=True)), "p": float(part[4])} for part in found]


def main() -> int:
    """Print each p-value, and return 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/random"))
    parser.add_argument("--tests", type=int, nargs="+", default=list(TESTS), choices=TESTS)
    parser.add_argument("--sources", nargs="+", default=["one stream", "many directions"], choices=SOURCES)
    parser.add_argument("--key", type=int, default=1)
    options = parser.parse_args()
    if shutil.which("dieharder") is None:
        print("battery: skipped: there is no dieharder here (Debian's package dieharder)")
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "rows.jsonl"
    there = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {
        (row["source"], row["key"], row["test"], row["ntup"] if len(TESTS[row["test"]]) > 1 else "-1") for row in there
    }
    failed = [row for row in there if not 1e-6 < row["p"] < 1 - 1e-6 and row["source"] != "planted"]
    planned = [(test, ntuple) for test in options.tests for ntuple in TESTS[test]]
    for (test, ntuple), source in product(planned, options.sources):
        if (source, options.key, test, str(ntuple)) in done:
            continue
        rows = dieharder(source, options.key, test, ntuple)
        for row in rows:
            print(f"{source:16}{row['name']:24}{row['ntup']:>4} p = {row['p']:.8f}  {row['assessment']}", flush=True)
        with file.open("a") as out:
            out.writelines(json.dumps(row) + "\n" for row in rows)
        failed += [row for row in rows if not 1e-6 < row["p"] < 1 - 1e-6 and source != "planted"]
    print(summary([json.loads(line) for line in file.read_text().splitlines()]))
    print(f"{len(failed)} p-values below 1e-6 or above 1 - 1e-6")
    return 1 if failed else 0


def summary(rows: list[dict[str, object]]) -> str:
    """Return what docs/random.md says of all rows that are no planted ones."""
    rows = [row for row in rows if row["source"] != "planted"]
    if not rows:
        return "no p-values"
    p, weak = [row["p"] for row in rows], sum(row["assessment"] == "WEAK" for row in rows)
    far = stats.kstest(p, "uniform").statistic
    return (
        f"{len(p)} p-values of {len({row['test'] for row in rows})} of {len(TESTS)} tests, from {min(p):.2g} to "
        f"{max(p):.5f}, {weak} weak; {far:.3f} from the uniform law (Kolmogorov and Smirnov), where 5 % of uniform "
        f"samples are farther than {stats.kstwo.ppf(0.95, len(p)):.3f}"
    )


if __name__ == "__main__":
    sys.exit(main())
