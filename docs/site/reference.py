"""The reference: which names are public, on which page each one is, and what its docstring says."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType
from typing import Any

import zobench
from docs.site.plain import as_rst

PAGES = {
    "estimators": (
        "Estimators",
        "estimator refreshed estimators forward_gradient plan combination query evaluations auto line_model",
    ),
    "laws": ("Laws of directions", "law layout random.streams random.keys"),
    "stencils": ("Stencils", "stencil"),
    "maps": ("Coefficient maps", "maps"),
    "kernels": ("Kernels", "kernels"),
    "spaces": ("Spaces and update rules", "space rule groups random.native"),
    "sampling": ("Sampling", "montecarlo problem noise"),
    "problems": ("Problems of the suites", "synthetic.problems"),
    "theory": ("Theory", "theory"),
    "testing": ("Property tests", "testing testing.strategies problems audit.adapters audit.command audit.target"),
    "figures": ("Figures", "figures"),
    "methods": ("Methods", "methods"),
    "optimizers": ("Integrations", "optim distributed integrations.transformers integrations.scipy"),
    "records": (
        "Records, journals, options",
        "run.records run.journal state spelling identity run.lock run.options run.command naming run.progress "
        "run.exit_status",
    ),
}
"""Page -> title and modules, those of zobench without its name."""

INTERNAL = (
    "__main__",
    "audit",
    "audit.facts",
    "audit.figures",
    "audit.matching",
    "audit.measuring",
    "audit.options",
    "audit.probing",
    "audit.run",
    "audit.weights",
    "forward_only",
    "numbers",
    "products",
    "optim_watch",
    "public",
    "random",
    "random.eager",
    "random.fused",
    "random.kernels",
    "run",
    "run.files",
    "run.journal_format",
    "run.journal_version1",
    "run.reading",
    "run.timing",
    "run.toml",
    "threads",
    "version",
)
"""Modules that the others are made of."""


@dataclass(frozen=True)
class Public:
    """A public name: the path that code imports it by, the object, and its docstring."""

    path: str
    module: str
    value: Any
    doc: str

    @property
    def kind(self) -> str:
        """What autodoc calls it."""
        if inspect.isclass(self.value):
            return "exception" if issubclass(self.value, BaseException) else "class"
        return "function" if inspect.isroutine(self.value) else "data"


def modules() -> list[str]:
    """Return the public modules, in the order of the reference."""
    return [name for page in PAGES for name in modules_of(page)]


def modules_of(page: str) -> list[str]:
    """Return the modules of a page."""
    return [name if name.startswith("synthetic") else f"zobench.{name}" for name in PAGES[page][1].split()]


def packages() -> list[str]:
    """Return the public modules that say themselves what is public."""
    return [name for name in modules() if hasattr(importlib.import_module(name), "__all__")]


def names(module: str) -> list[str]:
    """Return a module's public names: its `__all__`, or the classes and functions that it defines."""
    found = importlib.import_module(module)
    own = (n for n, v in vars(found).items() if n[0] != "_" and getattr(v, "__module__", None) == module)
    return list(getattr(found, "__all__", None) or filter(lambda name: _has_docstring(vars(found)[name]), own))


def _has_docstring(value: Any) -> bool:
    """Whether a docstring is part of the object: it is a class or a function."""
    return inspect.isclass(value) or inspect.isroutine(value)


def public(module: str) -> Iterator[Public]:
    """Yield the public names of a module that no module before it in the reference has, each by its shortest path."""
    earlier = modules()[: modules().index(module)]
    found = importlib.import_module(module)
    for name in names(module):
        value = getattr(found, name)
        if not inspect.ismodule(value) and not any(_has(other, name, value) for other in earlier):
            short = getattr(zobench, name, None) is value and name in zobench.__all__
            yield Public(f"zobench.{name}" if short else f"{module}.{name}", module, value, documented(found, name))


def _has(module: str, name: str, value: Any) -> bool:
    return name in names(module) and getattr(importlib.import_module(module), name) is value


def documented(module: ModuleType, name: str) -> str:
    """Return the docstring of a name; that of a constant or of a type alias is the text below its assignment."""
    value = getattr(module, name)
    if _has_docstring(value):
        return inspect.cleandoc(value.__doc__ or "")
    inner = [importlib.import_module(m) for m in _imported(module) if m.startswith(f"{module.__name__}.")]
    return next(filter(None, (_below(m, name) for m in (module, *inner))), "")


def _imported(module: ModuleType) -> list[str]:
    nodes = ast.parse(inspect.getsource(module)).body
    return [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]


def _below(module: ModuleType, name: str) -> str:
    nodes = ast.parse(inspect.getsource(module)).body
    for node, after in pairwise(nodes):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        assigned = any(isinstance(t, ast.Name) and t.id == name for t in targets)
        if assigned and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            return inspect.cleandoc(after.value.value)
    return ""


def pages() -> dict[str, str]:
    """Return the pages of the reference, "api" first, as reStructuredText by name."""
    return {"api": _overview(), **{f"api-{page}": _page(page) for page in PAGES}}


def _overview() -> str:
    doc = "\n".join(as_rst(inspect.cleandoc(zobench.__doc__ or "").splitlines()))
    listed = "\n".join(f"   api-{page}" for page in PAGES)
    parts = [_title("API reference"), f".. py:module:: zobench\n\n{doc}\n", f".. toctree::\n   :hidden:\n\n{listed}\n"]
    return "\n".join([*parts, *map(_table, PAGES)])


def _table(page: str) -> str:
    names = [name for module in modules_of(page) for name in public(module)]
    rows = "\n".join(f"   * - :py:obj:`{name.path}`\n     - {_first(name.doc)}" for name in names)
    head = f"{_title(PAGES[page][0], '-')}\nOn the page :doc:`api-{page}`."
    return f"{head}\n\n.. list-table::\n   :widths: 30 70\n\n{rows}\n"


def _first(doc: str) -> str:
    """The first sentence, or the first line of a formula that is longer."""
    paragraph = " ".join(doc.partition("\n\n")[0].split())
    sentence = re.split(r"(?<!\.)\. ", paragraph)[0].rstrip(".:")
    return " ".join(as_rst([sentence]))


def _page(page: str) -> str:
    parts, modules = [_title(PAGES[page][0])], modules_of(page)
    shown = [name.path for module in modules for name in public(module)]
    for module in modules:
        parts.append(_title(module, "-"))
        hidden = "   :no-index:\n" * (module in shown)  # a function of that name hides it
        parts.append(f".. automodule:: {module}\n   :no-members:\n{hidden}")
        parts += [_entry(name) for name in public(module)]
    return "\n".join(parts)


def _entry(name: Public) -> str:
    if name.kind != "data":
        return f".. auto{name.kind}:: {name.path}\n"
    text = "\n".join(f"   {line}" for line in as_rst(name.doc.splitlines()))
    return f".. py:data:: {name.path.removeprefix(f'{name.module}.')}\n   :module: {name.module}\n\n{text}\n"


def _title(text: str, mark: str = "=") -> str:
    return f"{text}\n{mark * len(text)}\n"
