"""`python -m llm gpu`: what becomes of a job that fails, is late, or says what does not hold."""

import pytest

import llm.gpu
from llm.gpu import streamed
from llm.gpu.job import Here, Job, SkippedError
from llm.gpu.worker import FailedError, LateError
from zobench.space.slots import Slots


class Scripted:
    """A worker whose job yields these rows, then raises."""

    def __init__(self, folder, rows, error=None):
        self.here, self._rows, self._error = Here("cpu", folder, folder), rows, error

    def rows(self, job, seconds):
        yield from self._rows
        if self._error is not None:
            raise self._error


@pytest.mark.parametrize(
    ("rows", "error", "status", "reason"),
    [
        ([{"check": "signs", "held": True}], None, "ok", ""),
        ([{"check": "signs", "held": False}], None, "wrong", "signs"),
        ([{"seconds": 1.0}], FailedError("out of memory"), "failed", "out of memory"),
        ([{"seconds": 1.0}], LateError("it ran past its limit of 9 s"), "late", "it ran past its limit of 9 s"),
        ([], SkippedError("no CUDA here"), "skipped", "no CUDA here"),
    ],
)
def test_every_end_of_a_job_is_a_row_and_its_rows_are_kept(rows, error, status, reason, tmp_path):
    kept: list[dict[str, object]] = []
    ended = llm.gpu._do(Scripted(tmp_path, rows, error), Job("directions", "all", {}), kept, 480.0, float("inf"))
    assert (ended["status"], ended["reason"]) == (status, reason)
    assert kept == rows


@pytest.mark.parametrize("holds", [True, False])
def test_streamed_steps_are_compared_with_those_in_memory(tmp_path, monkeypatch, holds):
    if not holds:  # a layer is not written back
        monkeypatch.setattr(Slots, "_copy_back", lambda *_: None)
    rows = list(streamed.stepped(Here("cpu", tmp_path / "out", tmp_path), "opt-1m", "float32", 1, 8))
    assert [row.get("engine") for row in rows] == ["in-forward", "streamed", None, None]
    assert rows[2]["held"] == rows[2]["losses_equal"] == rows[2]["weights_equal"] == holds
    assert rows[3]["claim"].startswith("memory of a streamed step") and rows[3]["measured"] > 0
    assert not list((tmp_path / "out").iterdir())
