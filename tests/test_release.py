"""What a release says of itself, and that runs in a checkout leave it clean."""

import re
import subprocess
import tomllib
from pathlib import Path

import yaml

from zobench import __version__
from zobench.run.records import Run

ROOT = Path(__file__).parent.parent


def test_changelog_citation_and_package_have_one_version():
    (newest, *_) = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert newest == cited["version"] == __version__
    assert ("date-released" in cited) == (f"[{newest}] - unreleased" not in (ROOT / "CHANGELOG.md").read_text())


def test_ci_tests_every_python_that_the_package_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {line.rpartition(" ")[2] for line in project["classifiers"] if re.search(r":: 3\.\d+$", line)}
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    tried = set(jobs["python"]["strategy"]["matrix"]["python-version"])
    tried |= {
        step["with"]["python-version"] for step in jobs["test"]["steps"] if "python-version" in step.get("with", {})
    }
    assert named == tried == {"3.11", "3.12", "3.13"}


def test_a_run_folder_in_a_checkout_leaves_it_clean(tmp_path):
    def git(*words):
        return subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    git("init", "--quiet")
    run = Run(tmp_path / "mine", {"command": "train"})
    run.append({"kind": "step"})
    assert git("status", "--porcelain") == ""
    (tmp_path / "mine/.gitignore").unlink()  # the planted twin: without the file it is dirty
    assert git("status", "--porcelain") != ""


def test_a_report_in_the_root_of_the_checkout_is_ignored():
    for name in ("report.html", "report_figures/bias.png", "runs/x/rows.jsonl", "dist/a.whl"):
        found = subprocess.run(["git", "check-ignore", "--no-index", "-q", name], cwd=ROOT, check=False)
        assert found.returncode in (0, 128), name  # 128: no checkout, as in a source distribution
