"""The ledger: every claim of the rows that are there, as a table in Markdown and HTML."""

import html
from collections.abc import Iterable

from analysis.claims import bias, kernels, large, models, study, test_sets
from analysis.claims.claim import FAILS, HOLDS, UNDECIDED, Claim
from analysis.rows import Results
from analysis.tables.table import Table, markdown, table

CAPTION = "Claims on KerZOO"
NOTE = (
    "Each row is computed from rows of results. Intervals are of 95 %. Verdicts: holds; does not hold; not decidable "
    "here, with what a decision would take."
)


def ledger(results: Results) -> list[Claim]:
    """Every claim, in the order of their numbers."""
    return sorted([*measured(results), *study.missing(results), *test_sets.claims()], key=_order)


def measured(results: Results) -> list[Claim]:
    """The claims that rows decide, without those that are still to be run or need none."""
    parts = (bias, kernels, models, study, large)
    return sorted((claim for part in parts for claim in part.claims(results)), key=_order)


def _order(claim: Claim) -> tuple[int, str, int]:
    number, _, part = claim.number.partition(".")
    digits = number.rstrip("abcdefghijklmnopqrstuvwxyz")
    return int(digits), number[len(digits) :], int(part or 0)


def claims_table(claims: Iterable[Claim]) -> Table:
    """The claims as the table of a report."""
    return table([claim.cells for claim in claims], CAPTION, NOTE)


def counted(claims: Iterable[Claim]) -> str:
    """Return `9 hold, 4 do not hold, 2 are not decidable here`."""
    found = [claim.verdict for claim in claims]
    words = {HOLDS: "hold", FAILS: "do not hold", UNDECIDED: "are not decidable here"}
    one = {HOLDS: HOLDS, FAILS: FAILS, UNDECIDED: f"is {UNDECIDED}"}
    counts = {word: sum(verdict.startswith(word) for verdict in found) for word in words}
    return ", ".join(f"{count} {one[word] if count == 1 else words[word]}" for word, count in counts.items())


def as_markdown(claims: Iterable[Claim]) -> str:
    """The ledger as a page of Markdown has it."""
    return markdown(claims_table(claims))


def as_html(claims: Iterable[Claim]) -> str:
    """The ledger as one HTML page."""
    shown = claims_table(claims)
    head = "".join(f"<th>{html.escape(column)}</th>" for column in shown.frame.columns)
    cells = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in shown.frame.itertuples(index=False))
    body = "\n".join(f"<tr>{row}</tr>" for row in cells)
    return PAGE.format(title=html.escape(shown.caption), head=head, body=body, note=html.escape(shown.note))


PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ max-width: 80rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 Georgia, serif; }}
table {{ border-collapse: collapse; font: 13px/1.4 system-ui, sans-serif; }}
th, td {{ text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ddd; }}
</style></head>
<body><h1>{title}</h1>
<table><thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody></table>
<p>{note}</p>
</body></html>
"""
