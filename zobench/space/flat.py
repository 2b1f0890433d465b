"""FlatSpace: vectors (*batch, d), for functions whose gradient is known."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from zobench.combination import Combination
from zobench.groups import UNIFORM, Groups
from zobench.law import Law
from zobench.layout import CPU, Layout, Segment
from zobench.numbers import real
from zobench.plan import CURRENT, SLOPE, Plan
from zobench.random.streams import Shape
from zobench.space.slope import dual, dual_numbers, value_and_slope
from zobench.space.space import Direction as Rule
from zobench.space.space import Functions, Space, require_finite
from zobench.space.whole import WholeRule, step_of

REMEMBERED_BYTES = 1 << 24
Function = Callable[[Tensor], Tensor]


class FlatSpace(Space):
    """Points x (*batch, d) and functions f(points (..., d)) -> (...), evaluated in batches at x + a u_i.

    A plan's batch broadcasts against that of x. Told the layout of a module, it draws that module's directions. The
    directions of the latest plan are remembered if they fit 16 MiB, since a step along them usually follows.

    Raises:
        ValueError: x is not a floating-point vector, or the layout has another dimension.
    """

    def __init__(self, x: Tensor, layout: Layout | None = None) -> None:
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 1 or x.shape[-1] < 1:
            raise ValueError(f"a flat space needs a floating-point tensor (*batch, d) with d >= 1, got {_describe(x)}")
        super().__init__()
        self.x = x
        self.layout = layout or Layout.flat(x.shape[-1], torch.float64, x.device)
        if self.layout.dim != x.shape[-1]:
            raise ValueError(f"the layout has {self.layout.dim} entries, x has {x.shape[-1]}")
        self._remembered: dict[tuple[Law, int, int, Shape], Tensor] = {}

    def losses(self, f: Functions, plan: Plan) -> Tensor:
        """Return f at the plan's points, float64 (*batch, n, m), or what else it asks for.

        Raises:
            ValueError: f does not map (..., d) to (...), the plan's batch is not that of x, or the slope is asked for
                of an f that torch does not differentiate.
        """
        if tuple(self.x.shape[:-1]) not in ((), plan.batch):
            raise ValueError(f"x has batch {tuple(self.x.shape[:-1])}, the plan {plan.batch}: ask with the batch of x")
        self._remembered.clear()
        self._keep(plan)
        f, x = plan.function(f), self.x if plan.base == CURRENT else self._snapshot(plan.base)
        return self._slopes(f, x, plan) if plan.asks == SLOPE else self._visit(f, x, plan)

    def replay_(self, plan: Plan) -> None:
        """Take the snapshot that the plan keeps, if it keeps one; let its law learn."""
        self._keep(plan)
        self._bound(plan.law)

    def _visit(self, f: Function, x: Tensor, plan: Plan) -> Tensor:
        n, m = plan.offsets.shape[-2:]
        losses = torch.empty(plan.offsets.shape, dtype=torch.float64, device=CPU)
        base = self._evaluate(f, x.expand(*plan.batch, -1)) if any(map(any, plan.is_base)) else None
        for i in range(n):
            u, unit = self._line(plan, i)
            for k in range(m):
                if base is not None and plan.is_base[i][k]:
                    losses[..., i, k] = base
                    continue
                offset = plan.offsets[..., i, k, None].to(x) * unit
                losses[..., i, k] = self._evaluate(f, torch.addcmul(x, offset, u))
        return losses

    def _slopes(self, f: Function, x: Tensor, plan: Plan) -> Tensor:
        answers = torch.empty(plan.offsets.shape, dtype=torch.float64, device=CPU)
        points = x.expand(*plan.batch, -1).contiguous()
        for i in range(plan.offsets.shape[-2]):
            u, unit = self._line(plan, i)
            with dual_numbers():
                both = value_and_slope(partial(self._evaluate, f, dual(points, u * unit)))
            answers[..., i, :] = torch.stack(both, -1)
        return answers

    def _line(self, plan: Plan, i: int) -> tuple[Tensor, float]:
        """A vector and the multiple of it that an offset of 1 moves."""
        if plan.along is not None:
            return self.dense(plan.along[i]).to(self.x), 1.0
        (((law, key, index), unit),) = plan.line(i, self.layout.dim).items()
        return self._direction(law, key, index, plan.batch), float(unit)

    def _copied(self) -> list[Tensor]:
        return [self.x.clone()]

    def _snapshot(self, name: str) -> Tensor:
        (x,) = self.snapshot(name)
        return x

    def step_(
        self, combination: Combination, scale: float = 1.0, shrink: float = 0.0, groups: Groups = UNIFORM
    ) -> None:
        """Replace x, in place, by (1 - p d shrink) x + p scale * combination."""
        require_finite(combination)
        self._move(self.dense(combination).to(self.x) if combination.terms else None, scale, shrink, groups)

    def update_(
        self,
        gradients: Sequence[Combination],
        direction: Rule,
        scale: float = 1.0,
        shrink: float = 0.0,
        groups: Groups = UNIFORM,
    ) -> None:
        """Replace x, in place, by (1 - p d shrink) x + p scale * direction(block, x, gradients)."""
        for gradient in gradients:
            require_finite(gradient)
        dense = [self.dense(gradient) for gradient in gradients]
        parts = []
        for block in self.layout.blocks:
            here = (..., slice(block.offset, block.offset + block.size))
            parts.append(
                direction(block, self.x[here].to(block.segment.dtype), [g[here].to(block.segment.dtype) for g in dense])
            )
        self._move(torch.cat(parts, -1).to(self.x), scale, shrink, groups)

    def update_whole_(
        self,
        gradient: Combination,
        rule: WholeRule,
        scale: float = 1.0,
        shrink: float = 0.0,
        groups: Groups = UNIFORM,
    ) -> None:
        """Replace x, in place, by (1 - p d shrink) x + p scale * step, tensor by tensor of the layout.

        Raises:
            ValueError: x or the gradient has a batch; or as of the contract.
        """
        require_finite(gradient)
        batches = {tuple(self.x.shape[:-1]), *(tuple(c.shape) for _, c in gradient.lines)}
        if batches != {()}:
            raise ValueError(
                f"x and the gradient have the batches {sorted(batches)}, but a rule on whole parameters steps from one "
                "point: give each point a space of its own"
            )
        drawn = [
            (self._bound(law).direction(key, index, self.layout, ()), float(c) / law.unit(self.layout.dim))
            for (law, key, index), c in gradient.lines
        ]
        parts = []
        for segment in self.layout.segments:
            blocks = self.layout.blocks_of[segment.name]
            x = self.x[blocks[0].offset : blocks[0].offset + segment.size]
            step = step_of(segment, blocks, x, drawn, rule)
            parts += [self._block(step(block), (block.size,)) for block in blocks]
        self._move(torch.cat(parts), scale, shrink, groups)

    def _move(self, step: Tensor | None, scale: float, shrink: float, groups: Groups) -> None:
        scale, shrink = real("scale", scale), real("shrink", shrink)
        if shrink:
            self.x.mul_(1.0 - shrink * self._entries(lambda s: groups.of(s).decay))
        if step is not None:
            alike = all(groups.of(segment).rate == 1.0 for segment in self.layout.segments)
            self.x.add_(step if alike else step * self._entries(lambda s: groups.of(s).rate), alpha=scale)

    def _entries(self, of: Callable[[Segment], float]) -> Tensor:
        """A number for each entry, by its segment."""
        numbers = [torch.full((s.size,), float(of(s)), dtype=torch.float64, device=CPU) for s in self.layout.segments]
        return torch.cat(numbers).to(self.x)

    def dense(self, combination: Combination) -> Tensor:
        """Return the combination as (*batch, d) float64."""
        total: Tensor | None = None
        for (law, key, index), coefficients in combination.lines:
            weights = coefficients.to(self.x.device, torch.float64) / law.unit(self.layout.dim)
            weighted = weights[..., None] * self._direction(law, key, index, tuple(coefficients.shape))
            total = weighted if total is None else total + weighted
        return self.x.new_zeros(self.layout.dim, dtype=torch.float64) if total is None else total

    def settle_(self) -> None:
        """Do nothing: points are evaluated beside x, which is never perturbed."""

    def unresolved_share(self, displacement: float) -> float:
        """Return the share of entries that a displacement leaves unmoved in x's dtype."""
        return float((self.x + displacement == self.x).double().mean())

    def _direction(self, law: Law, key: int, index: int, batch: Shape) -> Tensor:
        name = (law, key, index, batch)
        if name in self._remembered:
            return self._remembered[name]
        draw = self._bound(law).direction(key, index, self.layout, batch)
        parts = [self._block(draw(block), (*batch, block.size)) for block in self.layout.blocks]
        u = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        if u.nbytes * (len(self._remembered) + 1) <= REMEMBERED_BYTES:
            self._remembered[name] = u
        return u

    def _bound(self, law: Law) -> Law:
        weights = lambda block: self.x[..., block.offset : block.offset + block.size]  # noqa: E731
        return law.recall(self.layout, weights, self.snapshots) if law.reads_weights else law

    def _block(self, drawn: Tensor | None, shape: Shape) -> Tensor:
        return self.x.new_zeros(shape) if drawn is None else drawn.to(self.x.device, self.x.dtype)

    def _evaluate(self, f: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
        values = f(points)
        if not isinstance(values, Tensor) or values.shape != points.shape[:-1]:
            wanted = tuple(points.shape[:-1])
            raise ValueError(f"f must map points {tuple(points.shape)} to {wanted}, but returned {_describe(values)}")
        return values.double()


def _describe(value: object) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
