"""`python -m llm COMMAND`; `python -m llm journal ...` has commands of its own."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from llm import bench, evaluate, export, gpu, listing, train
from llm.bench import profile
from llm.options.train import TrainOptions
from llm.pretraining import pretrain
from llm.run import journal
from llm.studies import compare, errors, noise, power, rounding, smoke, study, tune
from zobench.run.options import run_command

COMMANDS: dict[str, tuple[type[Any], Callable[[Any], int | None]]] = {
    "list": (listing.ListOptions, listing.run),
    "train": (TrainOptions, train.run),
    "evaluate": (evaluate.EvaluateOptions, evaluate.run),
    "compare": (compare.CompareOptions, compare.run),
    "tune": (tune.TuneOptions, tune.run),
    "export": (export.ExportOptions, export.run),
    "study": (study.StudyOptions, study.run),
    "power": (power.PowerOptions, power.run),
    "smoke": (smoke.SmokeOptions, smoke.run),
    "noise": (noise.NoiseOptions, noise.run),
    "errors": (errors.ErrorOptions, errors.run),
    "bench": (bench.StepBenchOptions, bench.run),
    "gpu": (gpu.GpuOptions, gpu.run),
    "profile": (profile.ProfileOptions, profile.run),
    "rounding": (rounding.RoundingOptions, rounding.run),
    "pretrain": (pretrain.PretrainConfig, pretrain.run),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of the language-model suite."""
    given = sys.argv[1:] if argv is None else argv
    if given[:1] == ["journal"]:
        return journal.main(given[1:])
    about = (
        "Zeroth-order fine-tuning of causal language models. `journal` has commands of its own: "
        "show, verify, replay, diff."
    )
    return run_command("python -m llm", about, COMMANDS, given)


if __name__ == "__main__":
    sys.exit(main())
