"""Writes the tables that are made from code into the pages that show them: python -m docs.site.fill"""

import re
import sys
from pathlib import Path

from zobench.methods import listing

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- methods: python -m docs.site.fill -->", "<!-- end of methods -->"
PAGES = ("README.md",)


def filled(page: str) -> str:
    """Return the page with the table of methods between its marks."""
    block = f"{BEGIN}\n\n{listing.markdown()}\n\n{END}"
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: block, page, flags=re.DOTALL)


def main() -> int:
    """Fill all pages."""
    for name in PAGES:
        path = ROOT / name
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
