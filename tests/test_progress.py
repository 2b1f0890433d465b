"""What commands print where, and what they end with."""

import errno
import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

from llm.__main__ import main
from llm.studies.overall import Overall
from zobench.run import exit_status, progress
from zobench.run.command import ended, run_command
from zobench.run.journal import read
from zobench.run.options import option

pytestmark = [pytest.mark.environment, pytest.mark.usefixtures("one_thread")]

ROOT = Path(__file__).parents[1]
QUICK = ["--train", "20", "--dev", "10", "--test", "10", "--batch", "4", "--max-tokens", "16", "--eval-every", "5"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def command(tmp_path, *more):
    return ["train", *QUICK, "--steps", "10", "--no-save", "--out", str(tmp_path / "run"), *more]


def on_terminal(arguments):
    """What a command writes to a terminal, and what to a pipe."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 150, 0, 0))
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=theirs, cwd=ROOT, env=ENVIRONMENT) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError as error:
            assert error.errno == errno.EIO  # the terminal of a process that ended
        out = process.stdout.read()
    os.close(ours)
    assert process.returncode == 0
    return out.decode(), shown.decode()


def test_a_bar_on_a_terminal_shows_loss_and_forward_passes_a_second(tmp_path):
    out, shown = on_terminal([sys.executable, "-m", "llm", *command(tmp_path)])
    assert "\r" in shown and "10/10" in shown
    assert re.search(r"train loss \d+\.\d+, dev loss \d+\.\d+, accuracy [\d.]+%, [\d.e+]+ forward passes/s", shown)
    assert re.fullmatch(r"prompts cut .*\nmezo: dev accuracy .*\nrows: .*\nnext: .*\n", out)


def test_quiet_leaves_the_result_alone_and_is_no_part_of_the_run(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert main(command(tmp_path, "--quiet")) == exit_status.OK and sys.stderr.getvalue() == ""
    out, err = capfd.readouterr()
    assert err == "" and re.fullmatch(r"mezo: dev accuracy .*\n", out)
    assert "quiet =" not in (tmp_path / "run/config.toml").read_text()
    assert main(command(tmp_path)) == exit_status.OK and "holds a finished run" in capfd.readouterr().out


def test_no_log_file_holds_a_carriage_return(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(progress, "_told", time.monotonic() - 1000)  # by another command of this process
    assert main(command(tmp_path)) == exit_status.OK
    out, err = capfd.readouterr()
    assert err == "" and out and "\r" not in out


def test_a_long_command_that_is_no_terminal_leaves_lines(monkeypatch):
    stream, now = io.StringIO(), [0.0]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("zobench.run.progress.time.monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "_told", None)
    with progress.bar(range(10), desc="mezo", unit="step") as shown:
        for step in shown:
            now[0] += 25
            shown.set_postfix_str(f"train loss {step}", refresh=False)
            if step == 6:
                progress.warn("a warning")
    lines = stream.getvalue().splitlines()
    assert lines == [
        "mezo: 3/10 step after 01:15, 02:55 left, train loss 2",
        "mezo: 6/10 step after 02:30, 01:40 left, train loss 5",
        "a warning",
        "mezo: 9/10 step after 03:45, 00:25 left, train loss 8",
    ]


def test_a_terminal_gets_a_bar_and_quiet_gets_none(monkeypatch):
    for quiet in (False, True):
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        with progress.quietly(quiet), progress.bar(range(3), unit="step") as shown:
            assert list(shown) == [0, 1, 2]
        assert ("3/3" in stream.getvalue()) is not quiet
    assert not tqdm._instances


def test_notes_are_left_out_and_warnings_are_not(capsys):
    with progress.quietly():
        progress.note("a note")
        progress.warn("a warning")
    progress.note("another")
    assert capsys.readouterr() == ("another\n", "a warning\n")


def test_the_speed_is_that_of_the_last_steps():
    speed = progress.Speed(memory=0.5)
    assert str(speed) == ""
    for seconds in (100.0, *[0.5] * 40):
        speed.see(2, seconds)
    assert str(speed) == "4 forward passes/s"


@dataclass(frozen=True)
class Nothing:
    """No options."""

    number: int = option(1, "a number")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("x is 3: give 4"), exit_status.BAD_INPUT),
        (FileNotFoundError(2, "No such file", "x"), exit_status.BAD_INPUT),
        (OSError(errno.ENOSPC, "No space left on device"), exit_status.FAULT),
        (PermissionError(13, "Permission denied", "x"), exit_status.FAULT),
        (MemoryError("no room"), exit_status.FAULT),
        (torch.OutOfMemoryError("no room"), exit_status.FAULT),
        (KeyboardInterrupt(), exit_status.INTERRUPTED),
    ],
    ids=repr,
)
def test_what_a_command_that_fails_ends_with(error, status, capsys):
    def fail(options: Nothing) -> None:
        """Fail."""
        raise error

    with pytest.raises(SystemExit) as stopped:
        run_command("prog", "tests", {"fail": (Nothing, fail)}, ["fail"])
    told = capsys.readouterr()
    assert stopped.value.code == status and told.out == ""
    assert told.err.startswith("prog fail: ") and told.err.count("\n") == 1


def test_errors_of_the_program_keep_their_traceback():
    def fail(options: Nothing) -> None:
        """Fail."""
        raise AttributeError("a bug")

    with pytest.raises(AttributeError, match="a bug"):
        run_command("prog", "tests", {"fail": (Nothing, fail)}, ["fail"])


def test_statuses_are_distinct_and_documented():
    page = (ROOT / "docs/scripts.md").read_text()
    statuses = {name: value for name, value in vars(exit_status).items() if name.isupper() and isinstance(value, int)}
    assert len(set(statuses.values())) == len(statuses) == 7
    assert [int(n) for n in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)] == sorted(statuses.values())


def test_a_run_that_diverges_says_so_by_its_status_and_again(tmp_path, capsys):
    for _ in range(2):
        assert main(command(tmp_path, "--lr", "1e30")) == exit_status.DIVERGED
    assert "diverged" in capsys.readouterr().out
    assert main(command(tmp_path, "--lr", "1e-5", "--out", str(tmp_path / "other"))) == exit_status.OK


def test_a_run_whose_steps_are_skipped_is_stopped_with_its_status(tmp_path, capsys):
    assert main(command(tmp_path, "--lr", "1e39", "--max-skipped", "3")) == exit_status.DIVERGED
    assert "3 steps in a row were skipped" in capsys.readouterr().err


def test_a_full_disk_is_a_fault(tmp_path, monkeypatch, capsys):
    def full(descriptor, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("zobench.run.journal.write_all", full)
    with pytest.raises(SystemExit) as stopped:
        main(command(tmp_path))
    assert stopped.value.code == exit_status.FAULT and "No space left" in capsys.readouterr().err


def test_sigterm_ends_any_command_as_ctrl_c_does(capsys):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped, ended("python -m llm compare"):
        os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.code == exit_status.INTERRUPTED and signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().err == "python -m llm compare: interrupted; all measurements are kept\n"


def test_ctrl_c_ends_a_process_after_its_step_with_its_status(tmp_path):
    arguments = [sys.executable, "-m", "llm", "train", *QUICK, "--steps", "100000", "--out", str(tmp_path / "run")]
    journal = tmp_path / "run/journal.bin"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(arguments, cwd=ROOT, env=ENVIRONMENT, **pipes) as process:
        while process.poll() is None and not (journal.exists() and len(read(journal).records) > 2):
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=120)
    assert process.returncode == exit_status.INTERRUPTED
    assert told.decode() == "python -m llm train: interrupted; all measurements are kept\n"
    kept = read(journal)
    assert kept.torn == 0 and list((tmp_path / "run/checkpoints").glob(f"step-{len(kept.records):08d}.safetensors"))


def test_whoever_reads_may_leave():
    line = f"{sys.executable} -m llm list | head -1; exit ${{PIPESTATUS[0]}}"
    found = subprocess.run(["bash", "-c", line], capture_output=True, cwd=ROOT, env=ENVIRONMENT)
    assert found.stderr == b"" and found.returncode in (exit_status.OK, exit_status.BROKEN_PIPE)


def test_many_short_bars_together_write_a_line_a_minute(monkeypatch):
    stream, now = io.StringIO(), [0.0]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("zobench.run.progress.time.monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "_told", None)
    for number in range(5):
        with progress.part_of(f"run {number + 1}/5"), progress.bar(total=2, desc="mezo", unit="step") as shown:
            for _ in range(2):
                now[0] += 20
                shown.set_postfix_str(f"loss {number}")  # writes nothing by itself
                shown.update()
    assert stream.getvalue().splitlines() == [
        "run 2/5, mezo: 1/2 step after 00:20, 00:20 left, loss 1",
        "run 3/5, mezo: 2/2 step after 00:40, 00:00 left, loss 2",
        "run 5/5, mezo: 1/2 step after 00:20, 00:20 left, loss 4",
    ]


def test_a_narrow_terminal_cuts_the_bar_and_not_the_loss(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.bar(range(3), desc="mezo", unit="step", ncols=50, dynamic_ncols=False, mininterval=0) as shown:
        for _ in shown:
            shown.set_postfix_str("train loss 0.523")
    last = stream.getvalue().split("\r")[-1].rstrip()
    assert last.startswith("mezo: 3/3 step") and "train loss 0.523" in last and len(last) <= 51


def test_the_time_left_of_a_study_is_that_of_the_runs_it_made(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("llm.studies.overall.time.monotonic", lambda: now[0])
    (tmp_path / "done").mkdir()
    (tmp_path / "done/rows.jsonl").write_text('{"kind": "final"}\n')
    whole = Overall({"done": 100, "a": 100, "b": 300, "c": 100})
    assert str(whole) == "run 1/4"
    with whole.run("done", tmp_path / "done"):  # found finished: it tells nothing of the speed
        now[0] += 1
    assert str(whole) == "run 2/4"
    with whole.run("a", tmp_path / "a"):
        now[0] += 60
    assert str(whole) == "run 3/4 (04:00 left)"  # 400 of 100 a minute
    with whole.run("b", tmp_path / "b"):
        now[0] += 180
    assert str(whole) == "run 4/4 (01:00 left)"
