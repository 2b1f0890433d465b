"""`python -m llm COMMAND`; `python -m llm journal ...` has commands of its own."""

import sys
from collections.abc import Sequence

from llm.options.bench import GpuOptions, ProfileOptions, RandomModelOptions, StepBenchOptions
from llm.options.evaluate import EvaluateOptions, PredictOptions
from llm.options.export import ExportOptions
from llm.options.journal import main as journal
from llm.options.listing import ListOptions
from llm.options.pretrain import PretrainConfig
from llm.options.studies import (
    CompareOptions,
    ErrorOptions,
    NoiseOptions,
    PowerOptions,
    RoundingOptions,
    SmokeOptions,
    StudyOptions,
    TuneOptions,
)
from llm.options.train import TrainOptions
from zobench.run.command import Command, run_command

COMMANDS: dict[str, Command] = {
    "list": (ListOptions, "llm.listing:run"),
    "train": (TrainOptions, "llm.train:run"),
    "evaluate": (EvaluateOptions, "llm.evaluate:run"),
    "predict": (PredictOptions, "llm.predict.command:run"),
    "compare": (CompareOptions, "llm.studies.compare:run"),
    "tune": (TuneOptions, "llm.studies.tune:run"),
    "export": (ExportOptions, "llm.export:run"),
    "study": (StudyOptions, "llm.studies.study:run"),
    "power": (PowerOptions, "llm.studies.power:run"),
    "smoke": (SmokeOptions, "llm.studies.smoke:run"),
    "noise": (NoiseOptions, "llm.studies.noise:run"),
    "errors": (ErrorOptions, "llm.studies.errors:run"),
    "bench": (StepBenchOptions, "llm.bench:run"),
    "gpu": (GpuOptions, "llm.gpu:run"),
    "profile": (ProfileOptions, "llm.bench.profile:run"),
    "rounding": (RoundingOptions, "llm.studies.rounding:run"),
    "random-model": (RandomModelOptions, "llm.bench.random_model:run"),
    "pretrain": (PretrainConfig, "llm.pretraining.pretrain:run"),
}


def main(argv: Sequence[str] | None = None, prog: str = "python -m llm") -> int:
    """Run one command of the language-model suite."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["journal"]:
        return journal(given[1:], f"{prog} journal")
    about = (
        "Zeroth-order fine-tuning of causal language models. `journal` has commands of its own: "
        "show, verify, replay, diff."
    )
    return run_command(prog, about, COMMANDS, given)


if __name__ == "__main__":
    sys.exit(main())
