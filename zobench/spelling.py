"""The command-line spelling of a part with its options, `name:option=value:...`, and of a part of one's own,
`package.module:function:option=value:...`.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

from zobench.naming import require_known

T = TypeVar("T")


class Spelled(NamedTuple):
    """A name, a name of the table or `package.module:function`, and the options given with it."""

    name: str
    options: dict[str, Any]

    @property
    def is_own(self) -> bool:
        """Whether the name is that of a function of the user's own."""
        return ":" in self.name


def spelled(text: str, known: Collection[str] = ()) -> Spelled:
    """Return the name and the options of a command-line spelling. A part with `=` is an option; the first part without
    it is the name, a second one, unless the name is `known`, the function in the module that the first names. Options
    are parted by `:` or `,`.

    Raises:
        ValueError: a part is neither, or an option is given twice.
    """
    name, *parts = _split(text, ":")
    if parts and "=" not in parts[0] and name not in known:
        name = f"{name}:{parts.pop(0)}"
    return Spelled(name, _options(text, [option for part in parts for option in _split(part, ",")]))


def bracketed(text: str) -> Spelled:
    """Return the name and the options of a part that is the value of an option, `low-rank(rank=4,lazy=50)`.

    Raises:
        ValueError: a bracket is missing; or as for `spelled`.
    """
    name, bracket, inside = text.partition("(")
    if not bracket:
        return Spelled(name, {})
    if not inside.endswith(")"):
        raise ValueError(f"{text!r} has a bracket that is not closed: write it as low-rank(rank=4)")
    return Spelled(name, _options(text, _split(inside[:-1], ",")))


def _split(text: str, separator: str) -> list[str]:
    """The parts of a text, of which those within brackets stay together."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _options(text: str, parts: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for part in parts:
        option, equals, value = part.partition("=")
        if not equals:
            raise ValueError(
                f"{part!r} in {text!r} is not option=value; write it as name:option=value, such as kerzoo:order=5:n=3"
            )
        if option in options:
            raise ValueError(f"{option} is given twice in {text!r}: give it once")
        options[option] = _literal(value)
    return options


def construct(
    spelling: Spelled,
    table: Mapping[str, Callable[..., T]],
    kind: str,
    option: str = "option of {}",
    shared: Collection[str] = (),
    **given: Any,
) -> T:
    """Return the dataclass of the table that was told, with its options and the `given` ones; `shared` fields are no
    options. `kind` and `option`, with the name in it, say in messages what kind of name is unknown.

    Raises:
        UnknownNameError: the table has no such name, or the dataclass no such option.
        ValueError: a value is out of range.
    """
    name, options = spelling
    require_known(name, table, kind)
    known = [field.name for field in fields(table[name]) if field.name not in shared]  # type: ignore[arg-type]
    for each in options:
        require_known(each, known, option.format(name))
    return table[name](**given, **options)


def names_code(text: str) -> bool:
    """Return whether a spelling has a part of one's own in it: `package.module:function` anywhere in a list of methods
    or tasks, or `package.module.function` as the value of an option. Everything that `own` would import is one.
    """
    spellings = [piece.split(":") for piece in re.split("[,@]", text)]
    functions = (pair for words in spellings for pair in pairwise(words))
    values = (word.partition("=")[2] for words in spellings for word in words)
    return any(_dotted(module) and name.isidentifier() for module, name in functions) or any(
        "." in value and _dotted(value) for value in values
    )


def _dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def own(name: str) -> Callable[..., Any]:
    """Return the function or class that `package.module:name` names. Importing the module runs its code: call this for
    what the command line asks for, and never for what a file says (`names_code` tells).

    Raises:
        ValueError: the name is none as Python writes it, the module cannot be imported, or it has nothing callable of
            this name.
    """
    module, _, attribute = name.partition(":")
    if not (_dotted(module) and attribute.isidentifier()):
        raise ValueError(f"{name!r} names no function: give package.module:function as Python imports it")
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"{name!r}: the module {module!r} cannot be imported ({error}): run the command in the folder that has it, "
            "or put that folder on PYTHONPATH"
        ) from error
    function = getattr(imported, attribute, None)
    if not callable(function):
        raise ValueError(f"{name!r}: the module {module!r} has no function {attribute!r}")
    return function  # type: ignore[no-any-return]


def made(name: str, options: dict[str, Any]) -> Any:
    """Return what the function that `package.module:name` names makes of these options.

    Raises:
        ValueError: as for `own` and `taken`, or the function does not take these options.
    """
    function = own(name)
    try:
        _signature(function).bind(**options)
    except TypeError as error:
        raise ValueError(f"{name!r} does not take the options {sorted(options)}: {error}") from None
    return function(**options)


def taken(function: Callable[..., Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the defaults that a function has a parameter for.

    Raises:
        ValueError: the function is one of C, whose parameters Python cannot tell.
    """
    parameters = _signature(function).parameters
    return {name: value for name, value in defaults.items() if name in parameters}


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except ValueError:
        raise ValueError(f"{function!r} has no signature that Python can read: name a Python function") from None


def _literal(value: str) -> bool | int | float | str:
    if value in ("true", "false"):
        return value == "true"
    for convert in (int, float):
        try:
            return convert(value)
        except ValueError:
            continue
    return value
