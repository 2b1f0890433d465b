"""What is refused of the options of a run before anything is loaded."""

import math

from llm.model import adapters, compiled, streaming
from llm.model.trainable import parse_rates
from llm.options.train import MOST_STEPS, ROUNDING, ROWS, SELECT, TrainOptions
from llm.quantised import Choice
from llm.quantised.schemes import SMOOTHING, check_smoothing
from llm.steppers import engines
from llm.steppers.method import TrainingMethod
from zobench.naming import require_known


def check(options: TrainOptions) -> None:
    """Refuse what cannot work before anything is loaded."""
    method = TrainingMethod.parse(options.method)
    adapters.check(options.adapter, options.gradient_checkpointing)
    parse_rates(options.rates)
    engines.is_own(options.engine)  # refuses an unknown name
    _check_streamed(options, method)
    require_known(options.rows, ROWS, "choice of rows")
    require_known(options.rounding, ROUNDING, "rounding")
    _check_loop(options)
    _check_quantised(options)
    _check_fake(options, method)
    _check_compiled(options, method)
    for name in ("train", "dev", "test"):
        size = getattr(options, name)
        if size is not None and size < 1:
            raise ValueError(f"{name} is {size}: each split needs at least one example")
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
    if options.train is not None and options.batch > options.train and method.takes_steps:
        raise ValueError(f"batch is {options.batch} but there are {options.train} training examples: lower --batch")
    method.check(options)


def _check_streamed(options: TrainOptions, method: TrainingMethod) -> None:
    if options.engine != engines.STREAMED or not method.takes_steps:
        return
    if method.searches_codes:
        raise ValueError(
            f"--engine streamed perturbs weights, and {options.method} searches the codes of a model in memory: leave "
            "--engine out"
        )
    if not method.replays:  # a first-order part
        raise ValueError(
            f"--engine streamed keeps the weights on disk, and {options.method} needs gradients of them in memory: "
            "give a zeroth-order --method, or leave --engine out"
        )
    if options.adapter:
        raise ValueError(
            f"--engine streamed trains the weights of the model themselves, and --adapter is {options.adapter}: leave "
            "--adapter out, or give --engine in-forward"
        )
    streaming.require_possible(options.model, options.device)


def _check_quantised(options: TrainOptions) -> None:
    if Choice.of(options.quantize, options.group) is None:
        return
    if options.rounding != "nearest":
        raise ValueError(
            f"rounding is {options.rounding}, but the scales of quantised layers are trained in float32: leave "
            "--rounding out"
        )
    if options.rows != "all":
        raise ValueError(f"rows is {options.rows}, but scales are no embedding rows: leave --rows out")


def _check_fake(options: TrainOptions, method: TrainingMethod) -> None:
    options.quantisation()
    check_smoothing(options.smoothing)
    if options.fake_quantize is None:
        if options.smoothing != SMOOTHING:
            raise ValueError(
                f"smoothing is {options.smoothing}, but no activation is rounded: give --fake-quantize w4a4, or leave "
                "it out"
            )
        return
    asked = f"--fake-quantize {options.fake_quantize}"
    if options.adapter:
        raise ValueError(
            f"{asked} trains the weights that are rounded, and --adapter is {options.adapter}: leave --adapter out, or "
            "give --quantize int4"
        )
    if method.takes_steps and (method.needs_gradient or method.searches_codes or not method.replays):
        raise ValueError(
            f"{asked} rounds weights in every forward, which has no gradient and no codes to search, and --method is "
            f"{options.method}: give a zeroth-order method, such as mezo"
        )
    if options.engine in engines.ENGINES.keys() - set(engines.WHOLE):
        raise ValueError(
            f"{asked} rounds whole perturbed matrices in memory, which --engine {options.engine} does not hold: leave "
            "--engine out"
        )
    if options.rounding != "nearest":
        raise ValueError(f"{asked} trains weights in --dtype: leave --rounding out")
    if options.rows != "all":
        raise ValueError(f"{asked} rounds weights that no token selects: leave --rows out")


def _check_compiled(options: TrainOptions, method: TrainingMethod) -> None:
    require_known(options.compile, (compiled.OFF, *compiled.HOW), "compilation")
    if options.compile == compiled.OFF or not method.takes_steps:
        return
    asked = f"--compile {options.compile}"
    if options.engine not in (engines.AUTO, "plain"):
        raise ValueError(
            f"{asked} reads weights where they are stored, and only the plain engine perturbs them there, but --engine "
            f"is {options.engine}: leave --engine out, or --compile"
        )
    if options.rounding != "nearest":
        raise ValueError(
            f"{asked} takes the plain engine, which rounds to the nearest, and --rounding is {options.rounding}: leave "
            "--rounding out, or --compile"
        )
    for name in ("quantize", "fake_quantize"):
        if getattr(options, name) is not None:
            raise ValueError(
                f"{asked} compiles layers of weights, and --{name.replace('_', '-')} is {getattr(options, name)}: "
                "leave one of them out"
            )
    if method.searches_codes or (method.needs_gradient and not method.backpropagates):
        raise ValueError(
            f"{asked} compiles the losses of a zeroth-order method, or the layers of sgd and adamw, and --method is "
            f"{options.method}: give --method mezo, or leave --compile out"
        )
    if method.backpropagates and options.compile != compiled.LAYERS:
        raise ValueError(
            f"{asked} records forwards without gradients, and --method is {options.method}: give --compile "
            f"{compiled.LAYERS}"
        )
    if options.gradient_checkpointing:
        raise ValueError(f"{asked} compiles a layer with what it keeps: leave --gradient-checkpointing out")
    if options.adapter and isinstance(adapters.parse(options.adapter), adapters.Prefix):
        raise ValueError(
            f"{asked} shares the code of one layer, and --adapter {options.adapter} gives each layer keys of its own: "
            "give lora or prompt, or leave --compile out"
        )
    compiled.require_possible(options.compile, options.device)


def _check_loop(options: TrainOptions) -> None:
    require_known(options.select, SELECT, "selection")
    if options.also_examples < 1:
        raise ValueError(f"also_examples is {options.also_examples}: give 1 or more")
    if options.micro_batch is not None and options.micro_batch < 1:
        raise ValueError(f"micro_batch is {options.micro_batch}: give 1 or more examples, or leave it out")
    if options.clip is not None and not 0 < options.clip < math.inf:
        raise ValueError(f"clip is {options.clip}: give a positive number, or leave it out")
    if options.anchor_examples is not None and options.anchor_examples < 1:
        raise ValueError(f"anchor_examples is {options.anchor_examples}: give 1 or more examples, or leave it out")
    if options.patience is not None and options.patience < 1:
        raise ValueError(f"patience is {options.patience}: give 1 or more evaluations, or leave it out")
