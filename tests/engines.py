"""Engines, modules and laws that the tests of engines share."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from own_page import section
from torch import Tensor, nn
from torch.nn import functional

from zobench import Combination, InForwardSpace, ModuleSpace, Term, query
from zobench.law import LAWS, Direction, Isotropic, Law
from zobench.layout import Layout
from zobench.random import native
from zobench.random.keys import derive
from zobench.random.streams import Shape

IN_FORWARD: dict[str, dict[str, Any]] = {
    "in-forward": {},
    "paired": {"paired": True},
    "deferred": {"deferred": True},
    "paired-deferred": {"paired": True, "deferred": True},
}
with torch.device("cpu"):  # whatever the default is where this is imported
    Copied = section("An engine")["Copied"]
"""Somebody else's engine: it does what its page says, and so what the shipped ones do."""
ENGINES = ("plain", *IN_FORWARD, "copied")
WITHOUT_THEORY = ("uniform", "random-mask")
"""Isotropic laws whose moments beyond the fourth no theory knows."""
ISOTROPIC = {name: law for name, law in LAWS.items() if isinstance(law, Isotropic) and name not in WITHOUT_THEORY}
"""The laws that theory predicts, and that a vector without shapes can be moved along."""


def space_of(engine: str, module: nn.Module, **options: Any) -> ModuleSpace:
    if engine in ("plain", "copied"):
        return ModuleSpace(module, Copied() if engine == "copied" else None, **options)
    return InForwardSpace(module, **IN_FORWARD[engine], **options)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def swept_by(way: str) -> contextlib.AbstractContextManager[None]:
    """The native sweep (where there is one), or torch's."""
    return native.turned_off() if way == "eager" else contextlib.nullcontext()


def bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().flatten().view(torch.uint8)


class Net(nn.Module):
    """An embedding, tied to the head or not; a frozen layer, one that is used twice, a buffer, bare parameters, a list
    of them, and with `bias` biases. Segments of 1 to 12 width^2 entries.
    """

    def __init__(
        self, tied: bool = True, bias: bool = True, dtype: torch.dtype = torch.float64, width: int = 8
    ) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.embedding = nn.Embedding(12 * width, width)
            self.frozen, self.shared = nn.Linear(width, width, bias=bias), nn.Linear(width, width, bias=bias)
            self.norm = nn.LayerNorm(width, elementwise_affine=bias)
            self.wide = nn.Linear(width, 4 * width, bias=bias)
            self.gains = nn.ParameterList([torch.randn(4 * width), torch.ones(1)])
            self.back = nn.Parameter(torch.randn(4 * width, width) / width)
            self.head = nn.Linear(width, 12 * width, bias=False)
            self.register_buffer("shift", torch.randn(width))
        if tied:
            self.head.weight = self.embedding.weight
        self.frozen.requires_grad_(False)
        self.to(dtype).eval()

    def hidden(self, ids: Tensor) -> Tensor:
        x = self.shared(torch.tanh(self.frozen(self.embedding(ids)))) + self.shift
        x = self.norm(x + self.shared(x))
        return x + (torch.tanh(self.wide(x)) * self.gains[0]) @ self.back * self.gains[1]

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.hidden(ids))


IDS = torch.tensor([[3, 5, 5, 0, 31], [22, 1, 3, 9, 35]])


def loss_of(module: nn.Module) -> Callable[[], Tensor]:
    def loss() -> Tensor:
        told = module(IDS)
        logits = told if isinstance(told, Tensor) else told.logits
        return functional.cross_entropy(logits.flatten(0, 1).double(), IDS.roll(1, 0).flatten())

    return loss


def slopes_by_backpropagation(space: ModuleSpace, f: Callable[[], Tensor], plan: Any) -> Tensor:
    """<grad f, u_i> / unit of the plan's lines, float64 (n,)."""
    space.module.zero_grad()
    f().mean().backward()
    lines = torch.eye(plan.offsets.shape[-2], dtype=torch.float64)
    found = [space.dot(Combination((Term(plan.law, plan.key, line),))) for line in lines]
    return torch.tensor(found, dtype=torch.float64)


def steps(space: Any, f: Callable[..., Any], estimator: Any, count: int, lr: float = 1e-3, shrink: float = 0.01) -> Any:
    """The losses of these steps, which are taken and settled."""
    losses, state = [], estimator.init()
    for step in range(count):
        told = query(space, estimator, f, derive("step", step), state)
        state = told.state
        losses.append(told.losses)
        space.step_(told.gradient, -lr, shrink)
    space.settle_()
    return torch.stack(losses)


@dataclass(frozen=True)
class Padded(Law):
    """The directions of `law` on a smaller layout, with zeros in the rows that are not there."""

    law: Law
    small: Any = field(compare=False, repr=False)
    rows: Any = field(compare=False, repr=False)

    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Direction:
        draw = self.law.direction(key, index, self.small, batch)
        whole = {}
        for segment in layout.segments:
            parts = [
                torch.zeros(b.size, dtype=segment.dtype) if (u := draw(b)) is None else u
                for b in self.small.blocks_of[segment.name]
            ]
            u = torch.cat(parts)
            if segment.name in self.rows:
                table = torch.zeros(segment.shape, dtype=segment.dtype)
                table[self.rows[segment.name]] = u.view(-1, segment.shape[1])
                u = table.flatten()
            whole[segment.name] = u
        return lambda block: whole[block.segment.name][block.start : block.stop]

    def unit(self, dim: int) -> float:
        return self.law.unit(self.small.dim)
