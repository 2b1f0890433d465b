"""The zeroth-order trainer: an estimator, a module space and SGD; forward passes only."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from llm.quantised import KeepSign, scale_names
from llm.steppers.clipping import clip
from llm.steppers.engines import chosen_engine, make_space
from llm.steppers.recorded import Recorded
from llm.steppers.rounding import measure, sample
from llm.steppers.taken import Taken
from zobench import Combination, Estimator, Plan, state
from zobench.plan import CURRENT
from zobench.query import converse
from zobench.rule import SGD, UpdateRule
from zobench.run.journal import Record, describe
from zobench.space import Shared, require_resolved
from zobench.space.motion import Motion

STATE = "state."
REASON = 300


WHOLE = "whole"
"""The name of the loss of all training examples."""


class Whole(NamedTuple):
    """The loss of all training examples, or of those that stand for them, and how many forward passes an evaluation of
    it counts: one for each minibatch's worth of examples.
    """

    losses: Callable[[], Tensor]
    passes: int


class Told(NamedTuple):
    """The gradient estimate, the mean loss of the last round (of its finite losses, where the estimator is bounded),
    the number of clipped projected gradients, and the reason to skip the step; it is empty if the step is taken.
    """

    gradient: Combination
    loss: float
    clipped: int
    reason: str

    @property
    def checksum(self) -> int:
        """The checksum of the step's coefficients; 0 if the step is skipped."""
        return 0 if self.reason else self.gradient.checksum


class ZerothOrderStepper:
    """Takes steps on a model in place: ask, evaluate, tell, and let the rule step. `replay` is the same with recorded
    losses in place of forward passes.

    A step may be pending: call `settle` before other code uses the model.

    Args:
        model: the module whose trainable parameters are stepped.
        estimator: asks for losses and turns them into a gradient estimate.
        rule: the update rule, which has the learning rate.
        engine: "auto", "plain", "in-forward", "paired", "batched", "streamed", or the spelling of one's own.
        rounding: "nearest" or "stochastic".
        reads: the dtype in which layers read the parameters; None for the parameters' own dtype.
        touched: step -> the rows of the embeddings that the step's minibatch reads; directions are zero elsewhere.
        most: bound on each projected gradient, see `clip`; None for no bound.
        points: the most points in one forward of the batched engine; None for all.
        whole: the loss that plans ask for by the name "whole"; None where no estimator asks for it.

    Raises:
        UnknownNameError: no such engine or rounding.
        ValueError: epsilon is below the resolution of the weights, the engine cannot round so, or the rule has a
            multiplier of no trainable parameter.
    """

    replays = True

    def __init__(
        self,
        model: nn.Module,
        estimator: Estimator,
        rule: UpdateRule,
        engine: str = "plain",
        rounding: str = "nearest",
        reads: torch.dtype | None = None,
        touched: Callable[[int], Mapping[str, Sequence[int]]] | None = None,
        most: float | None = None,
        points: int | None = None,
        whole: Whole | None = None,
    ) -> None:
        self.engine = chosen_engine(engine, model)
        self.estimator, self.space = estimator, make_space(model, self.engine, rounding, reads, points)
        scales = scale_names(model)
        self.rule = rule = KeepSign(rule, scales) if scales else rule
        self.touched, self.most, self.whole = touched, most, whole
        rule.groups.require_known([segment.name for segment in self.space.layout.segments])
        self._fastest = max((1.0, *rule.groups.multipliers.values()))
        require_resolved(self.space, estimator.perturbed_by)
        # A step is the largest coefficient times a direction: entries of a Gaussian direction stay below 16.
        self._room = min(torch.finfo(p.dtype).max for p in model.parameters() if p.requires_grad) / 16
        self.memory, self.state = rule.init(self.space), estimator.init()
        self.identity = repr(estimator)
        self.steps = self.forward_passes = self.backward_passes = 0

    def step(self, key: int, losses: Callable[[], Tensor], watched: bool = False) -> Taken:
        """Take one step. If it is `watched`, measure how much of it remains after rounding.

        The step is skipped if a loss or a coefficient is not finite, or if it would overflow the weights' dtype. Then
        the weights are those before the step, up to the rounding of perturbing in place, and the record has the reason.

        Args:
            key: the key of the step's directions.
            losses: the closure; it returns the losses of the minibatch, (examples,).
            watched: whether to measure the share of weights that move and the cosine with the intended step.
        """
        named = {CURRENT: losses} | ({WHOLE: self.whole.losses} if self.whole else {})
        return self._take(key, partial(self.space.losses, named), watched)

    def replay(self, record: Record) -> Taken:
        """Repeat a recorded step without a forward pass, to the bit.

        Raises:
            ValueError: the record is not one of this estimator at this step.
        """
        recorded = Recorded(record.losses, self.space)
        taken = self._take(record.key, recorded, False)
        recorded.require_all_told()
        self._require_same(taken.record, record)
        if taken.record.lr != record.lr:
            raise ValueError(
                f"step {record.step} had the learning rate {record.lr!r}, but the rule gives {taken.record.lr!r}"
            )
        again = taken.record._replace(seconds=record.seconds, minibatch=record.minibatch)
        return taken._replace(record=again)

    def recall(self, record: Record) -> Taken:
        """Tell the estimator the losses of a recorded step, and leave the weights and the rule's memory as they are:
        for the steps before a checkpoint, which brings both.

        Raises:
            ValueError: as for `replay`.
        """
        recorded, before = Recorded(record.losses), self.state
        outcome = self._told(record.key, recorded, record.lr, [])
        recorded.require_all_told()
        self._require_same(record._replace(checksum=outcome.checksum, skipped=outcome.reason), record)
        self.steps += 1
        return Taken(record, outcome.loss, outcome.clipped, self.estimator.report(before, self.state))

    def skip(self, key: int, losses: Sequence[float], reason: str) -> Taken:
        """Count a step that is not taken, for a reason that the losses did not tell; the weights do not change."""
        self.space.settle_()
        lr, step = self.rule.rate(self.memory), self.steps
        self.memory = self.rule.skip(self.memory)
        self.steps += 1
        return Taken(Record(step, key, tuple(losses), lr, skipped=reason), losses[0])

    def _require_same(self, repeated: Record, record: Record) -> None:
        if (repeated.checksum, bool(repeated.skipped)) != (record.checksum, bool(record.skipped)):
            raise ValueError(
                f"{self.identity} gives other coefficients for the recorded losses of step {record.step} than before: "
                "the estimator has changed since; replay with the version that took the steps"
            )

    def settle(self) -> None:
        """Flush the pending step, if there is one."""
        self.space.settle_()

    def reading(self) -> AbstractContextManager[None]:
        """Return the context in which evaluations read the weights as steps do."""
        return self.space.reading()

    def checkpoint_state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the state that a checkpoint holds in addition to the weights: tensors by name, and texts."""
        parts, tensors = state.split(state.plain((self.state, self.memory, self.space.snapshots)))
        passes = f"{self.forward_passes} {self.backward_passes}"
        return {STATE + name: value for name, value in tensors.items()}, {"state": json.dumps(parts), "passes": passes}

    def restore(self, tensors: Mapping[str, Tensor], texts: Mapping[str, str], step: int) -> None:
        """Resume at a step, from the state that `checkpoint_state` returned there.

        Raises:
            ValueError: it is not that of this estimator and rule.
        """
        held = {name.removeprefix(STATE): value for name, value in tensors.items()}
        self.state, self.memory, self.space.snapshots = state.restored(state.joined(json.loads(texts["state"]), held))
        self.forward_passes, self.backward_passes = map(int, texts["passes"].split())
        self.steps = step

    def share(self, shared: Shared) -> None:
        """Evaluate the points of every step together with other ranks from now on."""
        self.space.share(shared)

    def about(self) -> dict[str, Any]:
        """Return the entries of the stepper in the header of a journal."""
        multipliers = dict(self.rule.groups.multipliers)
        about = {"estimator": self.identity, "engine": self.engine, "layout": describe(self.space.layout)}
        return about | ({"multipliers": multipliers} if multipliers else {})

    def _take(self, key: int, answer: Callable[[Plan], Tensor], watched: bool) -> Taken:
        if self.touched is not None:
            self.space.restrict(self.touched(self.steps))
        lr, losses, before = self.rule.rate(self.memory), list[float](), self.state
        # Perturbing in place rounds too: then entries are sampled before the losses, to measure the whole step.
        walks = isinstance(self.rule, SGD) and self.space.engine.in_place
        sampled = sample(self.space) if watched and walks else None
        outcome, motion = self._told(key, answer, lr, losses), None
        if outcome.reason:
            self.space.settle_()  # no step follows that would restore the perturbed weights
            self.memory = self.rule.skip(self.memory)
        else:
            motion = self._apply(outcome.gradient, lr, watched, sampled)
        record = Record(self.steps, key, tuple(losses), lr, checksum=outcome.checksum, skipped=outcome.reason)
        self.steps += 1
        return Taken(record, outcome.loss, outcome.clipped, self.estimator.report(before, self.state), motion)

    def _told(self, key: int, answer: Callable[[Plan], Tensor], lr: float, losses: list[float]) -> Told:
        """The estimator's result from the answers; the answers are also appended to `losses`."""

        def answered(plan: Plan) -> Tensor:
            answers = answer(plan)
            self.forward_passes += plan.queries * (self.whole.passes if self.whole and plan.closure == WHOLE else 1)
            losses.extend(plan.distinct(answers))
            return answers

        try:
            estimate = converse(self.space, self.estimator, answered, key, self.state)
        except FloatingPointError as error:
            return Told(Combination(), math.nan, 0, str(error)[:REASON])
        self.state, gradient, clipped = estimate.state, estimate.gradient, 0
        if self.most is not None:
            gradient, clipped = clip(gradient, self.most)
        reason = self._unfit(losses, gradient, lr)[:REASON]
        seen = estimate.losses[estimate.losses.isfinite()] if self.estimator.bounded else estimate.losses
        return Told(gradient, float(seen.mean()) if len(seen) else math.nan, clipped, reason)

    def _apply(
        self, gradient: Combination, lr: float, watched: bool, sampled: Mapping[str, Tensor] | None
    ) -> Motion | None:
        """Apply the rule; if an SGD step is watched, measure how much of it remains after rounding."""
        shrink, motion = lr * self.rule.weight_decay, None
        if watched and sampled is None and isinstance(self.rule, SGD):
            motion = self.space.motion(gradient, -lr, shrink, self.rule.groups)
        self.memory = self.rule.apply_(self.space, gradient, self.memory)
        if sampled is not None:
            motion = measure(self.space, sampled, gradient, lr, shrink, self.rule.groups)
        return motion

    def _unfit(self, losses: Sequence[float], gradient: Combination, lr: float) -> str:
        """The reason why the step would make a weight infinite or NaN; empty if it would not."""
        if not self.estimator.bounded and not all(map(math.isfinite, losses)):
            return f"losses {losses[:8]}: lower --lr or --epsilon"
        lr *= self._fastest
        if lr * self.rule.weight_decay > 1:
            return f"lr {lr:g} times weight decay {self.rule.weight_decay:g} is above 1: lower either"
        largest = float(gradient.coefficients.abs().max()) * lr if gradient.terms else 0.0
        if math.isnan(largest):
            return f"coefficients of losses {losses[:8]} are not finite: lower --lr or --epsilon"
        return "" if largest < self._room else f"a step of {largest:g} overflows the weights: lower --lr"
