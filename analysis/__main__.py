"""Command line: `python -m analysis report | tables RUN_FOLDER...`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.report import SECTIONS, write
from analysis.rows import ReadError, Results, read
from analysis.tables.table import markdown

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
    return top


def _read(arguments: argparse.Namespace) -> Results:
    results = read(arguments.folders)
    for warning in results.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return results


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
    except ReadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
