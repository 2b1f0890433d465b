"""Tokens of prompts and of what may follow them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from llm.tasks import Example

ANCHOR = "\n"


class Encoded(NamedTuple):
    """One tokenised prompt and the index of its candidate; without candidates of its own it has those of the
    objective. A masked model's prompt holds one mask. `whole` is the number of tokens before the prompt was cut.
    """

    tokens: list[int]
    label: int
    candidates: tuple[tuple[int, ...], ...] = ()
    example: Example | None = None
    whole: int = 0


@dataclass(frozen=True, eq=False)
class Encoder:
    """Tokenises as the model's tokenizer does.

    A prompt keeps the special token that the tokenizer begins texts with (`bos` in its place, where given), and is cut
    from the left behind it; a text that begins with this token gets no second one. An end that the tokenizer adds is
    dropped, as the text goes on, and kept for masked models.
    A continuation has the tokens it has in the middle of a text: those after a line break, where a tokenizer treats the
    beginning of a text in its own way.
    """

    tokenizer: Any
    max_tokens: int | None = None
    bos: int | None = None
    masked: bool = False

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of prompts; for masked models `<mask>.` is appended to a prompt without a mask.

        Raises:
            ValueError: a prompt has no token, or its mask is cut away or is not the only one.
        """
        return self.cut(texts, self.whole(texts), [self.max_tokens] * len(texts))

    def whole(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of prompts before they are cut."""
        leading, trailing = self._specials()
        rows = self.tokenizer(self._asked(texts), verbose=False)["input_ids"]
        return [
            self._framed(ids[:leading], ids[leading : len(ids) - trailing], ids[len(ids) - trailing :]) for ids in rows
        ]

    def cut(self, texts: Sequence[str], rows: Sequence[list[int]], most: Sequence[int | None]) -> list[list[int]]:
        """Return the rows of the texts, each cut from the left to so many tokens; None is no bound.

        Raises:
            ValueError: a row has no token, or its mask is cut away or is not the only one.
        """
        leading, _ = self._specials()
        pairs = zip(rows, most, strict=True)
        found = [ids if n is None or len(ids) <= n else ids[:leading] + ids[leading - n :] for ids, n in pairs]
        for text, ids in zip(texts, found, strict=True):
            self._require_readable(text, ids)
        return found

    def _asked(self, texts: Sequence[str]) -> list[str]:
        """The texts, with a mask if the model fills one."""
        if not self.masked:
            return list(texts)
        mask = self.tokenizer.mask_token
        return [text if mask in text else f"{text.rstrip()} {mask}." for text in texts]

    def _framed(self, first: list[int], text: list[int], last: list[int]) -> list[int]:
        """The tokens of a text with its special ones, which a rendered chat template has already."""
        text = text[1:] if first and text[:1] == first else text
        text = text[:-1] if self.masked and last and text[-1:] == last else text
        first = [self.bos] if first and self.bos is not None else first
        return [*first, *text, *(last if self.masked else ())]

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
                raise ValueError(
                    f"candidate {text!r} is {len(ids)} tokens, but a mask stands for one token: give one-token words"
                )
            found[text] = tuple(ids)
        return found

    def _bare(self, texts: list[str]) -> list[list[int]]:
        return [list(ids) for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"]]

    def _specials(self) -> tuple[int, int]:
        """The numbers of special tokens that the tokenizer puts before and after a text."""
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
                f"prompt {text[-60:]!r} has {found} masks in its last {len(ids)} tokens: give one mask, near its end"
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
