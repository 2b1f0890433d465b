"""Start-up: what a command line imports before it is parsed, and what it says of mistakes."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import analysis.shown
import llm.__main__
import synthetic.__main__
import zobench
import zobench.__main__
from analysis.drawings import DRAWINGS
from llm.gpu.parts import PARTS
from llm.objective.choose import NAMES
from llm.options.bench import GPU_PARTS
from llm.options.groups import OBJECTIVE
from llm.options.journal import COMMANDS as JOURNAL
from llm.options.studies import WAYS
from llm.studies import rounding
from zobench import public
from zobench.figures.files import FORMATS
from zobench.run.command import imported

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "numpy", "scipy", "pandas", "matplotlib", "tokenizers", "peft", "optuna")
MAINS = ("zobench", "llm", "synthetic", "analysis")

LINES = (
    ["zobench", "--version"],
    ["zobench", "audit", "--help"],
    ["zobench", "llm", "train", "--stpes", "3"],
    ["llm", "--version"],
    ["llm", "--help"],
    ["llm", "train", "--help"],
    ["llm", "train", "--stpes", "3"],
    ["llm", "journal", "replay", "--help"],
    ["synthetic", "--version"],
    ["synthetic", "bias", "--smaples", "3"],
    ["analysis", "--version"],
    ["analysis", "figure", "--help"],
    ["analysis", "figure", "bais", "rows", "--out", "a.pdf"],
)

PROBE = f"""
import contextlib, importlib, io, json, sys
told = []
for module, *words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            importlib.import_module(module + ".__main__").main(words)
        except SystemExit:
            pass
    told.append([name for name in {HEAVY} if name in sys.modules])
print(json.dumps(told))
"""


def imports(lines):
    """The heavy modules that are imported when each of the command lines has been answered, one after the other."""
    found = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(lines)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return json.loads(found.stdout)


def test_help_version_and_mistakes_are_answered_without_torch_and_transformers():
    assert imports(LINES) == [[] for _ in LINES]


def test_a_command_that_computes_imports_torch():
    assert "torch" in imports([["zobench", "methods"]])[0]


@pytest.mark.parametrize("commands", [llm.__main__.COMMANDS, synthetic.__main__.COMMANDS, zobench.__main__.COMMANDS])
def test_every_command_names_a_function(commands):
    assert all(callable(imported(function)) for _, function in commands.values())


def test_every_command_of_a_journal_names_a_function():
    assert all(callable(imported(f"llm.run.journal:{name}")) for name in JOURNAL)


def test_names_that_options_list_are_those_of_the_parts():
    assert tuple(PARTS) == GPU_PARTS and tuple(rounding.WAYS) == WAYS
    assert f"{', '.join(NAMES)}, or package.module:function" == OBJECTIVE
    assert list(DRAWINGS) == list(analysis.shown.SHOWN) and FORMATS == analysis.shown.FORMATS


def test_the_package_has_the_public_names_and_no_others():
    assert all(getattr(zobench, name) is getattr(public, name) for name in public.__all__)
    assert zobench.__all__ is public.__all__ and set(public.__all__) <= set(dir(zobench))
    importlib.import_module("zobench.query")  # a module of the name of a function
    assert zobench.query is sys.modules["zobench.query"].query
    with pytest.raises(AttributeError, match="has no attribute 'Gausian'"):
        zobench.Gausian  # noqa: B018


MISTAKES = {
    ("llm", "train", "--stpes", "3"): "python -m llm train: unknown option '--stpes'. Did you mean '--steps'?",
    ("llm", "trian"): "python -m llm: unknown command 'trian'. Did you mean 'train'?",
    ("llm", "train", "--steps", "x"): "python -m llm train: argument --steps: 'x' is no whole number",
    ("llm", "journal", "show", "x", "--lst", "3"): "unknown option '--lst'. Did you mean '--last'?",
    ("synthetic", "bias", "--samples=1.5"): "argument --samples: '1.5' is no whole number",
    ("zobench", "audit", "a:b", "--epsilon", "nought"): "argument --epsilons: 'nought' is no number",
    ("zobench", "methods", "mezo"): "zobench methods: unexpected argument 'mezo'",
    ("zobench", "llm", "evaluate", "--modle", "x"): "zobench llm evaluate: unknown option '--modle'. Did you mean '--m",
    ("analysis", "repotr", "x"): "python -m analysis: unknown command 'repotr'. Did you mean 'report'?",
    ("analysis", "figure", "bais", "x", "--out", "y"): "unknown kind 'bais'. Did you mean 'bias'?",
}


@pytest.mark.parametrize("words", MISTAKES, ids=" ".join)
def test_a_mistake_is_one_line_that_names_the_nearest(words, capsys):
    module, *rest = words
    with pytest.raises(SystemExit) as ended:
        sys.exit(imported(f"{module}.__main__:main")(rest))
    shown = capsys.readouterr()
    assert ended.value.code == 2 and not shown.out
    assert MISTAKES[words] in shown.err and shown.err.count("\n") == 1 and len(shown.err) < 400


@pytest.mark.parametrize("name", MAINS)
def test_every_command_line_has_the_version(name, capsys):
    with pytest.raises(SystemExit) as ended:
        imported(f"{name}.__main__:main")(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"zobench {zobench.__version__}\n"


def test_suites_beside_the_package_are_run_and_no_others(capsys, monkeypatch, tmp_path):
    assert zobench.__main__.main(["synthetic", "kernels", "--out", str(tmp_path / "kernels")]) == 0
    assert "legendre(1)" in capsys.readouterr().out
    (tmp_path / "llm").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("zobench.__main__.CHECKOUT", tmp_path)
    assert zobench.__main__.main(["llm", "list"]) == 2
    assert "come with a checkout" in capsys.readouterr().err
