"""The tables of the studies of training for quantisation: docs/quantised.md shows them."""

import tomllib
from pathlib import Path

from analysis.statistics import paired, t_interval
from docs.site.seeds import cell, difference, mean
from zobench.run.records import Row, rows_now

ARMS = {
    "mezo": ("MeZO", "not rounded"),
    "w4a4 0": ("MeZO", "w4a4, to the nearest"),
    "w4a4 0.75": ("MeZO", "w4a4, smoothed"),
    "w2a16 0": ("MeZO", "w2a16, to the nearest"),
    "w2a16 0.75": ("MeZO", "w2a16, smoothed"),
    "w4a4": ("ZeroQAT, latent weights", "w4a4, smoothed"),
    "w4a4-wide": ("ZeroQAT, latent weights, epsilon 1e-2", "w4a4, smoothed"),
    "w4a4-factors": ("ZeroQAT, factors alone", "w4a4, smoothed"),
    "w2a16": ("ZeroQAT, latent weights", "w2a16, smoothed"),
}
"""Training and rounding of each arm in the order of the table; those rounded afterwards by scheme and exponent."""
TRIED = ("mezo", "w4a4", "w4a4-wide", "w4a4-factors", "w2a16")
"""Arms of the trials of learning rates."""
CONTINUED = {
    "start": "none: the weights of the start",
    "mezo": "MeZO in full precision",
    "zeroqat": "ZeroQAT at w2a16",
}
"""Continuations from trained weights, all measured as rounded to w2a16."""
BASE = "w4a4 0"
Scores = dict[int, tuple[float, float]]
"""Test loss and accuracy by seed."""


def scores(folder: Path) -> dict[str, Scores]:
    """Return the scores of the study in a folder, by arm and seed."""
    found: dict[str, Scores] = {}
    for row in rows_now(folder):
        if row["kind"] == "arm-run" and row["group"] == "seeds":
            found.setdefault(row["arm"], {})[row["seed"]] = (row["test_loss"], row["test_accuracy"])
    for measured in sorted(folder.glob("rounded/*")):
        config = tomllib.loads((measured / "config.toml").read_text(encoding="utf-8"))
        row = _measurement(measured)
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
            difference = cell(paired(first, second).difference, 1, "+")
        accuracy = cell(t_interval([100 * value for value in accuracies]), 1)
        loss = cell(t_interval(losses), 3)
        lines.append(f"| {training} | {rounding} | {len(mine)} | {accuracy} | {loss} | {difference} |")
    return "\n".join(lines)


def continued(folder: Path) -> str:
    """Return the table of the continuations of trained weights in Markdown: means over seeds with 95 % Student
    intervals; differences are paired by seed.
    """
    found: dict[str, dict[int, Row]] = {}
    for measured in sorted(folder.glob("continued/seeds/*")):
        arm, _, seed = measured.name.rpartition("-seed")
        found.setdefault(arm, {})[int(seed)] = _measurement(measured)
    lines = [
        "| 120 forward passes more | seeds | test accuracy, % | points more than the start | points more than MeZO | "
        "test loss | loss more than MeZO's | with a fitted threshold: test accuracy, % | points more than the start |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, name in CONTINUED.items():
        rows = found[arm]
        cells = [
            mean(rows, "test_accuracy"),
            difference(rows, found["start"], "test_accuracy"),
            difference(rows, found["mezo"], "test_accuracy") if arm == "zeroqat" else "-",
            mean(rows, "test_loss"),
            difference(rows, found["mezo"], "test_loss") if arm == "zeroqat" else "-",
            mean(rows, "calibrated_test_accuracy"),
            difference(rows, found["start"], "calibrated_test_accuracy"),
        ]
        lines.append(f"| {name} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def continued_trials(folder: Path) -> str:
    """Return the trials of learning rates of the continuations in Markdown: dev loss and accuracy as rounded."""
    tried = []
    for measured in folder.glob("continued/tune/*"):
        arm, _, lr = measured.name.rpartition("-lr")
        tried.append((list(CONTINUED).index(arm), float(lr), arm, _measurement(measured)))
    lines = ["| trial | learning rate | dev loss | dev accuracy, % |", "|---|---|---|---|"]
    for _, lr, arm, row in sorted(tried, key=lambda each: each[:2]):
        lines.append(f"| {arm} | {lr:g} | {row['dev_loss']:.3f} | {100 * row['dev_accuracy']:.1f} |")
    return "\n".join(lines)


def _measurement(folder: Path) -> Row:
    (row,) = (row for row in rows_now(folder) if row["kind"] == "measurement")
    return row
