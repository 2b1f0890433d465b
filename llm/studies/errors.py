"""Bias, variance and rounding of one estimate on a real model, and the share of its error that is bias.

In float64, with the exact gradient g, along lines u ~ N(0, I_d): the coefficient of the central difference is
c = D_1 + delta, D_1 = u . g, delta its truncation; a kernel's mean over r is D_1 + delta_K. The bias is E[delta u],
and |E[delta u]|^2 <= E[delta^2] (project u on it and use Cauchy-Schwarz), so that a few dozen lines bound it, while
E[delta D_1] / |g| is its component along the gradient. In another dtype the coefficient is c + rho, on the same lines
at the same weights: rho is the rounding of the perturbed weights, of the forward pass and of the losses. One estimate
has
    E|estimate - g|^2 = (d + 2) E[(c + rho)^2] - 2 E[(c + rho) D_1] + |g|^2,
where d + 2 stands for E|u|^2 weighted by the square of the coefficient: exact for D_1, which is most of it.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from llm.model import adapters, loading
from llm.model.language_model import DTYPES
from llm.options.studies import ErrorOptions
from llm.studies.noise import Loss, loss_of
from zobench import Combination, Gaussian, InForwardSpace, Term, derive
from zobench.kernels import PolynomialKernel, legendre
from zobench.layout import CPU
from zobench.plan import Plan
from zobench.run.options import unnamed
from zobench.run.progress import bar, note
from zobench.run.records import Row, Run

FULL = "all weights"


def run(options: ErrorOptions) -> None:
    """Run the command: ErrorOptions says what it does."""
    if min(options.lines - 1, options.batch, options.nodes + 1) < 1 or not min(options.epsilons, default=0) > 0:
        raise ValueError(
            f"lines {options.lines}, batch {options.batch}, nodes {options.nodes}, epsilons {options.epsilons}: "
            "give 2, 1, 0 or more, and positive ones"
        )
    adapters.check(options.adapter)
    stored = "float32" if options.dtype == "float64" else options.dtype  # readers of GGUF files know no wider dtype
    language_model = loading.load(options.model, options.device, stored, options.trust_remote_code)
    language_model = adapters.adapt(language_model, options.adapter, options.seed)
    language_model.model.double()  # after rounding to the dtype: the exact gradient is that of the same weights
    widen_norms(language_model.model)
    task, loss = loss_of(options, language_model, options.batch)
    record = Run(options.out, {"command": "errors", **asdict(options)}, unnamed(ErrorOptions))
    place = {"model": options.model, "task": task, "dtype": options.dtype, "trained": options.adapter or FULL}
    measured = Errors(language_model.model, loss, options, {**place, "weights": language_model.weights})
    for epsilon in options.epsilons:
        if not record.find(kind="error-parts", epsilon=epsilon):
            record.append(measured.at(epsilon))
    print(table([row for row in record.rows if row["kind"] == "error-parts"]))
    note(f"rows: {record.folder / 'rows.jsonl'}")


def widen_norms(model: torch.nn.Module) -> None:
    """Let RMS norms as transformers has them compute in float64 of float64: theirs go through float32, whose rounding
    hides a bias of order e^4. Narrower activations are normalised in float32 as before.
    """
    for module in model.modules():
        if hasattr(module, "variance_epsilon"):
            module.forward = partial(_rms_norm, module)


def _rms_norm(module: Any, states: Tensor) -> Tensor:
    wide = states.to(torch.promote_types(states.dtype, torch.float32))
    scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + module.variance_epsilon)
    result: Tensor = module.weight * scaled.to(states.dtype)
    return result


@dataclass(frozen=True, eq=False)
class Errors:
    """The measurements of one loss of a float64 module."""

    module: torch.nn.Module
    loss: Loss
    options: ErrorOptions
    place: Row

    @cached_property
    def exact(self) -> InForwardSpace:
        """The weights, read in float64."""
        return InForwardSpace(self.module)

    @cached_property
    def rounded(self) -> InForwardSpace | None:
        """The same weights, read in the dtype; None where this is float64."""
        dtype = DTYPES[self.options.dtype]
        return None if dtype == torch.float64 else InForwardSpace(self.module, reads=dtype)

    @cached_property
    def keys(self) -> list[int]:
        """The key of every line."""
        return [derive("lines", self.options.seed, line) for line in range(self.options.lines)]

    @cached_property
    def slopes(self) -> tuple[Tensor, float]:
        """D_1 along every line, and |g|^2, from one backward pass."""
        self.module.zero_grad(set_to_none=True)
        self.loss().mean().backward()
        one = torch.ones(1, dtype=torch.float64, device=CPU)
        lines = (Combination((Term(Gaussian(), key, one),)) for key in self.keys)
        slopes = [self.exact.dot(line) for line in bar(lines, desc="slopes", unit="line", total=len(self.keys))]
        square = sum(float(p.grad.square().sum()) for p in self.module.parameters() if p.grad is not None)
        self.module.zero_grad(set_to_none=True)
        return torch.tensor(slopes, dtype=torch.float64, device=CPU), square

    def at(self, epsilon: float) -> Row:
        """Return the row of one epsilon: every part of the error over |g|^2, with standard errors over lines."""
        slopes, square = self.slopes
        with bar(self.keys, desc=f"epsilon {epsilon:.3g}", unit="line") as shown:
            central, rounded, kernels = (torch.stack(part) for part in zip(*self._lines(shown, epsilon), strict=True))
        delta, dim = central - slopes, self.exact.layout.dim
        parts = {
            "truncation": delta.square(),
            "along_gradient": delta * slopes,
            "rounding": (rounded - central).square(),
            "second_moment": rounded.square(),
            "error": (dim + 2) * rounded.square() - 2 * rounded * slopes + square,
        }
        if self.options.nodes:
            mean, second = kernels.T
            parts |= {
                "kernel_truncation": (mean - slopes).square(),
                "kernel_along_gradient": (mean - slopes) * slopes,
                "kernel_second_moment": second,
            }
        measured = {name: value for part, values in parts.items() for name, value in _mean(part, values / square)}
        removable = min(1.0, measured["truncation"] / measured["error"])
        about = {"epsilon": epsilon, "lines": len(slopes), "parameters": dim, "gradient_norm": math.sqrt(square)}
        return {"kind": "error-parts", **self.place, **about, **measured, "removable": removable}

    def _lines(self, keys: Iterator[int], epsilon: float) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Of each line: c, c in the dtype, and the mean and mean square of the kernel's coefficient over r."""
        reaches, masses, values = nodes(legendre(3), self.options.nodes)
        for key in keys:
            found = self._slopes_at(self.exact, key, epsilon, torch.cat((reaches.new_ones(1), reaches)))
            central, weighed = found[0], values * found[1:]
            rounded = central
            if self.rounded is not None:
                rounded = self._slopes_at(self.rounded, key, epsilon, reaches.new_ones(1))[0]
            yield central, rounded, torch.stack(((masses * weighed).sum(), (masses * weighed.square()).sum()))

    def _slopes_at(self, space: InForwardSpace, key: int, epsilon: float, reaches: Tensor) -> Tensor:
        """[f(x + e r u) - f(x - e r u)] / (2 e) for each reach r."""
        offsets = epsilon * torch.cat((reaches, -reaches))[None]
        losses = space.losses(self.loss, Plan(Gaussian(), key, offsets, torch.ones_like(offsets)))[0]
        return (losses[: len(reaches)] - losses[len(reaches) :]) / (2 * epsilon)


def nodes(kernel: PolynomialKernel, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return positive nodes r, probabilities that add up to 1, and K(r): Gauss-Legendre with 2 count points, folded, so
    that E over r of an even function is exact to degree 4 count - 1.
    """
    if count == 0:
        none = torch.empty(0, dtype=torch.float64, device=CPU)
        return none, none, none
    rule = kernel.quadrature(4 * count - 2 - 2 * kernel.order)
    kept = rule.nodes > 0
    return rule.nodes[kept], 2 * rule.probabilities[kept], rule.values[kept]


def _mean(name: str, values: Tensor) -> Iterator[tuple[str, float]]:
    yield name, float(values.mean())
    yield f"{name}_error", float(values.std()) / math.sqrt(len(values))


def table(rows: list[Row]) -> str:
    """Return the rows as text: root mean squares over |g|, and the directions at which bias would be half the error."""
    lines = [f"{'epsilon':>9}{'truncation':>12}{'along g':>10}{'rounding':>10}{'kernel':>10}{'share':>10}{'n':>10}"]
    for row in sorted(rows, key=lambda row: row["epsilon"]):
        roots = (math.sqrt(row[name]) for name in ("truncation", "rounding"))
        kernel = math.sqrt(row["kernel_truncation"]) if "kernel_truncation" in row else math.nan
        truncation, rounding = roots
        needed = row["error"] / row["truncation"] if row["truncation"] > 0 else math.inf
        lines.append(
            f"{row['epsilon']:9.3g}{truncation:12.3g}{row['along_gradient']:+10.2g}{rounding:10.2g}{kernel:10.2g}"
            f"{row['removable']:10.2g}{needed:10.2g}"
        )
    return "\n".join(lines)
