"""Prints the lowest version that pyproject.toml allows of every package, as constraints for pip.

`lowest.py NAME==VERSION ...` prints these versions instead of theirs.
"""

import re
import sys
import tomllib
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def lowest(requirements: Iterable[str]) -> dict[str, str]:
    """Return the highest lower bound of each package.

    Raises:
        ValueError: a requirement has no lower bound, or has more than that and an upper one.
    """
    bounds: dict[str, str] = {}
    for requirement in requirements:
        match = re.fullmatch(r"([\w-]+)>=(\d+(?:\.\d+)*)(?:,<[\d.]+)?", requirement)
        if match is None:
            raise ValueError(f"pyproject.toml requires {requirement!r}: write it as name>=version")
        name, bound = match.groups()
        bounds[name] = max(bound, bounds.get(name, "0"), key=_numbers)
    return bounds


def main(pins: Sequence[str]) -> None:
    """Print the constraints."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    found = lowest([*project["dependencies"], *chain(*project["optional-dependencies"].values())])
    for name, version in (found | dict(pin.split("==") for pin in pins)).items():
        print(f"{name}=={version}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


if __name__ == "__main__":
    main(sys.argv[1:])
