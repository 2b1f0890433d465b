"""`python -m llm gpu`: what becomes of a job that fails, is late, or says what does not hold."""

import pytest

import llm.gpu
from llm.gpu.job import Here, Job, SkippedError
from llm.gpu.worker import FailedError, LateError


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
