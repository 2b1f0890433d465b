"""Checks of examples before they are used: blanks at ends, words without a space between them, lines, labels."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from llm.tasks.example import Example
from llm.tasks.task import OF_TEXTS, Item, Pools, Task, words_of_labels

BLANKS = re.compile(r"[^\S\r\n]+\Z")
MASKS = ("<mask>", "[MASK]")
SPACED = ":;.,?!)"
"""After these a text goes on with a space."""
FEW = 10
"""Number of examples from which a single label is no accident."""
SHOWN = 3


def settled(task: Task, pools: Pools) -> Pools:
    """Return the pools without blanks at the end of prompts whose candidates begin with one.

    Tokenizers join a blank to the word that follows, and two blanks in a row do not occur in ordinary text.

    Raises:
        ValueError: a prompt ends in a space, but a candidate begins with none; or the metric compares the words of
            written answers, and there are none.
    """
    return pools._replace(
        training=[_settled(task, item) for item in pools.training], test=[_settled(task, item) for item in pools.test]
    )


def _settled(task: Task, item: Item) -> Item:
    example = item.example
    if task.metric in OF_TEXTS and len(example.candidates) > 1 and not example.answers:
        raise ValueError(words_of_labels(task))
    bare = BLANKS.sub("", example.prompt)
    if bare == example.prompt:
        return item
    if all(text[:1].isspace() for text in example.candidates):
        return item._replace(example=example._replace(prompt=bare))
    if example.prompt.endswith(" "):
        raise ValueError(
            f"task {task.name}: the prompt {example.prompt[-40:]!r} ends in a space, which tokenizers join to the "
            f"word that follows: put it in front of {example.candidates[0]!r} and the other continuations"
        )
    return item


def notes(task: Task, pools: Pools, parts: Mapping[str, Sequence[Example]]) -> list[str]:
    """Return notes on misleading examples of all pools, and on missing labels of the parts that are used."""
    examples = [item.example for item in (*pools.training, *pools.test)]
    sentences = [_joined(examples), _trailing(examples), _lines(examples), _blank(examples), *_labels(task, parts)]
    return [f"{task.name}: {text}" for text in sentences if text]


def _joined(examples: Sequence[Example]) -> str | None:
    """A letter on a letter, a colon or the like: the verbaliser has lost its space."""
    joined = [
        (example, text)
        for example in examples
        for text in example.candidates
        if not example.turns and _run_together(example.prompt, text)
    ]
    if not joined:
        return None
    (first, text), count = joined[0], len({id(example) for example, _ in joined})
    return (
        f"a space is missing between prompt and continuation of {count} of {len(examples)} examples: a model that "
        f"continues texts reads {(first.prompt[-20:] + text)!r}; give {' ' + text!r}"
    )


def _run_together(prompt: str, text: str) -> bool:
    if not (_of_a_word(text[:1]) or text.startswith(("(", "["))):
        return False
    ends = _of_a_word(prompt[-1:]) or prompt.endswith(tuple(SPACED))
    return ends and not any(mask in prompt for mask in MASKS)


def _of_a_word(letter: str) -> bool:
    """Whether it is a digit, or a letter of a script with spaces between words: those with capitals, most of them."""
    return letter.isdecimal() or letter.lower() != letter.upper()


def _trailing(examples: Sequence[Example]) -> str | None:
    ends = [text for example in examples for text in example.candidates if text.endswith((" ", "\t"))]
    if not ends:
        return None
    return f"continuations end in a blank, which is scored with them: {ends[0]!r}; leave it out, unless it is intended"


def _lines(examples: Sequence[Example]) -> str | None:
    written = [e for e in examples if e.answers and len(e.candidates) == 1 and not e.turns]
    long = [example for example in written if all("\n" in answer.strip() for answer in example.answers)]
    if not long:
        return None
    return (
        f"{len(long)} of {len(written)} answers have several lines, but generation ends at the first line break: none "
        "of them can be matched exactly"
    )


def _blank(examples: Sequence[Example]) -> str | None:
    count = sum(not example.prompt.strip() for example in examples)
    return f"{count} of {len(examples)} prompts are blank" if count else None


def _labels(task: Task, parts: Mapping[str, Sequence[Example]]) -> Iterator[str]:
    for name, examples in parts.items():
        sizes = {len(example.candidates) for example in examples}
        if len(sizes) != 1:
            continue
        counts, known = Counter(example.label for example in examples), range(*sizes)
        absent = [label for label in known if not counts[label]]
        alone = len(counts) == 1 and len(known) > 1 and len(examples) >= FEW
        if alone or (absent and task.candidates and name == "training" and len(examples) >= max(FEW, len(known))):
            yield f"the {name} examples have no {_few(task, absent)}; they have {_counted(task, counts)}"


def _few(task: Task, labels: Sequence[int]) -> str:
    more = f" and {len(labels) - SHOWN} other labels" if len(labels) > SHOWN else ""
    return ", ".join(_named(task, label) for label in labels[:SHOWN]) + more


def _counted(task: Task, counts: Counter[int]) -> str:
    more = f" and {len(counts) - SHOWN} other labels" if len(counts) > SHOWN else ""
    return ", ".join(f"{count} of {_named(task, label)}" for label, count in counts.most_common(SHOWN)) + more


def _named(task: Task, label: int) -> str:
    return f"label {label}" + (f" ({task.candidates[label]!r})" if task.candidates else "")
