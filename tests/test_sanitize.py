"""The driver of the sanitizers finds nothing in the C code, and finds an error that is planted."""

import pytest
from sanitize import SANITIZERS, SOURCE, compiler, run

ADDRESS, MEMORY = SANITIZERS


def needs(names):
    return pytest.mark.skipif(compiler(names) is None, reason=f"no C compiler here has -fsanitize={names}")


PLANTED = {
    "memory": ("(size_t)s->points + 2) * CHUNK", "(size_t)s->points + 1) * CHUNK"),
    "a type": ("bytes == count * (type == FLOAT32 ? 4 : 2)", "bytes >= 0"),
    "a mask": ("line->mask_bytes != (count + 7) / 8", "line->mask_bytes < 0"),
    "octets": ("line->mask + at / 8", "line->mask + at / 7"),
    "factors": ("line->left_count / line->rank != count / line->columns", "0"),
    "a part": ("memcpy((char *)to + each * (done + begin)", "memcpy((char *)to + each * done"),
    "a counter": ("at = later(at, CHUNK / of_counter)", "at.low += CHUNK / of_counter"),
    "bits behind the last": ("memset(kept + n, 0, (size_t)(CHUNK - n));\n        if", "if"),
    "eight": ("kept + 8 * k, sizeof eight", "kept + 7 * k, sizeof eight"),
    "octets of a sweep": ("s->small + at / 8", "s->small + at / 7"),
    "another size": ("s->small_bytes != (s->count + 7) / 8", "s->small_bytes < 0"),
    "what is left": ("fabsf(x[i]) <= bound", "fabsf(x[i]) < bound + 1"),
    "a bound": ("<= (type)bound", "< (type)bound - 1"),
    "a limit": ("words[i] < limit", "words[i] <= limit / 2"),
    "threads": (
        "for (int64_t start; (start = __atomic_fetch_add(taken, PIECE, __ATOMIC_RELAXED)) < s->count;)",
        "for (int64_t start = *taken; start < s->count; start += PIECE)",
    ),
}  # fmt: skip
UNWRITTEN = ("store(s->targets[p], at, y, n, s->target_type)", "store(s->targets[p], at, y, n - 1, s->target_type)")
"""An entry of a target keeps what was there before: no address is wrong."""


def planted(folder, right, wrong):
    texts = {name: (SOURCE / name).read_text() for name in ("sweep.c", "masks.c", "octets.h", "draw.h")}
    assert sum(text.count(right) for text in texts.values()) == 1
    for name, text in texts.items():  # all: a file is looked for beside the one that includes it
        (folder / name).write_text(text.replace(right, wrong))
    return folder


@pytest.mark.parametrize("names", [pytest.param(names, marks=needs(names)) for names in SANITIZERS])
def test_random_calls_are_sound(names):
    found = run(SOURCE, 40, 3, names)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("40 random sweeps")


@needs(ADDRESS)
@pytest.mark.parametrize(("right", "wrong"), PLANTED.values(), ids=PLANTED)
def test_a_planted_error_is_found(right, wrong, tmp_path):
    assert run(planted(tmp_path, right, wrong), 100, 3).returncode != 0


@needs(MEMORY)
def test_a_planted_entry_that_is_not_written_is_found(tmp_path):
    assert "uninitialized" in run(planted(tmp_path, *UNWRITTEN), 100, 3, MEMORY).stderr
