"""The command line of `python -m llm journal show | verify | replay | diff`."""

import argparse
from collections.abc import Sequence

from zobench.run.command import CommandParser, add_quiet, add_version, ended, imported
from zobench.run.progress import quietly

ABOUT = "What the journal of a run says, and the weights rebuilt from it: show, verify, replay, diff."
COMMANDS = {
    "show": (("run",), "Print the header, the last steps and what was measured between them."),
    "verify": (
        ("run",),
        "Check every file of a run or of an export: print a line with the result for each file, and change nothing.",
    ),
    "replay": (
        ("run",),
        "Rebuild the weights from only the base model and the journal, and compare them with the weights of the run.",
    ),
    "diff": (("run", "other"), "Say what differs between two journals: keys of the headers, and the first step."),
}
"""Command -> the places of its command line, and what it does: the function of that name in llm.run.journal."""

OWN_PARTS = {"method": "an estimator", "rule": "an update rule", "engine": "an engine"}
"""Parts that may be the user's own: a journal imports no module, so the command line must name it again."""


def main(argv: Sequence[str], prog: str = "python -m llm journal") -> int:
    """Run one of the commands; return 0, 1 where what was asked does not hold, or another zobench.run.exit_status."""
    arguments = _parser(prog).parse(argv)
    try:
        with ended(f"{prog} {arguments.command}"), quietly(arguments.quiet):
            return imported(f"llm.run.journal:{arguments.command}")(arguments) or 0
    except SystemExit as stopped:
        return int(stopped.code or 0)


def _parser(prog: str) -> CommandParser:
    parser = CommandParser(prog=prog, description=ABOUT)
    add_version(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (places, about) in COMMANDS.items():
        command = commands.add_parser(name, help=about, description=about)
        add_quiet(command)
        for place in places:
            command.add_argument(place, help="folder of a run, or a journal file")
        _add_own(command, name)
    return parser


def _add_own(command: argparse.ArgumentParser, name: str) -> None:
    """The options of one command."""
    add = command.add_argument
    if name == "show":
        add("--last", type=int, default=10, metavar="N", help="steps to show (default: 10)")
    if name == "verify":
        add("--replay", action="store_true", help="rebuild the weights too, and compare them")
    if name == "replay":
        add("--out", help="folder for the weights; by default nothing is written")
        add("--steps", type=int, metavar="N", help="number of steps to repeat; by default up to the selected step")
    if name in ("verify", "replay"):
        add("--model", help="the base model, if it is not the one that the journal names")
        for part, what in OWN_PARTS.items():
            add(f"--{part}", help=f"package.module:function that makes {what} of your own")
        add("--device", help="where to repeat the steps; by default on the device of the journal")
        add("--trust-remote-code", action="store_true", help="allow the model to run Python code of its own")
