"""Figures as files: the format by the suffix, the same bytes for the same figure."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from zobench.figures import style
from zobench.figures.frame import ReadError

METADATA: Mapping[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}
"""What Matplotlib is told by format, so that the same figure gives the same bytes: no dates, no version strings."""

FORMATS = (*METADATA, "pgf")


def require_format(file: Path, option: str = "--out") -> str:
    """Return the format of a file by its suffix.

    Raises:
        ReadError: none of FORMATS, or PGF without LaTeX; the message names the option.
    """
    suffix = file.suffix.lower().lstrip(".")
    if suffix not in FORMATS:
        raise ReadError(f"{option} {str(file)!r}: end it in one of {', '.join('.' + name for name in FORMATS)}")
    latex = matplotlib.rcParams["pgf.texsystem"]
    if suffix == "pgf" and not shutil.which(latex):
        raise ReadError(
            f"{option} {str(file)!r}: a .pgf needs {latex} to measure its texts: install LaTeX, or write a .pdf"
        )
    return suffix


@style.styled
def write(figures: Iterable[tuple[str, Figure]], file: Path) -> list[Path]:
    """Write named figures and return their files: `file` for a single one, else with its name before the suffix.

    Raises:
        ReadError: see `require_format`.
    """
    suffix, made = require_format(file), list(figures)
    told: dict[str, Any] = {"metadata": METADATA[suffix]} if suffix in METADATA else {}  # PGF takes none
    file.parent.mkdir(parents=True, exist_ok=True)
    files = [file if len(made) == 1 else file.with_name(f"{file.stem}-{name}{file.suffix}") for name, _ in made]
    for path, (_, figure) in zip(files, made, strict=True):
        figure.savefig(path, format=suffix, **told)
    return files
