"""`zobench COMMAND`, and `python -m zobench COMMAND`."""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from zobench.audit.options import AuditOptions, MethodsOptions
from zobench.run.command import Command, run_command

COMMANDS: dict[str, Command] = {
    "audit": (AuditOptions, "zobench.audit.run:run"),
    "methods": (MethodsOptions, "zobench.audit.run:list_methods"),
}
SUITES = ("synthetic", "llm", "analysis")
CHECKOUT = Path(__file__).parents[1]
ABOUT = (
    "Audits of zeroth-order gradient estimators, and the list of methods. In a checkout, `synthetic`, `llm` and "
    "`analysis` are the suites: `zobench llm --help` is `python -m llm --help`."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; targets are found in the current folder, as with `python -m`."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in SUITES:
        return _suite(words[0], words[1:])
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    return run_command("zobench", ABOUT, COMMANDS, words)


def _suite(name: str, words: Sequence[str]) -> int:
    """Run a command of a suite that lies beside this package; another package of its name is never run."""
    if not (CHECKOUT / name / "__main__.py").is_file():
        sys.stderr.write(
            f"zobench {name}: the suites come with a checkout of the repository, not with the wheel: "
            f"run it there, as python -m {name}\n"
        )
        return 2
    if str(CHECKOUT) not in sys.path:
        sys.path.insert(0, str(CHECKOUT))
    status = importlib.import_module(f"{name}.__main__").main(words, f"zobench {name}")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
