"""ZerothOrder: a torch.optim.Optimizer whose closure is only ever evaluated."""

import math
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zobench.distributed import ALONE, AUTO, DATA, TIMEOUT, Division, Ranks, checksum, several
from zobench.estimator import Estimator
from zobench.forward_only import Closure, ForwardOnly
from zobench.groups import UNIFORM, Groups
from zobench.layout import CPU
from zobench.numbers import count, real
from zobench.optim_watch import Watch, drawn_since, randomness
from zobench.query import query
from zobench.random import streams
from zobench.random.keys import derive
from zobench.rule import SGD, UpdateRule
from zobench.rule import table as rules
from zobench.rule.schedule import NOT_NEGATIVE
from zobench.space import ParameterSpace, Shared, require_reproducible, require_resolved
from zobench.space.closure import evaluate
from zobench.state import plain, restored

SHARED = "zeroth_order"  # under this key of `state` lies what belongs to no parameter
SKIPS = 10
RATES = ("lr", "weight_decay")
COMPARED = 100
"""Steps between two comparisons of the weights of all processes."""

Signature = list[tuple[Any, ...]]
Rates = list[tuple[float, float]]
MakeRule = Callable[..., UpdateRule]
NO_GROUPS: tuple[Rates, Groups] = ([], UNIFORM)


class ZerothOrder(torch.optim.Optimizer):
    """x <- (1 - lr wd) x - lr g, with g what the estimator makes of the losses that step(closure) evaluates; or the
    step of another update rule along g.

    `rule` is a spelling such as "adam:beta1=0.9", or what makes an UpdateRule of lr, weight_decay and groups, such as
    `functools.partial(zobench.methods.rule, "zo-adam")`. What it holds is in `state_dict`; where other parameters move
    than before, it starts anew with a RuntimeWarning.

    Step k draws under the key derive(seed, k), and with named parameters takes the step of `ModuleSpace`, `SGD` and
    `keyed(batches, seed)` to the bit; without names the directions are keyed by position ("0", "1", ...). Groups have
    an `lr` and a `weight_decay` of their own: decoupled, and for every parameter of the group, as torch's optimizers do
    (SGD of zobench spares biases and norms). They share one estimate, and so the loss evaluations: as many as the
    estimator says, and 2 more before the first step, which must agree.

    16-bit parameters take the step of `InForwardSpace` instead: in place the way to the points and back would round
    them further than the step moves them. For this they are copied, which costs their size once more; of others nothing
    is kept, except copies and directions of up to 16 MiB each. With rounding="stochastic" steps of bfloat16 parameters
    are rounded at random, without bias. A RuntimeWarning tells, once, that rounding leaves less than half of a step's
    direction; that losses do not depend on the parameters; that running statistics move at perturbed weights.

    A group whose rate is 0 is neither perturbed nor moved; a step in which all are 0 evaluates the loss once and asks
    the estimator nothing. Frozen parameters stay as they are, whatever their dtype; unfreezing, add_param_group and
    moving the module are seen at the next step. `state_dict` holds the step, the seed, the rounding, names and shapes
    of the parameters and the estimator's state: training goes on to the bit, also from a file read with
    weights_only=True. There are no gradients: zero_grad does nothing useful, GradScaler is not needed.

    Where torchrun has started several processes, each with its own model and optimizer, they take one step together,
    to the bit: they exchange losses, a few numbers, and no parameter. By default the closure of a process returns the
    loss of its own part of the minibatch, as with DistributedDataParallel (which is not needed): the loss of the step
    is the mean of what all return. With ranks="probes" all closures are of the same minibatch, and each process
    evaluates a part of the estimator's points; "2x3" does both (`zobench.distributed.Division`), "alone" neither.
    Before the first step and every 100 the parameters are compared by a checksum.

    Raises:
        ValueError: lr or weight_decay is negative, epsilon is below the resolution of the parameters, ranks does not
            suit the number of processes, or as for ParameterSpace, except that a trainable parameter is only missed by
            the step.
        TypeError: the estimator is no Estimator, its state is none that a checkpoint holds, or the rule is none.
    """

    def __init__(
        self,
        params: Iterable[Any],
        estimator: Estimator,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        seed: int = 0,
        rounding: str = "nearest",
        rule: str | MakeRule = "sgd",
        ranks: str = AUTO,
        rank_timeout: float = TIMEOUT,
    ) -> None:
        if not isinstance(estimator, Estimator):
            raise TypeError(f"estimator is {estimator!r}: give an estimator, such as zobench.methods.make('mezo')")
        self.estimator = estimator
        self._make: MakeRule = partial(rules.parse, rule) if isinstance(rule, str) else rule
        made = self._make(lr=1.0, weight_decay=0.0, groups=UNIFORM)
        if not isinstance(made, UpdateRule):
            raise TypeError(f"rule is {rule!r}, which makes {made!r}: give what makes a zobench.UpdateRule")
        self._together = ranks, rank_timeout
        self._start()
        super().__init__(params, {"lr": _number("lr", lr), "weight_decay": _number("weight_decay", weight_decay)})
        names = {"rounding": rounding, "estimator": repr(estimator), "rule": repr(made), "stream": streams.NAME}
        counts = dict.fromkeys(("step", "evaluations", "skipped", "in_a_row"), 0)
        self._remember({"seed": count("seed", seed, least=None), **names, "memory": plain(estimator.init()), **counts})
        if any(p.requires_grad for group in self.param_groups for p in group["params"]):
            self._refresh()

    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """Take one step and return the mean loss of the points looked at, float64 ().

        The closure returns the loss (per-example losses are averaged) of one fixed minibatch and runs without gradients
        several times; if it calls backward, that does nothing. Derivatives by its inputs work. A step whose losses or
        coefficients are not finite is skipped with a RuntimeWarning: the parameters are as they were, up to the
        rounding of the way back.

        Raises:
            ValueError: no closure; or it does not return the same loss twice (dropout, a minibatch drawn inside), which
                is checked before the first step, and when a closure begins to draw random numbers or a step is skipped;
                or no parameter is trainable.
            TypeError: the closure is no function, or returns no real number.
            RuntimeError: another thread, or the closure, is in a step of this optimizer.
            FloatingPointError: the tenth step in a row that is not finite.
            RankError: another process has ended, hangs, or has other parameters.
        """
        if closure is None:
            raise ValueError("a zeroth-order step evaluates the loss: call step(closure), closure() returning the loss")
        if not callable(closure):
            raise TypeError(
                f"the closure is a {type(closure).__name__}: give a function that computes the loss, as in "
                "step(lambda: loss(model(inputs), targets))"
            )
        if not self._stepping.acquire(blocking=False):
            raise RuntimeError(
                "another thread, or the closure itself, is in a step of this optimizer: give each thread a model and "
                "an optimizer of its own, or take one step after the other"
            )
        try:
            return self._step(closure)
        finally:
            self._stepping.release()

    def _step(self, closure: Closure) -> Tensor:
        rates = self._rates()
        shared, space = self._shared, self.space
        rule = self._rule(rates)
        f = partial(self._forward_only, closure, [p for group in self.param_groups for p in group["params"]])
        if not any(self._moving()):
            loss = space.shared.mean(f) if space.shared else evaluate(f)
            self.loss = torch.tensor(loss, dtype=torch.float64, device=CPU)
            self._remember({**shared, "step": shared["step"] + 1, "evaluations": shared["evaluations"] + 1})
            return self.loss
        if space.shared and (shared["step"] % COMPARED == 0 or not self._compared):
            self._compared = True
            parameters = (p for group in self.param_groups for p in group["params"])
            space.shared.ranks.require_same(
                f"checksum of the parameters at step {shared['step']}", checksum(parameters)
            )
        estimate = self._query(space, f, derive(shared["seed"], shared["step"]))
        losses, evaluations = estimate.losses, shared["evaluations"] + estimate.queries
        after = {"step": shared["step"] + 1, "evaluations": evaluations, "memory": plain(estimate.state)}
        if space.snapshots:
            after["kept"] = space.snapshots
        self.loss = losses.mean()
        self._watch.see_losses(losses)
        if estimate.gradient.finite and (self.estimator.bounded or bool(losses.isfinite().all())):
            if space.narrow and self._at_full_rate() and isinstance(rule, SGD):
                fastest = [float(group["lr"]) for group in self.param_groups]
                self._watch.see_motion(space, estimate.gradient, rule, fastest)
            after |= self._held(rule.apply_(space, estimate.gradient, self._memory(rule, space)), space)
            self._remember({**shared, **after, "in_a_row": 0})
        else:
            space.settle_()
            after |= self._held(rule.skip(self._memory(rule, space)), space)
            if not shared["in_a_row"]:
                require_reproducible(f)
            skipped = {"skipped": shared["skipped"] + 1, "in_a_row": shared["in_a_row"] + 1}
            self._remember({**shared, **after, **skipped})
            self._tell_skipped(losses)
        return self.loss

    def _query(self, space: ParameterSpace, f: Closure, key: int) -> Any:
        """Ask the estimator; a closure that draws random numbers for the first time is called twice more."""
        before = randomness(space)
        with self._watch.of_modules():
            estimate = query(space, self.estimator, f, key, self.memory)
        if not self._watch.trusts_randomness and drawn_since(before, space):
            space.settle_()
            require_reproducible(f)
            self._watch.trusts_randomness = True
        return estimate

    def _memory(self, rule: UpdateRule, space: ParameterSpace) -> Any:
        """What the rule holds from the steps before, if the same parameters move."""
        before = self._shared.get("segments")
        if before == [segment.name for segment in space.layout.segments]:
            return restored(self._shared["held"])
        if before is not None and rule.held:
            warnings.warn(
                f"other parameters move than at the last step: what {type(rule).__name__} holds of earlier steps "
                "starts anew",
                RuntimeWarning,
                stacklevel=5,
            )
        return rule.init(space)

    def _held(self, memory: Any, space: ParameterSpace) -> dict[str, Any]:
        return {"held": plain(memory), "segments": [segment.name for segment in space.layout.segments]}

    @property
    def memory(self) -> Any:
        """The estimator's state."""
        return restored(self._shared["memory"])

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
        """The space of the trainable parameters as they are now, without those of groups whose rate is 0, unless no
        other is left.
        """
        return self._refresh()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group: a dict of "params" (parameters, or pairs of name and parameter), and "lr" or "weight_decay"
        where they differ from the defaults.

        Raises:
            ValueError: lr or weight_decay is negative, or as torch's optimizers.
        """
        param_group = {name: _number(name, v) if name in self.defaults else v for name, v in param_group.items()}
        given = {**self.defaults, **param_group}
        for name in RATES:
            _value(name, given[name])  # which refuses bad ones
        params = param_group["params"]
        if not isinstance(params, Tensor | set):
            params = list(params)
            if params and all(isinstance(pair, tuple) for pair in params):  # which torch knows from 2.6 on
                names, params = map(list, zip(*params, strict=True))
                param_group = {**param_group, "param_names": list(map(str, names))}  # NumPy's texts are no Python's
        super().add_param_group({**param_group, "params": params})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken. A state of a version that named no stream of random numbers is taken
        with a RuntimeWarning.

        Raises:
            ValueError: it is not that of a ZerothOrder, or of another estimator, or of another stream of random
                numbers, or of parameters of other names or shapes. Another order in a group does not matter where they
                are named: the group takes that of the state.
        """
        shared = _shared_of(state_dict)
        if shared["estimator"] != repr(self.estimator):
            raise ValueError(
                f"the state is that of {shared['estimator']}, the optimizer has {self.estimator!r}: give it the former"
            )
        own = self._shared["rule"]
        if shared.get("rule", own) != own:
            given = shared["rule"]
            raise ValueError(f"the state is that of the rule {given}, the optimizer has {own}: give it the former")
        _compare_streams(shared.get("stream"))
        self._match(state_dict["param_groups"], shared.get("parameters"))
        super().load_state_dict(state_dict)
        kept = {name: [each.clone() for each in tensors] for name, tensors in shared.get("kept", {}).items()}
        again = {"rounding": "nearest", "rule": own, **shared, "stream": streams.NAME}
        self._remember({**again, **({"kept": kept} if kept else {})})
        if self._space is not None:
            self._space.snapshots = kept

    def state_dict(self) -> dict[str, Any]:
        """Return the state of training, in types that torch.load reads with weights_only=True."""
        parameters = [[(name, tuple(p.shape)) for name, p in group] for group in self._named()]
        self._remember({**self._shared, "parameters": parameters})
        for group in self.param_groups:  # a scheduler may have put NumPy's numbers there
            group.update({name: value.item() for name, value in group.items() if isinstance(value, np.generic)})
        return super().state_dict()

    def _match(self, groups: Sequence[dict[str, Any]], parameters: Sequence[Any] | None) -> None:
        """Put each group in the order of the state's, or say how they differ; torch itself compares their sizes."""
        saved = parameters or _named(groups)
        if [len(group) for group in saved] != [len(group["params"]) for group in self.param_groups]:
            return
        ours = [dict(group) for group in self._named()]
        for number, (theirs, group) in enumerate(zip(saved, ours, strict=True)):
            _require_equal(number, dict(theirs), {name: tuple(p.shape) for name, p in group.items()})
        for theirs, own, named in zip(saved, self.param_groups, ours, strict=True):
            own["params"] = [named[name] for name, _ in theirs]
            if own.get("param_names"):
                own["param_names"] = [name for name, _ in theirs]

    def __getstate__(self) -> dict[str, Any]:
        own = {"estimator": self.estimator, "_make": self._make, "_together": self._together}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._start()

    _compared = False
    """Whether the parameters of several processes were compared."""
    loss: Tensor = torch.tensor(math.nan, dtype=torch.float64, device=CPU)

    def _start(self) -> None:
        """Forget what is known of the parameters and the closure."""
        self._space: ParameterSpace | None = None
        self._seen: Signature | None = None
        self._groups = NO_GROUPS
        self._forward_only, self._watch = ForwardOnly(), Watch()
        self._stepping = threading.Lock()
        self._shared_with: Shared | None = None
        self._compared = False

    def _ranks(self) -> Shared | None:
        """The processes that take the steps together, if there are several."""
        division, timeout = self._together
        if self._shared_with is None and division != ALONE and several():
            ranks = Ranks(timeout)
            division = DATA if division == AUTO else division
            self._shared_with = Shared(ranks, Division.parse(division, ranks.world))
        return self._shared_with

    @property
    def _shared(self) -> dict[str, Any]:
        shared: dict[str, Any] = self.state[SHARED]  # type: ignore[index]
        return shared

    def _remember(self, shared: dict[str, Any]) -> None:
        self.state[SHARED] = shared  # type: ignore[index]

    def _named(self) -> list[list[tuple[str, nn.Parameter]]]:
        """The groups' parameters under their names, or their positions."""
        named = zip(_named(self.param_groups), self.param_groups, strict=True)
        return [[(name, p) for (name, _), p in zip(names, g["params"], strict=True)] for names, g in named]

    def _moving(self) -> list[bool]:
        """Whether each group has what a step moves: a rate that is not 0, and a trainable parameter."""
        return [float(g["lr"]) != 0 and any(p.requires_grad for p in g["params"]) for g in self.param_groups]

    def _refresh(self) -> ParameterSpace:
        moving, rounding = self._moving(), self._shared["rounding"]
        if not any(moving):
            moving = [True] * len(moving)
        parameters = [
            (p, is_moving) for is_moving, g in zip(moving, self.param_groups, strict=True) for p in g["params"]
        ]
        signature: Signature = [
            (id(p), p.requires_grad, p.data_ptr(), p.dtype, p.shape, p.stride(), moves) for p, moves in parameters
        ]
        if self._space is None or signature != self._seen:
            groups = [group if moves else [] for group, moves in zip(self._named(), moving, strict=True)]
            self._space, self._seen, self._groups = ParameterSpace(groups, rounding), signature, NO_GROUPS
            self._space.snapshots = self._shared.get("kept", {})
            self._space.share(self._ranks())
            require_resolved(self._space, self.estimator.perturbed_by)
        return self._space

    def _rates(self) -> Rates:
        """The learning rate and the weight decay of each group."""
        return [(_value("lr", g["lr"]), _value("weight_decay", g["weight_decay"])) for g in self.param_groups]

    def _rule(self, pairs: Rates) -> UpdateRule:
        """The rule of the space's groups at these rates: one for all where they are alike, else multiples of 1."""
        alike = len(set(pairs)) == 1
        multipliers = [(1.0, 1.0)] * len(pairs) if alike else pairs
        known, groups = self._groups
        if known != multipliers:
            rates, decays = {}, {}
            for pair, members in zip(multipliers, self._named(), strict=True):
                for name, _ in members:
                    rates[name], decays[name] = pair
            groups = Groups(rates, decays)
            self._groups = multipliers, groups
        lr, decay = pairs[0] if alike else (1.0, 1.0)
        return self._make(lr=lr, weight_decay=decay, groups=groups)

    def _at_full_rate(self) -> bool:
        """Whether a group's rate is at least half of what its scheduler began from: not so early in a warm-up."""
        return any(0 < float(g.get("initial_lr", g["lr"])) <= 2 * float(g["lr"]) for g in self.param_groups)

    def _tell_skipped(self, losses: Tensor) -> None:
        cause = f"the losses {losses.flatten().tolist()[:4]} of step {self._shared['step'] - 1} or their differences"
        advice = "lower the learning rate or epsilon, or use a wider dtype"
        if self._shared["in_a_row"] >= SKIPS:
            raise FloatingPointError(f"{cause} are not finite, as in the {SKIPS - 1} steps before: {advice}")
        warnings.warn(f"{cause} are not finite: the step is skipped; {advice}", RuntimeWarning, stacklevel=4)


def _value(name: str, number: Any) -> float:
    """The float of a number, or of a tensor that holds one."""
    number = number.item() if isinstance(number, Tensor) and number.numel() == 1 else number
    return real(name, number, NOT_NEGATIVE, lambda value: value >= 0)


def _number(name: str, value: Any) -> Any:
    """A float, which a file of weights only can hold; a tensor stays one."""
    return value if isinstance(value, Tensor) else _value(name, value)


def _shared_of(state_dict: Any) -> dict[str, Any]:
    """What belongs to no parameter in a state, or ValueError if it is the state of something else."""
    state = state_dict.get("state") if isinstance(state_dict, dict) else None
    shared = state.get(SHARED) if isinstance(state, dict) else None
    if not isinstance(shared, dict):
        raise ValueError("the state is not that of a ZerothOrder: give what its state_dict() returned")
    return shared


def _compare_streams(told: Any) -> None:
    """Raise ValueError if a state is of another stream of random numbers; warn if it names none."""
    if told == streams.NAME:
        return
    if told is None:
        warnings.warn(
            "the state is of an earlier version of zobench, which drew directions from another stream of random "
            f"numbers than {streams.NAME!r}: training continues, with other directions than in that version",
            RuntimeWarning,
            stacklevel=3,
        )
        return
    raise ValueError(
        f"the state is of the stream of random numbers {told!r:.80}, and this version of zobench draws "
        f"{streams.NAME!r}: load it with the version that saved it, or begin with a new optimizer and the same weights"
    )


def _named(groups: Sequence[dict[str, Any]]) -> list[list[tuple[str, None]]]:
    """Names of the parameters in each group, or their positions; shapes are not known."""
    named, position = [], 0
    for group in groups:
        places = range(position, position + len(group["params"]))
        named.append([(name, None) for name in group.get("param_names") or map(str, places)])
        position += len(places)
    return named


def _require_equal(number: int, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Raise ValueError if a group of the state has other names or shapes than the optimizer's."""
    if theirs.keys() != ours.keys():
        left, new = ([name for name in one if name not in other][:3] for one, other in ((theirs, ours), (ours, theirs)))
        raise ValueError(
            f"group {number} of the state has the parameters {left} where the optimizer has {new}: names, or positions "
            "of parameters without names, key the directions; give the optimizer the same parameters in the same way, "
            "model.named_parameters() or model.parameters()"
        )
    for name, shape in theirs.items():
        if shape is not None and tuple(shape) != ours[name]:
            raise ValueError(f"parameter {name!r} of the state is {tuple(shape)}, the optimizer's is {ours[name]}")
