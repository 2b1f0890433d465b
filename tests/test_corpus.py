"""The shipped texts, and the wall between the test pool and everything else."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest

from llm.pretraining import corpus
from llm.pretraining.corpus import CorpusError, Row

NAMES = sorted(corpus.COLUMNS)


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_files_are_those_the_attribution_describes(name: str) -> None:
    digest = sha256((corpus.DATA / f"{name}.csv").read_bytes()).hexdigest()
    assert digest in (corpus.DATA / "ATTRIBUTION.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "groups", "counts"),
    [("spam", {"sms"}, {0: 4518, 1: 641}), ("sentences", {"imdb", "yelp", "amazon"}, {0: 1492, 1: 1490})],
)
def test_classes_and_groups(name: str, groups: set[str], counts: dict[int, int]) -> None:
    rows = corpus.read(name)
    assert {row.group for row in rows} == groups
    assert Counter(row.label for row in rows) == counts
    assert len({row.text for row in rows}) == len(rows)


@pytest.mark.parametrize("name", NAMES)
def test_the_test_pool_is_a_quarter_of_either_class(name: str) -> None:
    rows = corpus.read(name)
    for label in (0, 1):
        pool = [corpus.held_out(row.text) for row in rows if row.label == label]
        assert 0.22 < sum(pool) / len(pool) < 0.28


def test_near_duplicates_fall_on_one_side() -> None:
    for row in corpus.read("spam")[:300]:
        again = f"  {row.text.upper()} !!".replace("1", "907").replace(".", " - ")
        assert corpus.normalised(again) == corpus.normalised(row.text)
        assert corpus.held_out(again) == corpus.held_out(row.text)


def test_the_pool_never_moves() -> None:
    texts = ["Call 09061701461 now!", "Ok lar...", "Text 1", "Text two", "Text three", "Text four", ""]
    assert [corpus.held_out(text) for text in texts] == [False, True, False, False, True, False, False]
    assert corpus.normalised("Call 0906-1701 NOW!! £5_00") == "call 0 0 now 0 0"


def test_no_held_out_text_is_pretrained_on() -> None:
    def normal(texts: list[str]) -> set[str]:
        return {corpus.normalised(text) for text in texts}

    seen, held = corpus.pretraining_texts(), corpus.held_out_texts()
    assert len(seen) + len(held) == sum(len(corpus.read(name)) for name in NAMES)
    assert not normal(seen) & normal(held)


def test_a_text_may_hold_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    (tmp_path / "spam.csv").write_text('text,label\n"a ""b"", c\nd",1\n', encoding="utf-8")
    assert corpus.read("spam", tmp_path) == [Row('a "b", c\nd', 1, "sms")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,class\nhello,1\n", r"spam\.csv:1: columns are 'text,class', expected 'text,label'"),
        ("", r"spam\.csv:1: columns are ''"),
        ("text,label\nhello,1\nhello\n", r"spam\.csv:3: 1 cells, expected 2"),
        ("text,label\nhello,spam\n", r"spam\.csv:2: label 'spam' is neither 0 nor 1"),
        ("text,label\n ,1\n", r"spam\.csv:2: empty text"),
        ('text,label\n"hello,1\n', r"spam\.csv:\d: "),
    ],
)
def test_malformed_files_are_named_with_the_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "spam.csv").write_text(content, encoding="utf-8")
    with pytest.raises(CorpusError, match=message):
        corpus.read("spam", tmp_path)


def test_missing_files_and_unknown_names_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"spam\.csv: no such file"):
        corpus.read("spam", tmp_path)
    with pytest.raises(CorpusError, match="no corpus is called 'spum'; there are sentences, spam"):
        corpus.read("spum")
