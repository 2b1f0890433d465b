"""`python -m llm COMMAND`."""

import sys
from collections.abc import Sequence

from llm import bench, evaluate, listing, noise_report, pretrain, profile, study, train
from zobench.options import run_command

COMMANDS = {
    "list": (listing.ListOptions, listing.run),
    "train": (train.TrainOptions, train.run),
    "evaluate": (evaluate.EvaluateOptions, evaluate.run),
    "study": (study.StudyOptions, study.run),
    "noise": (noise_report.NoiseOptions, noise_report.run),
    "bench": (bench.BenchOptions, bench.run),
    "profile": (profile.ProfileOptions, profile.run),
    "pretrain": (pretrain.PretrainConfig, pretrain.run),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of the language-model suite."""
    return run_command("python -m llm", "Zeroth-order fine-tuning of causal language models.", COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
