"""Runs: configuration, rows, resumption, and what a crash leaves."""

import json
import os
import tomllib
from dataclasses import dataclass

import pytest
import torch

from zobench.naming import UnknownNameError
from zobench.run import toml
from zobench.run.command import run_command
from zobench.run.options import add_arguments, build, option
from zobench.run.reading import file_bytes, json_object, toml_table
from zobench.run.records import Run


@dataclass(frozen=True)
class Options:
    """Options of a command that tests made."""

    samples: int = option(10, "how many")
    epsilons: tuple[float, ...] = option((0.1, 0.2), "displacements")
    data: str | None = option(None, "folder")
    rotated: bool = option(True, "turn")
    out: str = option("runs/x", "folder")


def parsed(*argv: str) -> Options:
    import argparse

    parser = argparse.ArgumentParser()
    add_arguments(parser, Options)
    return build(Options, argparse.Namespace(command="t", **vars(parser.parse_args(argv))))


def test_rows_survive_and_continue(tmp_path):
    run = Run(tmp_path / "a", {"command": "t", "lr": 0.1, "names": ("x", "y"), "data": None})
    run.append({"kind": "k", "value": torch.tensor([1.0, float("nan")]), "loss": float("inf")})
    again = Run(tmp_path / "a", {"command": "t", "lr": 0.1, "names": ("x", "y"), "data": None})
    assert again.rows == [{"kind": "k", "value": [1.0, None], "loss": None}]
    assert again.find(kind="k", loss=None) and not again.find(kind="other")
    assert tomllib.loads((tmp_path / "a/config.toml").read_text()) == {"command": "t", "lr": 0.1, "names": ["x", "y"]}
    assert {"torch", "python", "commit", "cpu", "cores", "date"} <= json.loads(
        (tmp_path / "a/environment.json").read_text()
    ).keys()


def test_a_torn_last_line_is_cut_and_the_file_stays_readable(tmp_path):
    run = Run(tmp_path, {"lr": 1})
    run.append({"step": 1})
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    again = Run(tmp_path, {"lr": 1})
    assert again.rows == [{"step": 1}]
    again.append({"step": 2})
    assert [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == [
        {"step": 1},
        {"step": 2},
    ]


def test_another_configuration_is_refused_and_named(tmp_path):
    Run(tmp_path, {"lr": 0.0}), Run(tmp_path, {"lr": 0.1, "steps": 5}).append({"step": 1})  # no rows, nothing to guard
    with pytest.raises(ValueError, match=r"lr: 0\.1 there, 0\.2 now.*--out"):
        Run(tmp_path, {"lr": 0.2, "steps": 5})


def test_the_command_line_gives_typed_values():
    given = parsed("--samples", "1e7", "--epsilons", "0.5, 1e-3", "--no-rotated", "--data", "d")
    assert given == Options(10_000_000, (0.5, 1e-3), "d", False)
    assert parsed() == Options()


def test_the_config_of_a_run_is_a_config_file(tmp_path):
    options = Options(7, (0.3,), None, False, str(tmp_path / "r"))
    Run(options.out, {"command": "t", **options.__dict__})
    file = str(tmp_path / "r" / "config.toml")
    assert parsed("--config", file) == options
    assert parsed("--config", file, "--samples", "8").samples == 8


def test_unknown_keys_name_the_nearest(tmp_path, capsys):
    (tmp_path / "c.toml").write_text("sampels = 3\n")
    with pytest.raises(UnknownNameError, match=r"'sampels'.*Did you mean 'samples'"):
        parsed("--config", str(tmp_path / "c.toml"))
    with pytest.raises(ValueError, match="no such file"):
        parsed("--config", str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_text("samples = = 3\n")
    with pytest.raises(ValueError, match="not TOML"):
        parsed("--config", str(tmp_path / "bad.toml"))


def test_a_value_error_is_one_line_and_status_2(capsys):
    def fail(options: Options) -> None:
        """Fail."""
        raise ValueError(f"samples is {options.samples}: give more")

    with pytest.raises(SystemExit) as stopped:
        run_command("prog", "tests", {"fail": (Options, fail)}, ["fail", "--samples", "3"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "prog fail: samples is 3: give more\n"
    with pytest.raises(SystemExit):
        run_command("prog", "tests", {"fail": (Options, fail)}, ["fail", "--samples", "1.5"])
    assert "--samples" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('samples = "ten"', "samples in .* is 'ten': give a int"),
        ("epsilons = 0.1", "epsilons in .* give a list"),
        ('rotated = "no"', "rotated in .* give a bool"),
        ('command = "other"', "is of the command 'other'"),
    ],
)
def test_mistyped_configuration_names_the_key(line, message, tmp_path):
    (tmp_path / "c.toml").write_text(line + "\n")
    with pytest.raises(ValueError, match=message):
        parsed("--config", str(tmp_path / "c.toml"))


def test_numbers_in_a_config_may_be_written_either_way(tmp_path):
    (tmp_path / "c.toml").write_text("samples = 1e3\nepsilons = [1, 0.5]\n")
    assert parsed("--config", str(tmp_path / "c.toml")) == Options(1000, (1.0, 0.5))


def test_a_broken_middle_line_is_named(tmp_path):
    run = Run(tmp_path, {"lr": 1})
    run.append({"step": 1})
    (tmp_path / "rows.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: not JSON"):
        Run(tmp_path, {"lr": 1})


def test_rows_of_another_version_come_after_a_row_that_says_so(tmp_path, monkeypatch):
    Run(tmp_path, {"lr": 1}).append({"step": 1})
    monkeypatch.setattr("zobench.run.records.VERSION", "9.9")
    before = (tmp_path / "rows.jsonl").read_bytes()
    again = Run(tmp_path, {"lr": 1})
    assert (tmp_path / "rows.jsonl").read_bytes() == before  # to read a finished run is not to write to it
    again.append({"step": 2})
    assert [row["zobench"] for row in again.find(kind="environment")] == ["9.9"]
    assert len(Run(tmp_path, {"lr": 1}).find(kind="environment")) == 1


DEEP = "[" * 100_000
ODD = ("7", "[]", '"x"', "{", DEEP, '{"a": NaN}', '{"a": Infinity}', '{"a": ' + "9" * 5000 + "}", "null", "é")


@pytest.mark.parametrize("text", ODD)
def test_json_of_a_file_is_an_object_or_an_error_that_names_file_and_line(text):
    for data in (text, text.encode("latin-1")):
        with pytest.raises(ValueError, match=r"^a\.jsonl:3: .*: correct or remove the line$"):
            json_object(data, "a.jsonl:3")
        with pytest.raises(ValueError, match=r"^a\.json: .*: restore the file"):
            json_object(data, "a.json")
    assert json_object('{"a": [1, null]}', "a.json") == {"a": [1, None]}


@pytest.mark.parametrize("data", [b"= 3", b"\xff", b"a = " + DEEP.encode(), b"a = " + b"9" * 5000, b"a = 1\na = 2"])
def test_toml_of_a_file_is_a_table_or_an_error_that_names_it(data):
    with pytest.raises(ValueError, match=r"^a\.toml: not TOML"):
        toml_table(data, "a.toml")


@pytest.mark.parametrize("name", ["rows.jsonl", "config.toml", "journal.bin"])
def test_a_pipe_in_a_run_folder_is_refused_and_not_waited_for(name, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match="neither a file nor a folder"):
        Run(tmp_path, {"command": "t"})
    with pytest.raises(ValueError, match="not a regular file"):
        file_bytes(tmp_path / name)


def test_toml_reads_back_as_it_was_written():
    values = {
        "text": 'a "b" \\ \n\t\x00\x7f é 😀', "tiny": 1e-300, "large": 1e22, "endless": float("inf"), "minus": -0.0,
        "whole": 2**40, "yes": True, "list": ["a", "b"], "empty": [], "nested": {"a b": {"c": [1, 2.5]}}, "": "no name",
    }  # fmt: skip
    assert tomllib.loads(toml.dumps(values)) == values
    with pytest.raises(TypeError, match="no value for None"):
        toml.dumps({"a": None})
