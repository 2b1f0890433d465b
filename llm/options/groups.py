"""Groups of options that several commands share: each default and each help text is written once, here.

A command is a frozen dataclass that inherits its groups. A field that it names again without `option` has another
default and the same help. Fields are in order from the last base to the first.
"""

from dataclasses import dataclass

from llm import objective, tasks
from llm.model import adapters
from llm.model.trainable import RATES, TRAINED
from llm.objective import MAX_TOKENS
from llm.options import presets
from zobench.run.options import option


@dataclass(frozen=True)
class ModelOptions:
    """The model, and where it computes."""

    model: str = option("tiny-opt", "tiny-opt, smollm2-135m-instruct, a hub id, a folder or a .gguf file")
    device: str = option("cpu", "cpu, cuda, cuda:1, ...")
    dtype: str = option("float32", "float32, bfloat16 or float16")
    trust_remote_code: bool = option(False, "run the Python code that comes with a model", code=True)


@dataclass(frozen=True)
class TaskOptions:
    """The task, and how its texts are read."""

    task: str = option("spam", tasks.HELP)
    data: str | None = option(None, "folder of the task's files; without it: shipped, beside the task file, or the hub")
    objective: str = option("task", f"the loss: {objective.HELP}")
    max_tokens: int | None = option(None, MAX_TOKENS)
    bos: int | None = option(None, "id of the first token instead of the tokenizer's; 0 as MeZO's runs of OPT had it")


@dataclass(frozen=True)
class SplitOptions(TaskOptions):
    """The task, how its texts are read, and how many."""

    train: int | None = option(None, "training examples; without it the task's usual number")
    dev: int | None = option(None, "development examples; without it the task's usual number")
    test: int | None = option(None, "test examples; without it the task's usual number, or all there are")


@dataclass(frozen=True)
class SeedOptions:
    """Random numbers."""

    seed: int = option(0, "names the split, the minibatches and the directions")


@dataclass(frozen=True)
class DifferenceOptions:
    """What a difference of losses is measured with."""

    epsilon: float | str = option(1e-3, "displacement of the zeroth-order methods, or auto")
    batch: int = option(16, "examples a step")


@dataclass(frozen=True)
class SizeOptions(DifferenceOptions):
    """Displacement, minibatch and learning rate."""

    lr: float = option(1e-4, "learning rate")


@dataclass(frozen=True)
class StepOptions:
    """How steps are taken."""

    method: str = option("mezo", "name:option=value...: mezo, forward-gradient, adamw, icl, ... (llm list)")
    adapter: str | None = option(None, f"what is trained in place of the weights: {adapters.HELP}")
    trained: tuple[str, ...] = option((), TRAINED)
    steps: int = option(500, "optimisation steps")
    rates: tuple[str, ...] = option((), RATES)
    schedule: str = option("constant", "constant, linear or cosine")
    warmup: int = option(0, "steps of linear warm-up")
    rule: str = option("sgd", "what is done with the estimate: sgd, momentum:beta=0.9, adam:beta1=0.9,window=10, ...")
    weight_decay: float = option(0.0, "decoupled weight decay, not on biases and norms")
    gradient_checkpointing: bool = option(False, "of sgd and adamw: layers are read again, not kept")
    clip: float | None = option(None, "bound on the projected gradient of each direction of a zeroth-order step")
    micro_batch: int | None = option(None, "examples through the model at once, which bounds memory; without it all")
    engine: str = option("auto", "plain, in-forward, paired (in-forward, both points at once), or auto by size")
    rows: str = option("all", "embedding rows with directions: all, or touched: those that the minibatch reads")
    rounding: str = option("nearest", "of steps in 16 bits: nearest, stochastic, or master (weights kept in float32)")


@dataclass(frozen=True)
class SelectionOptions:
    """Which weights count."""

    select: str = option("best", "weights tested and saved: best (lowest dev loss, as MeZO) or last", before="last")


@dataclass(frozen=True)
class LoopOptions(SelectionOptions):
    """What is evaluated, which weights count, and when training stops."""

    eval_every: int = option(50, "steps between evaluations on dev")
    baselines: bool = option(True, "measure the untouched model on all splits first")
    also: tuple[str, ...] = option((), "further sets measured at every evaluation: TASK or TASK@FOLDER, with commas")
    also_examples: int = option(200, "test examples of each of these at most")
    patience: int | None = option(None, "evaluations without a better dev loss after which to stop; without it never")
    max_skipped: int = option(10, "steps in a row whose losses are not finite, after which training stops")
    diverged_at: float = option(5.0, "mean loss over the window, in start losses, from which a run counts as diverged")
    diverged_window: int = option(50, "steps of that window")


@dataclass(frozen=True)
class ResultOptions:
    """Where the results go."""

    provenance: str = option("live", "a word about where the rows come from, shown in reports")
    out: str = option("runs/train", "folder of the results; an interrupted run continues there, a finished one stays")


@dataclass(frozen=True)
class FolderOptions(ResultOptions):
    """Where the results go, and what is kept there."""

    save: bool = option(True, "write the tuned weights to <out>/model")
    journal: bool = option(True, "keep what each step did, so that an interrupted run continues where it was")
    checkpoint_every: int = option(1000, "steps between checkpoints, the last two of which are kept; 0: none")
    resume: bool = option(True, "continue what --out holds; --no-resume refuses a folder that holds something")


@dataclass(frozen=True)
class CallOptions:
    """How this call is made."""

    preset: str | None = option(None, "recommended values of the other options, as `list` shows them", presets.values)
    dry_run: bool = option(False, "tell what would be trained, its memory, passes and time; train and write nothing")
