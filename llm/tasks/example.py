"""An example: the prompt, the continuations that are scored, and what is right."""

from typing import NamedTuple


class Example(NamedTuple):
    """One question: the prompt, the continuations among which the model chooses, and the index of the right one.

    Where an answer is generated instead, `answers` are the right ones, and the one candidate is the training target.
    Where a candidate is more than the answer it stands for (ReCoRD: the query with an entity filled in), `choices` are
    the answers that the candidates stand for, and `answers` the right ones among them.
    Of a conversation, `turns` are (role, content) in order, which the model's chat template renders in place of
    `prompt`, a text that shows them.
    """

    prompt: str
    label: int
    candidates: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    turns: tuple[tuple[str, str], ...] = ()
