"""The README's loop with ZerothOrder."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [pytest.mark.environment, pytest.mark.usefixtures("one_thread")]

ROOT = Path(__file__).parent.parent


def test_the_loop_of_the_readme_trains():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if "ZerothOrder" in block]
    assert len(code.strip().splitlines()) <= 16
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(code.replace("1001", "301"), names)
    assert names["right"] > 0.75
