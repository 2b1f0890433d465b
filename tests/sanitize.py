"""Runs the C code under AddressSanitizer with UndefinedBehaviorSanitizer, and under MemorySanitizer, which clang has:
`python tests/sanitize.py --calls 1000`.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SOURCE = HERE.parent / "zobench" / "random" / "native"
FLAGS = (
    "-O1", "-g", "-march=native", "-pthread", "-ffp-contract=off", "-fno-strict-aliasing", "-fno-omit-frame-pointer",
    "-Wall",
)  # fmt: skip
SANITIZERS = ("address,undefined", "memory")


def sanitizing(names: str) -> tuple[str, ...]:
    """The options of a compiler that build a program with these sanitizers."""
    return f"-fsanitize={names}", "-fno-sanitize-recover=all"


def compiler(names: str = SANITIZERS[0]) -> str | None:
    """Return a C compiler that builds and runs a program under these sanitizers, if there is one."""
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "empty.c", str(Path(folder) / "empty")
        source.write_text("int main(void) { return 0; }\n")
        for name in filter(shutil.which, filter(None, (os.environ.get("CC"), "cc", "gcc", "clang"))):
            commands = ([name, *sanitizing(names), str(source), "-o", program], [program])
            if not any(subprocess.run(command, capture_output=True).returncode for command in commands):
                return name
    return None


def run(source: Path, calls: int, seed: int, names: str = SANITIZERS[0]) -> subprocess.CompletedProcess[str]:
    """Build the driver with the C files of this folder, the others from the package, and make so many random calls."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "sanitize"
        options = [*FLAGS, *sanitizing(names), f"-I{source}", f"-I{SOURCE}"]
        subprocess.run(
            [compiler(names) or "cc", *options, str(HERE / "sanitize.c"), "-o", str(program), "-lm"], check=True
        )
        return subprocess.run([str(program), str(calls), str(seed)], capture_output=True, text=True)


def main() -> int:
    """Print how many calls were made, or why none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    failed = 0
    for names in SANITIZERS:
        if compiler(names) is None:
            print(f"sanitize: skipped: no C compiler here has -fsanitize={names}")
            continue
        found = run(SOURCE, options.calls, options.seed, names)
        print(f"{names}: {found.stdout}", end="", flush=True)
        print(found.stderr[:8000], end="", file=sys.stderr)
        failed |= found.returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
