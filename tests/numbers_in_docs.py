"""Measurements in the pages, and the sections that name neither a command nor the rows that they are from."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
UNIT = r"s|ms|µs|seconds?|minutes?|hours?|min|h|GiB|MiB|KiB|GB|MB|kB|%|percent|points|times|core-\w+|GFLOPS|passes/s"
MEASURED = re.compile(rf"(?<![\w.:=^/-])\d[\d,]*(?:\.\d+)?(?: |\u00a0)?(?:{UNIT})(?![\w/])")
"""A number with a unit of something measured."""
SOURCE = re.compile(
    r"python -m |(?:`| {4}|\$ )make [a-z]|results/|pytest |zobench audit|\.ci/|tests/\w+\.py|rows\.jsonl|python tests/"
)
"""A command or a file of rows."""
GENERATED = re.compile(r"<!-- ([^>]*): python -m docs\.site\.fill -->.*?<!-- end of \1 -->", re.DOTALL)
HEADING = re.compile(r"^#{1,6} .*$", re.MULTILINE)


class Section(NamedTuple):
    """A part of a page from a heading to the next."""

    page: str
    heading: str
    text: str

    @property
    def numbers(self) -> list[str]:
        """Numbers with units and cells of tables, outside code and generated tables."""
        text = re.sub(r"^ {4,}[^\n]*$|`[^`\n]*`|^```.*?^```", "", GENERATED.sub("", self.text), flags=re.M | re.DOTALL)
        cells = [cell.strip() for row in re.findall(r"^\|(.*)\|$", text, re.M) for cell in row.split("|")]
        return MEASURED.findall(text) + [cell for cell in cells if re.fullmatch(r"\d[\d,]*\.\d+", cell)]

    @property
    def sourced(self) -> bool:
        """Whether it names a command or rows."""
        return bool(SOURCE.search(self.text))


def pages() -> list[Path]:
    """Return README and the pages of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def sections(page: Path) -> Iterator[Section]:
    """Yield the sections of a page; a heading within a fence is none."""
    text = page.read_text(encoding="utf-8")
    fences = [match.span() for match in re.finditer(r"^```.*?^```", text, re.M | re.DOTALL)]
    heads = [m for m in HEADING.finditer(text) if not any(a <= m.start() < b for a, b in fences)]
    starts = [0, *(m.start() for m in heads)]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        part = text[start:end]
        if part.strip():
            yield Section(page.relative_to(ROOT).as_posix(), part.partition("\n")[0].lstrip("# "), part)


def unsourced() -> list[Section]:
    """Return the sections with measurements and without their source."""
    return [part for page in pages() for part in sections(page) if part.numbers and not part.sourced]


PAGES_OF_ROWS = {
    "docs/findings.md": "its first paragraph names results/ and the commands for all numbers",
    "docs/gallery.md": "its first paragraph names the command that makes all figures, which the texts describe",
}
"""Pages that name the source of all their numbers once."""

EXCEPTIONS = {
    ("docs/baselines.md", "Cost"): "the size of an interpreter with its libraries, which readers see in their own rows",
    ("docs/faq.md", "One seed works, the next does not"): "quotes findings, to which it links",
    ("docs/faq.md", "The checkpoint of 0.1 MB that the paper promises"): "a number of a paper, in the title",
    ("docs/integrations.md", "A loop of your own: `zobench.optim.ZerothOrder`"): "a constant of the code",
    ("docs/integrations.md", "SciPy"): "a default",
    ("docs/kerzoo-plan.md", "The numbers and the tests"): "bounds of a plan",
    ("docs/kerzoo-plan.md", "Cost"): "an estimate of a plan",
    ("docs/objectives.md", "Generation"): "a default",
    ("docs/objectives.md", "Cost: computations that are saved"): "says that no command repeats it",
    ("docs/property-tests.md", "A plain function"): "a bound of the code",
    ("docs/scale.md", "How a run is claimed"): "constants of the code",
    (
        "docs/theory.md",
        "One family",
    ): "moments, asserted in tests/test_kernels.py and tests/test_stencils.py",
    ("docs/theory.md", "KerZOO's variants"): "moments of kernels, asserted in tests/test_shrinking.py",
}
"""Sections whose numbers are no measurements, or have their source elsewhere, and why."""
