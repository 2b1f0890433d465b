"""What the wheel holds: the library and nothing whose name belongs to others."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zobench
from zobench.random import native

pytestmark = pytest.mark.environment

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy: building in place would leave files that the next wheel picks up
    shutil.copytree(ROOT / "zobench", source / "zobench", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("synthetic", "llm", "analysis"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    for file in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / file, source)
    pip("wheel", "--wheel-dir", str(folder), str(source))
    (built,) = folder.glob("*.whl")
    return built


def pip(command, *words):
    command = [sys.executable, "-m", "pip", command, "--quiet", "--no-deps", *words]
    subprocess.run(command, check=True, capture_output=True)


def test_the_wheel_holds_zobench_only(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"zobench", f"zobench-{zobench.__version__}.dist-info"}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "zobench").rglob("*.py")}
    assert sources | {"zobench/py.typed", *(str(file.relative_to(ROOT)) for file in native.SOURCES)} == {
        name for name in names if name.startswith("zobench/")
    }


@pytest.fixture(scope="module")
def plugin(wheel, tmp_path_factory):
    """Run Python in a copy of docs/examples/plugin, with the wheel and the copy installed, without the checkout."""
    pytest.importorskip("matplotlib")
    site, copy = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("copy") / "plugin"
    shutil.copytree(ROOT / "docs/examples/plugin", copy, ignore=shutil.ignore_patterns("__pycache__"))
    pip("install", "--target", str(site), str(wheel), str(copy))
    shutil.rmtree(copy / "src")  # what is tested is what is installed

    def run(*words):
        found = subprocess.run(
            [sys.executable, "-P", *words],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(site), "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert found.returncode == 0, found.stdout + found.stderr
        return found.stdout

    run.site, run.copy = site, copy
    return run


def test_the_plugin_of_the_docs_is_tested_with_the_wheel_only(plugin):
    found = plugin("-c", "import zobench, zobench_staircase as own; print(zobench.__file__, own.__file__, sep='\\n')")
    assert [Path(file).is_relative_to(plugin.site) for file in found.split()] == [True, True]
    assert "passed" in plugin("-m", "pytest", "-p", "no:cacheprovider")


def test_the_plugin_of_the_docs_makes_its_figure(plugin):
    assert "22 passed, 0 failed" in plugin("figure.py", "bias.png")
    assert (plugin.copy / "bias.png").stat().st_size > 1000


def test_the_wheel_alone_audits_and_draws(plugin):
    words = ("audit", "zobench_staircase:Staircase", "--problem", "smooth", "--samples", "100", "--out", "out")
    plugin("-m", "zobench", *words, "--figure", "drawn/audit.svg")
    names = {file.name for file in (plugin.copy / "drawn").iterdir()}
    assert names == {"audit-bias.svg", "audit-mse.svg", "audit-cosine.svg"}


def test_the_library_is_importable_without_the_suites():
    foreign = ("llm", "synthetic", "analysis", "transformers", "accelerate", "matplotlib", "pandas")
    probe = f"import sys, zobench.__main__; print([m for m in {foreign} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


def test_figures_without_their_extra_say_which_it_is(tmp_path):
    code = "import sys; sys.modules['matplotlib'] = None; from zobench.__main__ import main; main(sys.argv[1:])"
    words = ("audit", "mezo", "--out", str(tmp_path / "out"), "--figure", "a.pdf")
    found = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT)
    assert found.returncode == 2 and 'pip install "zobench[figures]"' in found.stderr
    assert not (tmp_path / "out").exists()


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


def blocks_of_the_readme():
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_estimators_of_the_readme_have_the_bias_that_is_predicted(capsys):
    (code,) = [block for block in blocks_of_the_readme() if "moments" in block]
    names: dict[str, Any] = {}
    exec(code.replace("1_000_000", "20_000"), names)
    assert capsys.readouterr().out.count("predicted") == 2
    f, x, found = names["f"], names["x"], names["found"]  # of kerzoo, the last one
    assert ((found.mean - f.gradient(x)).abs() < 5 * found.mean_error).all()
    assert zobench.theory.bias(names["methods"].make("mezo", epsilon=0.5), f, x).norm() > 0.5


@pytest.mark.parametrize("script", sorted((ROOT / "docs/examples/scripts").glob("*.py")), ids=lambda path: path.stem)
def test_a_script_of_the_examples_runs(script, capsys):
    names = runpy.run_path(str(script))
    said = capsys.readouterr().out
    assert len(said.splitlines()) >= 1 and "nan" not in said
    if script.stem == "train_a_module":
        assert names["right"] > 0.85
    if script.stem == "compose_a_method":
        assert names["loss"] < 0.3
    if script.stem == "minimise_a_black_box":
        assert np.abs(names["found"].x - 1).max() < 0.2
