"""Run folders as the suites write them, small and made up."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
EPSILONS = (0.01, 0.03, 0.1, 0.3, 1.0)


def folder(path: Path, rows: list[Row], tail: str = "", **config: object) -> Path:
    """A run folder with these rows, and `tail` as a crash left it."""
    path.mkdir(parents=True)
    (path / "config.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in config.items()))
    (path / "environment.json").write_text(json.dumps({"python": "3.12", "commit": "abcdef0123456", "cores": 2}))
    (path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    return path


def bias_rows(method: str, power: float, problem: str = "sextic", scale: float = 1.0) -> list[Row]:
    rows: list[Row] = []
    for epsilon in EPSILONS:
        bias = scale * epsilon**power
        common: Row = {"kind": "bias", "method": method, "estimator": method, "problem": problem, "dim": 16}
        common |= {"epsilon": epsilon, "samples": 100, "queries": 2, "noise": 0.0, "gradient_norm": 1.0}
        common |= {"predicted_bias": bias, "bias_deviation": 1.0, "prediction_terms": "3, 5", "seconds": 0.1}
        tiny = max(bias * 1e-3, 1e-9)
        exact = {"sampling": "controlled", "bias": bias, "bias_error": tiny, "floor": tiny, "mse": None}
        seen = {"sampling": "plain", "bias": math.hypot(bias, 0.1), "bias_error": 0.03, "floor": 0.1}
        seen |= {"mse": 17.0, "mse_error": 0.2, "predicted_mse": 17.1, "covariance_trace": 17.0}
        rows += [common | exact, common | seen]
    return rows


def kernel_rows() -> list[Row]:
    r = np.linspace(-1, 1, 101)
    kinds = [("order 3", 15 / 4 * r * (5 - 7 * r**2), 1.0), ("misprint", 30 / 4 * r * (5 - 7 * r**2), 13 / 7)]
    return [
        {"kind": "kernel", "name": name, "order": 3, "constant": 1.0, "first_moment": moment, "note": ""}
        | {"r": r.tolist(), "values": values.tolist(), "moments": {"1": moment, "3": 0.0, "5": -0.238}}
        | {"second_moment_r2k2": 6.25, "second_moment_k2": 18.75}
        for name, values, moment in kinds
    ]


def converge_rows(method: str, rate: float, diverged_seed: int | None = None) -> list[Row]:
    rows: list[Row] = []
    for seed in range(4):
        for evaluations in range(0, 50, 10):
            gap = math.exp(-rate * evaluations / (10 + seed))
            lost = seed == diverged_seed and evaluations == 30
            rows.append(
                {
                    "kind": "converge",
                    "method": method,
                    "problem": "quadratic",
                    "dim": 10,
                    "seed": seed,
                    "lr": 0.1,
                }
                | {
                    "epsilon": 1e-3,
                    "step": evaluations,
                    "evaluations": evaluations,
                    "loss": None if lost else gap,
                }
                | {"gap": None if lost else gap, "status": "diverged" if lost else "ok"}
            )
            if lost:
                break
    return rows


def training_rows(method: str, seed: int, accuracy: float, status: str = "ok", passes: int = 200) -> list[Row]:
    name: Row = {"model": "tiny", "task": "sst2", "method": method, "estimator": method, "seed": seed}
    rows: list[Row] = [
        {"kind": "baseline", "name": baseline, "model": "tiny", "task": "sst2", "seed": seed}
        | {"dev_accuracy": level, "test_accuracy": level, "test_examples": 200}
        for baseline, level in (("chance", 0.5), ("zero-shot", 0.55), ("calibrated zero-shot", 0.6))
    ]
    rows += [
        {"kind": "evaluation", **name, "step": step, "forward_passes": 2 * step, "backward_passes": 0}
        | {
            "seconds": 1.0,
            "train_loss": None,
            "dev_loss": 1 - step / 400,
            "dev_accuracy": 0.5 + step / 500 + seed / 100,
        }
        for step in range(0, passes // 2 + 1, 50)
    ]
    if status in ("ok", "diverged", "interrupted"):
        rows.append(
            {
                "kind": "final",
                **name,
                "step": 100,
                "forward_passes": passes,
                "backward_passes": 0,
                "seconds": 2.0,
            }
            | {
                "test_loss": 0.6,
                "test_accuracy": accuracy,
                "test_examples": 200,
                "best_step": 100,
                "status": status,
            }
            | {"weights": "committed"}
        )
    elif status == "failed":
        rows.append({"kind": "failure", **name, "reason": "out of memory", "step": 50})
    return rows


def training(root: Path, method: str, seed: int, accuracy: float, status: str = "ok", **settings: Any) -> Path:
    passes = settings.pop("passes", 200)
    config = {"command": "train", "method": method, "seed": seed, "lr": 1e-3, "batch": 16} | settings
    lr = config["lr"]
    path = root / f"{method}-{seed}-{lr}"
    return folder(path, training_rows(method, seed, accuracy, status, passes), **config)


def every_kind(root: Path) -> Path:
    """A parent folder with runs of several kinds."""
    folder(root / "bias", bias_rows("mezo", 2) + bias_rows("kerzoo", 4) + bias_rows("mezo", 2, "quadratic", 0.0))
    folder(root / "kernels", kernel_rows(), command="kernels")
    tune = [
        {
            "kind": "tune",
            "method": "mezo",
            "problem": "quadratic",
            "dim": 10,
            "lr": lr,
            "loss": loss,
            "status": "ok",
        }
        for lr, loss in ((0.1, 3.0), (0.2, 1.0), (0.4, 2.0))
    ]
    folder(root / "converge", converge_rows("mezo", 2.0) + converge_rows("kerzoo", 1.0, 2) + tune)
    for seed in range(3):
        training(root / "llm", "mezo", seed, 0.7 + 0.02 * seed)
        training(root / "llm", "kerzoo", seed, 0.66 + 0.03 * seed, "diverged" if seed == 2 else "ok")
    return root
