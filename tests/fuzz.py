"""Malformed configurations, data files, journals, checkpoints and run folders: each must give an error in words, or a
correct result; never a traceback from inside, a hang, or a changed file.

python tests/fuzz.py --examples 100      (`make fuzz`)
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from zlib import crc32

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm.loop.loop import Loop
from llm.model import loading
from llm.options.journal import main as journal_command
from llm.options.train import TrainOptions
from llm.run import checkpoint, context
from llm.run.header import fingerprint, header
from llm.run.record import open_record
from zobench import ModuleSpace, derive
from zobench.random import streams
from zobench.run import journal_format
from zobench.run.command import run_command
from zobench.run.journal import Journal, Record, describe, read

SECONDS = 60
QUICK = {"train": 20, "dev": 10, "test": 10, "batch": 4, "max_tokens": 16, "save": False, "steps": 3}
VALUES = (
    "-1",
    "0",
    "2.5",
    "1e400",
    "nan",
    "inf",
    "-inf",
    '""',
    '"\\u0000"',
    "true",
    "[]",
    "{}",
    '"../../x"',
    '"/dev/full"',
)
VALUES += (str(10**30), "1979-05-27", f'"{"é" * 3000}"', '"mezo:n=-3"', '"meta"', '"auto"', '"mezo:n=2:n=3"', '"%s%n"')
VALUES += ('"os:abort"', '"mezo:law=os.abort"', '["spam", "os:abort"]')  # code, which no file may ask for
TOML = (
    "= 3",
    "x",
    "lr = 1\nlr = 2",
    "\x00",
    "[a]\nlr=1",
    "lr = " + "[" * 3000,
    "nope = 3",
    "sede = 1",
    'command = "study"',
)
HEADER = {
    "estimator": "LineEstimator(law=Gaussian(), stencil=CentralStencil(), epsilon=0.001, n=1)",
    "keys": {"key": ["directions", 0], "minibatch": ["minibatch", 0]},
    "weight_decay": 0.0,
    "environment": {},
}


class Broken(AssertionError):
    """What must not happen: a traceback, a hang, or a changed file."""


class Tally(Counter):
    """How many cases ended how."""

    def case(self, kind: str, what: object, act: Callable[[], bool], kept: Path | None = None) -> None:
        """Count a case: act() returns whether the input was read (and checked), or raises an error in words."""
        before = contents(kept) if kept else None
        try:
            with in_time():
                self[kind, "read" if act() else "refused"] += 1
        except (ValueError, OSError) as error:
            if len(str(error)) < 8:
                raise Broken(f"{kind} {what!r}: {error!r} says nothing") from error
            self[kind, "refused"] += 1
        except Exception as error:
            raise Broken(f"{kind} {what!r}: {type(error).__name__}: {error}") from error
        if kept and contents(kept) != before:
            raise Broken(f"{kind} {what!r}: a file was changed")


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    def late(*_: object) -> None:
        raise Broken(f"took more than {SECONDS} seconds")

    previous = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"}


def command(argv: list[str], act: Callable[[TrainOptions], None]) -> bool:
    """Run `train` with `act` in place of the training; True if it was reached and went well."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            run_command("python -m llm", "", {"train": (TrainOptions, act)}, ["train", *argv])
    except SystemExit as stopped:
        words = errors.getvalue()
        if stopped.code != 2 or not words.strip() or "Traceback" in words:
            raise Broken(f"ended with {stopped.code}: {words[:500]}") from None
        return False
    return True


def prepare(options: TrainOptions) -> None:
    """All of a run that comes before its first step."""
    loop = Loop.of(options)
    loop._lock.release()
    json.dumps(header(loop.context, loop.stepper))


def arguments_of(values: dict[str, object]) -> list[str]:
    return [
        part
        for name, value in values.items()
        for part in ([f"--no-{name}"] if value is False else [f"--{name.replace('_', '-')}", str(value)])
    ]


def configurations(work: Path, tally: Tally, examples: int, drawn: random.Random) -> None:
    """Every option with every odd value, and texts that are no TOML."""
    file, out = work / "in" / "c.toml", work / "out"
    file.parent.mkdir()
    names = [field.name for field in fields(TrainOptions) if field.name not in ("provenance", "out")]
    cases = [(name, value) for name in names for value in VALUES]
    texts = [*TOML, *(f"{name} = {value}" for name, value in drawn.sample(cases, min(len(cases), 4 * examples)))]

    def one(text: str) -> None:
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        shutil.rmtree(out, ignore_errors=True)
        given = {name: value for name, value in QUICK.items() if not text.startswith(f"{name} =")}
        argv = ["--config", str(file), "--out", str(out), *arguments_of(given)]
        tally.case("configuration", text, lambda: command(argv, prepare), file.parent)
        if {p.name for p in work.iterdir()} - {"in", "out", "model"}:
            raise Broken(f"configuration {text!r} wrote beside its folder")

    for text in texts:
        one(text)
    settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))(
        given(st.text(max_size=60))(one)
    )()


ROWS = [f"a sentence of number {i}\t{i % 2}" for i in range(60)]
LINES = (
    "\t1",
    "fine",
    "fine\t2",
    "fine\t1\t3",
    "\x00\t1",
    "x" * 200_000 + "\t0",
    '"\t0',
    "\ufeff\t1",
    "\r\r\t1",
    " \t0",
)
COMMA = ("fine", ",1", "fine,7", '"fine,1', "a,1,b", "\x00,1", "x" * 200_000 + ",1", "fine\udce9,1")


def data_files(work: Path, tally: Tally, examples: int, drawn: random.Random) -> None:
    """Data files with odd lines, odd bytes and odd names."""
    folder = work / "data"
    folder.mkdir()

    def split(task: str) -> bool:
        argv = ["--task", task, "--data", str(folder), *arguments_of(QUICK)]
        return command(argv, lambda options: context.split_of(options) and None)

    def tsv(data: bytes) -> None:
        (folder / "train.tsv").write_bytes(data)
        tally.case("data file", data[:200], lambda: split("sst2"), folder)

    def comma(data: bytes) -> None:
        (folder / "spam.csv").write_bytes(data)
        tally.case("data file", data[:200], lambda: split("spam"), folder)

    whole = "\n".join(["sentence\tlabel", *ROWS, ""])
    (folder / "dev.tsv").write_text(whole.replace("a sentence", "a test"))
    for line in LINES:
        tsv(("\n".join(["sentence\tlabel", *ROWS[:30], line, *ROWS[30:]]) + "\n").encode("utf-8", "surrogatepass"))
    for line in COMMA:
        rows = [f"{word} {row}".replace("\t", ",") for row in ROWS for word in ("one", "two", "six", "red")]
        comma(("\n".join(["text,label", *rows[:30], line, *rows[30:]]) + "\n").encode("utf-8", "surrogateescape"))
    for data in (
        b"",
        b"\n",
        b"label\tsentence\n0\tfine\n",
        b"sentence\tlabel\tlabel\n",
        b"\xff\xfe\x00",
        b"sentence\tlabel",
    ):
        tsv(data)
        comma(data)
    for _ in range(examples):
        tsv(mutated(whole.encode(), drawn))
    (folder / "train.tsv").unlink()
    (folder / "train.tsv").mkdir()
    tally.case("data file", "a folder", lambda: split("sst2"), folder)


OWN = {
    "d.csv": (",text,label\n" + "".join(f'{i},"sentence ""{i}"", é",{i % 2}\n' for i in range(90))).encode(),
    "d.tsv": ("text\tlabel\n" + "".join(f"sentence {i}\t{i % 2}.0\n" for i in range(90))).encode(),
    "d.jsonl": "".join(f'{{"text": "sentence {i} \\ud83d\\ude00", "label": {i % 2}}}\n' for i in range(90)).encode(),
    "d.json": json.dumps([{"text": f"sentence {i}", "label": i % 2} for i in range(90)], indent=1).encode(),
}
INSERTED = (
    *("", "  ", ",", ",,", "\t", "\r", '"', "[", "]", "}", "\x00", "\x1a", "\ufeff", "x" * 200_000, "[" * 20_000),
    *('{"text": NaN, "label": 1}', '{"text": 1e999, "label": 1}', '{"text": "\\ud83d", "label": 1}', "é", "{}"),
    *(
        '{"text": ' + "9" * 5000 + "}",
        '{"text": null, "label": 0}',
        '{"text": "", "label": 0}',
        '{"text": {}, "label": 0}',
    ),
    *(
        ',"",0',
        ",nan,1",
        ",NaN,nan",
        "\t1",
        "nan\t0",
        '"a ""b"""\t1',
        "a\t1e0",
        '{"text": "a", "text": "b", "label": 1}',
    ),
)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1", "utf-7")
KEYS = ("", "quoting = true", "quoting = false", 'separator = ";"', 'separator = "\\u0000"', 'encoding = "hex"')


def own_files(work: Path, tally: Tally, examples: int, drawn: random.Random) -> None:
    """Task files over data files of each kind: odd lines, line ends, encodings, keys, and damage."""
    folder = work / "own"
    folder.mkdir()

    def sound(options: TrainOptions) -> None:
        for example in (example for part in context.split_of(options) for example in part):
            if set(example.prompt.removesuffix(" is")) <= set(" \t\r\n") or "\0" in example.prompt:
                raise Broken(f"the prompt {example.prompt!r} was taken")
            example.prompt.encode()

    def tried(name: str, data: bytes, keys: str = "") -> None:
        (folder / name).write_bytes(data)
        (folder / "t.toml").write_text(
            f'train = "{name}"\nprompt = "{{text}} is"\n{keys}\n[labels]\n0 = " bad"\n1 = " good"\n'
        )
        argv = ["--task", str(folder / "t.toml"), *arguments_of(QUICK)]
        tally.case("own file", (name, keys, data[:300]), lambda: command(argv, sound), folder)

    for name, whole in OWN.items():
        middle = whole.index(b"\n", len(whole) // 2) + 1
        for line in INSERTED:
            tried(name, whole[:middle] + line.encode() + b"\n" + whole[middle:])
        for end in (b"\r", b"\r\n", b"\r\r\n", b"\n\r"):
            tried(name, whole.replace(b"\n", end))
        for written in drawn.sample(ENCODINGS, min(len(ENCODINGS), 1 + examples // 4)):
            for keys in (
                "",
                *(f'encoding = "{read_as}"' for read_as in drawn.sample(ENCODINGS, 2)),
                f'encoding = "{written}"',
            ):
                tried(name, whole.decode().encode(written, "replace"), keys)
        for keys in KEYS:
            tried(name, whole, keys)
        for _ in range(examples):
            tried(name, mutated(whole.decode().encode(drawn.choice(("utf-8", "utf-16"))), drawn))


def mutated(data: bytes, drawn: random.Random) -> bytes:
    """The data with one to three changes: bytes flipped, cut, doubled, swapped, zeroed or inserted."""
    changed = bytearray(data)
    for _ in range(drawn.randint(1, 3)):
        a, b = sorted(drawn.randrange(len(changed) + 1) for _ in range(2))
        b = min(b, a + drawn.choice((1, 4, 40, 400)))
        kind = drawn.randrange(6)
        if kind == 0 and a < len(changed):
            changed[a] ^= 1 << drawn.randrange(8)
        elif kind == 1:
            del changed[a:b]
        elif kind == 2:
            changed[a:a] = changed[a:b]
        elif kind == 3:
            changed[a:b] = bytes(b - a)
        elif kind == 4:
            changed[a:a] = drawn.randbytes(drawn.choice((1, 8, 60)))
        else:
            del changed[a:]
    return bytes(changed)


def record(step: int, **changes: object) -> Record:
    keys = {"key": derive("directions", 0, step), "minibatch": derive("minibatch", 0, step)}
    return Record(step, **{**keys, "losses": (0.5, 0.7), "lr": 1e-4, **changes})


def journals(work: Path, tally: Tally, examples: int, drawn: random.Random) -> None:
    """Journals with damage, and journals that are whole but say odd things."""
    folder = work / "journals"
    folder.mkdir()
    file = folder / "journal.bin"
    writer = Journal(file, HEADER)
    for step in range(12):
        writer.note({"kind": "evaluation", "step": step, "dev_loss": 0.5})
        writer.append(record(step, skipped="x" if step % 3 == 0 else ""))
    writer.close()
    data, wanted = file.read_bytes(), read(file).records

    def checked(damaged: bytes) -> bool:
        found = read(file)
        if repr(found.records) != repr(wanted[: len(found.records)]) or found.header != HEADER:
            raise Broken("what was read is not what was written")
        status, words = quietly(["verify", str(folder)])
        if status:
            raise Broken(words)
        return True

    def continued(damaged: bytes) -> bool:
        journal = Journal(file, HEADER)
        journal.close()
        whole = file.read_bytes()
        if not damaged.startswith(whole) or len(whole) != len(damaged) - journal.cut:
            raise Broken("more than a torn tail was cut")
        return True

    for number in range(3 * examples):
        damaged = mutated(data, drawn)
        file.write_bytes(damaged)
        tally.case("journal", (number, damaged), lambda damaged=damaged: checked(damaged), folder)
        with contextlib.suppress(ValueError):
            continued(damaged)
    for odd in odd_journals():
        file.write_bytes(odd)
        tally.case("journal", odd[:300], lambda: quietly(["replay", str(folder)])[0] == 0, folder)
        tally.case("journal", odd[:300], lambda: quietly(["show", str(folder)])[0] == 0, folder)
        tally.case("journal", odd[:300], lambda: quietly(["diff", str(folder), str(folder)])[0] == 0, folder)


def quietly(argv: list[str]) -> tuple[int, str]:
    words = io.StringIO()
    with contextlib.redirect_stderr(words), contextlib.redirect_stdout(words):
        status = journal_command(argv)
    if (status and not words.getvalue().strip()) or "Traceback" in words.getvalue():
        raise Broken(f"{argv} ended with {status}: {words.getvalue()!r}")
    return status, words.getvalue()


def odd_journals() -> Iterator[bytes]:
    """Whole journals, checksums and all, of odd headers and odd records."""
    odd = (None, 3, -1.5, "", "x", [], {}, "../../x", float("nan"), [["w", -1, "float32", True]], "\ud800")
    model = loading.load("tiny-opt").model
    full = {**HEADER, "model": "tiny-opt", "device": "cpu", "dtype": "float32", "engine": "plain"}
    full |= {"layout": describe(ModuleSpace(model).layout), "weights": fingerprint(model)}
    full |= {"stream": streams.NAME, "rule": "sgd", "epsilon": 1e-3}
    yield raw(full, [record(0), record(1, skipped="x")])
    for name in full:
        for value in odd[:: 1 if name in ("estimator", "keys", "weight_decay") else 3]:
            yield raw({**full, name: value})
    for text in (b"[]", b"3", b"{", b"\xff", b"[" * 100_000, b""):
        data = journal_format.HEAD.pack(journal_format.MAGIC, journal_format.VERSION, len(text)) + text
        yield data + struct.pack("<I", crc32(data))
    for version in (0, 1, 3):
        yield raw(full, version=version)
    for changes in ({"losses": ()}, {"losses": (1.0,) * 9}, {"lr": float("nan")}, {"key": 2**64 - 1}, {"checksum": 1}):
        yield raw(full, [record(0, **changes)])
    for losses in ((float("nan"), 1.0), (1e308, -1e308)):
        yield raw(full, [record(0, losses=losses), record(1, losses=losses, skipped="x")])


def raw(about: dict, records: list[Record] | None = None, version: int = journal_format.VERSION) -> bytes:
    text = json.dumps(about).encode()
    data = journal_format.HEAD.pack(journal_format.MAGIC, version, len(text)) + text
    data += struct.pack("<I", crc32(data))
    derived = journal_format.DerivedKeys.of(HEADER)
    for one in records or []:
        data += journal_format.encode(one, int.from_bytes(data[-4:], "little"), derived)
    return data


def checkpoints(work: Path, tally: Tally, examples: int, drawn: random.Random) -> None:
    """Checkpoints with damage: none is taken for the weights that were kept."""
    folder = work / "checkpoints"
    tensors = {"a": torch.arange(60.0), "b": torch.ones(3, 4, dtype=torch.bfloat16)}
    file = checkpoint.save(folder, 3, tensors, {"run": "x"})
    data = file.read_bytes()

    def taken() -> bool:
        with contextlib.redirect_stderr(io.StringIO()):
            found = checkpoint.latest(folder, 9, {"run": "x"})
        if found is None:
            return False
        if found.step != 3 or any(not torch.equal(found.tensors[name], tensors[name]) for name in tensors):
            raise Broken("the checkpoint is not the one that was kept")
        return True

    odd = (b"", b"\x00" * 8, b"\xff" * 8, struct.pack("<Q", 2**62) + b"{}", struct.pack("<Q", 2) + b"{}", data[:-1])
    for damaged in (data, *odd, data + b"x", *(mutated(data, drawn) for _ in range(2 * examples))):
        file.write_bytes(damaged)
        tally.case("checkpoint", damaged[:300], taken, folder)


ODD_ROWS = ("3", "[]", "{}", '{"kind": "evaluation"}', '{"kind": "step", "step": "x"}', '{"kind": 3}', "[" * 50_000)
ODD_ROWS += (
    '{"kind": "step", "step": -1}',
    '{"kind": "evaluation", "step": 1, "dev_loss": "x"}',
    '{"kind": "final"}',
    '{"kind": "final", "status": "ok", "step": NaN}',
    '{"kind": "final", "status": "ok", "step": ' + "9" * 5000 + "}",
    "é",
)


def folders(work: Path, tally: Tally, examples: int, drawn: random.Random) -> None:
    """Folders of runs with damaged rows, configuration and environment."""
    out = work / "folder"
    options = TrainOptions(**QUICK, out=str(out))
    open_record(options).append({"kind": "baseline", "name": "chance"})
    kept = {name: (out / name).read_bytes() for name in ("rows.jsonl", "config.toml", "environment.json")}

    def opened() -> bool:
        open_record(options)
        return True

    damage = [("rows.jsonl", kept["rows.jsonl"] + f"{row}\n".encode()) for row in ODD_ROWS]
    damage += [(name, mutated(data, drawn)) for _ in range(examples) for name, data in kept.items()]
    for name, damaged in damage:
        for other, data in kept.items():
            (out / other).write_bytes(data)
        (out / name).write_bytes(damaged)
        keep = out if damaged.endswith(b"\n") and b"\n" in damaged else None  # a torn last row is cut
        tally.case("run folder", (name, damaged[:300]), opened, keep)


KINDS = (configurations, data_files, own_files, journals, checkpoints, folders)


def fuzz(examples: int, seed: int = 0, kinds: tuple = KINDS) -> Tally:
    """Try all kinds of malformed input; raise Broken at the first that is met badly."""
    tally = Tally()
    for kind in kinds:
        with tempfile.TemporaryDirectory() as work:
            kind(Path(work), tally, examples, random.Random(f"{seed} {kind.__name__}"))
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tally = fuzz(arguments.examples, arguments.seed)
    for (kind, outcome), count in sorted(tally.items()):
        print(f"{kind:15} {outcome:8} {count}")
    print(f"{tally.total()} malformed inputs: each was refused in words or read correctly")
    return 0


if __name__ == "__main__":
    sys.exit(main())
