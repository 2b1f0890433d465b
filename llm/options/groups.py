"""Groups of options that several commands share: each default and each help text is written once, here.

A command is a frozen dataclass that inherits its groups. A field that it names again without `option` has another
default and the same help. Fields are in order from the last base to the first.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm.options import presets
from zobench.run.options import option

if TYPE_CHECKING:
    from llm.quantised import Quantisation

TASK = "a name (python -m llm list), a task file (my.toml), or package.module:function"
OBJECTIVE = (
    "task, classification, language-model, accuracy, f1, exact-match, drop-f1, drop-exact-match, reward, or "
    "package.module:function"
)
MAX_TOKENS = "length limit of prompts in tokens; longer prompts lose their beginning; by default the limit of the model"
ADAPTER = "lora:r=8:alpha=16:targets=q_proj+v_proj, prefix:tokens=5, prompt:tokens=10; by default no adapter"
TRAINED = (
    'patterns of the names of the trainable tensors, such as "*q_proj*,*layer_norm*"; by '
    "default all weights are trained"
)
RATES = (
    'learning rates by patterns of tensor names, such as "*.bias=1e-3,*fc1*=1e-5"; the first '
    "pattern that matches a name decides, and the other tensors use --lr"
)


@dataclass(frozen=True)
class ModelOptions:
    """The model, and where it computes."""

    model: str = option("tiny-opt", "tiny-opt, smollm2-135m-instruct, a hub id, a folder or a .gguf file")
    device: str = option("cpu", "cpu, cuda, cuda:1, ...")
    dtype: str = option("float32", "float32, bfloat16 or float16")
    trust_remote_code: bool = option(False, "allow the model to run Python code of its own", code=True)


@dataclass(frozen=True)
class QuantisedOptions(ModelOptions):
    """The model, with its weights quantised on loading."""

    quantize: str | None = option(
        None,
        "quantise the Linear layers: int8, int4, int2 (each also as int4-asymmetric, with zero points), or gguf (keep "
        "the codes of a GGUF file); their scales are then trained by default",
    )
    group: int = option(32, "with --quantize: number of weights that share a scale")
    fake_quantize: str | None = option(
        None,
        "round weights (by output channel) and activations (by token) in every forward, while the weights stay in full "
        "precision: w8a8, w4a8, w4a4, w2a16, ... (bits of weights and of activations, 16: not rounded)",
    )
    smoothing: float = option(
        0.75, "with --fake-quantize: SmoothQuant's exponent of the calibration before the first step; 0: no smoothing"
    )

    def quantisation(self) -> "Quantisation | None":
        """Return how the model is quantised, None where it is not.

        Raises:
            UnknownNameError: no such format or scheme.
            ValueError: both are given, or the group is none.
        """
        from llm.quantised import quantisation  # parsing does without torch

        return quantisation(self.quantize, self.group, self.fake_quantize)


@dataclass(frozen=True)
class TaskOptions:
    """The task, and how its texts are read."""

    task: str = option("spam", TASK)
    data: str | None = option(
        None, "folder of the task's files; by default the shipped files, the folder of the task file, or the hub"
    )
    objective: str = option("task", f"the loss: {OBJECTIVE}")
    max_tokens: int | None = option(None, MAX_TOKENS)
    bos: int | None = option(None, "id of the first token, in place of the tokenizer's own; MeZO's runs of OPT used 0")


@dataclass(frozen=True)
class SplitOptions(TaskOptions):
    """The task, how its texts are read, and how many."""

    train: int | None = option(None, "number of training examples; by default the task's usual number")
    dev: int | None = option(None, "number of development examples; by default the task's usual number")
    test: int | None = option(
        None, "number of test examples; by default the task's usual number, or all test examples if there are fewer"
    )


@dataclass(frozen=True)
class SeedOptions:
    """Random numbers."""

    seed: int = option(0, "seed of the split, the minibatches and the directions")


@dataclass(frozen=True)
class DifferenceOptions:
    """Perturbation scale and minibatch."""

    epsilon: float | str = option(1e-3, "perturbation scale of the zeroth-order methods, or auto")
    batch: int = option(16, "examples in the minibatch of a step")


@dataclass(frozen=True)
class SizeOptions(DifferenceOptions):
    """Perturbation scale, minibatch and learning rate."""

    lr: float = option(1e-4, "learning rate")


@dataclass(frozen=True)
class StepOptions:
    """How steps are taken. config.toml names the rule that "auto" stands for."""

    method: str = option("mezo", "name:option=value...: mezo, forward-gradient, adamw, icl, ... (llm list)")
    adapter: str | None = option(None, f"adapter to train in place of the weights: {ADAPTER}")
    trained: tuple[str, ...] = option((), TRAINED)
    steps: int = option(500, "number of optimisation steps")
    rates: tuple[str, ...] = option((), RATES)
    schedule: str = option(
        "constant",
        "schedule of the learning rate: constant, linear, cosine, kerzoo, gains (lr / (steps / 10 + step + 1)^0.602)",
    )
    warmup: int = option(0, "steps of linear warm-up")
    rule: str = option(
        "auto",
        "update rule, which turns the gradient estimate into a step: sgd, momentum:beta=0.9, "
        "adam:beta1=0.9,window=10, sign, adamezo, tensor-clip, interpolated, ..., or auto (that of the method's "
        "paper: llm list)",
    )
    weight_decay: float = option(0.0, "decoupled weight decay; biases and norms have none")
    gradient_checkpointing: bool = option(
        False, "with sgd and adamw: recompute activations in the backward pass instead of storing them"
    )
    clip: float | None = option(None, "bound on the projected gradient of each direction of a zeroth-order step")
    micro_batch: int | None = option(
        None, "largest number of examples in one forward pass, which bounds memory; by default the whole minibatch"
    )
    anchor_examples: int | None = option(
        None,
        "with mezo-svrg: training examples, drawn by the seed, that stand for all in the estimate at a snapshot; by "
        "default all training examples",
    )
    engine: str = option(
        "auto",
        "engine that perturbs the weights: plain, in-forward, paired (in-forward, both points at once), batched (all "
        "points of low-rank directions in one forward), streamed (weights on disk, for models larger than the memory "
        "of the host or of a GPU), auto (by size), or package.module:function",
    )
    points: int | None = option(
        None,
        "with --engine batched: largest number of points in one forward, which bounds memory; by default all of a step",
    )
    compile: str = option(
        "off",
        "torch.compile of the forward, with the plain engine: layers (each layer by itself), cuda-graphs (the whole "
        "model, on a CUDA device), or off; docs/speed.md says where it pays",
    )
    rows: str = option("all", "embedding rows that are perturbed: all, or touched (the rows that the minibatch reads)")
    rounding: str = option(
        "nearest", "rounding of steps in 16 bits: nearest, stochastic, or master (weights are kept in float32)"
    )

    def __post_init__(self) -> None:
        if self.rule == "auto":
            from zobench.methods import rule_name  # parsing does without torch

            object.__setattr__(self, "rule", rule_name(self.method))


@dataclass(frozen=True)
class SelectionOptions:
    """Which weights are tested and saved."""

    select: str = option(
        "best",
        "weights that are tested and saved: best (those of the lowest dev loss, as in MeZO) or last",
        before="last",
    )


@dataclass(frozen=True)
class LoopOptions(SelectionOptions):
    """Evaluations, the choice of the weights that are tested and saved, and the end of training."""

    eval_every: int = option(50, "number of steps between evaluations on dev")
    baselines: bool = option(True, "measure the untrained model on all splits first")
    also: tuple[str, ...] = option(
        (), "extra evaluation sets, measured at every evaluation: TASK or TASK@FOLDER, separated by commas"
    )
    also_examples: int = option(200, "largest number of test examples of each extra evaluation set")
    patience: int | None = option(
        None,
        "number of evaluations without a better dev loss after which training stops; by default no limit",
    )
    max_skipped: int = option(
        10, "stop after this number of skipped steps in a row (steps whose losses are not finite)"
    )
    diverged_at: float = option(
        5.0, "a run has diverged when its mean loss over the window is this many times the start loss"
    )
    diverged_window: int = option(50, "number of steps in the window of --diverged-at")


@dataclass(frozen=True)
class RankOptions:
    """Several processes, which torchrun starts; docs/scale.md says how."""

    ranks: str = option(
        "auto",
        "with torchrun: what each process evaluates of a step: probes (a slice of the points), data (a slice of the "
        "minibatch), PROBESxDATA such as 2x2, or auto (probes where the step has a point for each process)",
    )
    rank_timeout: float = option(
        600.0,
        "with torchrun: seconds that a process waits for another one before it ends; more than an evaluation takes",
    )
    compare_every: int = option(
        100, "with torchrun: number of steps between comparisons of the weights of all processes; 0: none"
    )


@dataclass(frozen=True)
class ResultOptions:
    """Where the results go."""

    provenance: str = option("live", "a word about the origin of the rows, shown in reports")
    out: str = option(
        "runs/train", "folder of the results; an interrupted run resumes there, a finished run stays as it is"
    )


@dataclass(frozen=True)
class FolderOptions(ResultOptions):
    """Where the results go, and what is kept there."""

    save: bool = option(True, "write the tuned weights to <out>/model")
    journal: bool = option(True, "record each step in a journal, so that an interrupted run resumes at the same step")
    checkpoint_every: int = option(
        1000, "number of steps between checkpoints; the last two checkpoints are kept; 0: no checkpoints"
    )
    resume: bool = option(True, "resume the run in --out; --no-resume refuses a folder that holds a run")


@dataclass(frozen=True)
class CallOptions:
    """How this call is made."""

    preset: str | None = option(
        None, "name of a preset: recommended values of the other options, which `list` shows", presets.values
    )
    report_to: tuple[str, ...] = option(
        (), "where losses and metrics are shown too, each through its own library: tensorboard, wandb, mlflow"
    )
    dry_run: bool = option(
        False, "print what would be trained, with memory, passes and time; train nothing and write nothing"
    )
