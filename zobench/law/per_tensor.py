"""One random reach for each parameter tensor: what a port of KerZOO's code does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from zobench.kernels import Kernel
from zobench.law.independent import Gaussian, Rademacher
from zobench.law.law import Direction, Kept, Law
from zobench.layout import Block, Layout, Segment
from zobench.random.keys import derive
from zobench.random.native import NativeStream
from zobench.random.streams import Shape

GAUSSIAN = Gaussian()


@dataclass(frozen=True)
class PerTensor(Law):
    """Moves along r_l v_l in segment l, v of `law` and r_l of `kernel`, independent for each segment, and credits
    K(r_l) v_l: under the central stencil [f(x + e r v) - f(x - e r v)] / (2 e) K v.

    Mean: E[credit probe^T] = E[r K] I. Bias: with one r for all segments e^2/2 E[r^3 K] grad(Lap f) vanishes at order
    3. Here, for Gaussian v and i in segment l,
        e^2/2 (E[r^3 K] sum_{j in l} f_ijj + E[r K] E[r^2] sum_{j not in l} f_ijj):
    E[r^2] of the cross-tensor bias of the central difference stays, a third under r ~ Uniform[-1, 1].

    Second moment, f locally linear and v with independent entries: sum_m c_m |g_m|^2 over segments of sizes d_m, with
        c_m = E[r^2 K^2] c_(d_m) + E[r^2] E[K^2] (d - d_m),
    c_(d) of `law`: see `fourth_moments`. The factors are equal (25/4) for legendre(3). Noise adds as under a shared r.

    Raises:
        ValueError: `kernel` is no Kernel, or `law` no Law or a PerTensor.
    """

    kernel: Kernel
    law: Law = GAUSSIAN

    def __post_init__(self) -> None:
        if not isinstance(self.kernel, Kernel):
            raise ValueError(f"kernel is {self.kernel!r}: give one of zobench.kernels, such as legendre(3)")
        if not isinstance(self.law, Law) or isinstance(self.law, PerTensor):
            raise ValueError(f"law is {self.law!r}: give the law of v, such as Gaussian()")

    @property
    def second_moment(self) -> float | None:
        """E[r K] times that of `law`."""
        within = self.law.second_moment
        return None if within is None else self.kernel.moment(1) * within

    @property
    def independent(self) -> "PerTensor":
        """The same of the independent directions of `law`."""
        return replace(self, law=self.law.independent)

    @property
    def reads_weights(self) -> bool:
        """Whether `law` does."""
        return self.law.reads_weights

    @property
    def held(self) -> int:
        """What `law` holds."""
        return self.law.held

    def bind(self, layout: Layout, weights: Callable[[Block], Tensor]) -> "PerTensor":
        """Return the same of a law that is bound."""
        return replace(self, law=self.law.bind(layout, weights))

    def recall(self, layout: Layout, weights: Callable[[Block], Tensor], kept: Kept) -> "PerTensor":
        """Return the same of what `law` recalls."""
        return replace(self, law=self.law.recall(layout, weights, kept))

    @property
    def by_tensor(self) -> bool:
        """True."""
        return True

    @property
    def credit(self) -> "PerTensorCredit":
        """The law of K(r_l) v_l, v_l that of the credit of `law`."""
        return PerTensorCredit(self.kernel, self.law.credit)

    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Direction:
        """Return r_l v_l, with r_l from a stream named (key, index, segment)."""
        factors = {s.name: self._factor(key, index, s.name, batch) for s in layout.segments}
        return Scaled(self.law.direction(key, index, layout, batch), factors)

    def _factor(self, key: int, index: int, name: str, batch: Shape) -> Tensor:
        return self.kernel.draw(derive(key, index, "reach", name), batch)[0]

    def fourth_moments(self, sizes: Sequence[int]) -> tuple[float, ...]:
        """Return c_m for segments of these sizes: E[|credit|^2 (probe . g)^2] = sum_m c_m |g_m|^2.

        Raises:
            ValueError: the entries of v are not independent, so that segments do not separate.
        """
        if not isinstance(self.law, Gaussian | Rademacher):
            raise ValueError(f"segments separate only for laws with independent entries, unlike {self.law!r}")
        rule = self.kernel.quadrature(2)
        square = float(rule.probabilities @ rule.nodes**2)
        within = self.kernel.second_moment()
        across = square * (self.kernel.second_moment(1.0) - within)
        return tuple(within * self.law.fourth_moment(size) + across * (sum(sizes) - size) for size in sizes)

    def unit(self, dim: int) -> float:
        """Return that of `law`."""
        return self.law.unit(dim)


@dataclass(frozen=True, eq=False)
class Scaled:
    """The entries of `draw`, times the factor (*batch) of their segment."""

    draw: Direction
    factors: Mapping[str, Tensor]

    def __call__(self, block: Block) -> Tensor | None:
        """Return the entries of a block."""
        v = self.draw(block)
        return v if v is None else v * self.factors[block.segment.name].unsqueeze(-1).to(v)

    def native(self, segment: Segment) -> NativeStream | None:
        """Return the segment's stream with the factor as its scale, where it has none of its own."""
        native_of = getattr(self.draw, "native", None)
        stream: NativeStream | None = native_of(segment) if native_of else None
        if stream is None or stream.scale != 1.0:
            return None
        return stream._replace(scale=float(self.factors[segment.name]))


@dataclass(frozen=True)
class PerTensorCredit(PerTensor):
    """u = K(r_l) v_l in segment l, with the r_l and v of PerTensor: what its coefficients multiply."""

    @property
    def credit(self) -> "PerTensorCredit":
        """Itself."""
        return self

    def _factor(self, key: int, index: int, name: str, batch: Shape) -> Tensor:
        return self.kernel.draw(derive(key, index, "reach", name), batch)[1]
