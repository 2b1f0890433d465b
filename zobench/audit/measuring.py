"""What is measured of a target: its scale, its moments, and one row for each epsilon."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zobench.audit.matching import Match
from zobench.random.keys import derive
from zobench.testing import Subject, name_factor
from zobench.testing.examples import Example
from zobench.testing.mean import LARGEST
from zobench.testing.scale import ratio_of

DIMS = 3, 8
APART = 8


class Scale(NamedTuple):
    """r in E[g] = r grad f of linear functions, its error, and the name of a factor that it is."""

    ratio: float
    error: float
    named: str


class Moments(NamedTuple):
    """Of linear f: E|g|^2 / |grad f|^2 and its error, and (E g . grad f) / sqrt(E|g|^2) |grad f|."""

    second: float
    error: float
    alignment: float


def scale(subject: Subject, samples: int) -> Scale:
    """Return r, measured in two dimensions and, where there is an epsilon, at two of these."""
    variants = [subject] if subject.epsilon is None else [subject, subject.at(subject.epsilon / APART)]
    dims = sorted({max(dim, subject.least_dim) for dim in DIMS})
    ratios = [ratio_of(one, dim, samples // 4) for dim in dims for one in variants]
    middle = ratios[-len(variants)]
    return Scale(middle.value, middle.error, name_factor(ratios))


def moments(subject: Subject, example: Example, samples: int) -> Moments:
    """Return the second moment on a linear function."""
    rows = subject.samples(example.f, example.x, derive("zobench.audit", "moments"), samples)
    square = float(example.gradient @ example.gradient)
    norms = rows.square().sum(-1) / square
    along = float((rows @ example.gradient).mean()) / square
    second = float(norms.mean())
    return Moments(second, float(norms.std()) / math.sqrt(samples), along / math.sqrt(second) if second else 0.0)


class _Linearised:
    """f(x0) + grad f(x0) . (x - x0): what the estimate of it lacks is the bias."""

    def __init__(self, example: Example) -> None:
        self.x, self.gradient, self.value = example.x, example.gradient, example.f(example.x)

    def __call__(self, x: Tensor) -> Tensor:
        values: Tensor = self.value + (x.double() - self.x) @ self.gradient
        return values


def bias_rows(
    subject: Subject, example: Example, epsilons: tuple[float, ...], samples: int, match: Match | None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of kind "bias": at each epsilon one of plain samples, and one of their differences to those of the
    linearised problem under the same keys. The latter is E g of f less E g of its linear part: the bias beyond a wrong
    factor, far below the noise of plain sampling.
    """
    variants = [subject.at(e) for e in epsilons] if subject.epsilon is not None else [subject]
    reach = None if match is None else match.epsilon
    for one in variants:
        key = derive("zobench.audit", "bias", str(one.epsilon))
        rows = one.samples(example.f, example.x, key, samples)
        linear = one.samples(_Linearised(example), example.x, key, samples)
        predicted = {} if match is None else _predicted(match, one, example)
        common = {
            "kind": "bias", "dim": example.f.dim, "epsilon": one.epsilon if one.epsilon is not None else reach,
            "samples": samples, "gradient_norm": float(example.gradient.norm()),
        }  # fmt: skip
        plain = _bias(rows - example.gradient) | _spread(rows, example.gradient)
        beyond = predicted.pop("predicted_beyond", None)
        yield common | {"sampling": "plain"} | plain | predicted
        yield common | {"sampling": "controlled"} | _bias(rows - linear) | {"predicted_bias": beyond}


def _predicted(match: Match, one: Subject, example: Example) -> dict[str, float | None]:
    there = match.at(one, example)
    return {} if there is None else there.predicted(example.f, example.x)


def _bias(offsets: Tensor) -> dict[str, float]:
    """The norm of the mean, its error along itself, and the size that noise alone has."""
    mean, count = offsets.mean(0), len(offsets)
    size = float(mean.norm())
    along = offsets @ (mean / size) if size else offsets.norm(dim=-1)
    floor = math.sqrt(float((offsets - mean).square().sum(-1).mean()) / count)
    return {"bias": size, "bias_error": float(along.std()) / math.sqrt(count), "floor": floor}


def _spread(rows: Tensor, gradient: Tensor) -> dict[str, float]:
    count, errors = len(rows), (rows - gradient).square().sum(-1)
    square = (rows @ gradient).square() / (rows.square().sum(-1) * gradient.square().sum()).clamp(min=1e-300)
    cosine = float(square.mean()) ** 0.5
    return {
        "covariance_trace": float(rows.var(0).sum()),
        "mse": float(errors.mean()), "mse_error": float(errors.std()) / math.sqrt(count),
        "cosine": cosine, "cosine_error": float(square.std()) / math.sqrt(count) / max(2 * cosine, 1e-12),
    }  # fmt: skip


def order(rows: list[dict[str, Any]]) -> float | None:
    """Return the power of epsilon by which the controlled bias grows between the two largest epsilons at which it is
    seen; None where it is seen at fewer than two.
    """
    controlled = sorted((r for r in rows if r["sampling"] == "controlled"), key=lambda r: float(r["epsilon"] or 0.0))
    seen = [r for r in controlled if r["bias"] > LARGEST * max(r["floor"], 1e-10 * r["gradient_norm"])][:2]
    if len(seen) < 2:
        return None
    return math.log(seen[1]["bias"] / seen[0]["bias"]) / math.log(seen[1]["epsilon"] / seen[0]["epsilon"])


def sensitivity(subject: Subject, example: Example) -> dict[str, float]:
    """Return |g of f + 1 - g of f| and |g of 3 f - 3 g of f| over |grad f|, the largest over some keys, and the largest
    entry of g on a constant: of an optimizer, how far x is from where it was.
    """
    f, x, size = example.f, example.x, float(example.gradient.norm())
    shift = scaled = still = 0.0
    for key in range(8):
        g = subject.estimate(f, x, key)
        shift = max(shift, float((subject.estimate(lambda x: f(x) + 1.0, x, key) - g).norm()) / size)
        scaled = max(scaled, float((subject.estimate(lambda x: 3.0 * f(x), x, key) - 3.0 * g).norm()) / size)
        still = max(still, float(subject.estimate(_one, x, key).abs().max()))
    return {"shift": shift, "scale": scaled, "constant": still}


def _one(x: Tensor) -> Tensor:
    return torch.ones_like(x[..., 0].double()) + 0.0 * x.double().sum(-1)
