"""Estimates of a batch: as independent as if each were asked for alone."""

import torch

from zobench.testing import examples
from zobench.testing.check import Check, Level
from zobench.testing.estimator_subject import EstimatorSubject
from zobench.testing.mean import LARGEST
from zobench.testing.report import Finding, NotApplicableError
from zobench.testing.subject import Subject


def batch(subject: Subject, level: Level) -> Finding:
    """Change the losses of one element; then compare the law of batched estimates with that of single ones."""
    if not isinstance(subject, EstimatorSubject) or not subject.answers_batches:
        raise NotApplicableError("it makes one estimate at a time")
    if subject.is_coupled:
        sentence = "losses of one element change the estimates of others"
        return Finding(sentence, False, "f = sum_i sin x_i in a batch of 3", "key = 0")
    example = examples.quadratic(max(2, subject.least_dim))
    count = level.single // 8
    alone = torch.stack([subject.estimate(example.f, example.x, key) for key in range(count)])
    many = subject.samples(example.f, example.x, 1, 16 * count)
    for power in (1, 2):
        one, other = alone**power, many**power
        error = (one.var(0) / len(one) + other.var(0) / len(other)).sqrt() + 1e-9 * other.abs().max() + 1e-300
        z = float(((one.mean(0) - other.mean(0)).abs() / error).max())
        if not z < LARGEST:
            sentence = f"moments of order {power}, {one.mean(0).tolist()} alone and {other.mean(0).tolist()} in batches"
            return Finding(sentence, False, str(example), f"n = {count} and {16 * count}, z = {z:.3g}")
    return Finding("elements are independent, and distributed as single estimates", True)


CHECKS = (Check("batch", "a batch is of independent estimates, each distributed as one alone", batch),)
