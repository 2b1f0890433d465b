"""The options that a method does not read: those of steps, for a baseline."""

from dataclasses import asdict, fields, replace
from typing import Any

from llm.options.train import TrainOptions
from llm.steppers.method import TrainingMethod

READ = frozenset(
    {
        *("model", "task", "data", "objective", "method", "train", "dev", "test", "max_tokens", "bos", "seed"),
        *(
            "device",
            "dtype",
            "trust_remote_code",
            "quantize",
            "group",
            "fake_quantize",
            "smoothing",
            "provenance",
            "out",
            "resume",
            "preset",
            "dry_run",
        ),
    }
)
"""What a baseline reads."""
UNTOLD = frozenset({"save", "select", "journal", "baselines"})  # nothing to save or to compare with


def unread(options: TrainOptions) -> list[str]:
    """Return the names of the options that the method of a run does not read."""
    takes_steps = TrainingMethod.parse(options.method).takes_steps
    return [] if takes_steps else [f.name for f in fields(options) if f.name not in READ]


def without_unread(options: TrainOptions) -> TrainOptions:
    """Return the options with those that are not read at their defaults: no adapter, no weights in another dtype."""
    unused = unread(options)
    usual: dict[str, Any] = {f.name: f.default for f in fields(options) if f.name in unused}
    return replace(options, **usual)


def ignored(options: TrainOptions) -> str:
    """Return what to tell of options that were given and are not read, or nothing."""
    values, usual, unused = asdict(options), asdict(type(options)(method=options.method)), unread(options)
    given = [f for f in fields(options) if f.name in unused and values[f.name] != usual[f.name]]
    names = ", ".join("--" + f.name.replace("_", "-") for f in given if f.name not in UNTOLD)
    return f"{options.method} takes no step: {names} not used" if names else ""
