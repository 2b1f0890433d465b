"""The table of the study of scales against weights and adapters: docs/quantised.md shows it."""

from pathlib import Path

from docs.site.seeds import Seeds, difference, mean
from zobench.run.records import rows_now

ARMS = {
    "zero-shot": ("none", "-"),
    "mezo-gguf": ("scales of the codes (QZO)", "4,202,496"),
    "mezo": ("weights in float32", "134,515,008"),
    "mezo-lora": ("LoRA on float32 weights", "460,800"),
    "mezo-gguf-lora": ("LoRA on the codes", "460,800"),
    "mezo-gguf-lora-73": ("LoRA of rank 73 on the codes", "4,204,800"),
    "code-search-gguf": ("the codes (search)", "134,479,872"),
}
"""What each arm trains, and how many numbers."""
BASE = "mezo"


def table(folder: Path) -> str:
    """Return the table in Markdown: means over seeds with 95 % Student intervals; differences are paired by seed."""
    found: dict[str, dict[int, dict[str, object]]] = {}
    for row in rows_now(folder):
        if row["kind"] == "arm-run" and row["group"] == "seeds":
            found.setdefault(row["arm"], {})[row["seed"]] = row
    lines = [
        "| trained | numbers | learning rate | seeds | test accuracy, % | points more than weights in float32 | "
        "test loss | peak, MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_line(arm, found[arm], found[BASE]) for arm in ARMS if arm in found)])


def _line(arm: str, rows: Seeds, base: Seeds) -> str:
    name, numbers = ARMS[arm]
    rate = rows[0]["lr"]
    more = difference(rows, base, "test_accuracy") if rows.keys() == base.keys() else "-"  # zero-shot has one seed
    cells = [
        *(name, numbers, "-" if rate is None else f"{rate:g}", str(len(rows)), mean(rows, "test_accuracy")),
        *(more, mean(rows, "test_loss")),
        f"{max(row['peak_mb'] for row in rows.values()):,.0f}",
    ]
    return f"| {' | '.join(cells)} |"
