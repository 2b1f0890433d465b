"""The README's loop with ZerothOrder, and what importing the library brings along."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [pytest.mark.environment, pytest.mark.usefixtures("one_thread")]

ROOT = Path(__file__).parent.parent


def test_the_loop_of_the_readme_trains_a_cnn():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if "ZerothOrder" in block]
    assert len(code.strip().splitlines()) <= 15
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(code.replace("1000", "300"), names)
    accuracy = (names["model"](names["images"]).argmax(-1) == names["labels"]).double().mean()
    assert accuracy > 0.6


def test_importing_the_library_imports_no_framework():
    probe = "import sys, zobench; print([m for m in ('transformers', 'accelerate') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"
