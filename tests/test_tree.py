"""What tests/tree.py counts, on a checkout of a few lines."""

from pathlib import Path

import pytest
from imports import PACKAGES
from tree import PARTS, ROOT, TITLES, main, naming, parts, table

TEXTS = {
    "zobench/a.py": '"""A.\n\n# in a string\n"""\n# of its own\nx = 1  # beside\nfrom synthetic import s\n',
    "zobench/b.py": "def f():\n    import zobench.c\n\n    def g():\n        return 1\n\n    return g\n",
    "zobench/c.py": "import zobench.b\n\n\nclass C:\n    def h(self):\n        return 2\n",
    "synthetic/s.py": "import llm.t\nimport zobench.a\n",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in (*TEXTS, *(f"{package}/__init__.py" for package in PACKAGES)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(TEXTS.get(name, ""))
    return tmp_path


def test_files_functions_comments_and_imports_are_counted(checkout: Path) -> None:
    (checkout / "llm" / "t.py").write_text("")
    titles, zobench, synthetic, *_ = (line.split() for line in table(checkout).replace("in circles", "-").splitlines())
    assert len(titles) == len(TITLES) == len(zobench)
    # of 20 lines one is a comment; f, g, h have 7, 2, 2 lines; b imports c late; a imports synthetic, which is up
    assert zobench == ["zobench", "4", "20", "6/7", "2/7", "5.0", "1", "1", "2"]
    assert synthetic == ["synthetic", "2", "2", "1/2", "-", "0.0", "1", "0", "0"]


def test_the_lines_that_name_a_part_are_counted_outside_its_own_file(checkout: Path) -> None:
    own, pattern = PARTS["rule"]
    texts = {
        own: "class Momentum:\n    pass\n",
        "zobench/rule/table.py": 'from zobench.rule.momentum import Momentum\nRULES = {"momentum": Momentum}\n',
        "zobench/testing/rules.py": "Momentum\n",  # an example of a check
        "pyproject.toml": 'layers = ["adam | momentum | sgd"]\nkeywords = ["momentums"]\n',
    }
    for name, text in texts.items():
        (checkout / name).parent.mkdir(exist_ok=True)
        (checkout / name).write_text(text)
    assert naming(checkout, own, pattern) == {"pyproject.toml": 1, "zobench/rule/table.py": 2}
    assert parts(checkout).strip() == "rule: 3 lines in 2 files: pyproject.toml 1, zobench/rule/table.py 2"


@pytest.mark.parametrize(
    ("kind", "most"),
    [("law", (5, 2)), ("law with theory", (13, 5)), ("rule", (6, 3)), ("engine", (13, 5)), ("problem", (6, 4))],
)
def test_a_part_is_named_in_few_places(kind: str, most: tuple[int, int]) -> None:
    """The numbers of docs/own.md; a place more is a seam less."""
    counts = naming(ROOT, *PARTS[kind])
    assert (sum(counts.values()), len(counts)) <= most


def test_each_checkout_has_a_table_and_another_folder_is_refused(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(checkout), str(checkout)]) == 0
    assert capsys.readouterr().out.count(str(checkout)) == 2
    assert main([str(checkout / "llm")]) == 2
    assert "has no folder zobench: give the root of a checkout" in capsys.readouterr().err
