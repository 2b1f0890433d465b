"""Every public name is in the reference, once, with a docstring and the formula in it."""

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections import Counter
from pathlib import Path

import pytest

import zobench
from docs.site import commands, pages, reference
from docs.site.__main__ import build
from docs.site.formulas import mathml
from docs.site.plain import as_rst
from llm.options.train import TrainOptions
from zobench import methods

pytestmark = pytest.mark.environment

NAMES = {name.path: name for module in reference.modules() for name in reference.public(module)}

FORMULA = re.compile(r" (=|<-|~|<=) |\bsum_|\bE(\[| ?\||  ?g\b)|\^|[+-] .*/|\bP\(|\bx \+ ")
"""An equation, an expectation, a sum, a power a difference quotient or a point."""

HOUSEKEEPING = {"records", "optimizers", "testing", "figures"}
"""Pages of files, options, other libraries, checks and figures: what is there has a contract, not a formula."""

WITHOUT = {
    "a check": ("zobench.space.require_resolved", "zobench.problem.demand"),
    "more is asked": ("zobench.More", "zobench.query.converse"),
    "a hash": ("zobench.derive", "zobench.keyed"),
    "a row": ("zobench.methods.Method", "zobench.methods.Axes", "synthetic.problems.CatalogueEntry"),
    "rows": (
        "zobench.methods.table",
        "synthetic.problems.table",
        "zobench.law.LAWS",
        "synthetic.problems.NAMES",
        "zobench.rule.RULES",
        "zobench.maps.MAPS",
    ),
    "builds a row": (
        "zobench.methods.make",
        "zobench.methods.parse",
        "zobench.methods.rule",
        "zobench.methods.rule_name",
        "zobench.rule.parse",
        "zobench.spelling.spelled",
        "synthetic.problems.make",
    ),
    "moves numbers": ("zobench.layout.on_device",),
    "a type": (
        "zobench.rule.Memory",
        "zobench.rule.Schedule",
        "zobench.law.Direction",
        "zobench.law.DenseDirection",
        "zobench.law.NativeDirection",
        "zobench.law.Kept",
    ),
    "names, sizes and ranges": ("zobench.layout.Segment", "zobench.layout.Block", "zobench.layout.Layout"),
    "the streams, in C": tuple(f"zobench.random.native.{name}" for name in ("words", "signs", "normals", "rows")),
    "two factors, and a yes or no": ("zobench.groups.Factors", "zobench.groups.decays"),
    "a switch or a word": (
        "zobench.random.native.status",
        "zobench.random.native.available",
        "zobench.random.native.reads",
        "zobench.random.native.turned_off",
        "zobench.random.native.is_turned_off",
    ),
    "what a probe holds on its way": ("zobench.auto.AutoState",),
    "a step and a key": ("zobench.refreshed.Refresh",),
    "a number as a model": ("zobench.noise.as_model",),
}
"""Names that have no formula, by what they are instead."""

EXCUSED = {path for paths in WITHOUT.values() for path in paths}


def states_a_formula(doc: str) -> bool:
    return bool(FORMULA.search(doc))


def needs_a_formula(name: reference.Public) -> bool:
    page = next(page for page in reference.PAGES if name.module in reference.modules_of(page))
    return page not in HOUSEKEEPING and name.kind != "exception" and name.path not in EXCUSED


@pytest.mark.parametrize("path", NAMES)
def test_a_public_name_has_a_docstring(path: str) -> None:
    name = NAMES[path]
    inherited = inspect.isclass(name.value) and "__doc__" not in vars(name.value)
    generated = dataclasses.is_dataclass(name.value) and name.doc.startswith(f"{path.rpartition('.')[2]}(")
    assert name.doc and not inherited and not generated, f"{path} says nothing of itself"


@pytest.mark.parametrize("path", [path for path, name in NAMES.items() if needs_a_formula(name)])
def test_its_docstring_states_a_formula(path: str) -> None:
    assert states_a_formula(NAMES[path].doc), f"{path} has no formula:\n{NAMES[path].doc}"


def test_no_name_is_excused_that_states_one_or_is_gone() -> None:
    assert not EXCUSED - NAMES.keys()
    assert not [path for path in EXCUSED if states_a_formula(NAMES[path].doc)]


@pytest.mark.parametrize(
    ("doc", "stated"),
    [
        ("Return the bias of the estimator, float64 (d,).", False),
        ("A law of directions; see `Gaussian(n=3)`, 2 evaluations a direction.", False),
        ("Return E g - grad f(x).", True),
        ("u ~ N(0, I_d).", True),
        ("[f(x + e u) - f(x)] / e", True),
    ],
)
def test_words_are_no_formula(doc: str, stated: bool) -> None:
    assert states_a_formula(doc) == stated


def test_the_reference_has_every_public_name_once() -> None:
    written = "\n".join(reference.pages().values())
    entries = re.findall(r"^\.\. (?:auto\w+|py:data):: (\S+)(?:\n   :module: (\S+))?", written, re.MULTILINE)
    found = Counter(f"{module}.{name}" if module else name for name, module in entries)
    twice = {name for name, count in found.items() if count > 1}
    assert twice <= set(reference.modules())  # zobench.query is a module and a function of it
    assert found.keys() == {*NAMES, *reference.modules()}


def test_the_packages_export_nothing_that_the_reference_lacks() -> None:
    covered = {id(name.value) for name in NAMES.values()}
    packages = [zobench, *map(importlib.import_module, reference.packages())]
    for package in packages:
        for name in package.__all__:
            value = getattr(package, name)
            assert inspect.ismodule(value) or id(value) in covered, f"{package.__name__}.{name}"


def test_a_module_is_in_the_reference_or_named_as_internal() -> None:
    found = {module.name for module in pkgutil.walk_packages(zobench.__path__) if module.name != "integrations"}
    listed = {name.removeprefix("zobench.") for name in reference.modules()} | set(reference.INTERNAL)
    here = {name for name in listed if "." not in name}
    assert here == found, "name new modules in docs/site/reference.py: in PAGES, or in INTERNAL"


def test_every_method_and_its_options_are_on_the_page() -> None:
    text = commands.methods_page()
    for method in methods.table():
        assert f"## {method.name}\n\n```\n{method.formula}\n```" in text
        assert method.evaluations in text and method.source in text
        assert all(f"{name}={value!r}" in text for name, value in method.options.items())


def test_every_option_of_training_is_on_the_page() -> None:
    text = commands.page()
    train = text.partition("### python -m llm train")[2].partition("\n### ")[0]
    for field in dataclasses.fields(TrainOptions):
        assert f"--{field.name.replace('_', '-')} " in train or f"--{field.name.replace('_', '-')}," in train
    assert "### python -m llm journal verify" in text and "### python -m analysis report" in text


def test_docstrings_become_text_with_their_formulas_as_they_are() -> None:
    doc = ["|g|^2 of *batch, x_ and `a_`s:", "    E|g|^2", "text", "", "Raises:", "    ValueError: `n` is |n|."]
    assert as_rst(doc) == [
        r"\|g\|^2 of \*batch, x\_ and \ ``a_``\ s:", "", "::", "", "    E|g|^2", "", "text", "", "Raises:",
        r"    ValueError: \ ``n``\  is \|n\|.",
    ]  # fmt: skip


def test_links_that_leave_the_pages_are_named() -> None:
    text = "[spam](../llm/data/spam.csv), [`README.md`](../README.md) and [changes](../CHANGELOG.md#x); [here](a.md)"
    named = "spam (`llm/data/spam.csv` in the repository), `README.md` and [changes](changelog.md); [here](a.md)"
    assert pages.inside(text) == named
    with pytest.raises(FileNotFoundError, match="nowhere"):
        pages.inside("[x](../nowhere.txt)")


@pytest.mark.parametrize(
    ("page", "sound"),
    [
        ("# One\n\n$x^2$ is [here](#one), `E|g|^2` there.\n", True),
        ("# One\n\n[nowhere](other.md)\n", False),
        ("# One\n\n$\\nothing{x}$\n", False),
        ("# One\n\n```{eval-rst}\n:py:obj:`zobench.Gone`\n```\n", False),
    ],
)
def test_a_broken_link_formula_or_reference_fails_the_build(tmp_path: Path, page: str, sound: bool) -> None:
    (tmp_path / "index.md").write_text(page)
    assert (build(tmp_path, tmp_path / "site") == 0) == sound


@pytest.mark.parametrize("file", [pages.ROOT / "README.md", pages.ROOT / "CHANGELOG.md", *pages.DOCS.glob("*.md")])
def test_links_of_a_page_lead_to_files_of_the_repository_too(file: Path) -> None:
    places = re.findall(r"\]\((?!https?:|#)([^)#\s]+)[^)]*\)", file.read_text(encoding="utf-8"))
    assert not [place for place in places if not (file.parent / place).exists()]


def test_every_page_of_docs_has_a_place() -> None:
    known = {page.stem for page in pages.DOCS.glob("*.md")}
    placed = [*pages.guide(dict.fromkeys(known, "")), *pages.WAY_IN, *pages.THEORY, *pages.FOUND]
    assert sorted(placed) == sorted(known)
    assert "new" in pages.guide({"new": "", "tasks": ""})


def test_formulas_of_pages_are_mathml() -> None:
    assert "<math" in mathml(r"\Big(\frac{a}{b}\Big), \dots", block=True)
