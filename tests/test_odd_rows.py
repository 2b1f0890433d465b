"""Rows, configurations and environments that are no such thing: every command that reads a run folder says where."""

import json
import os
import shutil
import sys

import pytest

from analysis.__main__ import main as analysis
from llm.__main__ import main as llm

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"steps": 2, "lr": 1e-3, "train": 20, "dev": 8, "test": 8, "max-tokens": 12, "batch": 4}
QUICK = ["--quiet", "--no-baselines", *(word for name, value in SMALL.items() for word in (f"--{name}", str(value)))]
DEEP = "[" * 100_000
ROWS = (
    '{"kind": "final"}',
    '{"kind": "final", "status": 3, "step": 2}',
    '{"kind": "final", "status": "ok", "step": "x"}',
    "7",
    "[]",
    DEEP,
    '{"kind": "step", "step": NaN}',
    '{"kind": "step", "step": [1], "train_loss": 0.5, "seconds": 1}',
    '{"kind": "final", "status": "ok", "step": ' + "9" * 5000 + "}",
    "\udcff",
)
ALL = ("7", "[]", DEEP, '{"a": NaN}', "\udcff")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("odd") / "run"
    assert llm(["train", *QUICK, "--out", str(out)]) == 0
    return out


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


def refused(command, argv, capsys, wanted):
    """The command ends with 2 and names the file; a traceback would come through."""
    try:
        status = command(argv)
    except SystemExit as stopped:
        status = stopped.code
    told = capsys.readouterr().err
    assert status == 2 and wanted in told, told


def put(file, text):
    file.write_bytes(text.encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[:40])
def test_a_row_that_is_none_is_named_by_those_that_go_on_from_rows(row, copy, capsys):
    put(copy / "rows.jsonl", f"{row}\n")
    refused(llm, ["train", *QUICK, "--out", str(copy)], capsys, "rows.jsonl:1")


@pytest.mark.parametrize("row", [*ALL, '{"kind": []}', "{}", '{"kind": "step", "step": NaN}'], ids=lambda row: row[:40])
def test_a_row_that_is_none_is_named_by_those_that_report(row, copy, tmp_path, capsys):
    first = (copy / "rows.jsonl").read_text().splitlines()[0]
    put(copy / "rows.jsonl", f"{first}\n{row}\n")
    refused(analysis, ["tables", str(copy)], capsys, "rows.jsonl:2")
    if "kind" not in row and row != "{}":
        refused(llm, ["export", str(copy), "--to", str(tmp_path / "out")], capsys, "rows.jsonl:2")


def test_a_list_where_a_word_belongs_is_named(copy, capsys):
    rows = [json.loads(line) for line in (copy / "rows.jsonl").read_text().splitlines()]
    for name in ("model", "method", "seed"):
        put(copy / "rows.jsonl", "".join(json.dumps(row | {name: [1]}) + "\n" for row in rows))
        refused(analysis, ["tables", str(copy)], capsys, f"rows.jsonl:1: {name} is [1]")


@pytest.mark.parametrize("text", ALL, ids=lambda row: row[:40])
def test_an_environment_or_a_configuration_that_is_none_is_named(text, copy, tmp_path, capsys):
    kept = (copy / "config.toml").read_bytes()
    for file, odd in (("environment.json", text), ("config.toml", f"a = {text}")):
        (copy / "config.toml").write_bytes(kept)
        put(copy / file, odd if file == "environment.json" or "NaN" in text or text == DEEP else f"a = {text} x")
        refused(analysis, ["tables", str(copy)], capsys, file)
        refused(llm, ["export", str(copy), "--to", str(tmp_path / "out")], capsys, file)


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes with names")
@pytest.mark.parametrize("name", ["rows.jsonl", "config.toml", "environment.json", "journal.bin"])
def test_a_pipe_is_refused_and_not_waited_for(name, copy, tmp_path, capsys):
    (copy / name).unlink()
    os.mkfifo(copy / name)
    refused(llm, ["train", *QUICK, "--out", str(copy)], capsys, f"{name} is neither a file nor a folder")
    if name != "journal.bin":
        refused(llm, ["export", str(copy), "--to", str(tmp_path / "out")], capsys, name)
        refused(analysis, ["tables", str(copy)], capsys, name)
    else:
        assert llm(["journal", "verify", str(copy)]) == 1
