"""The driver of the sanitizers finds nothing in the C code, and finds an error that is planted."""

import pytest
from sanitize import SOURCE, compiler, run

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler here has the sanitizers")

PLANTED = {
    "memory": ("+ 2) * (CHUNK + GROUP) * sizeof *room", "+ 2) * CHUNK * sizeof *room"),
    "a type": ("bytes == count * (type == FLOAT32 ? 4 : 2)", "bytes >= 0"),
    "seeds": ("line->seed_count != (line->kind == LOW_RANK ? 0 : blocks) || ", ""),
    "a mask": ("line->mask_bytes[b] != (size + 7) / 8", "line->mask_bytes[b] < 0"),
    "octets": ("(at - start) / 8", "at / 8"),
    "factors": ("line->left_count / line->rank != count / line->columns", "0"),
    "a small block": ("s->block < GROUP", "s->block < 1"),
    "threads": ("__atomic_fetch_add(taken, 1, __ATOMIC_RELAXED)) < blocks", "*taken) < 1 && ++*taken"),
}  # fmt: skip


def test_random_calls_are_sound():
    found = run(SOURCE, 40, 3)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("40 random sweeps")


@pytest.mark.parametrize(("right", "wrong"), PLANTED.values(), ids=PLANTED)
def test_a_planted_error_is_found(right, wrong, tmp_path):
    text = (SOURCE / "sweep.c").read_text()
    assert text.count(right) == 1
    (tmp_path / "sweep.c").write_text(text.replace(right, wrong))
    assert run(tmp_path, 100, 3).returncode != 0
