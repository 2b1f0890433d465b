"""Walks of a newcomer, each by the commands of one page: from an empty folder with Python and git alone, timed.

python tests/walks.py --out results/walks        all walks (`make walks`)
python tests/walks.py --walk own-data            one

A walk clones the checkout (what is committed), makes the files that its page takes for granted, and runs the commands
of the page one after the other, as they stand there. Each command is printed before it runs, and is a row with its wall
and processor seconds. The first command that fails ends the walk.
"""

import argparse
import csv
import json
import os
import platform
import random
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REPEATED = "results/spam/seeds/mezo-lr0.0003-seed0"
AGAIN = "runs/again"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
THINGS = ("chairs", "lamps", "tables", "books", "cups", "plates", "shelves", "mirrors", "pillows", "carpets")
TEXTS = {
    "order": ("Please send me {n} {things}.", "I want to buy {n} {things}.", "I would like to order {n} {things}.",
              "{n} {things} to my address, please."),
    "question": ("When do the {n} {things} arrive?", "How much are {n} {things}?", "Do you have {n} {things} in red?",
                 "Why are the {n} {things} so late?"),
}  # fmt: skip


def commands(text: str) -> list[str]:
    """Return the indented command lines of a page, in order; lines that end with a backslash go on."""
    lines = re.findall(r"(?<=\n\n)(?:    .+\n)+", FENCE.sub("", text) + "\n")
    return [line.strip() for block in lines for line in re.sub(r"\\\n *", "", block).splitlines()]


def fenced(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return [block for name, block in FENCE.findall(text) if name == language]


def section(text: str, heading: str) -> str:
    """Return what stands below a heading, up to the next of the same depth or less.

    Raises:
        ValueError: the page has no such heading.
    """
    depth = len(heading) - len(heading.lstrip("#"))
    found = re.search(rf"^{re.escape(heading)}$\n(.*?)(?=^#{{1,{depth}}} |\Z)", text, re.DOTALL | re.MULTILINE)
    if not found:
        raise ValueError(f"no heading {heading!r}")
    return found[1]


def table_of_texts(rows: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return texts, each with its label: orders and questions of a shop."""
    draw = random.Random(seed)
    kinds = [sorted(TEXTS)[row % 2] for row in range(rows)]
    return [
        (draw.choice(TEXTS[kind]).format(n=draw.randint(2, 99), things=draw.choice(THINGS)), kind) for kind in kinds
    ]


@dataclass(frozen=True)
class Walk:
    """A page, the commands of it that are run, the files made beforehand, and a check of the outcome."""

    page: str
    chosen: Callable[[str], list[str]]
    prepare: Callable[[Path, str], None]
    check: Callable[[Path], dict[str, Any]]

    @property
    def text(self) -> str:
        """The page."""
        return (ROOT / self.page).read_text(encoding="utf-8")


def _own_estimator(folder: Path, page: str) -> None:
    """Save the module that the page tells to save."""
    mine = folder.parent / "staircase"  # the page makes it, and goes there
    blocks = fenced(page, "python")
    mine.mkdir()
    (mine / "staircase.py").write_text(next(block for block in blocks if "class Staircase" in block))


def _drawn(folder: Path) -> dict[str, Any]:
    figures = sorted(file.name for file in (folder.parent / "staircase").glob("staircase-*.pdf"))
    assert "staircase-bias.pdf" in figures, figures
    return {"figures": figures}


def _orders(folder: Path, page: str) -> None:
    """Write 200 labelled texts, the task file of the page, and texts without labels."""
    with (folder / "orders.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *table_of_texts(200)])
    with (folder / "new.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text",), *((text,) for text, _ in table_of_texts(40, seed=1))])
    (folder / "orders.toml").write_text(fenced(page, "toml")[0])


def _predicted(folder: Path) -> dict[str, Any]:
    with (folder / "answers.csv").open(newline="") as file:
        labels = [row["prediction"] for row in csv.DictReader(file)]
    right = sum(label == kind for label, (_, kind) in zip(labels, table_of_texts(40, seed=1), strict=True))
    assert right >= 30, f"{right} of 40 new texts"
    return {"new_texts_right": right, "new_texts": len(labels), **_final(folder / "runs/orders")}


def _compared(folder: Path) -> dict[str, Any]:
    """Return both test accuracies; they differ by less than five standard errors of two independent test samples."""
    again, shipped = (_final(folder / run) for run in (AGAIN, REPEATED))
    a, b, n = again["test_accuracy"], shipped["test_accuracy"], shipped["test_examples"]
    assert abs(a - b) < 5 * ((a * (1 - a) + b * (1 - b)) / n) ** 0.5, (again, shipped)
    assert again["forward_passes"] == shipped["forward_passes"]
    return {**again, "committed_test_accuracy": b, "committed": REPEATED}


def _final(run: Path) -> dict[str, Any]:
    lines = (run / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    (row,) = (row for row in map(json.loads, lines) if row["kind"] == "final")
    return {name: row[name] for name in ("test_accuracy", "test_examples", "forward_passes", "status")}


WALKS = {
    "own-estimator": Walk(
        "docs/own-estimator.md",
        lambda page: [line for line in commands(page) if "python -m llm" not in line],
        _own_estimator,
        _drawn,
    ),
    "own-data": Walk("docs/own-data.md", commands, _orders, _predicted),
    "findings": Walk(
        "docs/findings.md",
        lambda page: commands(section(page, "### Repeat a row")),
        lambda folder, page: None,
        _compared,
    ),
}


def walk(name: str, folder: Path) -> list[dict[str, Any]]:
    """Take a walk in an empty folder; return a row for each command and one for all.

    Raises:
        subprocess.CalledProcessError: a command failed.
        AssertionError: the commands succeeded, and the outcome is not what the page promises.
    """
    taken, place, rows = WALKS[name], folder / "checkout", []
    clone = f"git clone --quiet --depth 1 {shlex.quote(ROOT.as_uri())} {shlex.quote(str(place))}"
    timed(clone, folder, place)
    taken.prepare(place, taken.text)
    here = place
    for number, command in enumerate(taken.chosen(taken.text), 1):
        print(f"{name} {number}$ {command}", flush=True)
        here, spent = timed(command, here, place)
        rows.append({"kind": "walk-step", "walk": name, "step": number, "command": command, **spent})
        print(f"{name} {number}: {spent['seconds']:.1f} s, {spent['cpu_seconds']:.1f} s of processor", flush=True)
    total = {key: round(sum(row[key] for row in rows), 1) for key in ("seconds", "cpu_seconds")}
    return [*rows, {"kind": "walk", "walk": name, "page": taken.page, **total, **taken.check(place)}]


def timed(command: str, here: Path, place: Path) -> tuple[Path, dict[str, float]]:
    """Run a command where the last one ended; return where it ends, with its wall and processor seconds."""
    ended = place.parent / "ended-in"
    kept = {name: os.environ[name] for name in os.environ if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    kept |= {"PATH": f"{place}/.venv/bin:{os.environ['PATH']}", "ENDED": str(ended)}
    before, start = _processor(), time.monotonic()
    script = f'set -e\n{command}\npwd > "$ENDED"'
    subprocess.run(["bash", "-c", script], cwd=here, env=kept, check=True)
    spent = {"seconds": round(time.monotonic() - start, 1), "cpu_seconds": round(_processor() - before, 1)}
    return Path(ended.read_text().strip()), spent


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def machine() -> dict[str, Any]:
    """Return what the times were measured on."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "kind": "walk-machine",
        "processor": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "load": [round(load, 1) for load in os.getloadavg()],
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def main(words: Sequence[str]) -> None:
    """Take the walks, and append their rows to --out."""
    parser = argparse.ArgumentParser(description="The walks of docs, timed.", allow_abbrev=False)
    parser.add_argument("--walk", default=",".join(WALKS), help="names, separated by commas (default: all)")
    parser.add_argument("--out", type=Path, default=Path("build/walks"), help="folder of rows.jsonl")
    options = parser.parse_args(words)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.walk.split(","):
        with tempfile.TemporaryDirectory(prefix="walk-") as folder:
            before = machine()
            taken = walk(name, Path(folder))
        rows = [{**before, "walk": name, "load_after": machine()["load"]}, *taken]
        with (options.out / "rows.jsonl").open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        print(f"{name}: {rows[-1]}\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
