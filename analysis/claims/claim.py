"""A row of the ledger."""

import math
from dataclasses import dataclass

from analysis import text

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "not decidable here"
PAPER, README, CODE, OURS = "KerZOO, abstract", "KerZOO, README", "port of its code", "derived here"
"""Where a claim comes from: arXiv 2505.18886, its repository, a third-party port, or docs/theory.md."""


@dataclass(frozen=True)
class Claim:
    """One claim: its number, words and source, how it was tested, on how many, with what result.

    `verdict` is HOLDS, FAILS or UNDECIDED; `needs` says of the last what a decision would take.
    """

    number: str
    words: str
    source: str
    tested: str
    n: str
    estimate: str
    verdict: str
    p: float = math.nan
    needs: str = ""

    @property
    def cells(self) -> dict[str, str]:
        """The claim as the ledger shows it."""
        verdict = f"{self.verdict}: {self.needs}" if self.needs else self.verdict
        return {
            "": self.number,
            "claim": self.words,
            "source": self.source,
            "tested on": self.tested,
            "n": self.n,
            "estimate [95 %]": self.estimate,
            "p": text.p_value(self.p),
            "verdict": verdict,
        }
