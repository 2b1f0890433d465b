"""What the wheel holds: the library and nothing whose name belongs to others."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import zobench

pytestmark = pytest.mark.environment

ROOT = Path(__file__).parent.parent


def test_the_wheel_holds_zobench_only(tmp_path):
    source = tmp_path / "source"  # a copy: building in place would leave files that the next wheel picks up
    shutil.copytree(ROOT / "zobench", source / "zobench", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("synthetic", "llm", "analysis"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    for file in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / file, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"zobench", f"zobench-{zobench.__version__}.dist-info"}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "zobench").rglob("*.py")}
    assert sources | {"zobench/py.typed", *(f"zobench/random/native/{name}" for name in ("sweep.c", "draw.h"))} == {
        name for name in names if name.startswith("zobench/")
    }


def test_the_library_is_importable_without_the_suites():
    foreign = ("llm", "synthetic", "analysis", "transformers", "accelerate", "pandas")
    probe = f"import sys, zobench; print([m for m in {foreign} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


def test_estimators_are_checked_without_pytest_and_hypothesis():
    code = "import sys; sys.modules['pytest'] = sys.modules['hypothesis'] = None; from zobench.testing import check_law"
    code += "; import zobench; print(check_law(zobench.Gaussian()).failed)"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("page", ["README.md", "docs/findings.md"])
def test_what_the_pages_link_to_is_committed(page):
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    links = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    wanted = {str(((ROOT / page).parent / link).resolve().relative_to(ROOT)) for link in links}
    assert wanted and wanted <= set(tracked.stdout.splitlines())


def test_the_library_example_of_the_readme_runs():
    code, *_ = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(code.replace("1_000_000", "20_000"), names)
    assert names["memory"] == 100 and names["told"].queries == 2
