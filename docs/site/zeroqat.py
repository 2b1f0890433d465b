"""The table of the study of training for quantisation: docs/quantised.md shows it."""

import math
import tomllib
from pathlib import Path

from analysis.statistics import Interval, paired, t_interval
from zobench.run.records import rows_now

ARMS = {
    "mezo": ("MeZO", "not rounded"),
    "w4a4 0": ("MeZO", "w4a4, to the nearest"),
    "w4a4 0.75": ("MeZO", "w4a4, smoothed"),
    "w2a16 0": ("MeZO", "w2a16, to the nearest"),
    "w2a16 0.75": ("MeZO", "w2a16, smoothed"),
    "w4a4-wide": ("ZeroQAT, latent weights, epsilon 1e-2", "w4a4, smoothed"),
}
"""Training and rounding of each arm in the order of the table; those rounded afterwards by scheme and exponent."""
TRIED = ("mezo", "w4a4", "w4a4-wide", "w4a4-factors", "w2a16")
"""Arms of the trials of learning rates."""
BASE = "w4a4 0"
Scores = dict[int, tuple[float, float]]
"""Test loss and accuracy by seed."""


def scores(folder: Path) -> dict[str, Scores]:
    """Return the scores of the study in a folder, by arm and seed."""
    found: dict[str, Scores] = {}
    for row in rows_now(folder):
        if row["kind"] == "arm-run" and row["group"] == "seeds":
            found.setdefault(row["arm"], {})[row["seed"]] = (row["test_loss"], row["test_accuracy"])
    for file in sorted(folder.glob("rounded/*/rows.jsonl")):
        config = tomllib.loads((file.parent / "config.toml").read_text(encoding="utf-8"))
        (row,) = (row for row in rows_now(file.parent) if row["kind"] == "measurement")
        name = f"{config['fake_quantize']} {config['smoothing']:g}"
        found.setdefault(name, {})[config["seed"]] = (row["test_loss"], row["test_accuracy"])
    return found


def table(folder: Path) -> str:
    """Return the table in Markdown: means over seeds with 95 % Student intervals; differences are paired by seed."""
    found = scores(folder)
    lines = [
        "| training | rounding | seeds | test accuracy, % | test loss | points more than MeZO rounded to w4a4 |",
        "|---|---|---|---|---|---|",
    ]
    for arm, (training, rounding) in ARMS.items():
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
        loss = _cell(t_interval(losses), 3)
        lines.append(f"| {training} | {rounding} | {len(mine)} | {accuracy} | {loss} | {difference} |")
    return "\n".join(lines)


def trials(folder: Path) -> str:
    """Return the dev losses of the trials of learning rates in Markdown: at the start, the least, and at the end."""
    tried = [row for row in rows_now(folder) if row["kind"] == "arm-run" and row["group"] == "tune"]
    passes = "/".join(str(n) for n in sorted({row["forward_passes"] for row in tried}))
    lines = [
        f"| trial of {passes} forward passes | learning rate | dev loss: start | least | end |",
        "|---|---|---|---|---|",
    ]
    for arm in TRIED:
        for row in sorted((row for row in tried if row["arm"] == arm), key=lambda row: float(row["lr"])):
            losses = [loss for _, loss, _ in row["curve"]]
            ended = " | ".join(
                "not finite" if x is None else f"{x:.2f}" for x in (losses[0], row["best_dev_loss"], losses[-1])
            )
            lines.append(f"| {arm} | {row['lr']:g} | {ended} |")
    return "\n".join(lines)


def _cell(value: Interval, digits: int, sign: str = "") -> str:
    estimate, low, high = (f"{number:{sign}.{digits}f}" for number in value)
    return estimate if math.isnan(value.low) else f"{estimate} ({low} to {high})"
