"""docs/integrations.md: its blocks run as they stand, and do what it says."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [
    pytest.mark.environment,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),  # of transformers and accelerate
]

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
SECTIONS = PAGE.split("\n## ")[1:]


@pytest.fixture
def run(tmp_path, monkeypatch):
    (tmp_path / "build").mkdir()
    monkeypatch.chdir(tmp_path)

    def execute(start: str) -> dict[str, Any]:
        (section,) = [section for section in SECTIONS if section.startswith(start)]
        (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
        torch.manual_seed(0)
        names: dict[str, Any] = {}
        exec(code.replace("llm/tiny_opt", str(ROOT / "llm" / "tiny_opt")), names)
        return names

    return execute


def test_every_block_has_its_test():
    assert len(SECTIONS) == PAGE.count("```python") == 4


def test_a_loop_of_your_own(run):
    names = run("A loop")
    assert names["optimizer"].evaluations == 200
    assert names["saved"]["optimizer"]["state"]["zeroth_order"]["step"] == 100


@pytest.mark.skipif(torch.__version__ < (2, 6), reason="transformers resumes with torch 2.6 or later")
def test_transformers(run):
    trainer = run("transformers")["trainer"]
    assert trainer.state.global_step == 8
    assert [row["loss_evaluations"] for row in trainer.state.log_history if "loss" in row] == [4, 8, 12, 16]
    ends = [torch.load(f"build/trainer/checkpoint-{step}/optimizer.pt", weights_only=True) for step in (4, 8)]
    assert [end["state"]["zeroth_order"]["step"] for end in ends] == [4, 8]


def test_accelerate(run):
    names = run("accelerate")
    assert names["optimizer"].optimizer.evaluations == 32 and Path("build/accelerate").is_dir()
    assert names["scheduler"].get_last_lr() == [pytest.approx(0.01)]
    assert not torch.equal(names["model"].weight, torch.nn.Linear(20, 4).weight)


def test_scipy(run):
    assert run("SciPy")["found"].status == 0
