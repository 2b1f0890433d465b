"""The command `train`."""

from pathlib import Path

from llm.dry_run import dry_run
from llm.loop.train import together, train
from llm.options.train import TrainOptions
from zobench.distributed import is_first, launched
from zobench.run import exit_status
from zobench.run.progress import note


def run(options: TrainOptions) -> int:
    """Fine-tune a causal language model with forward passes only (or a first-order reference) on a labelled task."""
    if options.dry_run:
        if is_first():
            dry_run.run(options)
            note("next: the same command without --dry-run trains")
        return exit_status.OK
    final = together(options) if launched() else train(options)
    if final is None:  # a process that keeps no run
        return exit_status.OK
    note(f"rows: {Path(options.out) / 'rows.jsonl'}")
    note(next_commands(Path(options.out), options.task))
    return exit_status.OK if final["status"] == "ok" else exit_status.DIVERGED


def next_commands(folder: Path, task: str) -> str:
    """Return what is done with a finished run: its report and, where it has kept a model, predictions and an export."""
    lines = [f"python -m analysis report {folder} --out report.html"]
    if (folder / "model").is_dir():
        lines += [f"python -m llm predict --model {folder} --task {task} --input NEW.csv --out answers.csv"]
        lines += [f"python -m llm export {folder} --to FOLDER"]
    return "next: " + "\n      ".join(lines)
