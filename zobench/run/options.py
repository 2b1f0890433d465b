"""Options: a frozen dataclass as a command line and as a TOML file, over presets where the dataclass has them."""

import argparse
import dataclasses
import shlex
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from zobench.naming import require_known
from zobench.run.reading import toml_table
from zobench.spelling import names_code

Options = TypeVar("Options")
Presets = Callable[[], Mapping[str, Mapping[str, Any]]]
WRITTEN = ("out", "to", "figure")
"""Options that name folders or files to write."""


def option(
    default: Any,
    help: str,
    presets: Presets | None = None,
    before: Any = None,
    code: bool = False,
    also: tuple[str, ...] = (),
) -> Any:
    """Return a dataclass field with a default and a help text; with `presets` the field names one of these, which are
    values of other fields by name, and are looked up only where one is named. `before` is what it means that the
    configuration of a run does not name the field, where that is not the default: there was no such option. `code`
    says that a value which is true lets code run that others wrote; `also` are further flags of the option.
    """
    about = {"help": help, "presets": presets, "before": before, "code": code, "also": also}
    return dataclasses.field(default=default, metadata=about)


def before(cls: type[Any]) -> dict[str, Any]:
    """Return what a run's configuration of before there were these options means for them."""
    values = {field.name: _about(cls, field.name).get("before") for field in dataclasses.fields(cls)}
    return {name: value for name, value in values.items() if value is not None}


def unnamed(cls: type[Any]) -> dict[str, Any]:
    """Return what the configuration of a run means for each option, where it does not name it."""
    return dataclasses.asdict(cls(**before(cls)))


def from_groups(cls: type[Options], options: Any, **given: Any) -> Options:
    """Return the dataclass with the values of the groups, dataclasses that it inherits, which `options` inherits too,
    and those given. A field that both have, but not of a common group, is not taken.
    """
    groups = [base for base in cls.__mro__ if dataclasses.is_dataclass(base) and isinstance(options, base)]
    shared = {field.name: getattr(options, field.name) for group in groups for field in dataclasses.fields(group)}
    return cls(**{**shared, **given})


def _about(cls: type[Any], name: str) -> dict[str, Any]:
    """What is said of a field by its class, or else by the nearest group that has it."""
    declared = (vars(base).get("__dataclass_fields__", {}).get(name) for base in reversed(cls.__mro__))
    return {key: value for field in declared if field is not None for key, value in field.metadata.items()}


def argument(help: str, default: Any = dataclasses.MISSING) -> Any:
    """Return a dataclass field given by its place on the command line, which may be left out if it has a default."""
    return dataclasses.field(default=default, metadata={"help": help, "place": True})


def add_arguments(parser: argparse.ArgumentParser, cls: type[Any]) -> None:
    """Give the parser one --option for each field of the dataclass, a place for each that has no name there, and
    --config for a TOML file with the same names. Help shows the fields of each base under the first line of what that
    base says of itself.
    """
    parser.add_argument("--config", metavar="FILE", help="TOML file of options, such as the config.toml of a run")
    types_of, groups = get_type_hints(cls), _help_groups(parser, cls)
    for field in dataclasses.fields(cls):
        about = _about(cls, field.name)
        if about.get("place"):
            many: dict[str, Any] = (
                {} if field.default is dataclasses.MISSING else {"nargs": "?", "default": argparse.SUPPRESS}
            )
            parser.add_argument(field.name, metavar=field.name.upper(), help=about["help"], **many)
            continue
        add = groups.get(field.name, parser).add_argument
        flag = "--" + field.name.replace("_", "-")
        default = "" if field.default in (None, "", ()) else f" (default: {_shown(field.default)})"
        text = (about.get("help", "") + default).strip().replace("%", "%%")
        if types_of[field.name] is bool:
            add(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        else:
            convert = _converter(types_of[field.name])
            flags = (flag, *about.get("also", ()))
            add(*flags, type=convert, default=argparse.SUPPRESS, help=text, metavar=_metavar(convert), dest=field.name)


def _help_groups(parser: argparse.ArgumentParser, cls: type[Any]) -> dict[str, Any]:
    """The group of the help that shows each inherited field; the last base comes first, as its fields do."""
    groups: dict[str, Any] = {}
    for base in reversed(cls.__bases__):
        if dataclasses.is_dataclass(base):
            title = (base.__doc__ or "").partition("\n")[0].rstrip(".")
            groups |= dict.fromkeys(
                (field.name for field in dataclasses.fields(base)), parser.add_argument_group(title)
            )
    return groups


def build(cls: type[Options], arguments: argparse.Namespace) -> Options:
    """Return the dataclass: defaults, overridden by a preset, by --config, by the command line, in this order.

    The preset is the one that the command line names, or else a file written by hand; in the config.toml of a run,
    which is complete and names its `command`, it is a note that changes nothing.

    Raises:
        UnknownNameError: no such preset, or a key of it or of the file is no option; the message names the nearest.
        ValueError: the file is missing or is not TOML, or asks for code that the command line does not ask for.
    """
    values = read_toml(arguments.config) if arguments.config else {}
    complete = "command" in values
    written_for = values.pop("command", arguments.command)
    if written_for != arguments.command:
        raise ValueError(f"--config {arguments.config} is of the command {written_for!r}, not {arguments.command!r}")
    loaded = {**(before(cls) if complete else {}), **checked(cls, values, arguments.config)}
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    given = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    for name in WRITTEN:
        if isinstance(loaded.get(name), str) and loaded[name] and name not in given:
            _require_own_folder(name, loaded[name], arguments.config)
    asked = running_code(cls, {name: value for name, value in loaded.items() if name not in given})
    if asked:
        raise ValueError(
            f"{_listed(asked)} in {arguments.config} would run Python code, which a file cannot ask for: if you trust "
            f"that code, give {code_arguments(cls, asked)} on the command line too"
        )
    named = given if complete else {**loaded, **given}
    return cls(**{**_preset(cls, named), **loaded, **given})


def _preset(cls: type[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the preset that is named, if one is."""
    for field in dataclasses.fields(cls):
        name, presets = named.get(field.name), _about(cls, field.name).get("presets")
        if presets is not None and name is not None:
            table = presets()
            require_known(name, table, field.name)
            return checked(cls, table[name], f"{field.name} {name}")
    return {}


def checked(cls: type[Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return values of a TOML file as the dataclass wants them; `where` is named in errors.

    Raises:
        UnknownNameError: a key is no field; the message names the nearest.
        ValueError: a value is of another type than the field.
    """
    types_of = {field.name: get_type_hints(cls)[field.name] for field in dataclasses.fields(cls)}
    for key in values:
        require_known(key, types_of, f"option in {where}:")
    return {key: _typed(value, types_of[key], f"{key} in {where}") for key, value in values.items()}


def running_code(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the values by which code would run that is not zobench's: a flag that lets it, or a name of the
    form `package.module:function`. A file may hold them, and only the command line may ask for them.
    """
    flags = {field.name for field in dataclasses.fields(cls) if field.metadata.get("code")}
    asking = {}
    for name, value in values.items():
        texts = value if isinstance(value, list | tuple) else (value,)
        if (name in flags and value) or any(isinstance(text, str) and names_code(text) for text in texts):
            asking[name] = value
    return asking


def code_arguments(cls: type[Any], values: Mapping[str, Any]) -> str:
    """Return what a command line has to say besides --config FILE, where the file has these values; "" for nothing."""
    words = []
    for name, value in running_code(cls, values).items():
        words.append("--" + name.replace("_", "-"))
        if not isinstance(value, bool):
            words.append(_shown(value))
    return shlex.join(words)


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value!r}" for name, value in values.items())


def _require_own_folder(name: str, out: str, config: str) -> None:
    """Refuse to write where only a file says so: its own folder, or one below the current, needs no more words."""
    try:
        target, own = Path(out).resolve(), Path(config).resolve().parent
    except ValueError as error:
        raise ValueError(f"{name} in {config} is {out!r}: {error}") from None
    if target != own and (target == Path.cwd() or not target.is_relative_to(Path.cwd())):
        raise ValueError(
            f"{name} in {config} is {out!r}, neither the folder of that file nor below the current one: give "
            f"--{name} on the command line to write there"
        )


def read_toml(file: str) -> dict[str, Any]:
    """Return what a TOML file says.

    Raises:
        ValueError: the file is missing or is not TOML.
    """
    try:
        data = Path(file).read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file") from None
    except OSError as error:
        raise ValueError(f"{file}: {error}") from None
    return toml_table(data, file)


def _typed(value: Any, kind: Any, what: str) -> Any:
    """The value of a TOML file as the field's type."""
    if isinstance(kind, types.UnionType):
        if str in get_args(kind) and isinstance(value, str):
            return value
        kind = next(k for k in get_args(kind) if k is not type(None))
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_typed(item, get_args(kind)[0], what) for item in value)
    if (kind is float and type(value) is int) or (kind is int and type(value) is float and value.is_integer()):
        return kind(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if get_origin(kind) is tuple or type(value) is not kind:
        wanted = "list" if get_origin(kind) is tuple else kind.__name__
        raise ValueError(f"{what} is {value!r}: give a {wanted}")
    return value


def whole(text: str) -> int:
    """Return a whole number written as 1000 or 1e3.

    Raises:
        ValueError: the text is not a whole number.
    """
    number = float(text)
    if not number.is_integer():
        raise ValueError(f"{text} is not a whole number")
    return int(number)


def _told(wanted: str, convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """The converter with an error that shows the text and what is wanted."""

    def told(text: str) -> Any:
        try:
            return convert(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no {wanted}") from None

    return _named(convert.__name__, told)


def _converter(kind: Any) -> Callable[[str], Any]:
    if get_origin(kind) is tuple:
        item = _converter(get_args(kind)[0])
        return _named("list", lambda text: tuple(item(part.strip()) for part in text.split(",") if part.strip()))
    if isinstance(kind, types.UnionType):
        first = _converter(next(k for k in get_args(kind) if k is not type(None)))
        return _named("number", lambda text: _or_text(first, text)) if get_args(kind)[-1] is str else first
    converters: dict[Any, Callable[[str], Any]] = {
        int: _told("whole number", whole),
        float: _told("number", float),
        Path: Path,
    }
    return converters.get(kind, str)


def _or_text(convert: Callable[[str], Any], text: str) -> Any:
    try:
        return convert(text)
    except argparse.ArgumentTypeError:
        return text


def _named(name: str, function: Callable[[str], Any]) -> Callable[[str], Any]:
    function.__name__ = name
    return function


def _metavar(convert: Callable[[str], Any]) -> str:
    return {"whole": "N", "float": "X", "number": "X", "list": "A,B,..."}.get(convert.__name__, "NAME")


def _shown(default: Any) -> str:
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
