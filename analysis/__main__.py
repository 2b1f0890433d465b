"""Command line: `python -m analysis report | tables | claims RUN_FOLDER...`, `... figure KIND ROWS...`."""

import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.shown import FORMATS, SHOWN
from zobench.run.command import CommandParser, add_version, ended, imported

EPILOG = """examples:
  python -m analysis report runs                          every run below runs/, into report.html
  python -m analysis report runs/bias runs/opt-* --out results/opt.html
"""


def parser(prog: str = "python -m analysis") -> CommandParser:
    """The command line."""
    top = CommandParser(prog=prog, description="Figures, tables and the report from result folders.")
    add_version(top)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    report = commands.add_parser(
        "report",
        help="one self-contained HTML page, and its figures as PNG, SVG and PDF",
        description="Write one self-contained HTML page from run folders, and its figures as PNG, SVG and "
        "PDF beside it. Reads files only; the same rows give the same bytes.",
        epilog=EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
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
    report.add_argument(
        "--out", type=Path, default=Path("report.html"), help="the page to write (default: %(default)s)"
    )
    report.add_argument("--title", default="zobench report", help="heading of the page (default: %(default)s)")
    _add_claims(commands)
    _add_figure(commands)
    return top


FIGURES = """examples:
  python -m analysis figure bias runs/bias --out bias.pdf --columns one --only problem=sextic
  python -m analysis figure convergence rows.csv --out convergence.svg --order mezo,mine --label mine="This paper"
"""


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


def _add_figure(commands: Any) -> None:
    shown = "\n".join(f"  {name:12} {shows}" for name, shows in SHOWN.items())
    figure = commands.add_parser(
        "figure",
        help="one figure for a paper, as PDF, SVG, PNG or PGF",
        description=f"Draw one kind of figure from rows. Kinds:\n{shown}",
        epilog=FIGURES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    add = figure.add_argument
    add("kind", choices=SHOWN, metavar="KIND", help="one of the kinds above")
    add("rows", nargs="+", type=Path, metavar="ROWS", help="run folders, or .csv and .jsonl files of rows")
    add("--out", type=Path, required=True, help=f"the file to write: {', '.join('.' + name for name in FORMATS)}")
    add("--columns", help="width: one column (3.4 inches), two (7.2), or a number of inches (default: two)")
    add("--only", action="append", default=[], metavar="COLUMN=VALUE[,VALUE]", help="leave out all other rows")
    add("--order", metavar="LABEL[,LABEL]", help="order of methods or labels in the legend; the others follow")
    add("--label", action="append", default=[], metavar="LABEL=WORDS", help="words for a label of the legend")
    add("--colour", action="append", default=[], metavar="LABEL=COLOUR", help="colour of a method or label")
    add("--style", type=Path, metavar="FILE", help="a Matplotlib style file (.mplstyle), which comes before ours")
    add("--settings", type=Path, metavar="FILE", help="a TOML file of these options; the command line comes first")


def main(argv: Sequence[str] | None = None, prog: str = "python -m analysis") -> int:
    """Run the command line; 0 if it went well, 2 after an error that the user can correct."""
    arguments = parser(prog).parse(argv)
    try:
        with ended(f"{prog} {arguments.command}"):
            imported(f"analysis.command:{arguments.command}")(arguments)
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
