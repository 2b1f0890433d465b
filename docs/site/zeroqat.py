"""The table of the study of training for quantisation: docs/quantised.md shows it."""

import json
import tomllib
from pathlib import Path
from typing import Any

from analysis.statistics import Interval, paired, t_interval

ARMS = {
    "mezo": "full precision, not rounded",
    "w2a16 0": "full precision, then rounded to the nearest",
    "w2a16 0.75": "full precision, then smoothed and rounded",
    "zeroqat": "ZeroQAT: latent weights, smoothed",
    "zeroqat-unsmoothed": "ZeroQAT: latent weights, not smoothed",
    "factors": "ZeroQAT: smoothing factors and clipping alone",
}
"""Arms in the order of the table, the rounded ones by scheme and exponent of smoothing."""
BASE = "w2a16 0"
Scores = dict[int, tuple[float, float]]
"""Test loss and accuracy by seed."""


def scores(folder: Path) -> dict[str, Scores]:
    """Return the scores of the study in a folder, by arm and seed."""
    found: dict[str, Scores] = {}
    for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["kind"] == "arm-run" and row["group"] == "seeds":
            found.setdefault(row["arm"], {})[row["seed"]] = (row["test_loss"], row["test_accuracy"])
    for file in sorted(folder.glob("rounded/*/rows.jsonl")):
        config = tomllib.loads((file.parent / "config.toml").read_text(encoding="utf-8"))
        rows: list[dict[str, Any]] = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        (row,) = (row for row in rows if row["kind"] == "measurement")
        name = f"{config['fake_quantize']} {config['smoothing']:g}"
        found.setdefault(name, {})[config["seed"]] = (row["test_loss"], row["test_accuracy"])
    return found


def table(folder: Path) -> str:
    """Return the table in Markdown: means over seeds with 95 % Student intervals; differences are paired by seed."""
    found = scores(folder)
    lines = [
        "| training, then a model of w2a16 | seeds | test accuracy, % | test loss | accuracy less that of rounding to "
        "the nearest, points |",
        "|---|---|---|---|---|",
    ]
    for arm, words in ARMS.items():
        mine = found.get(arm, {})
        if not mine:
            continue
        losses, accuracies = zip(*mine.values(), strict=True)
        both = sorted(mine.keys() & found.get(BASE, {}).keys())
        difference = "-"
        if arm != BASE and both:
            first, second = ([100 * found[name][seed][1] for seed in both] for name in (arm, BASE))
            difference = _cell(paired(first, second).difference, 1, "+")
        accuracy = _cell(t_interval([100 * value for value in accuracies]), 1)
        lines.append(f"| {words} | {len(mine)} | {accuracy} | {_cell(t_interval(losses), 3)} | {difference} |")
    return "\n".join(lines)


def _cell(value: Interval, digits: int, sign: str = "") -> str:
    low, high = (f"{bound:{sign}.{digits}f}" for bound in value[1:])
    return f"{value.estimate:{sign}.{digits}f} ({low} to {high})"
