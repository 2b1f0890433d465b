"""The time of a task's forward pass with texts that share rows, against a row of its own for each text."""

import statistics
from collections.abc import Sequence
from functools import partial

import torch

from llm import tasks
from llm.bench.setting import waited
from llm.model import loading
from llm.model.language_model import LanguageModel
from llm.model.logits import padded, states_at
from llm.objective import choose
from llm.objective.packing import Tokens, arranged, moved, plain
from llm.objective.scoring import first_places
from zobench.run.records import Row
from zobench.run.timing import alternating

BATCHES = 8
"""Minibatches of a task, one after the other, that a repetition passes through the model."""


def measure(model: str, dtype: str, named: Sequence[str], data: str | None, batch: int, repetitions: int) -> list[Row]:
    """Return a row a task: its prompts in minibatches of `batch`, padded to the longest and in shared rows, in turn.

    `places` are token positions that pass through the model in each way, `tokens` those that hold a prompt's token;
    `of_padded` is the median time of shared rows in that of padded ones.
    """
    language_model = loading.load(model, dtype=dtype)
    return [_row(language_model, dtype, name, data, batch, repetitions) for name in named]


def _row(language_model: LanguageModel, dtype: str, name: str, data: str | None, batch: int, repetitions: int) -> Row:
    task = tasks.find(name)
    train, _, _ = tasks.split(task, data, BATCHES * batch, 1, 1, 0)
    prompts = [row.tokens for row in choose("task", task)(language_model).encode(train)]
    cuts = [prompts[start : start + batch] for start in range(0, len(prompts), batch)]
    jobs = {name: partial(_places, language_model, cuts, name == "shared") for name in ("padded", "shared")}
    places = {name: job() for name, job in jobs.items()}  # what the first call does once is not timed
    seconds = alternating({name: waited(language_model.device, job) for name, job in jobs.items()}, repetitions)
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    about = {"model": language_model.name, "dtype": dtype, "task": task.name, "batch": batch}
    return {
        "kind": "bench-padding", **about, "threads": torch.get_num_threads(), "tokens": sum(map(len, prompts)),
        "places": places, "seconds": seconds, "of_padded": middle["shared"] / middle["padded"],
    }  # fmt: skip


@torch.inference_mode()
def _places(language_model: LanguageModel, cuts: Sequence[Sequence[Tokens]], shared: bool) -> int:
    """Pass minibatches through the model, and return how many places they took."""
    count = 0
    for prompts in cuts:
        places = first_places(language_model, prompts)
        if shared:
            inputs, starts = arranged(language_model, [plain(prompt) for prompt in prompts])
            places = moved(places, starts)
        else:
            inputs = padded(language_model, prompts)
        states_at(language_model, inputs, places)
        count += inputs["input_ids"].numel()
    return count


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text."""
    lines = [f"{'task':12}{'batch':>6}{'tokens':>9}{'padded':>9}{'shared':>9}{'seconds':>10}{'of padded':>11}"]
    for row in rows:
        places, middle = row["places"], statistics.median(row["seconds"]["shared"])
        lines.append(
            f"{row['task']:12}{row['batch']:6}{row['tokens']:9}{places['padded']:9}{places['shared']:9}"
            f"{middle:10.3f}{row['of_padded']:11.2f}"
        )
    return "\n".join(lines)
