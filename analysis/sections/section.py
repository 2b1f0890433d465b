"""The parts of a section of the page: sentences that the rows support, figures and tables."""

from dataclasses import dataclass, field

from matplotlib.figure import Figure

from analysis.kinds import KINDS
from analysis.tables.table import Table


@dataclass(frozen=True)
class Illustration:
    """A figure, its file name without ending, what it shows, and a line for readers who cannot see it.

    `narrow` is the same for a narrow screen, its panels below each other.
    """

    stem: str
    figure: Figure
    caption: str
    alt: str
    narrow: Figure | None = None


@dataclass(frozen=True)
class Section:
    """One heading of the report. `missing` is, where there are no rows, the command that makes them."""

    key: str
    title: str
    sentences: list[str] = field(default_factory=list)
    illustrations: list[Illustration] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    missing: str = ""


def missing(key: str, title: str, kind: str) -> Section:
    """A section without rows, which names the command that writes them."""
    return Section(key, title, missing=KINDS[kind].command)
