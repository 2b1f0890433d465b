"""Command line: `python -m analysis report | tables | claims RUN_FOLDER...`, `... figure KIND ROWS...`."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from analysis import drawings
from analysis.claims import ledger
from analysis.drawings import DRAWINGS
from analysis.report import SECTIONS, write
from analysis.rows import ReadError, Results, read
from analysis.tables.table import markdown
from zobench.figures.files import FORMATS, require_format
from zobench.figures.sheet import Sheet, settings_of, style_of, width

EPILOG = """examples:
  python -m analysis report runs                          every run below runs/, into report.html
  python -m analysis report runs/bias runs/opt-* --out results/opt.html
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m analysis", description="Figures, tables and the report from result folders."
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    report = commands.add_parser(
        "report",
        help="one self-contained HTML page, and its figures as PNG, SVG and PDF",
        description="Write one self-contained HTML page from run folders, and its figures as PNG, SVG and "
        "PDF beside it. Reads files only; the same rows give the same bytes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shown = commands.add_parser(
        "tables",
        help="the tables of the report in Markdown",
        description="Print the tables of the report in Markdown.",
    )
    for command in (report, shown):
        command.add_argument(
            "folders",
            nargs="+",
            type=Path,
            metavar="RUN_FOLDER",
            help="a folder with rows.jsonl, or one that has such folders below",
        )
    shown.set_defaults(run=_tables)
    report.add_argument(
        "--out", type=Path, default=Path("report.html"), help="the page to write (default: %(default)s)"
    )
    report.add_argument("--title", default="zobench report", help="heading of the page (default: %(default)s)")
    report.set_defaults(run=_report)
    _add_claims(commands)
    _add_figure(commands)
    return top


FOLDERS = ("bias", "kernels", "design", "phase", "spam", "kerzoo-claims", "kerzoo", "smollm2-long")
"""The folders below results/ that the ledger reads by default, as far as they have rows."""


def _add_claims(commands: Any) -> None:
    claims = commands.add_parser(
        "claims",
        help="the ledger of claims on KerZOO: each with what was measured, and a verdict",
        description="Compute the ledger of claims on KerZOO from rows: claim, source, how it was tested, n, estimate "
        "with interval, p, verdict. The suffix of --out chooses Markdown or HTML; without it Markdown is printed.",
    )
    add = claims.add_argument
    add("folders", nargs="*", type=Path, metavar="RUN_FOLDER", help="run folders (default: those under results/)")
    add("--out", type=Path, metavar="FILE", help="the file to write, .md or .html")
    claims.set_defaults(run=_claims)


def _claims(arguments: argparse.Namespace) -> None:
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


FIGURES = """examples:
  python -m analysis figure bias runs/bias --out bias.pdf --columns one --only problem=sextic
  python -m analysis figure convergence rows.csv --out convergence.svg --order mezo,mine --label mine="This paper"
"""


def _add_figure(commands: Any) -> None:
    shown = "\n".join(f"  {name:12} {drawing.shows}" for name, drawing in DRAWINGS.items())
    figure = commands.add_parser(
        "figure",
        help="one figure for a paper, as PDF, SVG, PNG or PGF",
        description=f"Draw one kind of figure from rows. Kinds:\n{shown}",
        epilog=FIGURES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = figure.add_argument
    add("kind", choices=DRAWINGS, metavar="KIND", help="one of the kinds above")
    add("rows", nargs="+", type=Path, metavar="ROWS", help="run folders, or .csv and .jsonl files of rows")
    add("--out", type=Path, required=True, help=f"the file to write: {', '.join('.' + name for name in FORMATS)}")
    add("--columns", help="width: one column (3.4 inches), two (7.2), or a number of inches (default: two)")
    add("--only", action="append", default=[], metavar="COLUMN=VALUE[,VALUE]", help="leave out all other rows")
    add("--order", metavar="LABEL[,LABEL]", help="order of methods or labels in the legend; the others follow")
    add("--label", action="append", default=[], metavar="LABEL=WORDS", help="words for a label of the legend")
    add("--colour", action="append", default=[], metavar="LABEL=COLOUR", help="colour of a method or label")
    add("--style", type=Path, metavar="FILE", help="a Matplotlib style file (.mplstyle), which comes before ours")
    add("--settings", type=Path, metavar="FILE", help="a TOML file of these options; the command line comes first")
    figure.set_defaults(run=_figure)


def _figure(arguments: argparse.Namespace) -> None:
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


def _tables(arguments: argparse.Namespace) -> None:
    results = _read(arguments)
    found = [markdown(table) for section in SECTIONS for table in section(results).tables]
    print("\n\n".join(found))


def _report(arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    if out.is_dir():
        raise ReadError(f"--out {str(out)!r} is a folder: name a file in it, as {str(out / 'report.html')!r}")
    results = _read(arguments)
    out.parent.mkdir(parents=True, exist_ok=True)
    figures = write(results, out, arguments.title)
    rows = sum(len(run.rows) for run in results.runs)
    print(
        f"{rows:,} rows of {len(results.runs)} runs -> {out.resolve()}\nfigures (PNG, SVG, PDF) -> {figures.resolve()}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 if it went well, 2 after an error that the user can correct."""
    arguments = parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
