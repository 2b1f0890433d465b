"""Mutants: which there are of a module, what they do, and that the list of equivalent ones is not out of date."""

import ast
import tomllib
from pathlib import Path

import mutants
import mutations

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "tests/mutants.toml").read_text())
SOURCE = '''
LIMIT: int = 3


def f(x: int, flag=False) -> int:
    """Not this: 1 + 1."""
    if x < LIMIT and g(x):
        raise ValueError(f"{x + 1}" + "no")
    return 2 * x + 0.5
'''


def test_mutants_change_one_thing_and_leave_messages_and_types_alone():
    tree = ast.parse(SOURCE)
    assert sorted(mutant.name for mutant in mutations.mutants(tree)) == sorted([
        "module: 3 -> 4",
        "module: 3 -> 2",
        "f: False -> True",
        "f: if x < LIMIT and g(x): raise ValueError(f'{x + 1}' + 'no') -> "
        "if not (x < LIMIT and g(x)): raise ValueError(f'{x + 1}' + 'no')",
        "f: x < LIMIT and g(x) -> x < LIMIT or g(x)",
        "f: x < LIMIT -> x <= LIMIT",
        "f: x < LIMIT -> x >= LIMIT",
        "f: g(x) -> x",
        "f: 2 * x + 0.5 -> 2 * x - 0.5",
        "f: 2 * x + 0.5 -> 2 * x",
        "f: 2 * x + 0.5 -> 0.5",
        "f: 2 * x -> 2 / x",
        "f: 2 * x -> 2",
        "f: 2 -> 3",
        "f: 2 -> 1",
        "f: 0.5 -> 1.0",
        "f: 0.5 -> 0.25",
    ])  # fmt: skip
    assert ast.unparse(tree) == ast.unparse(ast.parse(SOURCE))


def test_a_mutant_runs():
    found = {}
    tree = ast.parse(SOURCE)
    for mutant in mutations.mutants(tree):
        names = {"g": lambda x: True}
        exec(compile(mutant.of(tree), "f.py", "exec"), names)
        try:
            found[mutant.name] = names["f"](3)
        except ValueError:
            found[mutant.name] = None
    assert found["f: 2 -> 3"] == 9.5 and found["f: 2 * x + 0.5 -> 2 * x"] == 6
    assert found["f: x < LIMIT -> x <= LIMIT"] is None and found["module: 3 -> 4"] is None
    assert found["module: 3 -> 2"] == 6.5


def test_strata_name_modules_and_tests_that_are_there():
    for stratum in SETTINGS["strata"].values():
        assert all(list(ROOT.glob(pattern)) for pattern in stratum["modules"])
        assert all((ROOT / "tests" / name).exists() for name in stratum["tests"])


def test_an_equivalent_mutant_is_one_of_its_module_and_has_a_reason():
    names = {}
    for each in SETTINGS["equivalent"]:
        file, name = each["mutant"].split(" ", 1)
        if file not in names:
            names[file] = {mutant.name for mutant in mutations.mutants(ast.parse((ROOT / file).read_text()))}
        assert name in names[file] and each["reason"], each


def test_the_commits_of_rows_are_told_and_older_rows_have_none():
    rows = [{"mutant": "a"}, {"mutant": "b"}, {"mutant": "c", "commit": "123"}, {"mutant": "a", "commit": "123"}]
    assert mutants.commits(rows) == "2 of 123, 1 of a commit that was not noted"
