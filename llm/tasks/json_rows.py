"""JSON: an object a line, a list of objects, or a whole document."""

import json
import re
from bisect import bisect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unicodedata import normalize

from llm.tasks.decoding import NAME_IT, lines
from llm.tasks.record import DataRecord

SPACE = re.compile(r"\s*")


def json_lines(file: Path, encoding: str = "utf-8") -> list[DataRecord]:
    """Return one record for each line that is not blank.

    Raises:
        ValueError: a line is no JSON object, or as `lines` has it.
    """
    records = []
    for number, text in enumerate(lines(file, encoding, NAME_IT), 1):
        if line := text.strip():
            fields = _parsed(file, number, partial(OBJECTS.decode, line))
            records.append(DataRecord(f"{file}:{number}", _object(file, number, fields)))
    return records


def json_array(file: Path, encoding: str = "utf-8") -> list[DataRecord]:
    """Return the records of a list of objects, or of an object a line, which is called .json too.

    Raises:
        ValueError: the file is neither, or as `lines` has it.
    """
    text = "\n".join(lines(file, encoding, NAME_IT)).strip()
    if not text.startswith("["):
        _require_lines(file, text)
        return json_lines(file, encoding)
    ends, at, records = [end.start() for end in re.finditer("\n", text)], _next(text, 1), list[DataRecord]()
    while text[at : at + 1] != "]":
        line = bisect(ends, at) + 1
        fields, at = _parsed(file, line, partial(OBJECTS.raw_decode, text, at))
        records.append(DataRecord(f"{file}:{line}, item {len(records) + 1}", _object(file, line, fields)))
        at = _next(text, at)
        if text[at : at + 1] not in (",", "]"):
            raise ValueError(f"{file}:{bisect(ends, at) + 1}: not JSON: a comma or ] is missing after an item")
        at = _next(text, at + (text[at] == ","))
    if not records or text[at + 1 :]:
        raise ValueError(f"{file}:{bisect(ends, at) + 1}: give one list of objects, and nothing after it")
    return records


def _require_lines(file: Path, text: str) -> None:
    """Refuse one object over many lines or of columns alone, as pandas writes by default: it is JSON, but no rows."""
    try:
        whole = OBJECTS.decode(text)
        of_columns = all(isinstance(value, list | dict) for value in whole.values())
    except (ValueError, KeyError, RecursionError, AttributeError):  # told of its line when it is read line by line
        return
    if "\n" in text or of_columns:
        raise ValueError(
            f"{file}:1: the file is one object ({', '.join(whole):.60}): give a list of objects, one for each row (in "
            'pandas: to_json(FILE, orient="records"))'
        )


def json_document(file: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        ValueError: the file is not JSON, or as `lines` has it.
    """
    text = "\n".join(lines(file))
    return _parsed(file, 1, lambda: json.loads(text))


def _next(text: str, at: int) -> int:
    """The place of the next letter that is no white space."""
    found = SPACE.match(text, at)
    return found.end() if found else at


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        composed = normalize("NFC", name)
        if composed in fields:
            raise KeyError(name)
        fields[composed] = value
    return fields


OBJECTS = json.JSONDecoder(object_pairs_hook=_fields)


def _parsed(file: Path, line: int, parse: Callable[[], Any]) -> Any:
    """The result of `parse`; its errors become messages, with the line `line` or a later one that JSON names."""
    try:
        return parse()
    except json.JSONDecodeError as error:
        fault, line = f"not JSON ({error.msg} at {error.colno})", max(line, error.lineno)
    except RecursionError:
        fault = "lists or objects are nested too deeply to be read"
    except KeyError as error:
        fault = f"the name {error.args[0]!r} occurs twice in one object"
    except ValueError:
        fault = "a number has more digits than can be read"
    raise ValueError(f"{file}:{line}: {fault}: correct the line")


def _object(file: Path, line: int, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        list_of = " (.json: a list of them)" if isinstance(value, list) else ""
        raise ValueError(f"{file}:{line}: {value!r:.60} is not a JSON object: give {{...}} with named fields{list_of}")
    return value
