"""The options of `evaluate` and `predict`."""

from dataclasses import dataclass

from llm.options.groups import MAX_TOKENS, TASK, ModelOptions, QuantisedOptions, SeedOptions, SplitOptions
from zobench.run.options import option

AUTO, IN_FORWARD, STREAMED = "auto", "in-forward", "streamed"
ENGINES = (AUTO, IN_FORWARD, STREAMED)


@dataclass(frozen=True)
class ReadOptions:
    """Where the weights are while forwards read them."""

    engine: str = option(
        AUTO,
        "in-forward (the model is in memory), streamed (its weights are in a working copy on the disk of --out, by "
        "default of temporary files, for models larger than the memory), or auto (as the run that wrote the model)",
    )


@dataclass(frozen=True)
class EvaluateOptions(ReadOptions, SeedOptions, SplitOptions, QuantisedOptions):
    """Measure loss and accuracy of a model on dev and test, with plain and with calibrated scores.

    To evaluate the tuned weights of a run, give its folder as --model.
    """

    out: str | None = option(None, "folder for the result; by default nothing is written")


@dataclass(frozen=True)
class PredictOptions(ReadOptions, ModelOptions):
    """Answer the rows of a file, labelled or not, and write each row with its answer and the scores.

    A batch is written as soon as it is answered. With the folder of a run as --model, its task and the length of its
    prompts are taken from there.
    """

    task: str | None = option(None, f"task whose prompt and labels are used; by default that of the run: {TASK}")
    input: str | None = option(None, "file of rows: .csv, .tsv, .jsonl or .json, with the columns of the prompt")
    out: str | None = option(None, "file to write, .csv, .tsv or .jsonl: a new one; by default CSV is printed")
    batch: int = option(64, "rows that are answered at once")
    max_tokens: int | None = option(None, f"{MAX_TOKENS}, or of the run")
    bos: int | None = option(None, "id of the first token, in place of the tokenizer's own; by default as in the run")
