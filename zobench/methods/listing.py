"""The table of methods as text."""

from collections.abc import Iterable

from zobench.methods.making import table
from zobench.methods.row import Method

HEAD = ("name", "formula", "law x stencil x map x rule", "evaluations a step", "memory held", "source")


def markdown(methods: Iterable[Method] | None = None) -> str:
    """Return the table in Markdown, of all methods or of these."""
    lines = [_line(HEAD), _line(["---"] * len(HEAD))]
    lines += [_line(_cells(method)) for method in (table() if methods is None else methods)]
    return "\n".join(lines)


def plain() -> str:
    """Return the table for a terminal: two lines a method, then its options."""
    return "\n".join(
        f"{method.name:20}{method.evaluations:9}{method.formula}\n{'':20}{method.axes}"
        f"\n{'':20}{', '.join(f'{name}={value!r}' for name, value in method.options.items())}"
        for method in table()
    )


def _cells(method: Method) -> list[str]:
    formula = method.formula.replace("|", "\\|")
    return [f"`{method.name}`", f"`{formula}`", str(method.axes), method.evaluations, method.memory, method.source]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
