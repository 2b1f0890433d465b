"""Small samples of `make damage` and of the kills of `make soak`, and faults that they find where they are planted."""

import os
import subprocess
import sys
from pathlib import Path

import kill_at
import pytest
from damage import Ended, judged
from fuzz import HEADER, record

from analysis.rows import read
from llm.model import loading
from llm.run import checkpoint
from llm.run.folder import run_of
from llm.run.journal import read_told
from zobench.run.journal import Journal
from zobench.run.records import Run

TESTS = Path(__file__).parent

PLANTED = """
import sys, tempfile
from pathlib import Path
import kill_at, soak
from llm.run import checkpoint

work = Path(sys.argv[1])
soak.small_model(work / "model")
wanted, kills = kill_at.counted(work, "sgd")
kill = next(each for each in kills if each.file.startswith("checkpoints/.tmp") and each.moment == "within")
assert kill_at.held(work, kill, wanted)
checkpoint.clear = lambda folder: None
assert not kill_at.held(work, kill, wanted)
"""


def run(*arguments, **environment):
    own = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run([sys.executable, *arguments], cwd=TESTS, env=own, capture_output=True, text=True, timeout=300)


@pytest.mark.exhaustive
def test_first_order_runs_killed_at_single_operations_end_as_an_uninterrupted_one(tmp_path):
    if kill_at.built(tmp_path) is None:
        pytest.skip("no C compiler, or not Linux")
    found = run("kill_at.py", "--kills", "6", "--methods", "adamw")
    assert found.returncode == 0 and "6 of 6 kills" in found.stdout, found.stdout + found.stderr


@pytest.mark.exhaustive
def test_planted_what_a_kill_leaves_and_nobody_removes_is_seen(tmp_path):
    library = kill_at.built(tmp_path)
    if library is None:
        pytest.skip("no C compiler, or not Linux")
    found = run("-c", PLANTED, str(tmp_path), LD_PRELOAD=str(library), **{kill_at.LIBRARY: str(library)})
    assert found.returncode == 0 and "NOT HELD" in found.stdout, found.stdout + found.stderr


def test_a_sample_covers_every_class_before_it_takes_one_twice():
    kills = [kill_at.Kill("sgd", n, name, "f", when) for n, name in enumerate(("write", "fsync") * 20) for when in "ab"]
    assert {kill.kind for kill in kill_at.sample(kills, 4, 0)} == {kill.kind for kill in kills}
    assert kill_at.sample(kills, None, 0) == kills


@pytest.mark.exhaustive
def test_damaged_run_folders_end_in_words_or_in_the_same_result():
    found = run("damage.py", "--damages", "5")
    assert found.returncode == 0 and " of 25 commands" in found.stdout, found.stdout + found.stderr


@pytest.mark.parametrize(
    ("name", "file", "found", "outcome"),
    [
        ("train", "journal.bin", Ended(0, "fine", "weights"), "identical"),
        ("train", "journal.bin", Ended(0, "fine", "other weights"), "silent"),
        ("train", "journal.bin", Ended(0, "journal.bin: 3 bytes were cut off", "other weights"), "told"),
        ("train", "journal.bin", Ended(2, "journal.bin: damaged: restore it", None), "error"),
        ("train", "journal.bin", Ended(2, "journal.bin: damaged", None), "unclear error"),
        ("train", "journal.bin", Ended(2, "damaged: restore it", None), "unclear error"),
        ("train", "journal.bin", Ended(None, "KeyError: 'x'", None), "traceback"),
        ("verify", "journal.bin", Ended(0, "sound", "weights"), "silent"),
        ("verify", "config.toml", Ended(0, "sound", "weights"), "identical"),
    ],
)
def test_outcomes_are_told_apart(name, file, found, outcome):
    assert judged(name, file, "cut", Ended(0, "sound", "weights"), found) == outcome


def test_files_of_killed_writes_and_old_checkpoints_are_removed_and_others_are_kept(tmp_path):
    steps = [f"step-{step:08d}.safetensors" for step in (2, 4, 6)]
    for name in (*steps, "best.safetensors.part", ".tmpA1b2C3", "best.safetensors", ".tmp", "notes.part"):
        (tmp_path / name).touch()
    checkpoint.clear(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {*steps[1:], "best.safetensors", ".tmp", "notes.part"}


def test_a_model_that_cannot_be_read_is_told_with_the_file_that_is_damaged(tmp_path):
    loading.save(loading.load("tiny-opt"), tmp_path / "model")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        whole = (tmp_path / "model" / name).read_bytes()
        (tmp_path / "model" / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=rf"model/{name}: not JSON .*restore the file"):
            loading.load(str(tmp_path / "model"))
        (tmp_path / "model" / name).write_bytes(whole)


def test_an_emptied_configuration_and_emptied_rows_are_told(tmp_path):
    Run(tmp_path / "run", {"command": "train", "seed": 3}).append({"kind": "note", "note": "x"})
    config = tmp_path / "run/config.toml"
    whole = config.read_bytes()
    config.write_bytes(b"")
    with pytest.raises(ValueError, match=r"config.toml: empty: restore it"):
        Run(tmp_path / "run", {"command": "train", "seed": 3})
    config.write_bytes(whole)
    assert not read([tmp_path / "run"]).warnings
    (tmp_path / "run/rows.jsonl").write_bytes(b"")
    assert [text for text in read([tmp_path / "run"]).warnings if "rows.jsonl has no rows" in text]


def test_what_a_torn_tail_leaves_out_is_told(tmp_path, capsys):
    file = tmp_path / "journal.bin"
    writer = Journal(file, HEADER)
    writer.append(record(0))
    writer.append(record(1))
    writer.close()
    assert len(read_told(file).records) == 2 and not capsys.readouterr().err
    file.write_bytes(file.read_bytes()[:-3])
    assert len(read_told(file).records) == 1 and "journal.bin: 38 bytes of an unf" in capsys.readouterr().err


def test_a_run_without_its_configuration_is_no_model(tmp_path):
    assert run_of(tmp_path) is None
    (tmp_path / "journal.bin").touch()
    with pytest.raises(ValueError, match=r"config.toml.*restore the file"):
        run_of(tmp_path)
