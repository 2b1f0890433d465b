"""Methods by name: zeroth-order methods, first-order methods, and baselines, which take no step."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from llm import baselines
from llm.baselines import Baseline
from llm.model import loading, trainable
from llm.model.compiled import OFF
from llm.model.language_model import LanguageModel
from llm.model.last_blocks import frozen, last_blocks
from llm.model.recompute import recompute_layers
from llm.options.train import TrainOptions
from llm.quantised import folder
from llm.steppers.code_search import CODE_SEARCH, FORWARDS, CodeSearch, CodeSearchStepper
from llm.steppers.engines import require_batched, require_rounding, rounded
from llm.steppers.first_order import FIRST_ORDER, HYBRID, FirstOrderStepper
from llm.steppers.hybrid import HybridStepper
from llm.steppers.stepper import Stepper
from llm.steppers.zeroth_order import WHOLE, Whole, ZerothOrderStepper
from zobench import Estimator, ForwardGradient, methods, schedule
from zobench import rule as rules
from zobench.estimators import SVRG
from zobench.evaluations import evaluations_a_step
from zobench.groups import Groups
from zobench.naming import require_known
from zobench.numbers import count, real
from zobench.rule import Schedule
from zobench.rule.schedule import GAINS
from zobench.spelling import bracketed, construct, spelled

Touched = Callable[[int], dict[str, list[int]]]
"""The rows of embeddings that the minibatch of a step reads, by parameter."""


@dataclass(frozen=True)
class TrainingMethod(ABC):
    """A method as the user writes it, `name:option=value:...`. Its kind follows from `text`; a module of the user's own
    is not imported before `check`.
    """

    text: str
    takes_steps: ClassVar[bool] = True
    backpropagates: ClassVar[bool] = False
    replays: ClassVar[bool] = True
    searches_codes: ClassVar[bool] = False

    @staticmethod
    def parse(text: str) -> "TrainingMethod":
        """Return the method of a spelling.

        Raises:
            UnknownNameError: no such method.
            ValueError: a part is not option=value.
        """
        name = text.partition(":")[0]
        known = [*(row.name for row in methods.table()), *FIRST_ORDER, HYBRID, CODE_SEARCH, *baselines.BASELINES]
        if spelled(text, known).is_own:
            return ZerothOrderMethod(text)
        require_known(name, known, "method")
        if name in baselines.BASELINES:
            return BaselineMethod(text)
        if name == HYBRID:
            return HybridMethod(text)
        if name == CODE_SEARCH:
            return CodeSearchMethod(text)
        return FirstOrderMethod(text) if name in FIRST_ORDER else ZerothOrderMethod(text)

    @abstractmethod
    def check(self, options: TrainOptions) -> None:
        """Raise ValueError, before anything is loaded, if the method has no such option or a value is out of range."""

    def note(self, options: TrainOptions) -> str:
        """Return what to tell of options that are legal and may mislead, or nothing."""
        return ""

    @property
    def baseline(self) -> Baseline | None:
        """The baseline, if the method takes no step."""
        return None

    @property
    def needs_gradient(self) -> bool:
        """Whether the method differentiates the loss, backward or forward."""
        return self.backpropagates

    @abstractmethod
    def stepper(
        self,
        options: TrainOptions,
        language_model: LanguageModel,
        touched: Touched | None = None,
        whole: Whole | None = None,
    ) -> Stepper:
        """Return the stepper of a model; `whole` is the loss of all training examples, for methods that ask for it.

        Raises:
            ValueError: an option is out of range, or epsilon is below the resolution of the weights.
        """

    @abstractmethod
    def identity(self, options: TrainOptions) -> str:
        """Return the name of the method in rows: the repr of its estimator, or the like."""

    def rule(self, options: TrainOptions) -> str:
        """Return what takes its steps, as the header of a journal names it."""
        return self.text

    def forward_passes_a_step(self, options: TrainOptions, backward: int) -> int:
        """Return the forward passes that a step costs, a backward pass counted as `backward` of them.

        Raises:
            ValueError: steps of the method cost differently, and it declares no number to count.
        """
        return 1 + backward


class ZerothOrderMethod(TrainingMethod):
    """An estimator of the table, or of the user's own, with an update rule."""

    def check(self, options: TrainOptions) -> None:
        schedule(options.schedule, options.lr, options.steps, options.warmup)
        estimator = self.estimator(options)
        _require_closures(self.text, estimator, options)
        require_batched(options.engine, options.points, estimator)
        rules.parse(self.rule(options), lr=options.lr, weight_decay=options.weight_decay)
        require_rounding(options.engine, *rounded(options.rounding, options.dtype))
        if options.gradient_checkpointing:
            raise ValueError(f"{self.text} has no backward pass: leave --gradient-checkpointing out")

    def estimator(self, options: TrainOptions) -> Estimator:
        """Return the estimator."""
        defaults: dict[str, Any] = {"epsilon": options.epsilon}
        if self.row is not None:  # the default of one's own estimator stays
            defaults["lr"] = options.lr
        return methods.parse(self.text, **defaults)

    @property
    def row(self) -> methods.Method | None:
        """The row of the table; None of an estimator of one's own."""
        return next((row for row in methods.table() if row.name == self.text.partition(":")[0]), None)

    def note(self, options: TrainOptions) -> str:
        if self.row is not None and self.row.rate is not float and not options.schedule.startswith(GAINS):
            taken = f"--schedule {options.schedule}"
            return f"the paper of {self.row.name} has a learning rate that falls; this run takes {taken}, not gains"
        varies = options.schedule != "constant" or options.warmup or self.rule(options) != "sgd"
        if self.row is None or "lr" not in self.row.options or not varies:
            return ""
        return f"{self.row.name} compares points at lr; only --rule sgd at a constant rate steps to the best"

    def rule(self, options: TrainOptions) -> str:
        """Return the spelling of the update rule."""
        return options.rule

    @property
    def needs_gradient(self) -> bool:
        return isinstance(methods.parse(self.text), ForwardGradient)

    def stepper(
        self,
        options: TrainOptions,
        language_model: LanguageModel,
        touched: Touched | None = None,
        whole: Whole | None = None,
    ) -> ZerothOrderStepper:
        # The plain engine can only round to nearest: auto must not choose it for a small model.
        engine = "in-forward" if options.engine == "auto" and options.rounding != "nearest" else options.engine
        if engine == "auto" and options.compile != OFF:  # what is compiled reads parameters where they are stored
            engine = "plain"
        rate, groups = _rates(options, language_model)
        rule = rules.parse(self.rule(options), lr=rate, weight_decay=options.weight_decay, groups=groups)
        how = (*rounded(options.rounding, options.dtype), touched, options.clip, options.points, whole)
        return ZerothOrderStepper(language_model.model, self.estimator(options), rule, engine, *how)

    def identity(self, options: TrainOptions) -> str:
        return repr(self.estimator(options))

    def forward_passes_a_step(self, options: TrainOptions, backward: int) -> int:
        estimator = self.estimator(options)
        each = evaluations_a_step(estimator)
        if not _first_closure(estimator):
            return each
        examples = options.anchor_examples or options.train
        if examples is None:
            raise ValueError(f"{self.text} reads all training examples in some steps: give --train, to count them")
        more, every = -(-examples // options.batch) - 1, getattr(estimator, "every", 1)
        whole = estimator.line.evaluations if isinstance(estimator, SVRG) else each
        return each + -(-(whole or 0) * more // every)


def _first_closure(estimator: Estimator) -> str:
    return estimator.ask(0, estimator.init()).closure


def _require_closures(method: str, estimator: Estimator, options: TrainOptions) -> None:
    """Refuse losses that a run does not have, and a number of examples of a loss that is not asked for."""
    closure, examples = _first_closure(estimator), options.anchor_examples
    if closure not in ("", WHOLE):
        raise ValueError(
            f"{method} asks for the loss {closure!r}, which a run does not have: it has that of the minibatch, '', and "
            f"that of all training examples, {WHOLE!r}"
        )
    if examples is not None and not closure:
        raise ValueError(f"anchor_examples is {examples}, but {method} has no anchor: leave --anchor-examples out")
    if examples is not None and options.train is not None and examples > options.train:
        raise ValueError(
            f"anchor_examples is {examples}, but there are {options.train} training examples: lower --anchor-examples"
        )
    if closure and options.rows != "all":
        raise ValueError(f"{method} compares minibatches, whose rows differ: leave --rows {options.rows} out")


class FirstOrderMethod(TrainingMethod):
    """An optimizer of torch, with backpropagation."""

    backpropagates = True
    replays = False

    def check(self, options: TrainOptions) -> None:
        if self.text not in FIRST_ORDER:
            raise ValueError(f"method {self.text!r}: {self.text.partition(':')[0]} has no options of its own")
        schedule(options.schedule, options.lr, options.steps, options.warmup)
        if options.rounding != "nearest":
            raise ValueError(
                f"rounding is {options.rounding}, but {self.text} takes torch's own steps: leave --rounding out"
            )
        if options.clip is not None:
            raise ValueError(
                f"clip is {options.clip}, but {self.text} has no projected gradients to clip: leave --clip out"
            )

    def stepper(
        self,
        options: TrainOptions,
        language_model: LanguageModel,
        touched: Touched | None = None,
        whole: Whole | None = None,
    ) -> FirstOrderStepper:
        rate, groups = _rates(options, language_model)
        if options.gradient_checkpointing:
            recompute_layers(language_model.model)
        return FirstOrderStepper(language_model.model, self.text, rate, options.weight_decay, groups)

    def identity(self, options: TrainOptions) -> str:
        return f"{self.text}()"


@dataclass(frozen=True)
class Hybrid:
    """The options of `hybrid`: the number of last blocks with backpropagation, the optimizer of their steps ("sgd" or
    "adamw"), their learning rate (that of the run where it is 0), and the zeroth-order method of the rest, with its
    options in brackets.

    Raises:
        UnknownNameError: no such optimizer.
        ValueError: a number is out of range.
    """

    blocks: int = 1
    first: str = "sgd"
    rate: float = 0.0
    zeroth: str = "mezo"

    def __post_init__(self) -> None:
        count("blocks", self.blocks, "give the number of last blocks with backpropagation, from 1")
        require_known(self.first, FIRST_ORDER, "first-order method")
        real("rate", self.rate, "give the learning rate of the last blocks, or 0 for that of the run", lambda r: r >= 0)

    @property
    def rest(self) -> ZerothOrderMethod:
        """The method of the rest."""
        name, options = bracketed(self.zeroth)
        require_known(name, [row.name for row in methods.table()], "zeroth-order method")
        return ZerothOrderMethod(":".join([name, *(f"{key}={_spelt(value)}" for key, value in options.items())]))


def _spelt(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class HybridMethod(TrainingMethod):
    """First order on the last blocks, zeroth order on the rest."""

    replays = False

    @property
    def hybrid(self) -> Hybrid:
        """The options in the spelling."""
        return construct(spelled(self.text, (HYBRID,)), {HYBRID: Hybrid}, "method")

    def check(self, options: TrainOptions) -> None:
        hybrid = self.hybrid
        hybrid.rest.check(options)
        FirstOrderMethod(hybrid.first).check(
            replace(options, clip=None, anchor_examples=None)
        )  # --clip bounds the zeroth-order half
        if options.rates:
            raise ValueError(f"--rates is given, but {HYBRID} has two rates: give --lr and {HYBRID}:rate=1e-3")
        if options.rows != "all":
            raise ValueError(f"rows is {options.rows}, but {HYBRID} perturbs whole tensors: leave --rows out")

    def note(self, options: TrainOptions) -> str:
        rest = self.hybrid.rest
        usual = methods.rule_name(rest.text)
        if usual != options.rule:
            return f"the paper of {rest.text} uses the rule {usual}; this run takes --rule {options.rule}"
        return rest.note(options)

    @property
    def needs_gradient(self) -> bool:
        return True

    def stepper(
        self,
        options: TrainOptions,
        language_model: LanguageModel,
        touched: Touched | None = None,
        whole: Whole | None = None,
    ) -> Stepper:
        hybrid = self.hybrid
        last = last_blocks(language_model, hybrid.blocks)
        names = {each.name for each in last}
        rest = [each for each in trainable.tensors(language_model.model) if each.name not in names]
        if not (last and rest):
            raise ValueError(
                f"{self.text} has {len(last)} trained tensors in the last blocks and {len(rest)} before them: give "
                "another number of blocks or another --trained, or one of the two methods alone"
            )
        with frozen(last):
            zeroth = hybrid.rest.stepper(options, language_model, None, whole)
        lr = hybrid.rate or options.lr
        with frozen(rest):
            first = FirstOrderMethod(hybrid.first).stepper(replace(options, lr=lr), language_model)
        return HybridStepper(first, zeroth, last, rest)

    def identity(self, options: TrainOptions) -> str:
        hybrid = self.hybrid
        rate = hybrid.rate or options.lr
        return f"hybrid(blocks={hybrid.blocks}, first={hybrid.first}, rate={rate!r}, {hybrid.rest.identity(options)})"

    def rule(self, options: TrainOptions) -> str:
        return f"{self.text} with {options.rule}"

    def forward_passes_a_step(self, options: TrainOptions, backward: int) -> int:
        return 1 + backward + self.hybrid.rest.forward_passes_a_step(options, backward)


class CodeSearchMethod(TrainingMethod):
    """A search over the codes of a quantised model."""

    searches_codes = True

    @property
    def search(self) -> CodeSearch:
        """The options in the spelling."""
        return construct(spelled(self.text, (CODE_SEARCH,)), {CODE_SEARCH: CodeSearch}, "method")

    def check(self, options: TrainOptions) -> None:
        assert self.search
        unread = [name for name in ("adapter", "trained", "rates", "clip") if getattr(options, name)]
        if unread:
            raise ValueError(f"{CODE_SEARCH} changes codes alone, without a gradient: leave --{unread[0]} out")
        if options.gradient_checkpointing or options.rounding != "nearest":
            raise ValueError(f"{CODE_SEARCH} has no backward pass and no rounding: leave both out")
        if options.quantize is None and not _holds_codes(options.model):
            raise ValueError(f"{CODE_SEARCH} changes the codes of a quantised model: give --quantize int4")

    def stepper(
        self,
        options: TrainOptions,
        language_model: LanguageModel,
        touched: Touched | None = None,
        whole: Whole | None = None,
    ) -> Stepper:
        return CodeSearchStepper(language_model.model, self.search)

    def identity(self, options: TrainOptions) -> str:
        return repr(self.search)

    def forward_passes_a_step(self, options: TrainOptions, backward: int) -> int:
        return FORWARDS


def _holds_codes(model: str) -> bool:
    found = loading.folder_of(model)
    return found is not None and folder.is_folder(Path(found))


class BaselineMethod(TrainingMethod):
    """A baseline, which is measured and takes no step."""

    takes_steps = False

    def check(self, options: TrainOptions) -> None:
        baselines.parse(self.text)

    @property
    def baseline(self) -> Baseline:
        return baselines.parse(self.text)

    def stepper(
        self,
        options: TrainOptions,
        language_model: LanguageModel,
        touched: Touched | None = None,
        whole: Whole | None = None,
    ) -> Stepper:
        raise ValueError(f"{self.text} takes no step")

    def identity(self, options: TrainOptions) -> str:
        return repr(self.baseline)


def _rates(options: TrainOptions, language_model: LanguageModel) -> tuple[Schedule, Groups]:
    """The learning rate over the steps, and its multipliers."""
    groups = Groups(trainable.multipliers(language_model.model, options.rates, options.lr))
    return schedule(options.schedule, options.lr, options.steps, options.warmup), groups
