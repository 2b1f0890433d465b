"""`python -m docs.examples.audit.table`: the table of docs/audit.md from the rows under results/audit."""

import json
from pathlib import Path
from typing import Any

ROOT = Path("results/audit")
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


if __name__ == "__main__":
    print(HEAD + "|---" * 7 + "|")
    for one in sorted(ROOT.iterdir()):
        if one.is_dir():
            print(line(one))
