"""Claim 9: the gains of KerZOO's abstract against what its test sets can tell."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from analysis import text
from analysis.claims import power
from analysis.claims.claim import FAILS, HOLDS, PAPER, UNDECIDED, Claim
from zobench.figures.panels import LEVEL


class Gain(NamedTuple):
    """A gain in accuracy that is claimed, on a test set of so many questions."""

    number: str
    task: str
    gain: float
    questions: int
    of: str


GAINS = (
    Gain("9a", "WSC", 0.029, 104, "104 test questions"),
    Gain("9b", "MultiRC", 0.026, 1000, "1,000 answers to questions on 83 texts, as MeZO evaluates"),
)
ACCURACY = 0.6  # about what MeZO reaches there; the interval is widest near 1/2
DISCORDANT = 0.15  # of the questions, right in one of two fine-tuned models alone: a guess, on the low side


def claims() -> Iterator[Claim]:
    """Each gain as one run against one run: nothing but its test set's size is needed."""
    for each in GAINS:
        more = round(each.gain * each.questions)
        compared, best = power.unpaired(each.gain, ACCURACY, each.questions), power.best_case(more)
        right = verdict(best, compared.p)
        enough = power.questions_needed(each.gain, DISCORDANT)
        estimate = (
            f"{text.points(compared.difference, signed=True)} points, runs independent; McNemar's p is at best "
            f"{text.p_value(best)} ({text.count(more, 'question')})"
        )
        needs = f"per-question answers, or {enough:,} questions (80 % power, {100 * DISCORDANT:g} % differ)"
        words = f"{each.task}: +{100 * each.gain:.1f} points over MeZO are more than the noise of the test set"
        yield Claim(
            each.number, words, PAPER, "power analysis", each.of, estimate, right, compared.p, _unless(right, needs)
        )


def verdict(best: float, independent: float) -> str:
    """FAILS where even the best case is no evidence, HOLDS where independent runs would be, else UNDECIDED."""
    level = 1 - LEVEL
    return FAILS if best > level else HOLDS if not math.isnan(independent) and independent < level else UNDECIDED


def _unless(right: str, needs: str) -> str:
    return "" if right == HOLDS else needs
