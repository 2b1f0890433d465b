"""The stored parameters of a space, and what its engine does to them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from zobench.combination import Line
from zobench.groups import UNIFORM, Groups
from zobench.law import Direction, Kept, Law
from zobench.layout import Block, Layout, Segment
from zobench.random.native import NativeMask
from zobench.space.support import Rows, Support
from zobench.space.sweep import Change, Moved, Sweep, Update, run
from zobench.space.trainable import trainable

Point = Mapping[Line, float]
"""Where a loss is evaluated: x + sum of amount * u over its directions; the base point x is {}."""

TORN = "a sweep was interrupted, so that part of the parameters are perturbed: load them again"


@dataclass(frozen=True, eq=False)
class Step:
    """x <- (1 - p d shrink) x + p sum of amount * u, p and d the factors that the groups give a segment. The sum is
    rounded once; with a `rounding` key at random and without bias, where x is bfloat16.
    """

    amounts: Point = field(default_factory=dict)
    shrink: float = 0.0
    groups: Groups = UNIFORM
    rounding: int | None = None


STAY = Step()


class Weights:
    """The weights as laws read them: block -> entries of x, neither of a perturbed point nor before a pending step."""

    def __init__(self, stored: "Stored", flush: Callable[[], None]) -> None:
        self._stored, self._flush, self._settled = stored, flush, False

    def __call__(self, block: Block) -> Tensor:
        """Return the entries of a block; the first call, which is of one thread, pays what is pending."""
        self.settle()
        return self._stored.support.stored(block)

    def settle(self) -> None:
        """Pay what is pending."""
        if not self._settled:
            self._flush()
            self._settled = True

    def masks(self, bounds: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return octets of whether magnitudes are at most the bound of their tensor, one number: of the tensors whose
        octets the sweep that pays what is pending can make on its way, of none where nothing is pending.
        """
        return self._stored.masks(bounds, self.settle)


class Stored:
    """The trainable parameters of a module as they are stored, x + sum of amount * u where an engine works in place;
    `parameters` by name. Directions live on the entries of `support`.

    Directions are drawn on `device`, or where each parameter is stored.

    `sweeps` counts passes over all parameters. `torn` says that some are written and others are not: every later call
    of the space is then refused.

    Raises:
        ValueError: as `trainable`.
    """

    def __init__(self, module: nn.Module, device: torch.device | None = None) -> None:
        self.module, self.parameters = module, trainable(module)
        self._whole = self.support = Support.whole(self.parameters, device)
        self.torn, self.sweeps = False, 0
        self._directions: dict[Line, Direction] = {}
        self._bound: dict[tuple[Law, int], Law] = {}
        self._bounds: Mapping[str, Tensor] = {}
        self._masks: dict[str, Tensor] = {}

    @property
    def layout(self) -> Layout:
        """The layout of the support."""
        return self.support.layout

    def restrict(self, rows: Mapping[str, Rows]) -> None:
        """Let directions live on these rows of these matrices and on all of every other parameter; errors as
        `Support.restricted`.
        """
        self.support = self._whole.restricted(rows)
        self._directions, self._bound = {}, {}

    def require_untorn(self) -> None:
        """Raise RuntimeError if a sweep was interrupted before."""
        if self.torn:
            raise RuntimeError(TORN)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The context in which stored parameters change. What was written is noted in it, too: they are torn if an
        error or an interrupt leaves it.
        """
        before, self.torn = self.torn, True
        yield  # no try/finally: after an error the parameters stay torn
        self.torn = before

    def direction(self, line: Line) -> Direction:
        """Return a direction, block -> entries; any thread may call it, for any block, in any order."""
        law, key, index = line
        bound = self._bound.get((law, key), law)
        return self._directions.get(line) or bound.direction(key, index, self.layout, ())

    def prepare(self, lines: Iterable[Line]) -> None:
        """Remember these directions until others are prepared: a law that needs a norm looks for it once."""
        self._directions = {line: self.direction(line) for line in lines}

    def bind(self, laws: Iterable[tuple[Law, int]], flush: Callable[[], None], kept: Kept) -> None:
        """Let laws that read the weights do so, after `flush`, unless they have for these keys; forget the others.
        `kept` is what they keep between steps.
        """
        reading = [each for each in laws if each[0].reads_weights]
        if any(each not in self._bound for each in reading):
            known, weights = self._bound, Weights(self, flush)
            self._bound = {each: known.get(each) or each[0].recall(self.layout, weights, kept) for each in reading}
            weights.settle()

    def masks(self, bounds: Mapping[str, Tensor], flush: Callable[[], None]) -> dict[str, Tensor]:
        """As `Weights.masks`; `flush` pays what is pending."""
        self._bounds = bounds
        try:
            flush()
            return self._masks
        finally:
            self._bounds, self._masks = {}, {}

    def unbind(self) -> None:
        """Let laws that read the weights read them anew."""
        self._bound = {}

    def change(self, step: Step = STAY, back: Point | None = None, forth: Point | None = None) -> Change:
        """Return the change x <- k (x + sum of back u) + sum of forth u + p sum of amount u, k = 1 - p d shrink."""
        back, forth, on = back or {}, forth or {}, step.amounts
        sizes = {
            line: (back.get(line, 0.0), forth.get(line, 0.0), on.get(line, 0.0)) for line in {**back, **forth, **on}
        }
        # back = -forth cancels, and the direction need not be drawn, unless shrinking scales `back` alone.
        lines = [line for line, amounts in sizes.items() if sum(amounts) or step.shrink or line in on]
        moved = [Moved(self.direction(line), *sizes[line]) for line in lines]
        return Change(step.shrink, moved, step.rounding, step.groups)

    @torch.no_grad()
    def write_(self, change: Change, names: Iterable[str] | None = None, support: Support | None = None) -> None:
        """Change these parameters or all, in one pass that draws each block once, on as many threads as torch uses;
        `support` is that of the change, where another has come since. Call it in `writing`.
        """
        support = support or self.support
        cut = support.layout.blocks_of
        updates = {name: change.of(cut[name][0].segment) for name in (self.parameters if names is None else names)}
        jobs = {}
        for name in updates:
            if not support.copies(name):
                small = self._mask_to_make(cut[name][0].segment) if support is self.support else None
                jobs[name] = Sweep(cut[name], self.parameters[name].detach().view(-1), updates[name], small=small)
        run(list(jobs.values()))
        made = {name: job.mask for name, job in jobs.items() if job.mask is not None}
        self._masks = {name: self._masks[name] for name in self._masks.keys() - updates.keys()} | made
        for name in updates:  # one by one, so that one copy at a time is held
            if support.copies(name):
                self._write_copy(name, support, updates[name])

    def _mask_to_make(self, segment: Segment) -> NativeMask | None:
        bound = self._bounds.get(segment.name)
        if bound is None or bound.device.type != "cpu":  # reading it would wait for the device
            return None
        return NativeMask.empty(float(bound), segment.size)

    def _write_copy(self, name: str, support: Support, update: Update) -> None:
        """Change a parameter through a copy of its entries."""
        parameter = self.parameters[name].detach()
        entries = support.entries(name, parameter)
        run([Sweep(support.layout.blocks_of[name], entries, update)])
        if name not in support.rows:
            parameter.copy_(entries.view(parameter.shape))
            return
        if update.keep != 1.0:  # weight decay acts on all rows, directions on the chosen rows only
            whole = parameter.flatten()
            run([Sweep(self._whole.layout.blocks_of[name], whole, update._replace(lines=()))])
            parameter.copy_(whole.view(parameter.shape))
        parameter[support.rows[name]] = entries.view(-1, parameter.shape[1])
