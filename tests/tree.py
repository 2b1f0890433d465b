"""Prints what can be counted of the sources, package by package: `python -m tests.tree [CHECKOUT ...]`.

Of several checkouts, such as one of before a change (`git worktree add build/before COMMIT`), one table after the
other. Lines are all lines of a file, or of a function with its docstring; median and longest. A block comment has its
lines for itself. "up" counts imports against zobench <- synthetic, llm <- analysis; "late" those of the package itself
for types only or in functions; "in circles" modules, as `tests/imports.py` finds them. Below the table, for each kind
of part the lines that name one such part outside its own file: what a further one has to touch.
"""

import ast
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent))

from imports import PACKAGES, Import, circles, imports, sources

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {"zobench": (), "synthetic": ("zobench",), "llm": ("zobench",), "analysis": ("zobench",)}
TITLES = ("package", "files", "lines", "file", "function", "comments/100", "up", "late", "in circles")
PARTS = {
    "law": ("zobench/law/small_weights.py", r'\bSmallWeights\b|"small-weights"'),
    "law with theory": ("zobench/law/sphere.py", r'\bSphere\b|"sphere"'),
    "rule": ("zobench/rule/momentum.py", r'\bMomentum\b|"momentum"'),
    "engine": ("zobench/space/batched.py", r'\bBatched\b|\bbatched_space\b|"batched"'),
    "problem": ("synthetic/problems/ackley.py", r'\bAckley\b|"ackley"'),
}
"""Kind of part -> the file of one, and how other files name it."""
READERS = ("zobench/methods/", "zobench/testing/", "zobench/audit/", "llm/bench/", "llm/gpu/")
"""Folders of checks and measurements, which name parts as examples."""


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


def naming(root: Path, own: str, pattern: str) -> dict[str, int]:
    """Return the number of lines that name a part, for each file outside its own that has any."""
    files = [root / "pyproject.toml", *(path for name in PACKAGES for path in sorted((root / name).rglob("*.py")))]
    counts = {}
    for path in files:
        file = path.relative_to(root).as_posix()
        if path.is_file() and file != own and not file.startswith(READERS):
            module = rf'|[" ]{Path(own).stem}[" ]' if file == "pyproject.toml" else ""  # its layer
            counts[file] = len(re.findall(rf"^.*(?:{pattern}{module}).*$", path.read_text(encoding="utf-8"), re.M))
    return {file: count for file, count in counts.items() if count}


def parts(root: Path) -> str:
    """Return a line for each kind of part that a checkout has."""
    rows = []
    for kind, (own, pattern) in PARTS.items():
        if (root / own).is_file():
            named = naming(root, own, pattern)
            listed = ", ".join(f"{file} {count}" for file, count in named.items())
            rows.append(f"{kind:>16}: {sum(named.values())} lines in {len(named)} files: {listed}")
    return "\n".join(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables of the checkouts, or of this one."""
    for root in map(Path, (sys.argv[1:] if argv is None else argv) or [str(ROOT)]):
        if missing := [name for name in PACKAGES if not (root / name).is_dir()]:
            sys.stderr.write(f"{root} has no folder {missing[0]}: give the root of a checkout\n")
            return 2
        print(root, table(root), parts(root), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
