"""`python -m docs.examples.audit.table`: the rows under results/audit as the table of docs/audit.md, written there."""

import json
import re
from pathlib import Path
from typing import Any

ROOT, PAGE = Path("results/audit"), Path("docs/audit.md")
HEAD = "| run | evaluations | lines | E[g] / ∇f | E\\|g\\|² / \\|∇f\\|² | order of the bias | composition of ours |\n"


def line(folder: Path) -> str:
    """The line of one audit."""
    rows = [json.loads(text) for text in (folder / "rows.jsonl").read_text().splitlines()]
    facts: dict[str, Any] = next(row for row in rows if row["kind"] == "audit")
    ratio = f"{facts['ratio']:.3g} ± {facts['ratio_error']:.1g}" + (f": {facts['factor']}" if facts["factor"] else "")
    order = "-" if facts["bias_order"] is None else f"{facts['bias_order']:.1f}"
    failed = ", ".join(row["check"] for row in rows if row["kind"] == "audit-check" and row["status"] == "failed")
    cells = (folder.name, "-".join(map(str, sorted({*facts["evaluations"]}))), facts["lines"], ratio)
    second = f"{facts['second_moment']:.3g} ± {facts['second_moment_error']:.1g}"
    told = (facts["composition"] or "none") + (f"; failed: {failed}" if failed else "")
    return "| " + " | ".join(map(str, (*cells, second, order, told))) + " |"


def write() -> None:
    """Replace the table of the page."""
    lines = [line(folder) for folder in sorted(ROOT.iterdir()) if folder.is_dir()]
    table = HEAD + "|---" * 7 + "|\n" + "\n".join(lines) + "\n"
    page = PAGE.read_text(encoding="utf-8")
    found = re.sub(re.escape(HEAD) + r"(\|.*\n)+", lambda _: table, page)
    PAGE.write_text(found, encoding="utf-8")


if __name__ == "__main__":
    write()
