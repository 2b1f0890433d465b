"""ZerothOrder: a torch.optim.Optimizer whose closure is only ever evaluated."""

import math
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zobench import state as states
from zobench.estimator import Estimator
from zobench.groups import Groups
from zobench.keys import derive
from zobench.query import query
from zobench.rule import SGD
from zobench.space import ParameterSpace, require_resolved

SHARED = "zeroth_order"  # under this key of `state` lies what belongs to no parameter
SKIPS = 10

Closure = Callable[[], Any]
Signature = list[tuple[Any, ...]]


class ZerothOrder(torch.optim.Optimizer):
    """x <- (1 - lr wd) x - lr g, with g what the estimator makes of the losses that step(closure) evaluates.

    Step k draws under the key derive(seed, k), and with named parameters takes the step of `ModuleSpace`, `SGD` and
    `keyed(batches, seed)` to the bit; without names the directions are keyed by position ("0", "1", ...). Groups have
    an `lr` and a `weight_decay` of their own: decoupled, and for every parameter of the group, as torch's optimizers do
    (SGD of zobench spares biases and norms). They share one estimate, and so the loss evaluations: as many as the
    estimator says, and 2 more before the first step, which must agree. Nothing of the size of the parameters is kept,
    except up to 16 MiB of directions.

    Frozen parameters stay as they are; unfreezing, add_param_group and moving the module are seen at the next step.
    `state_dict` holds the step, the seed and the estimator's state: training goes on to the bit, also from a file read
    with weights_only=True. There are no gradients: zero_grad does nothing useful, GradScaler is not needed.

    Raises:
        ValueError: lr or weight_decay is negative, epsilon is below the resolution of the parameters, or as for
            ParameterSpace.
        TypeError: the estimator is no Estimator.
    """

    def __init__(
        self, params: Iterable[Any], estimator: Estimator, lr: float = 1e-3, weight_decay: float = 0.0, seed: int = 0
    ) -> None:
        if not isinstance(estimator, Estimator):
            raise TypeError(f"estimator is {estimator!r}: give one, such as zobench.methods.make('mezo')")
        self.estimator = estimator
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        counts = dict.fromkeys(("step", "evaluations", "skipped", "in_a_row"), 0)
        names = {"seed": seed, "estimator": repr(estimator), "memory": states.plain(estimator.init())}
        self._remember({**names, **counts})
        self._refresh()

    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """Take one step and return the mean loss of the points looked at, float64 ().

        The closure returns the loss (per-example losses are averaged) of one fixed minibatch and runs without gradients
        several times; if it calls backward, that does nothing. A step whose losses or coefficients are not finite is
        skipped with a RuntimeWarning: the parameters are as they were, up to the rounding of the way back.

        Raises:
            ValueError: no closure; or it does not return the same loss twice (dropout, a minibatch drawn inside).
            FloatingPointError: the tenth step in a row that is not finite.
        """
        if closure is None:
            raise ValueError("a zeroth-order step evaluates the loss: call step(closure), closure() returning the loss")
        return self._step(closure)

    def _step(self, closure: Closure) -> Tensor:
        shared, space, rule = self._shared, self.space, self._rule()
        key = derive(shared["seed"], shared["step"])
        told = query(space, self.estimator, partial(self._forward, closure), key, self.memory)
        losses, evaluations = told.losses, shared["evaluations"] + told.queries
        after = {"step": shared["step"] + 1, "evaluations": evaluations, "memory": states.plain(told.state)}
        self.loss = losses.mean()
        if told.gradient.finite and bool(losses.isfinite().all()):
            rule.apply_(space, told.gradient, 0)
            self._remember({**shared, **after, "in_a_row": 0})
        else:
            space.settle_()
            skipped = {"skipped": shared["skipped"] + 1, "in_a_row": shared["in_a_row"] + 1}
            self._remember({**shared, **after, **skipped})
            self._tell_skipped(losses)
        return self.loss

    @property
    def memory(self) -> Any:
        """The estimator's state."""
        return states.restored(self._shared["memory"])

    @property
    def evaluations(self) -> int:
        """Loss evaluations of all steps, without those that check that the closure is reproducible."""
        return int(self._shared["evaluations"])

    @property
    def skipped(self) -> int:
        """Steps that were skipped, since a loss or a coefficient was not finite."""
        return int(self._shared["skipped"])

    @property
    def space(self) -> ParameterSpace:
        """The space of the trainable parameters as they are now."""
        return self._refresh()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group: a dict of "params" (parameters, or pairs of name and parameter), and "lr" or "weight_decay"
        where they differ from the defaults.

        Raises:
            ValueError: lr or weight_decay is negative, or as torch's optimizers.
        """
        given = {**self.defaults, **param_group}
        SGD(float(given["lr"]), float(given["weight_decay"]))  # which refuses bad ones
        params = param_group["params"]
        if not isinstance(params, Tensor | set):
            params = list(params)
            if params and all(isinstance(pair, tuple) for pair in params):  # which torch knows from 2.6 on
                names, params = map(list, zip(*params, strict=True))
                param_group = {**param_group, "param_names": names}
        super().add_param_group({**param_group, "params": params})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken.

        Raises:
            ValueError: it is that of another estimator, or the groups differ.
        """
        shared = state_dict["state"].get(SHARED)
        if shared is None or shared["estimator"] != repr(self.estimator):
            whose = "no ZerothOrder" if shared is None else shared["estimator"]
            raise ValueError(f"the state is that of {whose}, the optimizer has {self.estimator!r}: give it that one")
        super().load_state_dict(state_dict)
        self._remember(dict(shared))

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "estimator": self.estimator}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._space = None

    loss: Tensor = torch.tensor(math.nan)
    _space: ParameterSpace | None = None
    _seen: Signature | None = None
    _ignoring_backward = False

    @property
    def _shared(self) -> dict[str, Any]:
        shared: dict[str, Any] = self.state[SHARED]  # type: ignore[index]
        return shared

    def _remember(self, shared: dict[str, Any]) -> None:
        self.state[SHARED] = shared  # type: ignore[index]

    def _named(self) -> list[list[tuple[str, nn.Parameter]]]:
        """The groups' parameters under their names, or their positions."""
        groups, position = [], 0
        for group in self.param_groups:
            places = range(position, position + len(group["params"]))
            names = group.get("param_names") or map(str, places)
            groups.append(list(zip(names, group["params"], strict=True)))
            position += len(places)
        return groups

    def _refresh(self) -> ParameterSpace:
        parameters = [p for group in self.param_groups for p in group["params"]]
        signature = [(id(p), p.requires_grad, p.data_ptr(), p.dtype, p.shape) for p in parameters]
        if self._space is None or signature != self._seen:
            self._space, self._seen = ParameterSpace(self._named()), signature
            require_resolved(self._space, self.estimator.perturbed_by)
        return self._space

    def _rule(self) -> SGD:
        """The rule of the groups as they are now: one for all where they are alike, else multiples of 1."""
        pairs = {(float(group["lr"]), float(group["weight_decay"])) for group in self.param_groups}
        lr, decay = next(iter(pairs)) if len(pairs) == 1 else (1.0, 1.0)
        rates, decays = {}, {}
        for group, members in zip(self.param_groups, self._named(), strict=True):
            for name, _ in members:
                rates[name] = 1.0 if len(pairs) == 1 else float(group["lr"])
                decays[name] = 1.0 if len(pairs) == 1 else float(group["weight_decay"])
        return SGD(lr, decay, Groups(rates, decays))

    def _forward(self, closure: Closure) -> Any:
        """The closure's loss; one that calls backward is found out by torch's refusal, and called again."""
        if not self._ignoring_backward:
            try:
                return closure()
            except RuntimeError as error:
                if "does not require grad" not in str(error):
                    raise
                self._ignoring_backward = True
        with _NoBackward():
            return closure()

    def _tell_skipped(self, losses: Tensor) -> None:
        told = f"the losses {losses.flatten().tolist()[:4]} of step {self._shared['step'] - 1} or their differences"
        advice = "lower the learning rate or epsilon, or use a wider dtype"
        if self._shared["in_a_row"] >= SKIPS:
            raise FloatingPointError(f"{told} are not finite, as in the {SKIPS - 1} steps before: {advice}")
        warnings.warn(f"{told} are not finite: the step is skipped; {advice}", RuntimeWarning, stacklevel=4)


class _NoBackward(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        return None if func is Tensor.backward else func(*args, **(kwargs or {}))
