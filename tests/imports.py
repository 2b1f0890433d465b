"""Which module of a package imports which, read from the sources; and the circles among them.

Every import statement counts, those under TYPE_CHECKING and in functions too: a reader meets the circle even where
Python does not. `from a.b import c` imports the module a.b.c where there is one, else a.b, which for a package is its
`__init__`. An import of a.b.c from outside a.b also counts as one of a.b, since it runs `a/b/__init__.py`; from inside
a.b it does not, or every `__init__` that gathers its modules would be in a circle. An `__init__` that imports nothing
is in none.
"""

import ast
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("zobench", "synthetic", "llm", "analysis")


class Import(NamedTuple):
    """One imported module, the line that does it, and whether it runs with the module or later (or never)."""

    module: str
    line: int
    deferred: bool


def sources(root: Path, package: str) -> dict[str, Path]:
    """Return the files of a package by module; a package's name stands for its `__init__.py`."""
    found = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(files: Mapping[str, Path]) -> dict[str, list[Import]]:
    """Return what each module imports of `files`."""
    return {module: list(_imports(module, path, files)) for module, path in files.items()}


def _imports(module: str, path: Path, files: Mapping[str, Path]) -> Iterator[Import]:
    home = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for statement, deferred in _statements(ast.parse(path.read_text(encoding="utf-8"))):
        for name in _names(statement, home, files):
            for imported in (name, *_packages(name)):
                inside = f"{module}.".startswith(f"{imported}.")
                if imported in files and imported != module and (imported == name or not inside):
                    yield Import(imported, statement.lineno, deferred)


def _statements(node: ast.AST, deferred: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node, deferred
    later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    later |= isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    for child in ast.iter_child_nodes(node):
        yield from _statements(child, deferred or later)


def _names(statement: ast.Import | ast.ImportFrom, home: str, files: Mapping[str, Path]) -> Iterator[str]:
    """The modules that a statement in the package `home` names."""
    if isinstance(statement, ast.Import):
        yield from (alias.name for alias in statement.names)
        return
    above = home.split(".")[: len(home.split(".")) + 1 - statement.level] if statement.level else []
    base = ".".join([*above, *filter(None, [statement.module])])
    yield from dict.fromkeys(name if (name := f"{base}.{alias.name}") in files else base for alias in statement.names)


def _packages(name: str) -> Iterator[str]:
    while name := name.rpartition(".")[0]:
        yield name


def circle(graph: Mapping[str, list[Import]], start: str) -> list[tuple[str, Import]]:
    """Return the imports of a shortest way from a module back to it, each with its importer; empty where none is."""
    came: dict[str, tuple[str, Import]] = {}
    waiting = deque([start])
    while waiting and start not in came:
        module = waiting.popleft()
        for step in graph[module]:
            if step.module not in came:
                came[step.module] = (module, step)
                waiting.append(step.module)
    if start not in came:
        return []
    way = [came[start]]
    while way[0][0] != start:
        way.insert(0, came[way[0][0]])
    return way


def circles(graph: Mapping[str, list[Import]]) -> list[list[tuple[str, Import]]]:
    """Return, for each module that is in a circle, its shortest one."""
    return [found for module in graph if (found := circle(graph, module))]
