"""Problems of one's own by name, in the suites: run, told apart, and refused with a sentence."""

import json
import re
import textwrap
from pathlib import Path

import pytest
import torch

from synthetic import problems
from synthetic.__main__ import main
from zobench import methods, theory
from zobench.naming import UnknownNameError

pytestmark = pytest.mark.usefixtures("one_thread")

PAGE = Path(__file__).parents[1] / "docs/own.md"
BLOCK = PAGE.read_text(encoding="utf-8").partition("## Your own problem")[2].partition("```python\n")[2]
BEYOND = '''
class Bare:
    """No more than a gradient."""

    def __init__(self, dim=3):
        self.dim = dim

    def __call__(self, x):
        return x.square().sum(-1)

    def gradient(self, x):
        return 2 * x


def number():
    return 3


class NoGradient(Bare):
    gradient = property()
'''


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    """The class of the page, as a module of the user's own."""
    written = BLOCK.partition("\n\n\ncosh =")[0]
    heading = "from dataclasses import dataclass\nimport torch\n"
    (tmp_path / "own_problems.py").write_text(heading + written + "\n" + textwrap.dedent(BEYOND))
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def rows(folder, kind):
    found = map(json.loads, (folder / "rows.jsonl").read_text().splitlines())
    return [row for row in found if row["kind"] == kind]


def test_a_function_is_given_what_it_has_parameters_for():
    made = problems.make("own_problems:Cosh:steep=2", 5, condition=3.0, rotated=False, seed=4)
    assert (made.dim, made.steep) == (5, 2)
    assert problems.make("own_problems:Cosh:dim=7", 5).dim == 7
    assert problems.make("own_problems:Cosh", steep=0.5).steep == 0.5
    x = problems.start(made, 3)
    assert x.shape == (5,) and torch.equal(x, problems.start(problems.make("own_problems:Bare", 5), 3))


def test_options_in_the_name_of_a_problem_of_the_table_are_those_of_the_call():
    x = torch.linspace(-1, 1, 4, dtype=torch.float64)
    one, two = problems.make("quartic:cubic=2:seed=3", 4), problems.make("quartic", 4, cubic=2.0, seed=3)
    assert torch.equal(one.gradient(x), two.gradient(x))
    assert not torch.equal(one.gradient(x), problems.make("quartic", 4, seed=3).gradient(x))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nowhere_at_all:make", {}, "the module 'nowhere_at_all' cannot be imported"),
        ("own_problems:Csh", {}, "has no function 'Csh'"),
        ("own_problems:Cosh:depth=2", {}, r"does not take the options \['depth'"),
        ("own_problems:Cosh", {"depth": 2}, "does not take the options"),
        ("own_problems:number", {}, "makes 3, which is no zobench.problem.Problem: it has no .dim"),
        ("own_problems:NoGradient", {}, "it has no .gradient"),
        ("own_problems:Bare:dim=0", {}, "dim is 0"),
        ("quartic:cubik=2", {}, "Did you mean 'cubic'"),
        ("quartc:cubic=2", {}, "Did you mean 'quartic'"),
        ("quartic:cubic", {}, "'cubic' in 'quartic:cubic' is not option=value"),
    ],
)
def test_what_is_no_problem_is_refused_with_a_sentence(name, options, message):
    with pytest.raises((ValueError, UnknownNameError), match=message):
        problems.make(name, **options)


def test_bias_of_two_spellings_is_that_of_two_problems(tmp_path):
    names = ["own_problems:Cosh", "own_problems:Cosh:steep=2"]
    given = ["--methods", "mezo", "--epsilons", "0.3", "--samples", "4e4", "--controlled-samples", "0", "--dim", "3"]
    assert main(["bias", *given, "--problem", ",".join(names), "--out", str(tmp_path / "b")]) == 0
    found = rows(tmp_path / "b", "bias")
    assert [(row["problem"], row["dim"]) for row in found] == [(name, 3) for name in names]
    for row in found:
        problem = problems.make(row["problem"], 3)
        bias = theory.bias(methods.make("mezo", epsilon=0.3), problem, problems.start(problem))
        assert row["predicted_bias"] == pytest.approx(float(bias.norm()))
        assert row["bias_deviation"] < 4
    assert found[1]["predicted_bias"] > 2 * found[0]["predicted_bias"]


@pytest.mark.parametrize("suite", ["converge", "descent", "epsilon"])
def test_suites_run_on_a_problem_of_ones_own(suite, tmp_path):
    given = {
        "converge": ["--methods", "mezo", "--seeds", "1", "--tuning-seeds", "1", "--rates", "0.1,0.01"],
        "descent": ["--methods", "mezo", "--seeds", "1"],
        "epsilon": ["--choices", "1", "--directions", "8", "--dtypes", "float32", "--noises", "0"],
    }[suite]
    given += [] if suite == "epsilon" else ["--evaluations", "40"]
    command = [suite, *given, "--dim", "4", "--out", str(tmp_path / "s")]
    assert main([*command, "--problem", "own_problems:Cosh"]) == 0
    assert {row["problem"] for row in rows(tmp_path / "s", suite)} == {"own_problems:Cosh"}


@pytest.mark.parametrize(
    ("suite", "problem", "message"),
    [
        ("bias", "own_problems:Bare", "needs .*of Bare, which does not declare it"),
        ("descent", "own_problems:Bare", "no known minimum to descend to"),
        ("converge", "own_problems:Bare", "no known minimum to converge to"),
        ("converge", "nowhere_at_all:make", "cannot be imported.*PYTHONPATH"),
    ],
)
def test_what_a_suite_needs_and_a_problem_lacks_is_told_before_the_first_row(suite, problem, message, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([suite, "--problem", problem, "--out", str(tmp_path / "s")])
    assert re.search(message, capsys.readouterr().err, re.DOTALL) and not (tmp_path / "s").exists()
