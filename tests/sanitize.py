"""Runs the C code under AddressSanitizer and UndefinedBehaviorSanitizer: `python tests/sanitize.py --calls 1000`."""

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
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def compiler() -> str | None:
    """Return a C compiler that builds and runs a program under the sanitizers, if there is one."""
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "empty.c", str(Path(folder) / "empty")
        source.write_text("int main(void) { return 0; }\n")
        for name in filter(shutil.which, filter(None, (os.environ.get("CC"), "cc", "gcc", "clang"))):
            commands = ([name, *SANITIZERS, str(source), "-o", program], [program])
            if not any(subprocess.run(command, capture_output=True).returncode for command in commands):
                return name
    return None


def run(source: Path, calls: int, seed: int) -> subprocess.CompletedProcess[str]:
    """Build the driver with the sweep.c of this folder, and make so many random calls."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "sanitize"
        build = [compiler() or "cc", *FLAGS, *SANITIZERS, f"-I{source}", f"-I{SOURCE}", str(HERE / "sanitize.c")]
        subprocess.run([*build, "-o", str(program), "-lm"], check=True)
        return subprocess.run([str(program), str(calls), str(seed)], capture_output=True, text=True)


def main() -> int:
    """Print how many calls were made, or why none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if compiler() is None:
        print("sanitize: skipped: no C compiler here has AddressSanitizer and UndefinedBehaviorSanitizer")
        return 0
    found = run(SOURCE, options.calls, options.seed)
    print(found.stdout, end="")
    print(found.stderr[:8000], end="", file=sys.stderr)
    return found.returncode


if __name__ == "__main__":
    sys.exit(main())
