"""MeZO as published, to be compared with."""

import torch
from torch import Tensor
from torch.nn import functional

from llm.bench.setting import BenchSetting


class Published:
    """MeZO as published (Malladi et al. 2023): three walks that perturb, one that updates, new normals each time;
    every example is forwarded once for each candidate, with logits of every token.
    """

    def __init__(self, here: BenchSetting) -> None:
        self.model, self.parameters = here.model, list(here.model.parameters())
        candidates = here.objective.candidates or ()
        rows = [row.tokens + list(c) for row in here.batch for c in candidates]
        self.ids = torch.tensor(rows, device=here.device)
        self.labels = torch.tensor([row.label for row in here.batch], device=here.device)
        self.count, self.seed = len(candidates), 0

    def step(self, epsilon: float = 1e-3, lr: float = 1e-7) -> None:
        """Take one step."""
        self.seed += 1
        with torch.no_grad():
            self.walk(epsilon)
            first = float(self.loss())
            self.walk(-2 * epsilon)
            second = float(self.loss())
            self.walk(epsilon)
            self.walk(-lr * (first - second) / (2 * epsilon))

    def walk(self, scale: float) -> None:
        """Add scale * z to every parameter, z from the seed of the step."""
        torch.manual_seed(self.seed)
        for p in self.parameters:
            z = torch.normal(mean=0, std=1, size=p.size(), device=p.device, dtype=p.dtype)
            p.data = p.data + scale * z

    def loss(self) -> Tensor:
        """Return the mean cross-entropy over the candidates' log-probabilities."""
        logits = self.model(input_ids=self.ids, attention_mask=torch.ones_like(self.ids)).logits
        chosen = logits[:, :-1].float().log_softmax(-1).gather(2, self.ids[:, 1:, None])[:, -1, 0]
        return functional.cross_entropy(chosen.view(-1, self.count), self.labels)
