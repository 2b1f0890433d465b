"""The context of a run: its options, and all that they name, checked and loaded before a folder is touched."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from llm import objective, tasks
from llm.baselines import BaselineSetting
from llm.model import compiled, streaming, trainable
from llm.model.adapters import adapt
from llm.model.language_model import DTYPES, LanguageModel
from llm.objective import Encoded, Objective
from llm.objective.calibration import calibrate_
from llm.objective.minibatch import Minibatch
from llm.objective.touched import touched_rows
from llm.options.train import TrainOptions
from llm.quantised import is_fake_quantised, is_quantised
from llm.quantised.codes import Codes, search_
from llm.run import calibrated, evaluation_sets
from llm.run.check import check
from llm.run.evaluation_sets import EvaluationSet
from llm.run.folder import existing
from llm.run.unread import ignored, without_unread
from llm.steppers.method import TrainingMethod
from llm.steppers.stepper import Stepper
from llm.steppers.zeroth_order import Whole
from zobench import derive
from zobench.random import streams
from zobench.run.progress import note
from zobench.run.records import Row
from zobench.space import Shared, require_reproducible


@dataclass(frozen=True, eq=False)
class Data:
    """The encoded examples of a run."""

    train: list[Encoded]
    dev: list[Encoded]
    test: list[Encoded]


@dataclass(frozen=True, eq=False)
class RunContext:
    """What a run works with. `start_loss` is the loss of the first minibatch before the first step, and `notes` are
    what is to be told of data and options.
    """

    options: TrainOptions
    method: TrainingMethod
    task: tasks.Task
    language_model: LanguageModel
    objective: Objective
    data: Data
    sets: tuple[EvaluationSet, ...]
    notes: tuple[str, ...] = ()
    start_loss: float = math.nan

    @property
    def keys(self) -> dict[str, tuple[str, int]]:
        """What the keys of the steps are derived from."""
        return {"key": ("directions", self.options.seed), "minibatch": ("minibatch", self.options.seed)}

    def minibatch(self, step: int) -> list[Encoded]:
        """Return the examples of a step: drawn by the seed and the step, the same for every method."""
        order = streams.uniform(derive(*self.keys["minibatch"], step), (len(self.data.train),)).argsort()
        return [self.data.train[i] for i in order[: self.options.batch].tolist()]

    def losses(self, step: int, shared: Shared | None = None) -> Minibatch:
        """Return the losses of the examples of a step, or of those that are this rank's."""
        whole = Minibatch(self.objective, self.minibatch(step), self.options.micro_batch)
        return _own(whole, shared)

    def touched(self, step: int) -> dict[str, list[int]]:
        """Return the rows of embeddings that the minibatch of a step reads, by parameter."""
        return touched_rows(self.objective, self.minibatch(step))

    def whole(self) -> Whole:
        """Return the loss of all training examples, or of the `anchor_examples` of them that the seed draws, in parts
        of a minibatch's size: as many forward passes as there are parts.
        """
        options, train = self.options, self.data.train
        order = streams.uniform(derive("anchor", options.seed), (len(train),)).argsort()
        drawn = sorted(order[: options.anchor_examples or len(train)].tolist())
        size = min(options.batch, options.micro_batch or options.batch)
        return Whole(Minibatch(self.objective, [train[i] for i in drawn], size), -(-len(drawn) // options.batch))

    def stepper(self, shared: Shared | None = None) -> Stepper:
        """Return what takes the steps, together with the other ranks if there are some.

        Raises:
            ValueError: as for `TrainingMethod.stepper`, or its steps are not shared out.
        """
        touched, whole = self.touched if self.options.rows == "touched" else None, self.whole()
        if shared is not None and isinstance(whole.losses, Minibatch):
            whole = whole._replace(losses=_own(whole.losses, shared))
        stepper = self.method.stepper(self.options, self.language_model, touched, whole)
        if shared is not None:
            stepper.share(shared)
        return stepper

    def setting(self, tell: Callable[[str], None] = note) -> BaselineSetting:
        """Return what a baseline may use; `tell` gets what is to be told of it."""
        data, seed = self.data, self.options.seed
        return BaselineSetting(self.task, self.objective, data.train, data.dev, data.test, seed, tell)

    @cached_property
    def names(self) -> Row:
        """What every row says of the run."""
        options = self.options
        return {
            "model": Path(options.model).name if Path(options.model).exists() else options.model,
            "task": self.task.name,
            "method": options.method,
            **({"adapter": options.adapter} if options.adapter else {}),
            **({"quantize": options.quantize, "group": options.group} if options.quantize else {}),
            **self._fake,
            "estimator": self.method.identity(options),
            "seed": options.seed,
            "lr": options.lr if self.method.takes_steps else None,
            "provenance": options.provenance,
        }

    @property
    def _fake(self) -> Row:
        """What rows say of fake quantisation."""
        options = self.options
        if options.fake_quantize is None:
            return {}
        trained = {"trained": list(options.trained)} if options.trained else {}
        return {"fake_quantize": options.fake_quantize, "smoothing": options.smoothing, **trained}


def prepare(options: TrainOptions, test: bool = True) -> RunContext:
    """Return the context of these options: everything is checked, in the order of what it costs, and loaded. Without
    `test` the test examples are split off and left out.

    Raises:
        ValueError: an option, the data or the model cannot be used, two evaluations of one minibatch differ, or its
            loss is not finite.
    """
    check(options)
    notes = [ignored(options), TrainingMethod.parse(options.method).note(options)]
    options, method = without_unread(options), TrainingMethod.parse(options.method)
    task = tasks.find(options.task)
    if method.baseline:
        method.baseline.check(task)
    make = objective.choose(options.objective, task)
    split = split_of(options)
    options = sized(options, split)
    check(options)
    named_sets = evaluation_sets.read(options)
    language_model = _loaded(options)
    minimised = make(language_model, max_tokens=options.max_tokens, bos=options.bos)
    sets = evaluation_sets.encoded(named_sets, options, language_model)
    if method.needs_gradient and not minimised.differentiable:
        raise ValueError(f"objective {options.objective} has no gradient for {options.method}: give --method mezo")
    if options.engine == "batched" and method.takes_steps and not minimised.differentiable:
        raise ValueError(
            f"objective {options.objective} takes numbers out of tensors, which the batched engine cannot follow at "
            "several points at once: give --engine in-forward"
        )
    tested = minimised.encode(split.test) if test else []
    data = Data(minimised.encode(split.train), minimised.encode(split.dev), tested)
    notes += [*split.notes, *(told for one in named_sets for told in one.notes)]
    notes += [*objective.data_notes(minimised, vars(data)), *(told for one in sets for told in one.notes)]
    notes.append(_calibrated(options, language_model, minimised, data.train))
    if method.searches_codes:
        notes.append(f"searched: {Codes(language_model.model).count:,} codes")
    elif options.adapter or options.trained or is_quantised(language_model.model) or options.fake_quantize:
        notes.append(trainable.trained_note(language_model.model))
    context = RunContext(options, method, task, language_model, minimised, data, sets, tuple(filter(None, notes)))
    return _tried(context)


def _loaded(options: TrainOptions) -> LanguageModel:
    """The model with its adapter, with what is not trained frozen."""
    held = "float32" if options.rounding == "master" else options.dtype
    how = (options.model, options.device, held, options.trust_remote_code)
    base = streaming.load_for(
        options.engine,
        *how,
        options.quantisation(),
        existing(Path(options.out)),
    )
    language_model = adapt(base, options.adapter, options.seed)
    if options.compile != compiled.OFF:
        _compile_(language_model, options)
    if TrainingMethod.parse(options.method).searches_codes:
        search_(language_model.model)
        return language_model
    trainable.select(language_model.model, options.trained)
    if options.rounding != "nearest" and is_quantised(language_model.model):
        raise ValueError(f"model {options.model} is quantised: its scales are trained in float32: leave --rounding out")
    if options.rounding == "master" and options.adapter:  # a run without an adapter saves its frozen tensors, too
        trainable.hold_frozen(language_model.model, DTYPES[options.dtype])
    return language_model


def _compile_(language_model: LanguageModel, options: TrainOptions) -> None:
    if is_quantised(language_model.model):
        raise ValueError(f"model {options.model} is quantised: --compile compiles layers of weights: leave it out")
    compiled.compile_(language_model, options.compile)
    note(f"--compile {options.compile}: torch compiles during the first losses and evaluations")


def _calibrated(options: TrainOptions, loaded: LanguageModel, objective: Objective, train: list[Encoded]) -> str:
    """Find the smoothing factors, or take those of the journal that the run continues, and say so in words."""
    model = loaded.model
    if not is_fake_quantised(model) or calibrated.continue_(model, options):
        return ""
    count = calibrate_(model, objective, train, options.smoothing, options.seed)
    return f"smoothing factors from {count} training examples, exponent {options.smoothing:g}" if count else ""


def _tried(context: RunContext) -> RunContext:
    """The context with its start loss, found by evaluating the first minibatch twice."""
    options, method = context.options, context.method
    if options.rows == "touched" and method.takes_steps and not method.backpropagates:
        context.touched(0)  # whether the objective allows it
    with compiled.compiling(options.compile):
        start_loss = require_reproducible(context.losses(0))
    if not math.isfinite(start_loss):
        raise ValueError(f"the loss is {start_loss} before the first step: check --dtype (now {options.dtype})")
    if method.baseline:
        method.baseline.check_setting(context.setting())
    return replace(context, start_loss=start_loss)


def _own(whole: Minibatch, shared: Shared | None) -> Minibatch:
    """The slice of a minibatch that is this rank's."""
    if shared is None or shared.division.data == 1:
        return whole
    return whole.slice(shared.division.data, shared.division.part_of(shared.ranks.rank))


def split_of(options: TrainOptions) -> tasks.Split:
    """Return the examples that the options name."""
    task = tasks.find(options.task)
    return tasks.split(task, options.data, options.train, options.dev, options.test, options.seed)


def sized(options: TrainOptions, split: tasks.Split) -> TrainOptions:
    """The options with the sizes of the splits, so that config.toml is complete."""
    return replace(options, train=len(split.train), dev=len(split.dev), test=len(split.test))
