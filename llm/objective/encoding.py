"""Tokens of prompts and of what may follow them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from llm.tasks import Example

ANCHOR = "\n"


class Encoded(NamedTuple):
    """One tokenised prompt and the index of its candidate; without candidates of its own it has those of the
    objective. A masked model's prompt holds one mask.
    """

    tokens: list[int]
    label: int
    candidates: tuple[tuple[int, ...], ...] = ()
    example: Example | None = None


@dataclass(frozen=True, eq=False)
class Encoder:
    """Tokenises as the model's tokenizer does.

    A prompt keeps the special token that the tokenizer begins texts with (`bos` in its place, where given), and is cut
    from the left behind it; an end that the tokenizer adds is dropped, as the text goes on, and kept for masked models.
    A continuation has the tokens it has in the middle of a text: those after a line break, where a tokenizer treats the
    beginning of a text in its own way.
    """

    tokenizer: Any
    max_tokens: int
    bos: int | None = None
    masked: bool = False

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of prompts; for masked models `<mask>.` is appended to a prompt without a mask.

        Raises:
            ValueError: a prompt has no token, or its mask is cut away or is not the only one.
        """
        texts, (leading, trailing) = self._asked(texts), self._specials()
        rows = self._whole(texts, trailing)
        if leading and self.bos is not None:
            rows = [[self.bos, *ids[1:]] for ids in rows]
        cut = [ids if len(ids) <= self.max_tokens else ids[:leading] + ids[leading - self.max_tokens :] for ids in rows]
        for text, ids in zip(texts, cut, strict=True):
            self._require_readable(text, ids)
        return cut

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens prompts have before they are cut."""
        return [len(ids) for ids in self._whole(self._asked(texts), self._specials()[1])]

    def _asked(self, texts: Sequence[str]) -> list[str]:
        """The texts, with a mask if the model fills one."""
        if not self.masked:
            return list(texts)
        mask = self.tokenizer.mask_token
        return [text if mask in text else f"{text.rstrip()} {mask}." for text in texts]

    def _whole(self, texts: list[str], trailing: int) -> list[list[int]]:
        rows = self.tokenizer(texts, verbose=False)["input_ids"]
        return rows if self.masked or not trailing else [ids[:-trailing] for ids in rows]

    def continuations(self, texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """Return the tokens of each text as it continues another.

        Raises:
            ValueError: a text tokenises to nothing, or for a masked model to more than the one token of the mask.
        """
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return {}
        anchor, *after = self._bare([ANCHOR, *(ANCHOR + text for text in distinct)])
        alone = self._bare(distinct)
        found = {}
        for text, joint, own in zip(distinct, after, alone, strict=True):
            ids = joint[len(anchor) :] if joint[: len(anchor)] == anchor else own
            if not ids:
                raise ValueError(f"candidate {text!r} tokenises to nothing: give a candidate with at least one token")
            if self.masked and len(ids) > 1:
                raise ValueError(f"candidate {text!r} is {len(ids)} tokens, but a mask is one: give one-token words")
            found[text] = tuple(ids)
        return found

    def _bare(self, texts: list[str]) -> list[list[int]]:
        return [list(ids) for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"]]

    def _specials(self) -> tuple[int, int]:
        """How many special tokens the tokenizer puts before and after a text."""
        ids = self.tokenizer("")["input_ids"]
        begins, ends = (
            {getattr(self.tokenizer, f"{name}_token_id", None) for name in names}
            for names in (("bos", "cls"), ("eos", "sep"))
        )
        leading = int(bool(ids) and ids[0] in begins)
        return leading, int(len(ids) > leading and ids[-1] in ends)

    def _require_readable(self, text: str, ids: list[int]) -> None:
        if not ids:
            raise ValueError(f"prompt {text!r} tokenises to nothing, and this tokenizer adds no first token")
        if self.masked and ids.count(self.tokenizer.mask_token_id) != 1:
            found = ids.count(self.tokenizer.mask_token_id)
            raise ValueError(
                f"prompt {text[-60:]!r} has {found} masks in its last {self.max_tokens} tokens: give one, near its end"
            )


def require_distinct(candidates: Sequence[str], tokens: Sequence[tuple[int, ...]]) -> None:
    """Raise ValueError if two candidates are the same to the model."""
    if len(set(tokens)) < len(tokens):
        raise ValueError(f"candidates {tuple(candidates)} are not distinct as tokens: {list(tokens)}")


def require_labelled(example: Example, fewest: int) -> None:
    """Raise ValueError unless the example has so many candidates, and one of them is the right one."""
    where, known = f"example {example.prompt[-60:]!r}", example.candidates
    if len(known) < fewest:
        raise ValueError(
            f"{where} has {len(known)} candidates of its own, but this objective wants {fewest} or more: for answers "
            "that are generated give --objective language-model"
        )
    if not 0 <= example.label < len(known):
        raise ValueError(f"label {example.label} of {where} is out of range: its candidates are {known}")
