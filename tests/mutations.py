"""Mutants of a module: each changes one constant, bound, operation, condition, term or call of its syntax tree."""

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

KEPT_CALLS = {
    "bool", "dict", "float", "int", "isinstance", "len", "list", "map", "range", "set", "str", "super", "tuple", "zip",
}  # fmt: skip
TOLD = ("warnings.warn", "warn", "require_known")
SKIPPED = ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom
SWAPPED: dict[type, list[type]] = {
    ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div], ast.Div: [ast.Mult], ast.Pow: [ast.Mult],
    ast.FloorDiv: [ast.Mult], ast.Mod: [ast.FloorDiv], ast.Lt: [ast.LtE, ast.GtE], ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.LtE], ast.GtE: [ast.Gt, ast.Lt], ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq],
    ast.In: [ast.NotIn], ast.NotIn: [ast.In], ast.Is: [ast.IsNot], ast.IsNot: [ast.Is],
    ast.And: [ast.Or], ast.Or: [ast.And], ast.BitAnd: [ast.BitOr],
}  # fmt: skip
Path = tuple[tuple[str, int | None], ...]
"""Fields and indices that lead from a module to one of its nodes."""


class Mutant(NamedTuple):
    """`name` says what holds the place, the change, and which of equal ones it is; it does not say the line."""

    name: str
    line: int
    path: Path
    new: ast.AST

    def of(self, tree: ast.Module) -> ast.Module:
        """Return the changed module."""
        changed: Any = copy.deepcopy(tree)
        node = changed
        for field, index in self.path[:-1]:
            node = getattr(node, field) if index is None else getattr(node, field)[index]
        field, index = self.path[-1]
        if index is None:
            setattr(node, field, self.new)
        else:
            getattr(node, field)[index] = self.new
        return ast.fix_missing_locations(changed)


def mutants(tree: ast.Module) -> Iterator[Mutant]:
    """Yield all mutants of a module."""
    seen = Counter[str]()
    for path, where, node in _places(tree):
        for new in _replacements(node):
            old, now = (_short(ast.unparse(each)) for each in (node, ast.fix_missing_locations(new)))
            name = f"{where or 'module'}: {old} -> {now}"
            seen[name] += 1
            yield Mutant(name if seen[name] == 1 else f"{name} #{seen[name]}", node.lineno, path, new)


def _replacements(node: ast.AST) -> Iterator[ast.AST]:
    """Each node that may stand in the place of this one."""
    match node:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield from (ast.Constant(value + 1), ast.Constant(value - 1))
        case ast.Constant(value=float(value)):
            yield from (ast.Constant(value * 2 if value else 1.0), ast.Constant(value / 2 if value else -1.0))
        case ast.BinOp(left=left, op=op, right=right):
            if isinstance(left, ast.Constant | ast.JoinedStr) and isinstance(getattr(left, "value", ""), str):
                return
            yield from (ast.BinOp(left, other(), right) for other in SWAPPED.get(type(op), []))
            if isinstance(op, ast.Add | ast.Sub | ast.Mult):
                yield left
            if isinstance(op, ast.Add):
                yield right
        case ast.Compare(left=left, ops=[op], comparators=right):
            yield from (ast.Compare(left, [other()], right) for other in SWAPPED[type(op)])
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(SWAPPED[type(op)][0](), values)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand) if not isinstance(operand, ast.Constant):
            yield operand
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield from (ast.IfExp(test, orelse, body), body, orelse)
        case ast.If(test=test) if not isinstance(test, ast.Compare | ast.UnaryOp):  # these are changed themselves
            yield ast.If(ast.UnaryOp(ast.Not(), test), node.body, node.orelse)
        case ast.Expr(value=ast.Call()):
            yield ast.Pass()
        case ast.Call(func=func, args=[first, *_]) if not isinstance(first, ast.Starred | ast.GeneratorExp):
            if not (isinstance(func, ast.Name) and (func.id in KEPT_CALLS or func.id[0].isupper())):
                yield first
        case ast.Call(func=ast.Attribute(value=value), args=[]):
            yield value


def _places(node: ast.AST, path: Path = (), where: str = "") -> Iterator[Any]:
    """(path, place, node) of what may change: no annotations, texts, decorators, messages of errors and warnings."""
    named = isinstance(node, ast.FunctionDef | ast.ClassDef)
    where = f"{where}.{node.name}".strip(".") if named else where
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "bases"):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or isinstance(child, SKIPPED) or _told(child):
                continue
            step = (*path, (field, index))
            yield step, where, child
            yield from _places(child, step, where)


def _told(node: ast.AST) -> bool:
    if isinstance(node, ast.keyword):
        return node.arg in ("strict", "stacklevel")
    return isinstance(node, ast.Call) and ast.unparse(node.func) in TOLD


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 70 else f"{text[:50]}...{text[-17:]}"
