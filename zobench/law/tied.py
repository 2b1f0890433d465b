"""The same noise in all tensors of one shape."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod

from torch import Tensor

from zobench.law.independent import Gaussian, Independent, Rademacher
from zobench.law.law import Direction, Law
from zobench.layout import HOW_TO_GIVE, Block, Layout, Segment
from zobench.random.native import NativeStream
from zobench.random.streams import Shape

GAUSSIAN = Gaussian()


@dataclass(frozen=True)
class Tied(Law):
    """u = (w_s(1), w_s(2), ...): tensor m gets the direction w of its shape s(m), of `law`, the same for all tensors of
    that shape. The error of code that reseeds one generator for every tensor, as a law, to measure what it costs.

    E[u u^T] = T T^T, T the matrix of ones between an entry and those that it is tied to: the mean of an estimate is, in
    each tensor, the *sum* of the gradients of all tensors of its shape. Differences of tied tensors never change: a run
    lives in the subspace of `effective_dimension` entries. Second moment, f locally linear and `law` Gaussian: sum_s
    (d + 2 k_s) |sum of g_m over shape s|^2, k_s tensors of shape s; see `fourth_moments`. Source: es-at-scale, code of
    Qiu et al. 2025, arXiv 2509.24372, whose authors name it partially correlated noise.

    Raises:
        ValueError: `law` is neither Gaussian nor Rademacher.
    """

    law: Gaussian | Rademacher = GAUSSIAN

    def __post_init__(self) -> None:
        if not isinstance(self.law, Gaussian | Rademacher):
            raise ValueError(f"law is {self.law!r}: give Gaussian() or Rademacher(), whose entries are independent")

    @property
    def by_tensor(self) -> bool:
        """True."""
        return True

    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Direction:
        """Return a direction of `law` in which a tensor is named by its shape."""
        return TiedDirection(self.law.direction(key, index, layout, batch))

    def effective_dimension(self, shapes: Iterable[Shape]) -> int:
        """Return the number of different entries in a direction for tensors of these shapes."""
        return sum(map(prod, set(shapes)))

    def fourth_moments(self, shapes: Iterable[Shape]) -> dict[Shape, float]:
        """Return c_s by shape: E[|u|^2 (u . g)^2] = sum_s c_s |sum of g_m over the tensors of shape s|^2.

        |u|^2 is sum_s k_s |w_s|^2, so that c_s = d - k_s d_s + k_s c of `law` in the d_s entries of a tensor.
        """
        counts = Counter(shapes)
        dim = sum(k * prod(s) for s, k in counts.items())
        return {s: dim - k * prod(s) + k * self.law.fourth_moment(prod(s)) for s, k in counts.items()}


@dataclass(frozen=True, eq=False)
class TiedDirection:
    """The entries of a block: those of `draw` in the segment of its shape."""

    draw: Independent

    def __call__(self, block: Block) -> Tensor:
        """Return the entries of a block.

        Raises:
            ValueError: its segment is a vector that stands for tensors whose shapes nobody gave.
        """
        return self.draw(replace(block, segment=_of_shape(block.segment)))

    def native(self, segment: Segment) -> NativeStream | None:
        """Return the stream of the segment's shape."""
        return self.draw.native(_of_shape(segment))


def _of_shape(segment: Segment) -> Segment:
    if segment.shape == () and segment.size > 1:
        raise ValueError(f"the law Tied draws by the shapes of tensors, but x is one vector: {HOW_TO_GIVE}")
    return Segment(str(segment.shape), segment.size, segment.dtype, segment.device, segment.shape)
