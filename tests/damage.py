"""Damages single files of run folders, gives the commands that a user would give next, and counts what they do: an
error that names the file, the same result as without damage, or words about the file. Anything else is a failure.

python tests/damage.py --damages 100     a seeded sample that covers files and kinds of damage (`make damage`)
python tests/damage.py --all
"""

import argparse
import contextlib
import io
import random
import re
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import soak
import torch
from kill_at import SHORT

from analysis.__main__ import main as analysis
from llm.__main__ import main as llm
from zobench.run.exit_status import DIFFERENT

METHODS = {"zeroth-order": "kerzoo:n=2", "first-order": "adamw"}
COMMANDS = ("train", "verify", "replay", "export", "report")
WAY_OUT = re.compile(r"\b(remove|give|bring|correct|restore|make room|move|fetch|written by)\b")
UNREAD = {"README.md", ".lock", "generation_config.json"}
"""Files that no command takes a result from."""
LIMITS = {"report": ("rows.jsonl", "environment.json", "config.toml")}
"""Command -> files without a checksum: a digit that became another is not seen."""


class Damage(NamedTuple):
    """One change to one file of a run folder; `draw` seeds where in the file."""

    order: str
    state: str
    file: str
    kind: str
    draw: int


class Ended(NamedTuple):
    """How a command ended: its status (None for a traceback), its words, and its result."""

    status: int | None
    words: str
    result: object


def flip(file: Path, drawn: random.Random) -> None:
    data = bytearray(file.read_bytes())
    if data:
        data[drawn.randrange(len(data))] ^= 1 << drawn.randrange(8)
    file.write_bytes(data)


def cut(file: Path, drawn: random.Random) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: drawn.randrange(len(data))] if data else data)


def double(file: Path, drawn: random.Random) -> None:
    data = file.read_bytes()
    file.write_bytes(data + data[drawn.randrange(len(data)) if data else 0 :])


KINDS: dict[str, Callable[[Path, random.Random], None]] = {
    "bit flipped": flip,
    "cut": cut,
    "deleted": lambda file, drawn: file.unlink(),
    "emptied": lambda file, drawn: file.write_bytes(b""),
    "tail doubled": double,
}


def arguments(work: Path, method: str) -> list[str]:
    """The command line of a training run into work/run."""
    options = soak.RUN | {"method": method} | soak.METHODS[method] | SHORT | {"model": str(work / "model")}
    named = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return [*named, "--out", str(work / "run")]


def made(work: Path, order: str, state: str) -> Path:
    """Return a run folder, finished or killed before the row of its sixth step."""
    out, method = work / f"{order}, {state}", METHODS[order]
    patch = (lambda: None) if state == "finished" else soak.at_row("step", 6)
    soak.finish(soak.start(work, work / "run", patch, method, SHORT))
    (work / "run").rename(out)
    return out


def command(work: Path, order: str, name: str) -> Ended:
    """Give a command about work/run in this process."""
    run, to = str(work / "run"), work / "to"
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir()
    act = {
        "train": lambda: llm(["train", *arguments(work, METHODS[order])]),
        "verify": lambda: llm(["journal", "verify", run]),
        "replay": lambda: llm(["journal", "replay", run]),
        "export": lambda: llm(["export", run, "--to", str(to / "model")]),
        "report": lambda: analysis(["tables", run]),
    }[name]
    said, told = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            status = act()
    except SystemExit as stopped:
        status = stopped.code if isinstance(stopped.code, int) else 1
    except BaseException as error:
        return Ended(None, f"{type(error).__name__}: {error}", None)
    return Ended(status, said.getvalue() + told.getvalue(), result(work, name, said.getvalue()))


def result(work: Path, name: str, said: str) -> object:
    """What a command is given for."""
    if name == "train":
        try:
            return *soak.what_counts(work / "run")[:4], read_all(work / "run/model")
        except (OSError, ValueError) as error:
            return repr(error)
    if name == "verify":  # checkpoints come and go: those that are there must be sound
        said = "\n".join(line for line in said.splitlines() if not line.endswith("sound, of this journal"))
    return read_all(work / "to/model") if name == "export" else said


def read_all(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in UNREAD)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def judged(name: str, file: str, kind: str, sound: Ended, found: Ended) -> str:
    """The outcome of a command on a damaged folder, beside the one on the sound folder."""
    named = Path(file).name in found.words or str(Path(file).parent) + " " in found.words
    if found.status is None:
        return "traceback"
    if found.status != sound.status:
        answered = name == "verify" or found.status == DIFFERENT  # what does not hold is what was asked
        return "error" if named and (answered or WAY_OUT.search(found.words)) else "unclear error"
    if name == "verify" and kind == "deleted" and file.startswith("checkpoints/"):
        return "identical"  # a replay does without it
    if name == "verify" and found.words == sound.words and covered(file):
        return "silent"
    if found.result == sound.result:
        return "identical"
    return "told" if named else "silent"


def covered(file: str) -> bool:
    """Whether `journal verify` answers for a file."""
    return file.startswith(("journal.bin", "checkpoints/", "model/")) and Path(file).name not in UNREAD


def damages(folders: dict[tuple[str, str], Path], most: int | None, seed: int) -> list[Damage]:
    """Every file of every folder with every kind of damage, or a sample in which each kind and file has its turn."""
    drawn = random.Random(seed)
    found = [
        Damage(*key, str(file.relative_to(folder)), kind, drawn.randrange(2**32))
        for key, folder in folders.items()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        for kind in KINDS
    ]
    drawn.shuffle(found)
    turns: Counter[tuple[str, str]] = Counter()
    ranked = []
    for damage in found:
        turns[damage.file, damage.state] += 1
        ranked.append((turns[damage.file, damage.state], damage))
    return [damage for _, damage in sorted(ranked, key=lambda pair: pair[0])[:most]]


def tried(work: Path, most: int | None, seed: int, commands: Iterable[str] = COMMANDS) -> Counter[tuple[str, str, str]]:
    """Damage folders, give every command to each, and return how many of a command and file had which outcome."""
    folders = {(order, state): made(work, order, state) for order in METHODS for state in ("finished", "unfinished")}
    place = partial(shutil.copytree, dst=work / "run", dirs_exist_ok=True)
    sound = {}
    for (order, state), folder in folders.items():
        for name in commands:
            shutil.rmtree(work / "run", ignore_errors=True)
            place(folder)
            sound[order, state, name] = command(work, order, name)
    counts: Counter[tuple[str, str, str]] = Counter()
    for damage in damages(folders, most, seed):
        for name in commands:
            shutil.rmtree(work / "run", ignore_errors=True)
            place(folders[damage.order, damage.state])
            KINDS[damage.kind](work / "run" / damage.file, random.Random(damage.draw))
            found = command(work, damage.order, name)
            outcome = judged(name, damage.file, damage.kind, sound[damage.order, damage.state, name], found)
            if outcome not in GOOD:
                if known(name, damage, outcome):
                    outcome = "known"
                print(f"{outcome}: {name}, {damage}: {found.status} {found.words.strip()[-300:]!r}")
            counts[name, damage.kind, outcome] += 1
    return counts


GOOD = ("error", "identical", "told")


def known(name: str, damage: Damage, outcome: str) -> bool:
    return outcome == "silent" and damage.file.startswith(LIMITS.get(name, ()))


def table(counts: Counter[tuple[str, str, str]]) -> str:
    """Command and kind of damage down, outcomes across."""
    outcomes = [*GOOD, *sorted({outcome for *_, outcome in counts} - set(GOOD))]
    lines = [f"{'':24}" + "".join(f"{outcome:>14}" for outcome in outcomes)]
    for name in COMMANDS:
        for kind in KINDS:
            lines.append(f"{name + ', ' + kind:24}" + "".join(f"{counts[name, kind, one]:14}" for one in outcomes))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--damages", type=int, default=100, help="so many, each followed by five commands")
    parser.add_argument("--all", action="store_true", help="every damage of every file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    work = Path(tempfile.mkdtemp(prefix="damage-"))
    try:
        soak.small_model(work / "model")
        counts = tried(work, None if options.all else options.damages, options.seed)
    finally:
        shutil.rmtree(work)
    print(table(counts), flush=True)
    good = sum(number for (*_, outcome), number in counts.items() if outcome in GOOD)
    listed = sum(number for (*_, outcome), number in counts.items() if outcome == "known")
    print(f"{good} of {counts.total()} commands on damaged folders held, {listed} are listed as known")
    return 0 if good + listed == counts.total() else 1


if __name__ == "__main__":
    sys.exit(main())
