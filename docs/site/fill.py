"""Writes the tables that are made from code and rows into the pages that show them: python -m docs.site.fill"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zobench.methods import listing

ROOT = Path(__file__).parents[2]


def _rows(folder: str) -> list[dict[str, Any]]:
    lines = (ROOT / "results" / folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _smoke() -> str:
    from synthetic import smoke

    return smoke.markdown(_rows("smoke"))


def _smoke_on_a_language_model() -> str:
    from llm.studies import smoke  # with transformers, which the other tables do not need

    return smoke.markdown(_rows("smoke-llm"))


TABLES: dict[str, Callable[[], str]] = {
    "methods": listing.markdown,
    "smoke on problems": _smoke,
    "smoke on a language model": _smoke_on_a_language_model,
}
"""What stands between the marks of each name."""
PAGES = ("README.md", "docs/smoke.md")


def filled(page: str) -> str:
    """Return the page with each table between its marks."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: python -m docs.site.fill -->", f"<!-- end of {name} -->"
        if begin in page:
            block = f"{begin}\n\n{table()}\n\n{end}"
            page = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _, b=block: b, page, flags=re.DOTALL)
    return page


def main() -> int:
    """Fill all pages."""
    for name in PAGES:
        path = ROOT / name
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
