"""Every measurement in README and docs/ has a command or rows, or is an exception with its reason."""

import re

import numbers_in_docs as numbers
import pytest


def test_every_section_with_measurements_names_a_command_or_rows():
    missing = {
        (part.page, part.heading): part.numbers
        for part in numbers.unsourced()
        if part.page not in numbers.PAGES_OF_ROWS
    }
    new = {where: found for where, found in missing.items() if where not in numbers.EXCEPTIONS}
    assert not new, "name the command or the rows (results/...) of these numbers in their section"
    assert not numbers.EXCEPTIONS.keys() - missing.keys(), "these exceptions are not needed any more"


@pytest.mark.parametrize("page", numbers.PAGES_OF_ROWS)
def test_a_page_whose_numbers_are_all_of_rows_says_so_first(page):
    first = next(part for part in numbers.sections(numbers.ROOT / page) if part.heading)
    assert first.sourced


def test_commands_and_rows_that_pages_name_are_there():
    for page in numbers.pages():
        text = page.read_text(encoding="utf-8")
        for folder in re.findall(r"`(results/[\w./-]*\w)`", text):
            assert (numbers.ROOT / folder).exists(), f"{page.name}: {folder}"
        for file in re.findall(r"`(tests/\w+\.py)`", text):
            assert (numbers.ROOT / file).exists(), f"{page.name}: {file}"


@pytest.mark.parametrize(
    ("text", "found", "sourced"),
    [
        ("A step takes 3.1 s.", ["3.1 s"], False),
        ("A step takes 3.1 s (`python -m llm bench`).", ["3.1 s"], True),
        ("Rows: `results/speed`. It holds 1.2 GiB.", ["1.2 GiB"], True),
        ("| engine | seconds |\n|---|---|\n| plain | 0.31 |", ["0.31"], False),
        ("Give `--hours 3 h`; version 3.11; 10 seeds; figure 2.\n\n    takes 5 s", [], False),
        ("<!-- x: python -m docs.site.fill -->\n93 %\n<!-- end of x -->", [], True),
    ],
)
def test_what_counts_as_a_measurement_and_as_its_source(text, found, sourced):
    part = numbers.Section("page.md", "", text)
    assert (part.numbers, part.sourced) == (found, sourced)
