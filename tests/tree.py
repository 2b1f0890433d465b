"""Prints what can be counted of the sources, package by package: `python -m tests.tree [CHECKOUT ...]`.

Of several checkouts, such as one of before a change (`git worktree add build/before COMMIT`), one table after the
other. Lines are all lines of a file, or of a function with its docstring; median and longest. A block comment has its
lines for itself. "up" counts imports against zobench <- synthetic, llm <- analysis; "late" those of the package itself
for types only or in functions; "in circles" modules, as `tests/imports.py` finds them.
"""

import ast
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent))

from imports import PACKAGES, Import, circles, imports, sources

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {"zobench": (), "synthetic": ("zobench",), "llm": ("zobench",), "analysis": ("zobench",)}
TITLES = ("package", "files", "lines", "file", "function", "comments/100", "up", "late", "in circles")


def functions(text: str) -> list[int]:
    """Return the lines of each function, methods and inner ones too."""
    nodes = ast.walk(ast.parse(text))
    found = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [(node.end_lineno or node.lineno) - node.lineno + 1 for node in found]


def block_comments(text: str) -> int:
    """Return the number of lines that are a comment; lines of a string that start like one are none."""
    lines = text.splitlines()
    strings = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant | ast.JoinedStr)]
    inside = {line for node in strings for line in range(node.lineno + 1, (node.end_lineno or node.lineno) + 1)}
    return sum(line.lstrip().startswith("#") for number, line in enumerate(lines, 1) if number not in inside)


def measured(package: str, files: Mapping[str, Path], graph: Mapping[str, list[Import]]) -> tuple[str, ...]:
    """Return the cells of one package, of whose modules `files` and `graph` know, besides those of others."""
    own = {module: graph[module] for module in files if module.split(".")[0] == package}
    texts = [files[module].read_text(encoding="utf-8") for module in own]
    lines = [len(text.splitlines()) for text in texts]
    comments = 100 * sum(map(block_comments, texts)) / max(1, sum(lines))
    every = [(module, step) for module, steps in own.items() for step in steps]
    below = (package, *MAY_IMPORT[package])
    up = {(module, step.line) for module, step in every if step.module.split(".")[0] not in below}
    late = {(module, step.line) for module, step in every if step.deferred and step.module in own}
    inner = {module: [step for step in steps if step.module in own] for module, steps in own.items()}
    lengths = (_middle(lines), _middle([length for text in texts for length in functions(text)]))
    counts = (package, len(texts), sum(lines), *lengths, f"{comments:.1f}", len(up), len(late), len(circles(inner)))
    return tuple(map(str, counts))


def _middle(lines: list[int]) -> str:
    return f"{median(lines):.0f}/{max(lines)}" if lines else "-"


def table(root: Path) -> str:
    """Return a row for each package of a checkout."""
    files = {module: path for package in PACKAGES for module, path in sources(root, package).items()}
    graph = imports(files)
    rows = [TITLES, *(measured(package, files, graph) for package in PACKAGES)]
    return "\n".join("".join(f"{cell:>13}" for cell in row) for row in rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables of the checkouts, or of this one."""
    for root in map(Path, (sys.argv[1:] if argv is None else argv) or [str(ROOT)]):
        if missing := [name for name in PACKAGES if not (root / name).is_dir()]:
            sys.stderr.write(f"{root} has no folder {missing[0]}: give the root of a checkout\n")
            return 2
        print(root, table(root), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
