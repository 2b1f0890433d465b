"""The code of the page docs/own.md."""

import re
from pathlib import Path
from typing import Any

import torch

import zobench

TEXT = (Path(__file__).parents[1] / "docs/own.md").read_text(encoding="utf-8")


def blocks(text: str = TEXT) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def section(heading: str) -> dict[str, Any]:
    """What the code below a heading defines."""
    found: dict[str, Any] = {"torch": torch, "zobench": zobench}
    for block in blocks(TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]):
        exec(block, found)
    return found
