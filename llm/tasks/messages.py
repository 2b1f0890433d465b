"""Conversations: instruction data as lists of {role, content}, the usual JSON of chat models."""

from collections.abc import Mapping
from typing import Any

from llm.tasks.example import Example
from llm.tasks.record import DataRecord
from zobench.naming import require_known

ROLES = ("system", "user", "assistant")
Turns = tuple[tuple[str, str], ...]


def conversation(system: str | None, said: str) -> Example:
    """Return an example without answers of what a user says, after a system prompt where one is given."""
    begun: Turns = (("system", system),) if system is not None else ()
    return _example((*begun, ("user", said)))


def answered(record: DataRecord, column: str) -> Example:
    """Return the example of a conversation whose last turn, the assistant's, is the answer.

    Raises:
        ValueError: the column holds no list of {role, content}, or no answer ends it; the message names file and line.
    """
    *before, (role, answer) = _turns(record, column)
    if role != "assistant" or not before or not answer.strip():
        raise ValueError(f"{record.where}: {column} ends with {role}: end it with a turn of the assistant")
    return _example(tuple(before))._replace(candidates=(answer.strip(),), answers=(answer.strip(),))


def question(record: DataRecord, column: str) -> Example:
    """Return the example of a conversation up to the answer of its end, if it has one; errors as `answered`."""
    turns = _turns(record, column)
    asked = turns[:-1] if turns[-1][0] == "assistant" else turns
    if not asked:
        raise ValueError(f"{record.where}: {column} has no question: give a turn of the user")
    return _example(asked)._replace(candidates=("?",))


def _example(turns: Turns) -> Example:
    return Example("\n".join(f"{role}: {content}" for role, content in turns), 0, turns=turns)


def _turns(record: DataRecord, column: str) -> Turns:
    value = record.value(column)
    if not (isinstance(value, list) and value):
        raise ValueError(f"{record.where}: {column} is {value!r:.200}: give a list of {{role, content}}")
    return tuple(_turn(record, column, turn) for turn in value)


def _turn(record: DataRecord, column: str, turn: Any) -> tuple[str, str]:
    if not isinstance(turn, Mapping) or not all(isinstance(turn.get(name), str) for name in ("role", "content")):
        raise ValueError(f"{record.where}: {column} has {turn!r:.200}: give {{role, content}}, both texts")
    require_known(turn["role"], ROLES, f"role in {record.where}:")
    return turn["role"], turn["content"]
