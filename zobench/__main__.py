"""`zobench COMMAND`, and `python -m zobench COMMAND`."""

import os
import sys
from collections.abc import Sequence

from zobench.audit.run import AuditOptions, MethodsOptions, list_methods
from zobench.audit.run import run as run_audit
from zobench.run.options import Command, run_command
from zobench.version import VERSION

COMMANDS: dict[str, Command] = {"audit": (AuditOptions, run_audit), "methods": (MethodsOptions, list_methods)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; targets are found in the current folder, as with `python -m`."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words == ["--version"]:
        print(f"zobench {VERSION}")
        return 0
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    return run_command("zobench", "Audits of zeroth-order gradient estimators.", COMMANDS, words)


if __name__ == "__main__":
    sys.exit(main())
