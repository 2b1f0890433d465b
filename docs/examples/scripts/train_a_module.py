"""A torch module trained by an optimizer that needs no backward pass."""

import torch
from torch import nn

from zobench import methods
from zobench.optim import ZerothOrder

torch.manual_seed(0)
images = torch.randn(512, 64)  # your data
labels = (images[:, :8].sum(1) > 0).long()
model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))
optimizer = ZerothOrder(model.parameters(), methods.make("mezo", epsilon=1e-3, n=4), lr=0.02)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1001)
for step in range(1001):
    batch = torch.randint(len(images), (64,))  # one minibatch a step, drawn outside the closure
    loss = optimizer.step(lambda: nn.functional.cross_entropy(model(images[batch]), labels[batch]))
    scheduler.step()
    if step % 250 == 0:
        right = (model(images).argmax(1) == labels).float().mean()
        print(f"step {step}: loss {loss:.3f}, {right:.0%} right")
