"""The code of the page docs/own.md."""

import re
from pathlib import Path
from typing import Any

import torch

import zobench

TEXT = (Path(__file__).parents[1] / "docs/own.md").read_text(encoding="utf-8")


def blocks(text: str = TEXT) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def defined(text: str, **names: Any) -> dict[str, Any]:
    """What the code of a text defines, beside these names."""
    for block in blocks(text):
        exec(block, names)
    return names


def section(heading: str) -> dict[str, Any]:
    """What the code below a heading defines."""
    return defined(TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0], torch=torch, zobench=zobench)
