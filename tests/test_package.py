"""What the wheel holds: the library and nothing whose name belongs to others."""

import subprocess
import sys
import zipfile
from pathlib import Path

import zobench

ROOT = Path(__file__).parent.parent


def test_the_wheel_holds_zobench_only(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"zobench", f"zobench-{zobench.__version__}.dist-info"}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "zobench").rglob("*.py")}
    assert sources | {"zobench/py.typed"} == {name for name in names if name.startswith("zobench/")}


def test_the_library_is_importable_without_the_suites():
    foreign = ("llm", "synthetic", "analysis", "transformers", "pandas")
    probe = f"import sys, zobench; print([m for m in {foreign} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"
