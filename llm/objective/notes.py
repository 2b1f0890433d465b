"""Notes on examples before a model reads them: prompts that are cut, answers that are never generated."""

from collections.abc import Mapping, Sequence

from llm.objective.classification import Objective
from llm.objective.encoding import Encoded

Parts = Mapping[str, Sequence[Encoded]]
"""Encoded examples, such as those of train, dev and test."""


def data_notes(objective: Objective, parts: Parts) -> list[str]:
    """Return the notes about examples as the objective encoded them."""
    return [note for note in (_cut(objective, parts), _endless(objective, parts)) if note]


def _cut(objective: Objective, parts: Parts) -> str | None:
    rows = [row for part in parts.values() for row in part]
    cut = [row for row in rows if len(row.tokens) < row.whole]
    if not cut:
        return None
    counts = {name: sum(len(row.tokens) < row.whole for row in part) for name, part in parts.items()}
    each = ", ".join(f"{counts[name]} of {len(part)} {name}" for name, part in parts.items() if part)
    longest, most = max(row.whole for row in cut), max(len(row.tokens) for row in cut)
    name = objective.language_model.name
    whole = (
        f"without --max-tokens {name} reads as many tokens as it can"
        if objective.max_tokens
        else f"{name} sets the limit"
    )
    return (
        f"prompts cut from the left to {most} tokens: {len(cut)} of {len(rows)} ({each}); the longest has {longest} "
        f"tokens: {whole}"
    )


def _endless(objective: Objective, parts: Parts) -> str | None:
    """Answers are generated up to a number of tokens."""
    most = objective.writing.tokens
    rows = [row for part in parts.values() for row in part if len(row.candidates) == 1]
    long = [row for row in rows if len(row.candidates[0]) > most]
    if not long:
        return None
    return (
        f"{len(long)} of {len(rows)} answers have more than the {most} tokens that are generated, so that no "
        "exact match is possible"
    )
