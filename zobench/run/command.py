"""A command line of several commands: parsed without the modules that do the work, each mistake told in one line."""

import argparse
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from zobench.naming import nearest
from zobench.run import exit_status
from zobench.run.options import add_arguments, build
from zobench.run.progress import begin, quietly
from zobench.version import VERSION

Command = tuple[type[Any], str | Callable[[Any], int | None]]
"""The dataclass of a command's options, whose docstring says what it does, and its function or "module:function"."""


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line that names the nearest valid word; they exit with BAD_INPUT."""

    def error(self, message: str) -> NoReturn:
        self.exit(exit_status.BAD_INPUT, f"{self.prog}: {message}; {self.prog} --help lists what there is\n")

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Return the arguments; a word that no option or place takes is an error of the command that it was given to.

        Raises:
            SystemExit: after --help, --version or an error.
        """
        arguments, rest = self.parse_known_args(argv)
        if rest:
            command = self._commands().get(getattr(arguments, "command", ""), self)
            command.error(command._unknown(rest))
        return arguments

    def _commands(self) -> dict[str, Any]:
        return {
            name: parser
            for action in self._actions
            if isinstance(action, argparse._SubParsersAction)
            for name, parser in action.choices.items()
        }

    def _unknown(self, rest: Sequence[str]) -> str:
        named = next((word.partition("=")[0] for word in rest if word.startswith("-")), None)
        if named is None:
            return f"unexpected argument {rest[0]!r}"
        return f"unknown option {named!r}.{nearest(named, self._option_string_actions)}".removesuffix(".")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices = list(action.choices or ())
        if action.choices is not None and value not in choices:
            name = "command" if isinstance(action, argparse._SubParsersAction) else action.dest
            known = f"Known: {', '.join(map(str, choices))}"
            self.error(f"unknown {name} {value!r}.{nearest(str(value), choices)} {known}")


def run_command(prog: str, description: str, commands: dict[str, Command], argv: Sequence[str] | None) -> int:
    """Run the command that argv names and return the exit status, what the command returned or 0; an error that the
    user can correct becomes one line on stderr, not a traceback, and exits with a status of zobench.run.exit_status.
    """
    parser = CommandParser(prog=prog, description=description)
    add_version(parser)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (cls, _) in commands.items():
        about = (cls.__doc__ or "").strip()
        subparser = subparsers.add_parser(name, help=about.partition("\n")[0], description=about)
        add_quiet(subparser)
        add_arguments(subparser, cls)
    arguments = parser.parse(argv)
    cls, function = commands[arguments.command]
    with ended(f"{prog} {arguments.command}"), quietly(arguments.quiet):
        options = build(cls, arguments)
        return imported(function)(options) or exit_status.OK


def imported(function: str | Callable[[Any], int | None]) -> Callable[[Any], int | None]:
    """Return the function that "module:function" names; only now its module is imported."""
    if not isinstance(function, str):
        return function
    module, _, name = function.partition(":")
    found: Callable[[Any], int | None] = getattr(importlib.import_module(module), name)
    return found


def add_version(parser: argparse.ArgumentParser) -> None:
    """Give the parser --version."""
    parser.add_argument("--version", action="version", version=f"zobench {VERSION}", help="print the version")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Give the parser --quiet, which is no option of a run: it changes nothing that is measured."""
    parser.add_argument("--quiet", action="store_true", help="print results, warnings and errors only")


@contextmanager
def ended(prog: str) -> Iterator[None]:
    """Tell an error that the user can correct in one line, and exit with its status; SIGTERM ends as Ctrl-C does.

    Raises:
        SystemExit: in place of such an error.
    """
    begin()
    try:
        with _terminable():
            yield
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        status = exit_status.status(error)
        if status is None:
            raise
        if status == exit_status.BROKEN_PIPE:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to flush at the end
            sys.exit(status)
        message = "interrupted; all measurements are kept" if status == exit_status.INTERRUPTED else error
        sys.stderr.write(f"{prog}: {message}\n")
        sys.exit(status)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, so that files are left whole and workers do not outlive the command."""
    alone = threading.current_thread() is threading.main_thread()
    if not alone or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:  # somebody else's business
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
