"""In-context learning: solved examples before the question."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from llm.baselines.baseline import Baseline, BaselineSetting, Outcome
from llm.objective import Encoded, Measured, Objective
from llm.tasks import Example
from zobench import derive
from zobench.random import streams

BLANK_LINE = "\n\n"


@dataclass(frozen=True)
class InContext(Baseline):
    """The prompt is `shots` demonstrations and the question, joined by blank lines (as in MeZO).

    A demonstration is a training example, its prompt and its right candidate, stripped. They are drawn by the seed, and
    are the same, in the same order, before every question. Where they do not fit in `max_tokens` the earliest are left
    out, whole; the special token at the beginning stays.

    Cost: the forward passes of dev and test, of long prompts: the length of a prompt grows with `shots`.
    """

    shots: int = 32
    about: ClassVar[str] = "in-context learning: shots=32 solved training examples before each question"

    def __post_init__(self) -> None:
        if not isinstance(self.shots, int) or self.shots < 1:
            raise ValueError(f"shots is {self.shots!r}: give a number of demonstrations, 1 or more")

    def check_setting(self, setting: BaselineSetting) -> None:
        if setting.objective.language_model.masked:
            raise ValueError("icl needs a model that continues texts, but a masked model fills one gap")
        if any(row.example is not None and row.example.turns for row in setting.train):
            raise ValueError("icl writes solved examples before a prompt: give it a task without chat and messages")
        if self.shots > len(setting.train):
            raise ValueError(
                f"icl needs {self.shots} demonstrations, but there are {len(setting.train)} training examples: raise "
                f"--train, or give --method icl:shots={len(setting.train)}"
            )

    def measure(self, setting: BaselineSetting) -> Outcome:
        solved = [demonstration(_known(row)) for row in drawn(setting.train, self.shots, setting.seed)]
        asked = [[_known(row) for row in part] for part in (setting.dev, setting.test)]
        fitting = [fitted(setting.objective, solved, part) for part in (setting.dev, setting.test)]
        counts = [count for part in fitting for count in part]
        self._tell(setting, counts)
        measured: list[Measured] = []
        for part, numbers in zip(asked, fitting, strict=True):
            longer = [e._replace(prompt=joined(solved, e.prompt, k)) for e, k in zip(part, numbers, strict=True)]
            measured.append(setting.objective.measure(setting.objective.encode(longer)))
        dev, test = measured
        return Outcome(dev, test, {"shots_read": sum(counts) / len(counts), "fewest_shots_read": min(counts)})

    def _tell(self, setting: BaselineSetting, counts: Sequence[int]) -> None:
        """Say how many demonstrations were read, where it is not all; none at all would be zero-shot."""
        most = setting.objective.max_tokens
        room = f"--max-tokens {most}" if most else f"the limit of {setting.objective.language_model.name}"
        if max(counts) == 0:
            more = "give more, or " if most else "give "
            raise ValueError(f"no demonstration fits in {room} before any question: {more}--method zero-shot")
        if min(counts) < self.shots:
            setting.note(
                f"icl: {min(counts)} to {max(counts)} of {self.shots} demonstrations fit in {room} before a question, "
                f"{sum(counts) / len(counts):.1f} on average; the earliest are left out"
            )


def drawn(train: Sequence[Encoded], shots: int, seed: int) -> list[Encoded]:
    """Return the examples to demonstrate, drawn by the seed: fewer shots are the first of more."""
    order = streams.uniform(derive("demonstrations", seed), (len(train),)).argsort()
    return [train[i] for i in order[:shots].tolist()]


def demonstration(example: Example) -> str:
    """Return a solved example: the prompt and its right continuation, stripped."""
    return (example.prompt + example.candidates[example.label]).strip()


def joined(solved: Sequence[str], prompt: str, count: int) -> str:
    """Return the last `count` demonstrations and the prompt, with blank lines between them."""
    return BLANK_LINE.join([*solved[len(solved) - count :], prompt])


def fitted(objective: Objective, solved: Sequence[str], rows: Sequence[Encoded]) -> list[int]:
    """Return how many of the demonstrations fit before each prompt in the room that the objective gives it.

    Cost: each prompt is tokenised about log2(shots) times, or once where all fit.
    """
    prompts, rooms = [_known(row).prompt for row in rows], [objective.room(row) for row in rows]
    encoder, least, most = objective.encoder, [0] * len(prompts), [len(solved)] * len(prompts)
    tried = list(most)
    while unsure := [i for i in range(len(prompts)) if least[i] < most[i]]:
        longer = encoder.whole([joined(solved, prompts[i], tried[i]) for i in unsure])
        for i, ids in zip(unsure, longer, strict=True):
            room = rooms[i]
            if room is None or len(ids) <= room:
                least[i] = tried[i]
            else:
                most[i] = tried[i] - 1
            tried[i] = (least[i] + most[i] + 1) // 2
    return least


def _known(row: Encoded) -> Example:
    assert row.example is not None  # `encode` keeps it
    return row.example
