"""What the tests of spaces share: a module that is a function of one vector too, and a small network."""

from functools import partial

import torch
from torch import Tensor, nn

from zobench import Combination, FlatSpace, ModuleSpace, Term
from zobench.law import LAWS

METHODS = ("mezo", "forward", "richardson", "kerzoo")


GAUSSIAN = LAWS["gaussian"]


class Bowl(nn.Module):
    """Three tensors and a frozen one; loss = 1/2 y A y + a cubic ridge of all their entries, y = their deviation."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        draw = partial(torch.randn, generator=generator, dtype=torch.float64)
        self.first = nn.Parameter(draw(3, 4).to(dtype))
        self.frozen = nn.Parameter(draw(2).to(dtype), requires_grad=False)
        self.second = nn.Parameter(draw(5).to(dtype))
        self.third = nn.Parameter(draw(1, 3).to(dtype))
        self.register_buffer("buffer", draw(4).to(dtype))
        self.curvature = torch.linspace(0.1, 1.0, 20, dtype=torch.float64)

    def loss(self) -> Tensor:
        return self.of(torch.cat([p.view(-1) for p in (self.first, self.second, self.third)]))

    def of(self, x: Tensor) -> Tensor:
        return 0.5 * (x.square() @ self.curvature.to(x)) + x.sum(-1) ** 3 / 600


def twins(dtype: torch.dtype = torch.float64) -> tuple[Bowl, ModuleSpace, FlatSpace]:
    module = Bowl(dtype).eval()
    space = ModuleSpace(module)
    return module, space, FlatSpace(space.vector(), layout=space.layout)


def line_sum(law, key: int, *values: float) -> Combination:
    return Combination((Term(law, key, torch.tensor(values, dtype=torch.float64)),))


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(60, 200), nn.Tanh(), nn.LayerNorm(200), nn.Linear(200, 10)).to(dtype).eval()
    nn.init.normal_(model[0].weight, std=0.02)
    return model


DATA = torch.linspace(-1, 1, 60 * 8).reshape(8, 60)


def losses_of(model: nn.Module) -> Tensor:
    return model(DATA.to(next(model.parameters()).dtype)).square().mean(-1)
