"""The options of a training run."""

import math
from dataclasses import dataclass

from llm import baselines, objective, presets, tasks
from llm.objective import MAX_TOKENS
from llm.training import adapters
from llm.training.first_order import FIRST_ORDER
from llm.training.selection import SELECT
from llm.training.trained import RATES, TRAINED, parse_rates
from llm.training.trainer import check_method, check_steps
from llm.training.zeroth_order import ENGINES
from zobench.naming import require_known
from zobench.options import option

ROWS = ("all", "touched")
ROUNDING = ("nearest", "stochastic", "master")
MOST_STEPS = 2**32 - 1


@dataclass(frozen=True)
class TrainOptions:
    """Options of `python -m llm train`; `seconds` in rows are those of the steps, without evaluations."""

    model: str = option("tiny-opt", "tiny-opt, smollm2-135m-instruct, a hub id, a folder or a .gguf file")
    task: str = option("spam", tasks.HELP)
    data: str | None = option(None, "folder of the task's files; without it: shipped, beside the task file, or the hub")
    objective: str = option("task", f"what is minimised: {objective.HELP}")
    method: str = option("mezo", "name:option=value...: mezo, forward-gradient, adamw, icl, ... (llm list)")
    adapter: str | None = option(None, f"what is trained in place of the weights: {adapters.HELP}")
    trained: tuple[str, ...] = option((), TRAINED)
    steps: int = option(500, "optimisation steps")
    lr: float = option(1e-4, "learning rate")
    rates: tuple[str, ...] = option((), RATES)
    epsilon: float | str = option(1e-3, "displacement of the zeroth-order methods, or auto")
    schedule: str = option("constant", "constant, linear or cosine")
    warmup: int = option(0, "steps of linear warm-up")
    rule: str = option("sgd", "what is done with the estimate: sgd, momentum:beta=0.9, adam:beta1=0.9,window=10, ...")
    weight_decay: float = option(0.0, "decoupled weight decay, not on biases and norms")
    gradient_checkpointing: bool = option(False, "of sgd and adamw: layers are read again, not kept")
    clip: float | None = option(None, "bound on the projected gradient of each direction of a zeroth-order step")
    batch: int = option(16, "examples a step")
    micro_batch: int | None = option(None, "examples through the model at once, which bounds memory; without it all")
    train: int | None = option(None, "training examples; without it the task's usual number")
    dev: int | None = option(None, "development examples; without it the task's usual number")
    test: int | None = option(None, "test examples; without it the task's usual number, or all there are")
    max_tokens: int | None = option(None, MAX_TOKENS)
    bos: int | None = option(None, "id of the first token instead of the tokenizer's; 0 as MeZO's runs of OPT had it")
    eval_every: int = option(50, "steps between evaluations on dev")
    baselines: bool = option(True, "measure the untouched model on all splits first")
    also: tuple[str, ...] = option((), "further sets measured at every evaluation: TASK or TASK@FOLDER, with commas")
    also_examples: int = option(200, "test examples of each of these at most")
    select: str = option("best", "weights tested and saved: best (lowest dev loss, as MeZO) or last", before="last")
    patience: int | None = option(None, "evaluations without a better dev loss after which to stop; without it never")
    seed: int = option(0, "names the split, the minibatches and the directions")
    device: str = option("cpu", "cpu, cuda, cuda:1, ...")
    dtype: str = option("float32", "float32, bfloat16 or float16")
    engine: str = option("auto", "plain, in-forward, paired (in-forward, both points at once), or auto by size")
    rows: str = option("all", "embedding rows with directions: all, or touched: those that the minibatch reads")
    rounding: str = option("nearest", "of steps in 16 bits: nearest, stochastic, or master (weights kept in float32)")
    save: bool = option(True, "write the tuned weights to <out>/model")
    journal: bool = option(True, "keep what each step did, so that an interrupted run continues where it was")
    checkpoint_every: int = option(1000, "steps between checkpoints, the last two of which are kept; 0: none")
    resume: bool = option(True, "continue what --out holds; --no-resume refuses a folder that holds something")
    max_skipped: int = option(10, "steps in a row whose losses are not finite, after which training stops")
    diverged_at: float = option(5.0, "mean loss over the window, in start losses, from which a run counts as diverged")
    diverged_window: int = option(50, "steps of that window")
    preset: str | None = option(None, "recommended values of the other options, as `list` shows them", presets.values)
    dry_run: bool = option(False, "tell what would be trained, its memory, passes and time; train and write nothing")
    trust_remote_code: bool = option(False, "run the Python code that comes with a model", code=True)
    provenance: str = option("live", "a word about where the rows come from, shown in reports")
    out: str = option("runs/train", "folder of the results; an interrupted run continues there")


def check(options: TrainOptions) -> None:
    """Refuse what cannot work before anything is loaded."""
    check_method(options.method)
    adapters.check(options.adapter, options.gradient_checkpointing)
    parse_rates(options.rates)
    if options.gradient_checkpointing and options.method not in FIRST_ORDER and not baselines.known(options.method):
        raise ValueError(f"{options.method} has no backward pass: leave --gradient-checkpointing out")
    require_known(options.engine, ("auto", *ENGINES), "engine")
    require_known(options.rows, ROWS, "choice of rows")
    require_known(options.rounding, ROUNDING, "rounding")
    _check_loop(options)
    if options.steps < 1 or options.batch < 1 or options.eval_every < 1:
        raise ValueError(
            f"steps {options.steps}, batch {options.batch}, eval_every {options.eval_every}: give 1 or more"
        )
    if options.max_skipped < 1 or options.diverged_window < 1 or options.checkpoint_every < 0:
        raise ValueError(
            f"max_skipped {options.max_skipped}, diverged_window {options.diverged_window}, checkpoint_every "
            f"{options.checkpoint_every}: give 1 or more, and 0 or more for checkpoint_every"
        )
    if not options.diverged_at > 1:
        raise ValueError(f"diverged_at is {options.diverged_at}: give a factor above 1")
    if options.steps > MOST_STEPS:
        raise ValueError(f"steps is {options.steps}: a journal counts to {MOST_STEPS}")
    if options.train is not None and options.batch > options.train and not baselines.known(options.method):
        raise ValueError(f"batch is {options.batch} but there are {options.train} training examples: lower --batch")
    check_steps(options)


def _check_loop(options: TrainOptions) -> None:
    require_known(options.select, SELECT, "selection")
    if options.also_examples < 1:
        raise ValueError(f"also_examples is {options.also_examples}: give 1 or more")
    if options.micro_batch is not None and options.micro_batch < 1:
        raise ValueError(f"micro_batch is {options.micro_batch}: give 1 or more examples, or leave it away")
    if options.clip is not None and not 0 < options.clip < math.inf:
        raise ValueError(f"clip is {options.clip}: give a positive number, or leave it away")
    if options.clip is not None and options.method in FIRST_ORDER:
        raise ValueError(
            f"clip is {options.clip}, but {options.method} has no projected gradients to clip: leave --clip away"
        )
    if options.patience is not None and options.patience < 1:
        raise ValueError(f"patience is {options.patience}: give 1 or more evaluations, or leave it away")
