"""What a plan would run and cost: its runs, their forward passes, and the memory that its arms need."""

from collections import Counter
from collections.abc import Iterator

from llm.model import loading
from llm.options.train import TrainOptions
from llm.steppers.method import TrainingMethod
from llm.studies.plan import StudyPlan
from llm.studies.rates import forward_passes_a_step
from zobench import rule


def forecast(plan: StudyPlan) -> list[str]:
    """Return the lines of a dry run: nothing is loaded but the configuration of the model."""
    lines = ["dry run: nothing is written", *_memory(plan), f"{'arm':18}{'steps':>8}{'trials':>8}{'runs':>6}  method"]
    total: Counter[str] = Counter()
    for arm in plan.arms:
        for task in plan.tasks:
            lines += _arm(plan, arm, task, total)
    lines.append(
        f"{total['runs']:,} runs and at least {total['trials']:,} trials, {total['passes']:,} forward passes of "
        "batches in steps (a backward pass counts as two), evaluations not counted"
    )
    return lines


def _arm(plan: StudyPlan, arm: str, task: str, total: Counter[str]) -> Iterator[str]:
    runs, chosen, passes = plan.seeds(task, arm), plan.arms[arm], plan.tasks[task].forward_passes
    if not runs:
        return
    options = plan.run_options(task, arm, passes)
    takes_steps = TrainingMethod.parse(options.method).takes_steps
    trials = len(chosen.rates) * plan.tuning_seeds if task == plan.tuned_on else 0
    cost = forward_passes_a_step(options.method, options.epsilon) if takes_steps else 0
    tuning = plan.run_options(plan.tuned_on, arm, plan.tuning_passes).steps * cost if trials else 0
    total.update(runs=runs, trials=trials, passes=runs * options.steps * cost + trials * tuning)
    tied = f", rate {chosen.times:g} times that of {chosen.tied}" if chosen.tied else ""
    adapter = f", {options.adapter}" if options.adapter else ""
    steps = f"{options.steps:,}" if takes_steps else "-"
    yield f"{arm:18}{steps:>8}{trials:8}{runs:6}  {task}: {options.method}{adapter}{_held(options)}{tied}"


def _held(options: TrainOptions) -> str:
    """What the rule of an arm holds beside the model, in words."""
    if TrainingMethod.parse(options.method).backpropagates or not TrainingMethod.parse(options.method).takes_steps:
        return ""
    held = rule.parse(options.rule, lr=options.lr).held
    return f", {options.rule} (holds {held:g} float32 a weight)" if held else ""


def _memory(plan: StudyPlan) -> Iterator[str]:
    task, arm = next(iter(plan.tasks)), next(iter(plan.arms))
    options = plan.run_options(task, arm, plan.tasks[task].forward_passes)
    try:
        blank = loading.skeleton(plan.model, options.dtype, options.trust_remote_code)
    except Exception:  # whatever readers of configurations raise: loading the model reports the reason
        yield f"{plan.model}: its configuration cannot be read here; give --model FOLDER with config.json and tokenizer"
        return
    count = sum(p.numel() for p in blank.model.parameters())
    size = sum(p.numel() * p.element_size() for p in blank.model.parameters())
    yield (
        f"{plan.model}: {count:,} weights, {_gib(size)} in {options.dtype} without activations; each number that a "
        f"rule holds for a weight is {_gib(4 * count)}"
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"
