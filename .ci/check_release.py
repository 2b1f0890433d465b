"""Checks what `make release` built: run in an environment that has the wheel and nothing of the checkout."""

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

WANTED = ("README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", "zobench/random/native/sweep.c",
          "llm/tiny_opt/model.safetensors", "tests/conftest.py")  # fmt: skip
SNIPPET = """
import zobench
kerzoo = zobench.methods.make("kerzoo", epsilon=0.2)
print(zobench.__version__, zobench.theory.__name__, repr(kerzoo)[:13], zobench.__file__)
"""


def main(dist: Path) -> None:
    """Check the files of a folder.

    Raises:
        AssertionError: one of them is not as it must be.
    """
    (wheel,), (source,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    version = wheel.name.split("-")[1]
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"zobench", f"zobench-{version}.dist-info"}, tops
    with tarfile.open(source) as packed:
        held = {name.partition("/")[2] for name in packed.getnames()}
    assert source.name == f"zobench-{version}.tar.gz" and set(WANTED) <= held, set(WANTED) - held
    assert not [name for name in held if name.startswith(("runs/", "build/", ".venv")) or "__pycache__" in name]
    with tempfile.TemporaryDirectory() as folder:
        shown = run(folder, sys.executable, "-c", SNIPPET).split()
        assert shown[:3] == [version, "zobench.theory", "LineEstimator"], shown
        assert not Path(shown[3]).is_relative_to(Path.cwd() / "zobench"), shown
        command = Path(sys.executable).with_name("zobench")
        assert run(folder, command, "--version") == f"zobench {version}\n"
        run(folder, command, "audit", "mezo", "--problem", "smooth", "--samples", "100", "--out", "audit")
    print(f"{wheel.name} and {source.name}: built and checked")


def run(folder: str, *command: str | Path) -> str:
    """Return what a command prints in a folder."""
    return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]))
