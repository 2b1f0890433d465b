"""Groups that limit memory: made where they can be, gone afterwards, and only where the system limits by them."""

import subprocess
import sys

import pytest

from llm.bench.control_group import _made, limited
from llm.bench.limited import _JOIN, _trained
from llm.bench.memory import MIB


def test_a_folder_that_limits_nothing_is_no_group(tmp_path):
    assert _made(tmp_path, "memory.max", 1) is None and not list(tmp_path.iterdir())


def test_a_process_joins_the_group_and_its_memory_counts_there():
    with limited(256 * MIB) as group:
        if group is None:
            pytest.skip("no control group can be made here")
        assert int((group.folder / group.limit).read_text()) == 256 * MIB
        work = "held = bytearray(b'x' * (64 << 20)); print(open('/proc/self/cgroup').read())"
        said = subprocess.run(
            [sys.executable, "-c", _JOIN, str(group.processes), "-c", work], capture_output=True, text=True, check=True
        )
        assert group.folder.name in said.stdout
        assert group.peak is None or 64 * MIB <= group.peak <= 256 * MIB
    assert not group.folder.exists()


def test_a_command_that_is_watched_gives_its_memory_and_its_end():
    held = _trained(["-c", "import time; held = bytearray(b'x' * (64 << 20)); time.sleep(0.5)"], None)
    assert held["anonymous_mb"] >= 64 and held["status"] == 0 and "reason" not in held
    failed = _trained(["-c", "raise SystemExit('no such thing')"], None)
    assert failed["status"] == 1 and "no such thing" in failed["reason"]
