"""Conversations in the chat template of a model."""

from collections.abc import Sequence
from typing import Any

from llm.tasks import Example


def rendered(tokenizer: Any, examples: Sequence[Example], name: str) -> list[Example]:
    """Return the examples with each conversation as the text of the model's chat template, up to where the assistant
    speaks. An only candidate, which is an answer, ends as the template ends a turn.

    Raises:
        ValueError: the tokenizer has no chat template, or the template refuses the turns.
    """
    return [_rendered(tokenizer, each, name) if getattr(each, "turns", ()) else each for each in examples]


def _rendered(tokenizer: Any, example: Example, name: str) -> Example:
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(f"model {name} has no chat template: give a chat model, or a task without chat and messages")
    turns = [{"role": role, "content": content} for role, content in example.turns]
    try:
        prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        ends = [_end(tokenizer, turns, prompt, answer) for answer in example.candidates]
    except Exception as error:  # a template is a program of its own
        raise ValueError(f"the chat template of {name} refuses {example.prompt[:60]!r}: {error}") from error
    return example._replace(prompt=prompt, candidates=tuple(ends) if len(ends) == 1 else example.candidates)


def _end(tokenizer: Any, turns: list[dict[str, str]], prompt: str, answer: str) -> str:
    """The answer and the end of its turn, as the template writes it."""
    whole = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": answer}], tokenize=False)
    return whole[len(prompt) :].rstrip() if whole.startswith(prompt) else f"{answer}{tokenizer.eos_token or ''}"
