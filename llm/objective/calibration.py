"""Calibration of fake-quantised models: what the layers read decides their smoothing factors."""

from collections.abc import Sequence

import torch
from torch import nn

from llm.objective import Encoded, Objective
from llm.quantised.fake import watched
from llm.quantised.smoothing import smooth_
from zobench import derive
from zobench.random import streams

EXAMPLES = 128
"""Training examples that are read, or all where there are fewer: as many texts as ZeroQAT's calibration reads."""


def calibrate_(model: nn.Module, objective: Objective, train: Sequence[Encoded], alpha: float, seed: int) -> int:
    """Set the smoothing factors of the model by the inputs of `EXAMPLES` training examples, which the seed draws, and
    return how many were read. With alpha = 0 factors stay 1, and none is read.

    Examples go through the full-precision model one by one, so that no padding is read and no size of minibatch
    matters. Cost: a forward pass of each example.
    """
    if alpha == 0:
        return 0
    order = streams.uniform(derive("calibration", seed), (len(train),)).argsort()[:EXAMPLES]
    with torch.no_grad(), watched(model):
        for index in order.tolist():
            objective.losses([train[index]])
        smooth_(model, alpha)
    return len(order)
