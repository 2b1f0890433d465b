"""Epsilon and stencil that choose themselves, from losses along a few lines."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zobench.estimator import Estimate, Estimator, LineEstimator, More
from zobench.law import Gaussian, Law
from zobench.layout import CPU
from zobench.line_model import LineModel, log_grid, rounding_variance, significand
from zobench.numbers import count, real, store
from zobench.plan import LOSSES, Plan
from zobench.random.keys import derive
from zobench.random.streams import Shape
from zobench.stencil import CentralStencil, Stencil

RATIO, WIDEST = 4.0, 16.0  # between neighbouring reaches: to begin with, and at most
ROUNDS = 14
DOMINATES = 100.0  # truncation over noise variance at which the largest reach is large enough
ABOVE, BELOW = 3.0, 30.0  # how far beyond the choice the reaches must go; far below, the noise has nowhere to hide
LEAST, MOST = 1e-8, 1e3
POOLED_LINES = 64
EXPLAINED = 10.0  # standard deviations of rounding that may hide a difference
JUMPS, FEW_JUMPS, OVER_JUMPS = (
    16.0,
    4.0,
    64.0,
)  # times a plateau's reach losses change by few jumps; times that they must be seen
CHANCE = 3.0  # times what differences of a handful of lines show of noise
FADED = 1e-3  # of a difference at a smaller reach: no function of one length along the line falls so far


class _Window(NamedTuple):
    """The reaches (m,) that the model of the line fits, with their values (L, m, 2), and what bounds them: up to
    `floor` losses change by jumps, as at a 16th of it (or a quarter) those of most lines stand still, though their
    rounding would not hide a slope; from `ceiling` on their differences have faded, or are not finite. Where they have
    faded, noise has not: it is `loudest` at most.
    """

    reaches: tuple[float, ...]
    values: Tensor
    floor: float
    ceiling: float
    loudest: float = math.inf


class Choice(NamedTuple):
    """The result of a probe: epsilon = argmin of truncation(epsilon) / 2 + noise(epsilon), the index of the stencil,
    and the measurements behind the choice (nan where the loss was flat).

    `noise` is the standard deviation of one evaluation without rounding, `rounding` that of rounding; `slope` and
    `third` are root mean squares of D_1 and D_3 along the lines; `rounds` are the evaluated
    reaches, round by round.
    """

    epsilon: float
    stencil: int
    noise: float = math.nan
    rounding: float = math.nan
    slope: float = math.nan
    third: float = math.nan
    evaluations: int = 0
    rounds: tuple[tuple[float, ...], ...] = ()


class AutoState(NamedTuple):
    """The step, the choice in force (None before the first), and the probe under way: reaches and values (L, m, 2), and
    the reaches wanted next.
    """

    step: int = 0
    choice: Choice | None = None
    chosen_at: int = -1
    reaches: tuple[float, ...] = ()
    values: Tensor | None = None
    ceiling: float = MOST
    rounds: tuple[tuple[float, ...], ...] = ()
    wanted: tuple[float, ...] = ()


@dataclass(frozen=True)
class AutoEpsilon(Estimator):
    """A LineEstimator whose epsilon, and stencil among `stencils`, are chosen by a probe every `every` steps.

    A probe evaluates `lines` lines at ± a few reaches, `start` the middle of the first three, and adds reaches until
    truncation dominates at the largest and noise at the smallest that matters; LineModel says which epsilon has the
    least excess E[(coefficient - S D_1)^2], S = sum_k w_k r_k. Among stencils it takes the least (q E[D_1^2] + excess)
    / n, q = E S^2, at equal evaluations: the first gets n directions, the others as many as the same evaluations pay.
    Cost: about 12 `lines` evaluations a probe (at most 28), counted in Estimate.queries, and those of the estimator
    each step. In a batch one choice is made from up to 64 of all its lines.

    Probes use independent directions of the law's kind. Reaches with losses that are not finite bound the
    choice from above, and so do, with a RuntimeWarning, reaches at which differences have faded to a thousandth (a
    peak, or a well, that is narrower). A reach at which losses of most lines stand still, more than the rounding of
    losses explains (inputs or weights are rounded), bounds it from below, with a RuntimeWarning: by 16 times itself, or
    by 4 times where truncation dominates there. Where fewer than two reaches are left, as for a loss that is equal
    everywhere, the choice is `start`, with a RuntimeWarning.

    Losses along the probe's lines say nothing of other directions (a third derivative along one coordinate of many),
    and nothing of a structure that is much narrower than the smallest reach on a smooth loss: the choice is as if there
    were none, without a warning. Give more `lines`, or a smaller `start`. In many dimensions jumps of rounded inputs
    may pass for noise, without a warning too.

    Raises:
        ValueError: a stencil is not symmetric (its even part is not modelled) or has no epsilon, or a number is out of
            range.
    """

    law: Law = field(default_factory=Gaussian)
    stencils: tuple[Stencil, ...] = (CentralStencil(),)
    n: int = 1
    every: int = 1000
    lines: int = 5
    start: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("n", "every", "lines"):
            store(self, **{name: count(name, getattr(self, name))})
        advice = "give the displacement at which the first probe starts, such as 1e-3"
        start = real("start", self.start, advice, lambda e: RATIO * LEAST < e < MOST / RATIO)
        store(self, start=start)
        if not self.stencils:
            raise ValueError("stencils is empty: give at least one, such as (CentralStencil(),)")
        for stencil in self.stencils:
            if stencil.asks != LOSSES:
                raise ValueError(f"{stencil!r} perturbs nothing, so that there is no epsilon to choose: leave it out")
            rule = stencil.quadrature(4)
            if max(float(rule.power_sums(j).abs().max()) for j in (0, 2)) > 1e-9:
                raise ValueError(f"{stencil!r} is not symmetric: its even part is not modelled; give pairs of ± nodes")
            LineEstimator(self.law, stencil, self.start, self.n)

    def init(self) -> AutoState:
        """Return the state before the first step: nothing chosen."""
        return AutoState()

    @property
    def evaluations(self) -> int | None:
        """Loss evaluations of a step with the first stencil, to which the others are fitted; a probe adds its own."""
        return self.at(Choice(self.start, 0)).evaluations

    def at(self, choice: Choice) -> LineEstimator:
        """Return the estimator of a choice: what theory is asked about."""
        first, stencil = self.stencils[0], self.stencils[choice.stencil]
        n = self.n if choice.stencil == 0 else max(1, self.n * _cost(first) // _cost(stencil))
        return LineEstimator(self.law, stencil, choice.epsilon, n)

    def due(self, state: AutoState) -> bool:
        """Return whether the next plan is one of a probe."""
        return state.choice is None or (state.step % self.every == 0 and state.chosen_at != state.step)

    def report(self, before: AutoState, after: AutoState) -> dict[str, Any]:
        """Return the epsilon and the choice, of a step that chose."""
        if after.choice is None or after.choice is before.choice:
            return {}
        return {"epsilon": after.choice.epsilon, "choice": list(after.choice)}

    def ask(self, key: int, state: AutoState, batch: Shape = ()) -> Plan:
        """Return the plan of the probe's next reaches, or of the estimator."""
        if not self.due(state):
            assert state.choice is not None
            return self.at(state.choice).ask(key, (), batch)
        return self.probe(key, state.wanted or self._first(state), batch)

    def probe(self, key: int, reaches: Sequence[float], batch: Shape = ()) -> Plan:
        """Return the plan of one round of a probe: ± each reach, along the same lines for all rounds under a key."""
        wanted = torch.tensor(reaches, dtype=torch.float64, device=CPU)
        offsets = torch.stack((wanted, -wanted), -1).flatten().expand(*batch, self.lines, -1)
        return Plan(self.law.independent, derive(key, "probe"), offsets, torch.zeros_like(offsets))

    def tell(self, plan: Plan, losses: Tensor, state: AutoState) -> Estimate | More:
        """Return the estimate, whose state has the choice it was made with; or ask for more, while a probe is under
        way.
        """
        if not self.due(state):
            assert state.choice is not None
            return replace(self.at(state.choice).tell(plan, losses, ()), state=state._replace(step=state.step + 1))
        state = self._extended(state, losses.reshape(-1, losses.shape[-1] // 2, 2))
        window, model = _fitted(state)
        wanted = tuple(map(_short, self._next(state, window, model)))
        if wanted:
            return More(state._replace(wanted=wanted))
        choice = self._choose(state, window, model)
        if misfit := _misfit(state, window, model, choice):
            warnings.warn(misfit, RuntimeWarning, stacklevel=2)
        return More(AutoState(state.step, choice, state.step))

    def _first(self, state: AutoState) -> tuple[float, ...]:
        middle = self.start if state.choice is None else state.choice.epsilon
        middle = min(max(middle, LEAST * RATIO), MOST / RATIO)
        return (_short(middle / RATIO), middle, _short(middle * RATIO))

    def _next(self, state: AutoState, window: _Window, model: LineModel | None) -> tuple[float, ...]:
        """The reaches to evaluate next; none when the evaluated ones suffice."""
        if not state.reaches:
            return (state.ceiling / RATIO,)
        if len(state.rounds) >= ROUNDS:
            return ()
        if model is not None:
            return _beyond(self.stencils[0], model, window)
        ratio = RATIO if window.reaches else WIDEST
        low, high = (window.reaches or state.reaches)[0], (window.reaches or state.reaches)[-1]
        if high * ratio < window.ceiling:
            return (high * ratio,)
        reach = max(low / ratio, window.floor)
        return (reach,) if LEAST < reach < low else ()

    def _extended(self, state: AutoState, seen: Tensor) -> AutoState:
        """The state with the losses at the wanted reaches, ascending; reaches with a loss that is not finite are left
        out and bound the others.
        """
        wanted, seen = state.wanted or self._first(state), seen[:POOLED_LINES]
        finite = seen.isfinite().all(-1).all(0).tolist()
        ceiling = min([state.ceiling, *(reach for reach, good in zip(wanted, finite, strict=True) if not good)])
        before = [] if state.values is None else list(zip(state.reaches, state.values.unbind(1), strict=True))
        pairs = before + [p for p, good in zip(zip(wanted, seen.unbind(1), strict=True), finite, strict=True) if good]
        if ceiling < LEAST * RATIO:
            raise FloatingPointError(
                f"losses are not finite even at a displacement of {ceiling:g}: epsilon cannot be chosen"
            )
        pairs = sorted((pair for pair in pairs if pair[0] < ceiling), key=lambda pair: pair[0])
        values = torch.stack([v for _, v in pairs], 1) if pairs else seen[:, :0]
        rounds = (*state.rounds, wanted)
        return state._replace(reaches=tuple(r for r, _ in pairs), values=values, ceiling=ceiling, rounds=rounds)

    def _choose(self, state: AutoState, window: _Window, model: LineModel | None) -> Choice:
        spent = 2 * self.lines * sum(map(len, state.rounds))
        if model is None:
            return Choice(min(self.start, state.ceiling / RATIO), 0, evaluations=spent, rounds=state.rounds)
        epsilons = log_grid(window.reaches[0], window.reaches[-1], 200)
        costs, choices = [], []
        for i, stencil in enumerate(self.stencils):
            excess = model.excess(stencil, epsilons)
            reach = float(stencil.quadrature(0).nodes.abs().max())
            allowed = epsilons * reach <= window.reaches[-1] * (1 + 1e-9)
            best = int(excess.where(allowed, math.inf).argmin())
            direction = stencil.slope_second_moment() * model.slope_square
            costs.append((direction + float(excess[best])) / self.at(Choice(1.0, i)).n)
            choices.append(float(epsilons[best]))
        least = min(range(len(costs)), key=costs.__getitem__)
        rounding = float(model.rounding_at(torch.tensor([choices[least]], dtype=torch.float64, device=CPU)))
        squares = (model.noise_square, rounding, model.slope_square, model.third_square)
        noise, rounding, slope, third = map(math.sqrt, squares)
        return Choice(_short(choices[least]), least, noise, rounding, slope, third, spent, state.rounds)


def _short(number: float) -> float:
    """Return the number with six digits, on which machines that round differently agree."""
    return float(f"{number:.6g}")


def _beyond(stencil: Stencil, model: LineModel, window: _Window) -> tuple[float, ...]:
    """The next reach: larger until truncation dominates the largest, then smaller until the choice is well inside."""
    low, high = float(model.reaches[0]), float(model.reaches[-1])
    inside, wide = log_grid(low, high, 100), log_grid(low / WIDEST, high * WIDEST, 160)
    epsilon, best = (float(grid[int(model.excess(stencil, grid).argmin())]) for grid in (inside, wide))
    top = model.reaches[-1:]
    faint = float(model.truncation(stencil, top)) < DOMINATES * float(model.noise_variance(stencil, top))
    if faint or high < ABOVE * epsilon or high < OVER_JUMPS * window.floor:
        reach = min(max(high * RATIO, best * RATIO**0.5), high * WIDEST)
        if reach < window.ceiling:
            return (reach,)
    if epsilon / BELOW < low:
        reach = max(min(low / RATIO, best / RATIO), low / WIDEST, window.floor)
        return (reach,) if LEAST < reach < low else ()
    return ()


def _fitted(state: AutoState) -> tuple[_Window, LineModel | None]:
    """The window and its model; where truncation dominates even at the floor, those of a lower floor."""
    window = _window(state)
    model = _model(window)
    if model is None or window.reaches[0] > window.floor:
        return window, model
    ends = model.reaches[:2]
    if bool(model.excess(CentralStencil(), log_grid(float(ends[0]), float(ends[1]), 20)).argmin()):
        return window, model
    window = _window(state, FEW_JUMPS)
    return window, _model(window)


def _window(state: AutoState, jumps: float = JUMPS) -> _Window:
    """The reaches of all that were seen which are neither on a plateau nor beyond what the lines showed."""
    assert state.values is not None
    values, reaches = state.values.double(), torch.tensor(state.reaches, dtype=torch.float64, device=CPU)
    differences = (values[..., 0] - values[..., 1]).abs()
    sizes = differences.square().mean(0).sqrt()
    if not bool(sizes.any()):
        return _Window((), values[:, :0], 0.0, state.ceiling)
    hidden, peak = EXPLAINED * rounding_variance(values).sqrt(), sizes.cummax(0).values
    floor = _short(jumps * _plateau(reaches, values, hidden))
    largest = math.frexp(float(values.abs().max()))[1]  # not at each reach: the losses of a well are 0 at most
    gone = (sizes < FADED * peak) & (peak > EXPLAINED * math.ldexp(12**-0.5, largest - significand(values)))
    ceiling = min([state.ceiling, *reaches[gone].tolist()])
    loudest = CHANCE * math.sqrt(float(sizes[gone].square().min()) / 2) if bool(gone.any()) else math.inf
    kept = [i for i, reach in enumerate(state.reaches) if floor <= reach < ceiling]
    return _Window(tuple(state.reaches[i] for i in kept), values[:, kept], floor, ceiling, loudest)


def _plateau(reaches: Tensor, values: Tensor, hidden: Tensor) -> float:
    """The largest reach at which more than half of the lines that show a difference at ± show none, or losses (L, m, 2)
    equal to those at the next smaller reach, although in proportion to the difference at the next reach at which they
    move it would be more than rounding hides (m,); 0 where there is none.
    """
    differences = (values[..., 0] - values[..., 1]).abs()
    still = differences == 0
    still[:, 1:] |= (values[:, 1:] == values[:, :-1]).all(-1)
    slopes = differences / reaches
    ahead, lines = slopes[:, -1], int(differences.any(1).sum()) // 2 + 1
    for i in range(len(reaches) - 2, -1, -1):
        if int((still[:, i] & (ahead * reaches[i] > hidden[i])).sum()) >= lines:
            return float(reaches[i])
        ahead = torch.where(still[:, i], ahead, slopes[:, i])
    return 0.0


def _misfit(state: AutoState, window: _Window, model: LineModel | None, choice: Choice) -> str:
    """What of the losses the model of the line does not fit, in words; empty where it fits."""
    if model is None:
        seen = f"from {state.reaches[0]:g} to {state.reaches[-1]:g}" if state.reaches else ""
        return (
            f"epsilon cannot be chosen from losses along lines, which do not differ at ± displacements {seen}: it is "
            f"{choice.epsilon:g}; give epsilon as a number, or another start"
        )
    bounds = []
    if window.floor:
        bounds.append(f"up to {window.floor:g} losses change by jumps or not at all (are inputs or weights rounded?)")
    if window.ceiling < state.ceiling:
        bounds.append(f"from {window.ceiling:g} on their differences vanish (a narrow peak or well?)")
    sentence = f"losses along lines are no smooth function of the displacement: {' and '.join(bounds)}; "
    return sentence + f"epsilon, {choice.epsilon:g}, is chosen between, see that it serves" if bounds else ""


def _model(window: _Window) -> LineModel | None:
    """What was seen says; None of fewer than two reaches."""
    if len(window.reaches) < 2:
        return None
    return LineModel.fit(torch.tensor(window.reaches, dtype=torch.float64, device=CPU), window.values, window.loudest)


def _cost(stencil: Stencil) -> int:
    return int(stencil.draw(0, (1,))[0].shape[-1])
