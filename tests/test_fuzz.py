"""A small `make fuzz`, and what it would say of a program that did worse."""

import pytest
from fuzz import KINDS, Broken, Tally, fuzz, journals, own_files

from llm.tasks import taskfile
from zobench.run import journal_format
from zobench.run.journal import Journal

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_malformed_input_is_refused_in_words_or_read_correctly(kind):
    tally = fuzz(8, kinds=(kind,))
    assert tally.total() >= 20 and {outcome for _, outcome in tally} == {"read", "refused"}


def test_a_traceback_a_silence_and_a_changed_file_are_seen(tmp_path):
    (tmp_path / "a").write_text("a")

    def fails(error):
        raise error

    for act in (lambda: fails(KeyError("x")), lambda: fails(ValueError("")), lambda: (tmp_path / "a").write_text("b")):
        with pytest.raises(Broken):
            Tally().case("test", "x", act, tmp_path)
    tally = Tally()
    tally.case("test", "x", lambda: fails(ValueError("x is 3: give 4")), tmp_path)
    assert tally == {("test", "refused"): 1}


def test_planted_an_empty_text_that_is_taken_is_seen(monkeypatch):
    monkeypatch.setattr(taskfile, "without_empty", lambda records, *columns: (records, []))
    with pytest.raises(Broken, match="was taken"):
        fuzz(1, kinds=(own_files,))


def test_planted_a_journal_without_checksums_is_seen(monkeypatch):
    monkeypatch.setattr(journal_format, "crc32", lambda data, start=0: 0)
    monkeypatch.setattr(journal_format, "crc_hqx", lambda data, start: 0)
    with pytest.raises(Broken):
        fuzz(40, kinds=(journals,))


def test_planted_a_torn_tail_that_is_cut_too_far_is_seen(monkeypatch):
    start = Journal.__init__

    def wrong(self, file, header):
        start(self, file, header)
        if self.cut:
            with self.file.open("r+b") as opened:
                opened.truncate(100)

    monkeypatch.setattr(Journal, "__init__", wrong)
    with pytest.raises(Broken, match="more than a torn tail"):
        fuzz(40, kinds=(journals,))
