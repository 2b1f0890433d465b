"""What the commands do: `report`, `tables`, `figure`."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from analysis import drawings
from analysis.claims import ledger
from analysis.drawings import DRAWINGS
from analysis.report import SECTIONS, write
from analysis.rows import ReadError, Results, read
from analysis.tables.table import markdown
from zobench.figures.files import require_format
from zobench.figures.sheet import Sheet, settings_of, style_of, width

FOLDERS = ("bias", "kernels", "design", "phase", "spam", "kerzoo-claims", "kerzoo", "smollm2-long")
"""The folders below results/ that the ledger reads by default, as far as they have rows."""


def claims(arguments: argparse.Namespace) -> None:
    """Write or print the ledger of claims."""
    out: Path | None = arguments.out
    if out is not None and out.suffix not in (".md", ".html"):
        raise ReadError(f"--out {str(out)!r}: give a file that ends in .md or .html")
    results = _warned(read(arguments.folders or default_folders()))
    found = ledger.ledger(results)
    if out is None:
        print(ledger.as_markdown(found))
        return
    page = ledger.as_html(found) if out.suffix == ".html" else ledger.as_markdown(found) + "\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    print(f"{len(found)} claims, of which {ledger.counted(found)} -> {out}")


def default_folders(root: Path = Path("results")) -> list[Path]:
    """Return the folders of FOLDERS that have rows.

    Raises:
        ReadError: none has.
    """
    found = [root / name for name in FOLDERS if any((root / name).rglob("rows.jsonl"))]
    if not found:
        raise ReadError(f"no rows under {str(root)!r}: give run folders, or call this from the checkout")
    return found


def figure(arguments: argparse.Namespace) -> None:
    """Write one kind of figure."""
    require_format(arguments.out)
    settings = settings_of(arguments.settings) if arguments.settings else {}
    order = arguments.order.split(",") if arguments.order else settings.get("order", [])
    style = arguments.style or settings.get("style")
    paper = Sheet(
        width=width(arguments.columns or settings.get("columns", "two")),
        names=settings.get("labels", {}) | dict(_pairs("--label", arguments.label)),
        order=list(map(str, order)),
        colours=settings.get("colours", {}) | dict(_pairs("--colour", arguments.colour)),
        rc=style_of(Path(style)) if style else {},
    )
    subset = settings.get("only", {}) | {name: value.split(",") for name, value in _pairs("--only", arguments.only)}
    results = _warned(read(arguments.rows, DRAWINGS[arguments.kind].rows[0]))
    results = drawings.only(results, arguments.kind, {name: _texts(values) for name, values in subset.items()})
    for file in drawings.draw(arguments.kind, results, arguments.out, paper):
        print(file)


def _texts(values: Any) -> list[str]:
    return list(map(str, values)) if isinstance(values, list) else [str(values)]


def _pairs(option: str, pairs: Iterable[str]) -> Iterable[tuple[str, str]]:
    for each in pairs:
        name, equals, value = each.partition("=")
        if not (name and equals and value):
            raise ReadError(f"{option} {each!r}: give NAME=VALUE")
        yield name, value


def _warned(results: Results) -> Results:
    for warning in results.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return results


def _read(arguments: argparse.Namespace) -> Results:
    return _warned(read(arguments.folders))


def tables(arguments: argparse.Namespace) -> None:
    """Print the tables of the report."""
    results = _read(arguments)
    found = [markdown(table) for section in SECTIONS for table in section(results).tables]
    print("\n\n".join(found))


def report(arguments: argparse.Namespace) -> None:
    """Write the report, and its figures beside it."""
    out: Path = arguments.out
    if out.is_dir():
        raise ReadError(f"--out {str(out)!r} is a folder: name a file in it, as {str(out / 'report.html')!r}")
    results = _read(arguments)
    out.parent.mkdir(parents=True, exist_ok=True)
    figures = write(results, out, arguments.title)
    rows = sum(len(run.rows) for run in results.runs)
    print(
        f"{rows:,} rows, {len(results.runs)} run folders -> {out.resolve()}\n"
        f"figures (PNG, SVG, PDF) -> {figures.resolve()}"
    )
    print(f"next: open {out} in a browser; python -m analysis figure --help draws one figure for a paper")
