"""Countdown: generated numbers and a target; the answer is an expression that a reward checks.

After the task of Gandhi et al. 2024 (arXiv 2404.03683) and the reward of TinyZero, which gives a part of it for the
form alone.
"""

import ast
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from random import Random

from llm.tasks.example import Example
from llm.tasks.prompts import generated
from llm.tasks.record import DataRecord
from llm.tasks.task import REWARD, Item, Pools, Sizes, Task, Writing
from zobench.random.keys import derive

FORM = 0.1
"""The reward of an expression that is wrong."""
LONGEST = 100
PARTS = re.compile(r"[\d\s+*/()-]+")
TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip
SIGNS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
TEMPLATE = "Use the numbers {numbers}, each once, with + - * / and brackets to make {target}.\nExpression:"


def reward(answer: str, example: Example) -> float:
    """Return 1 for an expression of the example's numbers, each once, that is its target; 0.1 for any other expression
    of whole numbers, + - * / and brackets; 0 for any other text.

    The expression is what is between <answer> and </answer>, where these are written, or else the whole answer up to
    an equals sign. The example's own answer says numbers and target.
    """
    written = _parsed(answer)
    if written is None:
        return 0.0
    (solution,) = example.answers
    right = _parsed(solution)
    assert right is not None
    return 1.0 if written == right else FORM


def _parsed(answer: str) -> tuple[Counter[int], Fraction | None] | None:
    """The numbers of an expression and its value (None: a division by 0); None for a text that is no expression."""
    tagged = TAGGED.findall(answer)
    text = (tagged[-1] if tagged else answer).partition("=")[0].strip()
    if len(text) > LONGEST or not PARTS.fullmatch(text):
        return None
    try:
        tree = ast.parse(text, mode="eval").body
        numbers = Counter(_numbers(tree))
    except (SyntaxError, ValueError, RecursionError):
        return None
    try:
        return numbers, _value(tree)
    except ZeroDivisionError:
        return numbers, None


def _numbers(node: ast.expr) -> Iterator[int]:
    """The numbers of an expression.

    Raises:
        ValueError: there is more in it than numbers and operations.
    """
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield node.value
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        yield from (*_numbers(node.left), *_numbers(node.right))
    else:
        raise ValueError(ast.dump(node))


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.BinOp):
        return OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    assert isinstance(node, ast.Constant) and isinstance(node.value, int)
    return Fraction(node.value)


def question(number: int) -> Example:
    """Return a question that has an answer: three numbers from 1 to 20, and a target from 1 to 99."""
    random = Random(derive("countdown", number))
    while True:
        numbers = [random.randint(1, 20) for _ in range(3)]
        first, second = random.choice(list(SIGNS)), random.choice(list(SIGNS))
        target = SIGNS[second](SIGNS[first](numbers[0], numbers[1]), numbers[2])
        if 1 <= target <= 99:
            break
    solution = f"({numbers[0]} {first} {numbers[1]}) {second} {numbers[2]}"
    return posed(", ".join(map(str, sorted(numbers))), target, solution)


def posed(numbers: str, target: int | str, solution: str = "") -> Example:
    """Return the example of numbers and a target; the solution is what first-order methods are trained on."""
    return generated(TEMPLATE.format(numbers=numbers, target=target), (solution,))


@cache
def _pools(folder: str | None) -> Pools:
    if folder is not None:
        raise ValueError("task countdown is generated and reads no files: leave --data out")
    made = {example.prompt: Item(example.prompt, example) for example in map(question, range(2400))}
    items = list(made.values())
    return Pools(items[400:], items[:400])


def _ask(record: DataRecord) -> Example:
    return posed(record.shown("numbers"), record.shown("target"))


COUNTDOWN = Task(
    "countdown",
    _pools,
    objective=REWARD,
    metric=REWARD,
    sizes=Sizes(500, 100, 200),
    source="generated",
    sample=posed("3, 5, 8", 19, "(3 * 8) - 5"),
    template=TEMPLATE,
    ask=_ask,
    writing=Writing(24),
    reward=reward,
)
