"""The hunt is quiet where nothing is wrong, and sees a NaN and a wrong number that are planted."""

import nan_hunt
import pytest
from nan_hunt import BLOCK, Setting, hunted, in_a_process, is_bad, told, wanted

from zobench import layout
from zobench.space import in_forward
from zobench.space.sweep import Sweep

PAIRED = Setting("paired", "eager", 2)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(layout, "BLOCK_SIZE", BLOCK)


@pytest.mark.parametrize("setting", [Setting("in-forward", "native", 1), PAIRED, Setting("plain", "eager", 1)])
def test_nothing_is_found_where_nothing_is_wrong(setting):
    row = hunted(setting, [1], steps=2)
    assert not is_bad(row), row
    assert row["steps"] == 2 and row["looked"]["loss"] == 2
    assert ("read" in row["looked"]) == (setting.engine != "plain")


def test_planted_a_block_that_nobody_fills_is_seen_as_nan(monkeypatch):
    sweep = Sweep._sweep
    monkeypatch.setattr(Sweep, "_sweep", lambda self, block: None if block.index == 2 else sweep(self, block))
    row = hunted(PAIRED, [1], steps=1)
    assert is_bad(row) and row["not_finite"][0].startswith("read "), row


def test_planted_a_wrong_number_is_seen_as_a_difference(monkeypatch):
    whole = in_forward.View.whole
    wanted(3, 1)  # of the right numbers
    monkeypatch.setattr(in_forward.View, "whole", lambda self, name: whole(self, name) * 1.5)
    row = hunted(Setting("in-forward", "eager", 1), [3], steps=1)
    assert is_bad(row) and row["differ"] == [3] and not row["not_finite"]


def test_a_lost_process_is_a_row(monkeypatch):
    monkeypatch.setattr(nan_hunt, "__file__", "/dev/null/nowhere")
    (row,) = in_a_process(0, "255")
    assert is_bad(row) and row["kind"] == "process" and "nowhere" in "".join(row["said"])


def test_the_last_line_adds_up():
    settings = [hunted(Setting("plain", "eager", 1), [1], steps=1)] * 2
    processes = [{"kind": "process", "ended": status} for status in (0, -11)]
    line = told([*settings, *processes])
    assert line.startswith("2 steps, 0 settings with a number that is not finite, 0 that differ, 1 processes lost")
