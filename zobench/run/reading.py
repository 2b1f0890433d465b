"""JSON and TOML of files, as errors in words that name the file: whatever a damaged or foreign file holds."""

import json
import tomllib
from pathlib import Path
from typing import Any, NoReturn


def file_bytes(file: str | Path) -> bytes:
    """Return what a regular file holds; a pipe or a device would be waited for without an end.

    Raises:
        ValueError: it is no regular file.
        OSError: it cannot be read.
    """
    path = Path(file)
    if path.exists() and not path.is_file():
        raise ValueError(f"{file}: not a regular file: remove it, or restore the file from a copy")
    return path.read_bytes()


def json_value(text: str | bytes, where: str) -> Any:
    """Return the value of a JSON text; `where` is its file, or `file:line`.

    Raises:
        ValueError: it is no JSON, which has no NaN and no Infinity, or too deep or too long to be read.
    """
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise ValueError(f"{where}: not JSON (lists or objects are nested too deeply): {_way_out(where)}") from None
    except ValueError as error:  # a JSONDecodeError, a number of too many digits, bytes that are no text
        raise ValueError(f"{where}: not JSON ({error}): {_way_out(where)}") from None


def json_object(text: str | bytes, where: str) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        ValueError: as `json_value`, or it is another value.
    """
    value = json_value(text, where)
    if not isinstance(value, dict):
        raise ValueError(f"{where}: not a JSON object but {value!r:.60}: {_way_out(where)}")
    return value


def toml_table(data: bytes, where: str) -> dict[str, Any]:
    """Return what a TOML text says.

    Raises:
        ValueError: it is no TOML, or too deep to be read.
    """
    try:
        return tomllib.loads(data.decode())
    except RecursionError:
        raise ValueError(f"{where}: not TOML: lists or tables are nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{where}: not TOML: {error}") from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _way_out(where: str) -> str:
    line = where.rpartition(":")[2].isdigit()
    return "correct or remove the line" if line else "restore the file from a copy, or remove it"
