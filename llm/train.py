"""The command `train`."""

from pathlib import Path

from llm.dry_run import dry_run
from llm.loop.train import train
from llm.run.options import TrainOptions
from zobench.run import exit_status
from zobench.run.progress import note


def run(options: TrainOptions) -> int:
    """Fine-tune a causal language model with forward passes only (or a first-order reference) on a labelled task."""
    if options.dry_run:
        dry_run.run(options)
        return exit_status.OK
    final = train(options)
    note(f"rows: {Path(options.out) / 'rows.jsonl'}")
    return exit_status.OK if final["status"] == "ok" else exit_status.DIVERGED
