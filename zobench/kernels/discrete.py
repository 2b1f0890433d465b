"""Kernels on finitely many nodes."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zobench.kernels.kernel import Kernel, Rule, require_order, require_ratio
from zobench.layout import CPU
from zobench.numbers import real, store
from zobench.random import streams
from zobench.random.streams import Shape

TOLERANCE = 1e-10


@dataclass(frozen=True, repr=False)
class DiscreteKernel(Kernel):
    """A kernel under a law of r with finitely many nodes: |r| is `nodes`[k] with `probabilities`[k], its sign is fair,
    and K(r) = sign(r) `values`[k].

    E[r K] = `constant` and E[r^j K] = 0 for odd 3 <= j <= `order` are checked at construction.

    Args:
        name: the expression that makes the kernel, and its repr.
        nodes: |r|, m positive numbers, ascending.
        probabilities: those of the m nodes; the sum is 1.
        values: K at the m nodes.
        order: q, odd.
        constant: E[r K]; 1 for an estimate without a bias of first order.

    Raises:
        ValueError: nodes are not positive and ascending, probabilities are not a law, or a moment condition does not
            hold.
    """

    name: str
    nodes: tuple[float, ...]
    probabilities: tuple[float, ...]
    values: tuple[float, ...]
    order: int
    constant: float = 1.0

    def __post_init__(self) -> None:
        for name in ("nodes", "probabilities", "values"):
            numbers = (real(f"one of the {name} of kernel {self.name}", value) for value in getattr(self, name))
            store(self, **{name: tuple(numbers)})
        store(self, order=require_order(self.order), constant=real("constant", self.constant))
        self._check_law()
        for j in range(1, self.order + 1, 2):
            wanted = self.constant if j == 1 else 0.0
            scale = sum(p * r**j * abs(k) for p, r, k in self._triples)
            if not abs(self.moment(j) - wanted) <= TOLERANCE * scale:
                raise ValueError(f"kernel {self.name}: E[r^{j} K] is {self.moment(j):.12g}, not {wanted:g}")

    def _check_law(self) -> None:
        if not len(self.nodes) == len(self.probabilities) == len(self.values) > 0:
            raise ValueError(f"kernel {self.name}: give as many probabilities and values as nodes, {len(self.nodes)}")
        lower = (0.0, *self.nodes)
        if not all(a < b < math.inf for a, b in zip(lower, self.nodes, strict=False)):
            raise ValueError(f"kernel {self.name}: nodes are |r|, positive and ascending, got {self.nodes}")
        if not (all(p >= 0 for p in self.probabilities) and abs(sum(self.probabilities) - 1) < TOLERANCE):
            raise ValueError(f"kernel {self.name}: probabilities {self.probabilities} are not a law")

    def __repr__(self) -> str:
        return self.name

    @property
    def _triples(self) -> list[tuple[float, float, float]]:
        return list(zip(self.probabilities, self.nodes, self.values, strict=True))

    def draw(self, key: int, shape: Shape) -> tuple[Tensor, Tensor]:
        """Return r and K(r) from one uniform on [-1, 1): its sign, and the node its size falls to."""
        uniform = streams.uniform(key, shape)
        steps = torch.tensor(self.probabilities[:-1], dtype=torch.float64, device=CPU).cumsum(0)
        node = torch.bucketize(uniform.abs(), steps, right=True)
        nodes, values = (torch.tensor(v, dtype=torch.float64, device=CPU)[node] for v in (self.nodes, self.values))
        return nodes.copysign_(uniform), values * uniform.sign_().add_(0.5).sign_()

    def quadrature(self, degree: int) -> Rule:
        """Return the law itself: exact for any degree."""
        p, r, k = (
            torch.tensor(v, dtype=torch.float64, device=CPU) for v in (self.probabilities, self.nodes, self.values)
        )
        return Rule(torch.cat((p, p)) / 2, torch.cat((r, -r)), torch.cat((k, -k)))

    def moment(self, j: int) -> float:
        """Return E[r^j K(r)]: 0 for even j."""
        return math.fsum(p * r**j * k for p, r, k in self._triples) if j % 2 else 0.0

    def second_moment(self, noise_to_gradient: float = 0.0) -> float:
        """Return E[r^2 K^2] + t E[K^2]."""
        slope = math.fsum(p * (r * k) ** 2 for p, r, k in self._triples)
        return slope + require_ratio(noise_to_gradient) * math.fsum(p * k**2 for p, r, k in self._triples)

    def rescaled(self, scale: float) -> "DiscreteKernel":
        """Return nodes times s, values over s."""
        nodes, values = tuple(scale * r for r in self.nodes), tuple(k / scale for k in self.values)
        return replace(self, name=f"rescaled({self.name}, {scale!r})", nodes=nodes, values=values)
