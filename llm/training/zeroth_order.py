"""The zeroth-order trainer: an estimator, a module space and SGD; forward passes only."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from llm.models import DTYPES
from llm.training.clipping import clip
from llm.training.realised import Realised, measure, sample
from zobench import SGD, AutoEpsilon, Combination, Estimator, InForwardSpace, ModuleSpace
from zobench.auto import Choice
from zobench.estimator import Told
from zobench.journal import Record
from zobench.naming import require_known
from zobench.plan import LOSSES, Plan
from zobench.rule import Schedule
from zobench.space import require_resolved

REASON = 300
LARGE = 10_000_000
"""Trainable weights from which a step costs less where they are displaced as they are read."""

ENGINES = {
    "plain": ModuleSpace,
    "in-forward": partial(InForwardSpace, deferred=True),
    "paired": partial(InForwardSpace, deferred=True, paired=True),
}


def chosen_engine(name: str, model: nn.Module) -> str:
    """Return the engine; "auto" is plain below ten million trainable weights, and above paired on a CPU, in-forward
    elsewhere.

    Raises:
        UnknownNameError: no such engine.
    """
    require_known(name, ("auto", *ENGINES), "engine")
    if name != "auto":
        return name
    trained = [p for p in model.parameters() if p.requires_grad]
    if sum(p.numel() for p in trained) < LARGE:
        return "plain"
    return "paired" if all(p.device.type == "cpu" for p in trained) else "in-forward"


def rounded(rounding: str, dtype: str) -> tuple[str, torch.dtype | None]:
    """Return how a space rounds steps and what its layers read: "master" holds float32 and reads the dtype."""
    return ("nearest", DTYPES[dtype]) if rounding == "master" else (rounding, None)


def require_rounding(engine: str, otherwise: bool) -> None:
    """Raise ValueError if an engine is to round at random, or to hold the weights in another dtype than is read, and
    cannot.
    """
    if engine == "plain" and otherwise:
        raise ValueError("the plain engine walks over the weights and rounds to the nearest: give --engine in-forward")


def make_space(
    model: nn.Module,
    engine: str,
    rounding: str,
    reads: torch.dtype | None,
    paces: Mapping[str, float] = MappingProxyType({}),
) -> ModuleSpace:
    """Return the space of an engine.

    Raises:
        ValueError: the plain engine is to round at random, or to hold the weights in another dtype than is read.
    """
    if engine != "plain":
        return ENGINES[engine](model, rounding=rounding, reads=reads, paces=paces)
    require_rounding(engine, rounding != "nearest" or reads is not None)
    return ModuleSpace(model, paces)


class ZerothOrder:
    """Takes steps on a model in place, and repeats those that a journal recorded.

    While `watched`, `realised` says what rounding left of the last step. `touched` gives the rows that the minibatch of
    a step reads: directions then live on these alone. `most` bounds projected gradients, see `clip`; `paces` are those
    of the space. A step may be owed: `settle` before the model is used elsewhere.

    Raises:
        UnknownNameError: no such engine or rounding.
        ValueError: epsilon is below the resolution of the weights, or the engine cannot round so.
    """

    def __init__(
        self,
        model: nn.Module,
        estimator: Estimator,
        rate: Schedule,
        weight_decay: float,
        engine: str = "plain",
        rounding: str = "nearest",
        reads: torch.dtype | None = None,
        touched: Callable[[int], Mapping[str, Sequence[int]]] | None = None,
        most: float | None = None,
        paces: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self.engine = chosen_engine(engine, model)
        self.estimator, self.space = estimator, make_space(model, self.engine, rounding, reads, paces)
        self.touched, self.most, self._fastest = touched, most, max((1.0, *paces.values()))
        require_resolved(self.space, estimator.perturbed_by)
        self.rule = SGD(rate, weight_decay)
        self._room = min(torch.finfo(p.dtype).max for p in model.parameters() if p.requires_grad) / 16
        self.memory, self.state = self.rule.init(self.space), estimator.init()
        self.identity = repr(estimator)
        self.forward_passes = self.backward_passes = 0
        self.watched = False
        self.realised: Realised | None = None

    @property
    def steps(self) -> int:
        """Steps taken, those that were skipped included."""
        return int(self.memory)

    def step(self, key: int, losses: Callable[[], Tensor]) -> Record:
        """Take one step and return its record: what `replay` needs, and the mean loss of the points looked at.

        Where a loss or a coefficient is not finite, or the step would overflow the weights' dtype, the step is skipped:
        the weights are those before it, up to the rounding of the walk to the points, and the record says why.
        """
        step, lr = self.steps, self.rule.rate(self.memory)
        self._restrict(step)
        walks = not isinstance(self.space, InForwardSpace)  # and rounds on its way
        before, self.realised = sample(self.space) if self.watched and walks else None, None
        probed: list[list[float]] = []
        told = self._ask(key, losses, probed)
        if isinstance(told, FloatingPointError):
            return self._skip(key, lr, told, math.nan, {"rounds": probed})
        self.state = told.state
        told = told if self.most is None else clip(told, self.most)
        seen, extra = told.info["losses"], {"choice": told.info["choice"]} if probed else None
        try:
            self._require_finite(seen, told, lr)
        except FloatingPointError as error:
            return self._skip(key, lr, error, float(seen.mean()), extra or {})
        assert told.gradient is not None  # _ask returns only then
        coefficients = tuple(told.info["coefficients"].tolist())
        shrink = lr * self.rule.weight_decay
        if self.watched and not walks:
            motion = self.space.motion(told.gradient, -lr, shrink)
            self.realised = Realised(motion.moved, motion.cosine)
        self.memory = self.rule.apply_(self.space, told.gradient, self.memory)
        if before is not None:
            self.realised = measure(self.space, before, told.gradient, lr, shrink)
        return Record(step, key, coefficients, lr, shrink, loss=float(seen.mean()), extra=extra)

    def settle(self) -> None:
        """Write the step that is owed, if one is."""
        self.space.settle_()

    def _restrict(self, step: int) -> None:
        if self.touched is not None:
            self.space.restrict(self.touched(step))

    def _ask(self, key: int, losses: Callable[[], Tensor], probed: list[list[float]]) -> Told | FloatingPointError:
        """What the estimator makes of the losses, or why its probe failed; `probed` gets the reaches of its rounds."""
        state = self.state
        while True:
            plan = self.estimator.ask(key, state)
            self.forward_passes += plan.queries
            if isinstance(self.estimator, AutoEpsilon) and self.estimator.due(state):
                probed.append(plan.offsets[0, ::2].tolist())
            seen = self.space.losses(losses, plan)
            try:
                told = self.estimator.tell(plan, seen, state)
            except FloatingPointError as error:
                return error
            if told.gradient is not None:
                return told
            state = told.state

    def _require_finite(self, seen: Tensor, told: Told, lr: float) -> None:
        """Raise FloatingPointError where a step would put something into the weights that is no number."""
        if not bool(seen.isfinite().all()):
            raise FloatingPointError(f"losses {seen.flatten().tolist()[:8]}: lower --lr or --epsilon")
        lr *= self._fastest
        largest = float(told.info["coefficients"].abs().max()) * lr
        if lr * self.rule.weight_decay > 1:
            raise FloatingPointError(
                f"lr {lr:g} times weight decay {self.rule.weight_decay:g} is above 1: lower either"
            )
        if not largest < self._room:
            raise FloatingPointError(f"a step of {largest:g} overflows the weights: lower --lr")

    def _skip(self, key: int, lr: float, error: Exception, loss: float, extra: dict[str, Any]) -> Record:
        self.space.settle_()
        record = Record(self.steps, key, (), lr, lr * self.rule.weight_decay, loss=loss, skipped=True)
        self.memory += 1
        return record._replace(extra={**extra, "reason": str(error)[:REASON]})

    def replay(self, records: Sequence[Record], first: int = 0) -> int:
        """Repeat recorded steps without a forward pass; return the number of the next step.

        Each walks to its points as it did then, so that the weights round as they did, and tells the estimator, so that
        its state goes on: the result is equal to the bit. The weights are taken to be those before step `first`: of the
        steps before it, only the estimator is told.

        Raises:
            ValueError: a record does not fit the estimator.
        """
        for record in records:
            if record.step >= first:
                self._restrict(record.step)
            self._repeat(record, walk=record.step >= first)
        return len(records)

    def _repeat(self, record: Record, walk: bool) -> None:
        extra = record.extra or {}
        if "choice" in extra:
            *numbers, rounds = extra["choice"]
            choice = Choice(*numbers, tuple(tuple(reaches) for reaches in rounds))
            self._probed(record.key, choice.rounds, walk)
            assert isinstance(self.estimator, AutoEpsilon)
            self.state = self.estimator.resumed(self.state.step, choice)
        if "rounds" in extra:  # the probe failed, and the state stayed
            self._probed(record.key, extra["rounds"], walk)
        else:
            self._told(record, walk)
        if walk and record.skipped:
            self.space.settle_()
        self.memory += 1

    def _told(self, record: Record, walk: bool) -> None:
        plan = self.estimator.ask(record.key, self.state)
        told = self.estimator.tell(plan, self._walk(record, plan, walk), self.state)
        assert told.gradient is not None  # one round
        self.state = told.state
        (term,) = told.gradient.terms
        if record.skipped or not walk:
            return
        coefficients = torch.tensor(record.coefficients, dtype=torch.float64)
        if coefficients.shape != term.coefficients.shape:
            raise ValueError(
                f"step {record.step} has {len(record.coefficients)} coefficients, {self.identity} gives "
                f"{term.coefficients.numel()}: the journal is of another estimator"
            )
        self.space.step_(Combination((term._replace(coefficients=coefficients),)), -record.lr, shrink=record.shrink)

    def _walk(self, record: Record, plan: Plan, walk: bool) -> Tensor:
        self.forward_passes += plan.queries
        walks = walk and plan.asks == LOSSES
        return self.space.losses(lambda: 0.0, plan) if walks else torch.zeros_like(plan.offsets)

    def _probed(self, key: int, rounds: Sequence[Sequence[float]], walk: bool) -> None:
        """Walk to the points of a recorded probe."""
        assert isinstance(self.estimator, AutoEpsilon)
        for reaches in rounds:
            plan = self.estimator.probe(key, reaches)
            self.forward_passes += plan.queries
            if walk:
                self.space.losses(lambda: 0.0, plan)
