"""Writes the tables that are made from code and from rows into the pages that show them: python -m docs.site.fill"""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from analysis.claims import ledger
from analysis.claims.claim import Claim
from analysis.command import default_folders
from analysis.rows import Results, read
from analysis.tables.parts import parts_table
from analysis.tables.table import markdown
from docs.site import qzo, seeds, zeroqat
from synthetic import smoke
from zobench.methods import listing
from zobench.run.records import rows_now

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/kerzoo.md", "docs/quantised.md", "docs/scale.md", "docs/smoke.md", "docs/speed.md")


@dataclass(frozen=True)
class Block:
    """A part of a page between marks of its name, and what makes it."""

    name: str
    made: Callable[[], str]

    def put(self, page: str) -> str:
        """Return the page with this block between its marks, as it is where it has none."""
        begin, end = f"<!-- {self.name}: python -m docs.site.fill -->", f"<!-- end of {self.name} -->"
        if begin not in page:
            return page
        block = f"{begin}\n\n{self.made()}\n\n{end}"
        return re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: block, page, flags=re.DOTALL)


@cache
def rows() -> Results:
    """Return the committed rows that the ledger reads."""
    return read(default_folders(ROOT / "results"))


@cache
def claims() -> list[Claim]:
    """Return the ledger of these rows."""
    return ledger.ledger(rows())


def rows_of(folder: str) -> list[dict[str, Any]]:
    """Return the committed rows of a folder."""
    return rows_now(ROOT / "results" / folder)


def _quantised_sizes() -> str:
    from llm.quantised import sizes  # with torch

    return sizes.table()


def _quantised_peaks() -> str:
    from llm.bench import quantised

    return quantised.markdown(rows_of("speed/quantised-2"))


def _smoke_on_a_language_model() -> str:
    from llm.studies import smoke  # with transformers, which the other tables do not need

    return smoke.markdown(rows_of("smoke-llm"))


def _processes_measured() -> str:
    from llm.bench import distributed

    return distributed.markdown(rows_of("speed/distributed"))


def _processes_on_paper() -> str:
    from llm.bench import distributed

    return distributed.on_paper()


def _streamed_run() -> str:
    from llm.bench import limited

    return limited.markdown(rows_of("speed/streamed"))


def _streamed_steps() -> str:
    from llm.bench import streamed

    return streamed.markdown([*rows_of("speed/streamed-steps"), *rows_of("speed/streamed-steps-4x32")])


def _points_in_one_forward() -> str:
    from llm.bench import probes

    return probes.markdown(rows_of("speed/probes-4"))


def _steps_of_methods() -> str:
    from llm.bench import methods

    return methods.markdown(rows_of("speed/methods"))


BLOCKS = (
    Block("methods", listing.markdown),
    Block("claims", lambda: ledger.as_markdown(claims())),
    Block("verdicts", lambda: f"Of {len(claims())} rows {ledger.counted(claims())}."),
    Block("smoke on problems", lambda: smoke.markdown(rows_of("smoke"))),
    Block("smoke on a language model", _smoke_on_a_language_model),
    Block("quantised sizes", _quantised_sizes),
    Block("quantised peaks", _quantised_peaks),
    Block("training for quantisation", lambda: zeroqat.table(ROOT / "results" / "zeroqat")),
    Block("trials for quantisation", lambda: seeds.trials(ROOT / "results" / "zeroqat", zeroqat.TRIED)),
    Block("continuations for quantisation", lambda: zeroqat.continued(ROOT / "results" / "zeroqat")),
    Block("trials of continuations", lambda: zeroqat.continued_trials(ROOT / "results" / "zeroqat")),
    Block("scales against weights", lambda: qzo.table(ROOT / "results" / "qzo")),
    Block("trials of scales", lambda: seeds.trials(ROOT / "results" / "qzo", tuple(qzo.ARMS))),
    Block("processes measured", _processes_measured),
    Block("processes on paper", _processes_on_paper),
    Block("streamed run measured", _streamed_run),
    Block("streamed steps measured", _streamed_steps),
    Block("points in one forward", _points_in_one_forward),
    Block("steps of methods", _steps_of_methods),
    Block("parts", lambda: markdown(parts_table(rows().of("error-parts")))),
)


def filled(page: str) -> str:
    """Return the page with every table between its marks."""
    for block in BLOCKS:
        page = block.put(page)
    return page


def main() -> int:
    """Fill all pages."""
    for name in PAGES:
        path = ROOT / name
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
