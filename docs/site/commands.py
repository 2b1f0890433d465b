"""Pages that are read off the code: the table of methods, and every command with its options."""

import contextlib
import io
from collections.abc import Callable, Sequence

import analysis.__main__
import llm.__main__
import llm.options.journal
import synthetic.__main__
from zobench import methods

Main = Callable[[Sequence[str]], int]

SUITES: dict[str, tuple[Main, Sequence[str]]] = {
    "python -m synthetic": (synthetic.__main__.main, tuple(synthetic.__main__.COMMANDS)),
    "python -m llm": (llm.__main__.main, tuple(llm.__main__.COMMANDS)),
    "python -m llm journal": (llm.options.journal.main, tuple(llm.options.journal.COMMANDS)),
    "python -m analysis": (analysis.__main__.main, ("report", "claims")),
}


def page() -> str:
    """Return the page of the commands, in MyST."""
    parts = ["# Commands\n\nEach suite runs from a checkout. These are the texts of `--help`.\n"]
    for suite, (main, commands) in SUITES.items():
        parts.append(f"## {suite}\n\n{_block(help_of(main, []))}")
        parts += [f"### {suite} {command}\n\n{_block(help_of(main, [command]))}" for command in commands]
    return "\n".join(parts)


def help_of(main: Main, command: Sequence[str]) -> str:
    """Return what --help prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main([*command, "--help"])
    return said.getvalue()


def methods_page() -> str:
    """Return the page of `methods.table()`, in MyST."""
    head = (
        "# Methods\n\n`zobench.methods.table()`: each method with its cost in loss evaluations, its source and "
        "the options of `methods.make(name, ...)` with their defaults; on a command line `--method kerzoo:n=3`. "
        "e is epsilon.\n"
    )
    return "\n".join([head, *(_method(method) for method in methods.table())])


def _method(method: methods.Method) -> str:
    options = ", ".join(f"{name}={value!r}" for name, value in method.options.items())
    return (
        f"## {method.name}\n\n```\n{method.formula}\n```\n\n"
        f"- law x stencil x coefficient map x update rule: {method.axes}\n"
        f"- evaluations a step: {method.evaluations}\n- memory held beside the model: {method.memory}\n"
        f"- source: {method.source}\n- options: `{options}`\n"
    )


def _block(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```\n"
