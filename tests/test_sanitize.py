"""The driver of the sanitizers finds nothing in the C code, and finds an error that is planted."""

import pytest
from sanitize import SOURCE, compiler, run

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler here has the sanitizers")

PLANTED = {
    "memory": ("(size_t)s->points + 2) * CHUNK", "(size_t)s->points + 1) * CHUNK"),
    "a type": ("bytes == count * (type == FLOAT32 ? 4 : 2)", "bytes >= 0"),
    "a mask": ("line->mask_bytes != (count + 7) / 8", "line->mask_bytes < 0"),
    "octets": ("line->mask + at / 8", "line->mask + at / 7"),
    "factors": ("line->left_count / line->rank != count / line->columns", "0"),
    "a part": ("memcpy((char *)to + each * (done + begin)", "memcpy((char *)to + each * done"),
    "a counter": ("at = later(at, CHUNK / of_counter)", "at.low += CHUNK / of_counter"),
    "threads": (
        "int64_t start; (start = __atomic_fetch_add(taken, PIECE, __ATOMIC_RELAXED)) < s->count;",
        "int64_t start = 0; start < s->count; start += PIECE",
    ),
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
