"""No module is in a circle of imports, those for types and those in functions counted."""

from pathlib import Path

import pytest
from imports import PACKAGES, circles, imports, sources

ROOT = Path(__file__).parent.parent

FOR_TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tmp.a import A\n"
SUB = "from tmp.sub.c import C\nfrom tmp.sub.e import E\n"
CIRCLES = {
    "plain": {"a.py": "import tmp.b\n", "b.py": "from tmp import a\n"},
    "for types": {"a.py": "from tmp.b import B\n", "b.py": FOR_TYPES},
    "in a function": {"a.py": "import tmp.b as b\n", "b.py": "def f():\n    from tmp.a import A\n"},
    "relative": {"a.py": "from . import b\n", "b.py": "from .a import A\n"},
    "through what a package gathers": {
        **{"d.py": "from tmp.sub.c import C\n", "sub/__init__.py": SUB},
        **{"sub/c.py": "", "sub/e.py": "from ..d import D\n"},
    },
    "with the own package": {"sub/__init__.py": SUB, "sub/c.py": "from tmp.sub import E\n", "sub/e.py": ""},
}
NO_CIRCLES = {
    "inside a package that gathers": {"sub/__init__.py": SUB, "sub/c.py": "", "sub/e.py": "from tmp.sub.c import C\n"},
    "another package of a name that is longer": {"a.py": "from tmp.ab import B\n", "ab.py": "import tmpa.a\n"},
    "itself by its package": {"sub/__init__.py": "", "sub/c.py": "import tmp.sub\nimport tmp\n"},
}


def told(root: Path, package: str) -> str:
    """The shortest circle of a package, an import a line, and how many modules are in one; "" where there is none."""
    files = sources(root, package)
    assert files, f"no package {package} in {root}"
    found = circles(imports(files))
    if not found:
        return ""
    shortest = min(found, key=len)
    lines = [f"{files[module].relative_to(root)}:{step.line} imports {step.module}" for module, step in shortest]
    return "\n".join([*lines, f"{len(found)} modules of {package} are in a circle"])


def planted(root: Path, texts: dict[str, str]) -> str:
    for name, text in {"__init__.py": "", **texts}.items():
        path = root / "tmp" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return told(root, "tmp")


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_is_in_a_circle_of_imports(package: str) -> None:
    assert told(ROOT, package) == ""


@pytest.mark.parametrize("texts", CIRCLES.values(), ids=CIRCLES)
def test_a_planted_circle_is_found(tmp_path: Path, texts: dict[str, str]) -> None:
    assert "modules of tmp are in a circle" in planted(tmp_path, texts)


def test_the_shortest_circle_is_told_with_its_lines(tmp_path: Path) -> None:
    longer = {"c.py": "from tmp.d import D\n", "d.py": "from tmp.e import E\n", "e.py": "import tmp.c\n"}
    assert planted(tmp_path, {**longer, **CIRCLES["for types"]}).splitlines() == [
        "tmp/a.py:1 imports tmp.b",
        "tmp/b.py:3 imports tmp.a",
        "5 modules of tmp are in a circle",
    ]


@pytest.mark.parametrize("texts", NO_CIRCLES.values(), ids=NO_CIRCLES)
def test_what_is_no_circle_is_told_as_none(tmp_path: Path, texts: dict[str, str]) -> None:
    assert planted(tmp_path, texts) == ""
