"""What a file says never runs code that others wrote: only the command line asks for it."""

import argparse
import dataclasses
import sys
from typing import get_type_hints

import pytest

from llm import __main__ as llm_commands
from llm.__main__ import main
from llm.options.train import TrainOptions
from llm.studies.plan import read_plan
from synthetic import __main__ as synthetic_commands
from zobench import spelling
from zobench.run.options import WRITTEN, add_arguments, build, code_arguments

pytestmark = pytest.mark.usefixtures("one_thread")

COMMANDS = {**synthetic_commands.COMMANDS, **llm_commands.COMMANDS}
OWN = ("planted:make", "planted.inner:make:n=2", "mezo:law=planted.make", "spam,planted:make", "planted:make@folder")
CODE = """
from pathlib import Path
from dataclasses import dataclass
from zobench import SGD, methods
from zobench.space import InPlace
Path({harm!r}).touch()

def make(epsilon=1e-3):
    return methods.make("mezo", epsilon=epsilon)

class Rule(SGD):
    pass

class Engine(InPlace):
    pass
"""
QUICK = {"steps": 2, "train": 20, "dev": 8, "test": 8, "max_tokens": 12, "batch": 4}


@pytest.fixture
def harm(tmp_path, monkeypatch):
    """A file that is there once the module `planted` was imported."""
    mark, folder = tmp_path / "harm", tmp_path / "modules"
    folder.mkdir()
    (folder / "planted.py").write_text(CODE.format(harm=str(mark)))
    monkeypatch.syspath_prepend(folder)
    yield mark
    sys.modules.pop("planted", None)


def parsed(command, *argv):
    parser = argparse.ArgumentParser()
    add_arguments(parser, COMMANDS[command][0])
    places = [f.name for f in dataclasses.fields(COMMANDS[command][0]) if f.metadata.get("place")]
    arguments = parser.parse_args([*("x" for _ in places), *argv])
    arguments.command = command
    return build(COMMANDS[command][0], arguments)


def written(tmp_path, **values):
    lines = [
        f"{name} = {str(value).lower() if isinstance(value, bool) else repr(value)}" for name, value in values.items()
    ]
    (tmp_path / "c.toml").write_text("\n".join(lines) + "\n")
    return str(tmp_path / "c.toml")


@pytest.mark.parametrize("text", OWN)
def test_spellings_of_ones_own_are_seen(text):
    assert spelling.names_code(text)


@pytest.mark.parametrize(
    "text",
    [
        "mezo",
        "kerzoo:order=5:n=3",
        "adam:beta1=0.9,window=10",
        "cuda:1",
        "1e-6:1e-3",
        "my.toml",
        "spam@data/spam",
        "a/b",
        "lora:r=8:targets=q_proj+v_proj",
        "*.bias=1e-3",
        "facebook/opt-125m",
        "icl:shots=4",
        "runs/a.b",
        "mezo:epsilon=1.5",
    ],
)
def test_other_spellings_are_not(text):
    assert not spelling.names_code(text)


@pytest.mark.parametrize(
    "name", ["planted-x:make", " planted:make", ".planted:make", "planted:make()", "planted:", ":make"]
)
def test_nothing_is_imported_that_names_code_does_not_see(name, harm):
    assert not spelling.names_code(name)
    (harm.parent / "modules/planted-x.py").write_text(CODE.format(harm=str(harm)))
    with pytest.raises(ValueError, match=r"give package\.module:function"):
        spelling.own(name)
    assert not harm.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_of_any_command_takes_code_from_a_file(command, tmp_path, harm):
    cls = COMMANDS[command][0]
    places = [field.name for field in dataclasses.fields(cls) if field.metadata.get("place")]
    for name, kind in get_type_hints(cls).items():
        words = "" if name in places else str(kind)
        for text in OWN if "str" in words and name not in WRITTEN else ():
            file = written(tmp_path, **{name: [text] if "tuple" in words else text})
            with pytest.raises(ValueError, match="would run Python code, which a file cannot ask for"):
                parsed(command, "--config", file)
        if name in ("trust_remote_code", "allow_code"):
            with pytest.raises(ValueError, match=rf"give --{name.replace('_', '-')} on the command line too"):
                parsed(command, "--config", written(tmp_path, **{name: True}))
            assert getattr(parsed(command, "--config", written(tmp_path, **{name: False})), name) is False
    assert not harm.exists()


def test_the_error_says_all_that_the_command_line_needs(tmp_path):
    file = written(tmp_path, method="planted:make", also=["planted:more"], trust_remote_code=True, lr=0.5)
    given = ["--trust-remote-code", "--method", "planted:make", "--also", "planted:more"]
    with pytest.raises(ValueError) as told:
        parsed("train", "--config", file)
    words = ("--trust-remote-code", "--method planted:make", "--also planted:more")
    assert all(word in str(told.value) for word in words)
    options = parsed("train", "--config", file, *given)
    assert (options.method, options.also, options.lr) == ("planted:make", ("planted:more",), 0.5)
    assert parsed("train", "--config", file, "--no-trust-remote-code", *given[1:]).trust_remote_code is False
    assert code_arguments(TrainOptions, dataclasses.asdict(options)) == " ".join(given)


def test_a_run_of_ones_own_parts_is_repeated_and_replayed_where_they_are_asked_for(tmp_path, harm, capsys):
    out, file = tmp_path / "run", str(tmp_path / "run/config.toml")
    parts = ["--method", "planted:make", "--rule", "planted:Rule", "--engine", "planted:Engine"]
    quick = [word for name, value in QUICK.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    assert main(["train", *quick, *parts, "--no-baselines", "--out", str(out)]) == 0
    harm.unlink()
    sys.modules.pop("planted")
    for argv in (
        ["train", "--config", file, "--out", str(tmp_path / "again")],
        ["train", "--config", file, *parts[:2], "--out", str(tmp_path / "again")],
    ):
        with pytest.raises(SystemExit) as stopped:
            main(argv)
        assert stopped.value.code == 2
    assert main(["journal", "replay", str(out)]) == 2
    assert "--rule planted:Rule" in capsys.readouterr().err
    assert main(["journal", "replay", str(out), "--rule", "planted:Rule"]) == 2
    assert "--engine planted:Engine" in capsys.readouterr().err
    harm.unlink()  # which the rule of the command line left
    sys.modules.pop("planted")
    assert main(["export", str(out), "--to", str(tmp_path / "exported")]) == 0
    assert not harm.exists()
    assert main(["journal", "replay", str(out), *parts[2:]]) == 0  # the estimator is one of zobench
    assert harm.exists() and "equal to the bit" in capsys.readouterr().out
    assert main(["train", "--config", file, *parts, "--out", str(tmp_path / "again")]) == 0
    assert main(["journal", "replay", str(out), "--rule", "planted:Other"]) == 2


PLAN = """
model = "tiny-opt"
tuned_on = "spam"
tuning_passes = 20
{top}
[tasks.spam]
forward_passes = 20
{task}
[arms.one]
rates = [1e-3]
{arm}
"""


@pytest.mark.parametrize(
    ("parts", "where"),
    [
        ({"arm": 'method = "planted:make"'}, r"method = 'planted:make' in arms\.one"),
        ({"arm": 'rule = "planted:Rule"'}, r"rule = .* in arms\.one"),
        ({"arm": 'engine = "planted:Engine"'}, r"engine = .* in arms\.one"),
        ({"top": "[train]\ntrust_remote_code = true"}, "trust_remote_code = True in train"),
        ({"top": '[train]\nobjective = "planted:make"'}, "objective = .* in train"),
        ({"task": 'task = "planted:make"'}, r"task = .* in tasks\.spam"),
        ({"task": '[tasks."planted:make"]\nforward_passes = 20'}, r"task = 'planted:make' in tasks\.planted:make"),
    ],
)
def test_a_plan_runs_code_only_where_that_is_allowed(parts, where, tmp_path, harm, capsys):
    file = tmp_path / "plan.toml"
    file.write_text(PLAN.format(**{"top": "", "task": "", "arm": "", **parts}))
    with pytest.raises(ValueError, match=f"{where} in .*--allow-code"):
        read_plan(str(file), None)
    with pytest.raises(SystemExit) as stopped:
        main(["compare", "--plan", str(file), "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2 and not harm.exists() and not (tmp_path / "out").exists()
    if "arm" in parts:
        assert read_plan(str(file), None, allow_code=True).arms["one"].options
        assert harm.exists()
