"""A method of one's own from the five axes: directions of low rank, central differences, clipped slopes, momentum."""

import torch
from torch import nn

from zobench import LowRank, ModuleSpace, Momentum, derive, methods, query

torch.manual_seed(0)
inputs = torch.randn(256, 20)
labels = inputs[:, :2].prod(1, keepdim=True)
model = nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 1))
estimator = methods.make("mezo", law=LowRank(rank=2), map="clip(bound=10)", n=4)
rule = Momentum(lr=0.003)
print(estimator)

space = ModuleSpace(model)
state, memory = estimator.init(), rule.init(space)
for step in range(1501):
    told = query(space, estimator, lambda: (model(inputs) - labels).square().mean(), derive("run", step), state)
    memory, state = rule.apply_(space, told.gradient, memory), told.state
    if step % 500 == 0:
        loss = float((model(inputs) - labels).square().mean().detach())
        print(f"step {step}: loss {loss:.3f} after {(step + 1) * told.queries} evaluations")
