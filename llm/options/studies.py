"""The options of studies: `compare`, `tune`, `study`, `power`, `noise`, `errors`, `rounding`."""

from dataclasses import dataclass

from llm.options.groups import (
    ADAPTER,
    CallOptions,
    DifferenceOptions,
    FolderOptions,
    LoopOptions,
    ModelOptions,
    QuantisedOptions,
    ResultOptions,
    SeedOptions,
    SelectionOptions,
    SplitOptions,
    StepOptions,
    TaskOptions,
)
from zobench.run.options import option

RANGE = "low:high (logarithmic), choices a,b,c, or one value"
SAMPLERS = ("tpe", "random")
WAYS = ("in-place", "nearest", "stochastic", "float32 master")


BACKENDS = {"joblib": "joblib", "dask": "distributed", "submitit": "submitit", "ray": "ray"}
"""Engines that have worker processes, and the packages that they are from."""


@dataclass(frozen=True)
class WorkerOptions(ResultOptions):
    """Who makes the runs. The same command, given again anywhere with the same folder, adds workers."""

    workers: int = option(1, "number of worker processes that this call starts, each with one thread and one run")
    backend: str | None = option(
        None, f"engine that has the workers: {', '.join(BACKENDS)}; by default joblib where there are several"
    )
    cluster: str | None = option(
        None,
        "cluster of the backend: the address of dask's scheduler or of Ray, or for submitit slurm:NAME=VALUE,...; by "
        "default processes of this machine",
    )


@dataclass(frozen=True)
class CompareOptions(WorkerOptions):
    """Run every arm of a plan on every task; the dev set of one task chooses the rates. The same command continues."""

    plan: str = option("llm/studies/smollm2.toml", "TOML file of tasks and arms; docs/smollm2.md describes it")
    data: str | None = option(None, "folder that holds the data folders of the plan")
    model: str | None = option(None, "model in place of the plan's: a folder with the same weights, say")
    allow_code: bool = option(
        False, "run the Python code that the plan names (own methods, models' own code)", code=True
    )
    arms: tuple[str, ...] = option((), "arms of the plan that this call runs, separated by commas; by default all")
    hours: float | None = option(None, "begin no further run after this time; the same command continues")
    dry_run: bool = option(False, "print the runs of the plan and what they cost; run nothing and write nothing")
    pack: bool = option(
        False, "at the end, or when interrupted, write the runs to runs.tar.xz, and remove the folders of finished ones"
    )
    out: str = "runs/compare"


@dataclass(frozen=True)
class TuneOptions(
    WorkerOptions, CallOptions, FolderOptions, LoopOptions, SeedOptions, StepOptions, SplitOptions, QuantisedOptions
):
    """Search learning rate, epsilon and batch on dev, never on test; each trial is a run, which can be resumed."""

    lr: float | str = option("1e-6:1e-3", f"learning rate: {RANGE}")
    epsilon: float | str = option(1e-3, f"perturbation scale of the zeroth-order methods: {RANGE}, or auto")
    batch: int | str = option(
        16, f"examples in the minibatch of a step: {RANGE.removeprefix('low:high (logarithmic), ')}"
    )
    trials: int = option(
        20, "number of trials, each of which is a run; with a larger number a finished search continues"
    )
    sampler: str = option("tpe", f"sampler that proposes values: {', '.join(SAMPLERS)}")
    together: int = option(
        1,
        "with tpe: number of trials that are proposed together, from the trials before them, and that workers can run "
        "at once; with random all trials can",
    )
    out: str = "runs/tune"


@dataclass(frozen=True)
class StudyOptions(WorkerOptions, SelectionOptions, DifferenceOptions, SplitOptions, ModelOptions):
    """Choose each method's learning rate on the dev sets of other seeds, then run all seeds; a study can be resumed."""

    methods: tuple[str, ...] = option(
        ("mezo", "kerzoo", "forward", "richardson", "sgd", "adamw"),
        "methods to compare, each written as for train --method",
    )
    forward_passes: int = option(2000, "forward passes of a zeroth-order run")
    backward_passes: int = option(200, "backward passes (one a step) of a first-order run")
    rates: tuple[float, ...] = option((1e-4, 3e-4, 1e-3, 3e-3), "learning rates tried by each zeroth-order method")
    first_order_rates: tuple[float, ...] = option(
        (1e-3, 1e-2, 3e-2, 1e-1), "learning rates tried by each first-order method"
    )
    seeds: int = option(5, "number of runs of each method at its chosen learning rate")
    tuning_seeds: int = option(1, "number of further seeds, whose dev sets choose the learning rate")
    evaluations: int = option(10, "number of evaluations on dev in a run")
    out: str = "runs/study"


@dataclass(frozen=True)
class LossOptions(SeedOptions, TaskOptions, ModelOptions):
    """A model, and a minibatch of a task."""


@dataclass(frozen=True)
class NoiseOptions(LossOptions):
    """Measure noise, derivatives along lines and truncation of a model's loss, and recommend an epsilon."""

    batch: int = option(16, "examples in the minibatch on which everything is measured")
    lines: int = option(200, "number of lines along which truncation is measured")
    epsilons: tuple[float, ...] = option(
        (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2), "perturbation scales at which truncation is measured"
    )
    out: str = option("runs/noise", "folder of the results")


@dataclass(frozen=True)
class RoundingOptions(SeedOptions, DifferenceOptions, TaskOptions, ModelOptions):
    """Take MeZO steps in 16 bits and compare each step with the step that was intended."""

    dtype: str = option("bfloat16", "bfloat16; float16 has no stochastic rounding")
    batch: int = 4
    ways: tuple[str, ...] = option(WAYS, "kinds of rounding")
    rates: tuple[float, ...] = option((1e-6, 1e-5, 1e-4), "learning rates of the steps")
    steps: int = option(5, "number of steps with each rounding and learning rate")
    out: str = option("runs/rounding", "folder of the results; every call appends rows")


@dataclass(frozen=True)
class PowerOptions:
    """Print the differences that a comparison can show, the seeds they need, and the noise of the test set."""

    spread: float | None = option(
        None, "standard deviation of the paired difference between seeds, in points; by default that of --questions"
    )
    seeds: int = option(10, "number of seeds, each of which is a pair")
    differences: tuple[float, ...] = option((1.0, 2.0, 3.0, 5.0, 10.0), "differences of the means, in points")
    tests: int = option(1, "number of tests in the family: the first of Holm's steps has the level / tests")
    level: float = option(0.05, "level of the family, two-sided")
    power: float = option(0.8, "wanted power")
    questions: int | None = option(None, "questions of the test set")
    accuracy: float = option(0.63, "accuracy of both methods, as a share")
    disagreement: float | None = option(
        None, "share of questions that only one of two runs answers right; by default that of independent answers"
    )


@dataclass(frozen=True)
class ErrorOptions(LossOptions):
    """Measure bias, variance and rounding of the central difference and of the kernel on a model."""

    dtype: str = option("float64", "dtype of weights and losses: float64, float32, bfloat16 or float16")
    adapter: str | None = option(None, f"adapter whose weights are perturbed in place of the model's: {ADAPTER}")
    batch: int = option(8, "examples in the minibatch on which everything is measured")
    lines: int = option(60, "number of lines")
    nodes: int = option(4, "positive nodes of the kernel's quadrature over r; 0 leaves the kernel out")
    epsilons: tuple[float, ...] = option((1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1), "perturbation scales")
    out: str = option("runs/errors", "folder of the results; an interrupted run continues there")


@dataclass(frozen=True)
class SmokeOptions(SeedOptions, SplitOptions, ModelOptions):
    """Fine-tune with every method of the table for a few steps; the printed table is no ranking."""

    methods: tuple[str, ...] = option((), "names of the table; by default all, and hybrid")
    rates: tuple[float, ...] = option((), "learning rates tried; by default one, that of the method")
    steps: int = option(60, "number of steps of a run")
    batch: int = option(4, "examples in the minibatch of a step")
    max_tokens: int | None = 24
    train: int | None = 32
    dev: int | None = 32
    test: int | None = 2
    out: str = option("runs/smoke-llm", "folder of the results; an interrupted table continues there")
