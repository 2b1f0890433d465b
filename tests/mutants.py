"""Changes one constant, bound, operation, condition, term or call at a time, and counts the changes that tests notice.

python tests/mutants.py --sample 300 --seed 0      what `make mutants` runs; it continues where it was interrupted
python tests/mutants.py --limit 60                 at most so many more
python tests/mutants.py --again                    the survivors once more, after new tests

mutants.toml names the strata, their modules and tests, and the mutants that are equivalent. Each mutant is compiled in
a forked child that has the third-party packages loaded; no file is changed. Tests run from the fastest on; those of
more than SLOW seconds are left out, so that the share killed is a lower bound. A row names its commit; older rows have
none. mutmut 3 changes no constant of a module and cosmic-ray imports torch anew for every mutant: hence a runner of our
own.
"""

import argparse
import ast
import contextlib
import hashlib
import importlib
import importlib.machinery
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import mutations  # noqa: E402
import pytest  # noqa: E402

OURS = {"zobench", "synthetic", "llm", "analysis"}
SLOW = 3.0
LEAST = 8  # mutants of a stratum
MEMORY = 16 * 2**30  # a mutant of an exponent asks for all there is
WANTED = 0.95


class Mutant(NamedTuple):
    """A mutant of a file; `name` is what rows and mutants.toml call it."""

    stratum: str
    file: str
    change: mutations.Mutant

    @property
    def name(self) -> str:
        """The file and the change."""
        return f"{self.file} {self.change.name}"


def sampled(strata: dict[str, Any], size: int, seed: int) -> list[Mutant]:
    """A part of each stratum in proportion to its mutants, LEAST or more; whether one is drawn depends on its name."""
    every = {
        name: [Mutant(name, file, m) for file in _files(of) for m in _mutants(file)] for name, of in strata.items()
    }
    total = sum(map(len, every.values()))
    large = [name for name, mutants in every.items() if size * len(mutants) >= LEAST * total]
    share = (size - LEAST * (len(every) - len(large))) / sum(len(every[name]) for name in large)
    chosen = []
    for name, mutants in every.items():
        mutants.sort(key=lambda m: hashlib.sha256(f"{seed} {m.name}".encode()).digest())
        part = mutants[: math.ceil(share * len(mutants)) if name in large else LEAST]
        chosen += [((i + 0.5) / len(part), m) for i, m in enumerate(part)]
    return [m for _, m in sorted(chosen, key=lambda pair: pair[0])][:size]  # so that any beginning is stratified too


def _files(stratum: dict[str, Any]) -> list[str]:
    return sorted(str(p.relative_to(ROOT)) for pattern in stratum["modules"] for p in ROOT.glob(pattern))


def _mutants(file: str) -> Iterator[mutations.Mutant]:
    return mutations.mutants(ast.parse((ROOT / file).read_text()))


class _Fastest:
    """Orders the tests by the seconds of CPU that they took, or notes them: those of a clock grow with other work."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.known, self.seconds = seconds, dict[str, float]()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.known:
            items[:] = [item for item in items if self.known.get(item.nodeid, SLOW) < SLOW]
            items.sort(key=lambda item: self.known[item.nodeid])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        start = sum(os.times()[:4])
        result = yield
        self.seconds[item.nodeid] = sum(os.times()[:4]) - start
        return result


def in_child(work: Callable[[int], int], seconds: float) -> tuple[int, bytes]:
    """Run in a fork that may take so many seconds of CPU; the exit status, negative for a signal, and what it wrote."""
    reader, writer = os.pipe()
    if pid := os.fork():
        os.close(writer)
        with open(reader, "rb") as pipe:
            said = pipe.read()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1,) * 2)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.alarm(10 * int(seconds + 1))
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        os._exit(work(writer))
    finally:
        os._exit(pytest.ExitCode.INTERNAL_ERROR)


def _tested(tests: list[str], plugin: _Fastest) -> int:
    options = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return int(pytest.main([*options, *(f"tests/{test}" for test in tests)], [plugin]))


def baseline(tests: list[str]) -> dict[str, float]:
    """CPU seconds of each test without a change; this process imports the third-party modules that they did."""

    def work(pipe: int) -> int:
        plugin = _Fastest({})
        status = _tested(tests, plugin)
        loaded = [name for name, m in sys.modules.items() if "site-packages" in (getattr(m, "__file__", None) or "")]
        os.write(pipe, json.dumps([plugin.seconds, loaded]).encode())
        return status

    status, said = in_child(work, 600)
    if status:
        raise SystemExit(f"{', '.join(tests)}: fail without a change (status {status})")
    seconds, loaded = json.loads(said)
    for name in loaded:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    assert not OURS & sys.modules.keys(), "a child would not import the changed module"
    return seconds


def outcome(mutant: Mutant | None, tests: list[str], seconds: dict[str, float]) -> str:
    """Survived, killed or timeout; None is the code as it is."""

    def work(pipe: int) -> int:
        original, changed = importlib.machinery.SourceFileLoader.get_code, str(ROOT / mutant.file) if mutant else ""

        def get_code(self: Any, name: str) -> Any:
            if mutant is None or self.path != changed:
                return original(self, name)
            return compile(mutant.change.of(ast.parse(Path(changed).read_text())), changed, "exec")

        importlib.machinery.SourceFileLoader.get_code = get_code
        return _tested(tests, _Fastest(seconds))

    status, _ = in_child(work, 20 + 3 * sum(s for s in seconds.values() if s < SLOW))
    if status > pytest.ExitCode.INTERRUPTED:
        raise RuntimeError(f"{mutant and mutant.name}: pytest ended with {status}")
    return "survived" if status == 0 else "timeout" if status in (-signal.SIGXCPU, -signal.SIGALRM, -9) else "killed"


def commit() -> str:
    """The commit of this checkout, as environments name it; this process must not import ours."""
    asked = "from zobench.run.records import environment; print(environment()['commit'])"
    return subprocess.run(
        [sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


def commits(rows: list[dict[str, Any]]) -> str:
    """How many mutants have their last row of which commit."""
    last = {row["mutant"]: row.get("commit") for row in rows}
    return ", ".join(
        f"{count} of {name or 'a commit that was not noted'}" for name, count in Counter(last.values()).items()
    )


def report(sample: list[Mutant], found: dict[str, str], equivalent: dict[str, str]) -> bool:
    """Print the share killed by stratum, the equivalent left out, and the survivors; whether it is enough."""
    tried = [m for m in sample if m.name in found]
    counted = [m for m in tried if m.name not in equivalent]
    for stratum in [*dict.fromkeys(m.stratum for m in tried), "all"]:
        part = [m for m in counted if stratum in (m.stratum, "all")]
        same = sum(stratum in (m.stratum, "all") for m in tried) - len(part)
        dead = sum(found[m.name] != "survived" for m in part)
        print(f"{stratum:12} {dead:4} of {len(part):4} killed, {dead / max(len(part), 1):6.1%}; {same} equivalent")
    for m in counted:
        if found[m.name] == "survived":
            print(f"survived: {m.file}:{m.change.line}: {m.change.name}")
    print(f"{len(tried)} of the {len(sample)} of the sample were run")
    return dead >= WANTED * len(part)


def main() -> int:
    """Run what is left of the sample and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="at most so many now")
    parser.add_argument("--again", action="store_true", help="those that survived once more")
    parser.add_argument("--only", help="strata, separated by commas")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutants.jsonl")
    options = parser.parse_args()
    os.chdir(ROOT)
    settings = tomllib.loads((ROOT / "tests" / "mutants.toml").read_text())
    equivalent = {each["mutant"]: each["reason"] for each in settings.get("equivalent", [])}
    sample = sampled(settings["strata"], options.sample, options.seed)
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    found = {row["mutant"]: row["outcome"] for row in rows}
    left = [m for m in sample if not options.only or m.stratum in options.only.split(",")]
    again = lambda m: options.again and found[m.name] == "survived" and m.name not in equivalent  # noqa: E731
    left = [m for m in left if m.name not in found or again(m)][: options.limit]
    timed, here = dict[str, dict[str, float]](), commit()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("a") as file:
        for m in left:
            tests = settings["strata"][m.stratum]["tests"]
            if m.stratum not in timed:
                timed[m.stratum] = baseline(tests)
                assert outcome(None, tests, timed[m.stratum]) == "survived", "tests fail where nothing is changed"
            start = time.monotonic()
            found[m.name] = outcome(m, tests, timed[m.stratum])
            row = {"mutant": m.name, "outcome": found[m.name], "seconds": round(time.monotonic() - start, 1)}
            rows.append({**row, "commit": here})
            print(json.dumps(rows[-1]), file=file, flush=True)
    print(f"rows: {commits(rows)}")
    return 0 if report(sample, found, equivalent) else 1


if __name__ == "__main__":
    sys.exit(main())
