"""python figure.py FILE: the bias of the estimator against epsilon, from an audit of zobench."""

import json
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

from zobench.__main__ import main as zobench

TARGET = "zobench_staircase:Staircase"
AUDIT = ["audit", TARGET, "--problem", "smooth", "--epsilons", "0.1,0.2,0.4,0.8", "--samples", "500"]


def rows(folder: Path) -> list[dict]:
    """Run the audit; return its rows of bias, with the linear part of f as a control variate."""
    if zobench([*AUDIT, "--out", str(folder)]):
        sys.exit("a check failed: see the table above")
    found = map(json.loads, (folder / "rows.jsonl").read_text().splitlines())
    return [row for row in found if row["kind"] == "bias" and row["sampling"] == "controlled"]


def draw(found: list[dict], file: str) -> None:
    """Draw |E g - grad f| / |grad f|, with bars of five standard errors."""
    figure, axes = plt.subplots(figsize=(3.4, 2.6), layout="constrained")
    values, errors = ([row[name] / row["gradient_norm"] for row in found] for name in ("bias", "bias_error"))
    epsilons = [row["epsilon"] for row in found]
    axes.errorbar(epsilons, values, [5 * e for e in errors], marker="o", label="Staircase")
    axes.set(xscale="log", yscale="log", xlabel="ε", ylabel="bias / gradient")
    axes.minorticks_off()
    axes.set_xticks(epsilons, [str(epsilon) for epsilon in epsilons])
    axes.legend()
    figure.savefig(file, dpi=200)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        draw(rows(Path(folder) / "audit"), sys.argv[1])
