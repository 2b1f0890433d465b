"""Monte Carlo over estimates: dense samples, streamed moments, and a control variate.

Samples come in chunks of fixed size keyed (key, chunk), so the first N depend on neither the total, the threads nor the
memory.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from zobench.combination import Combination, Term
from zobench.estimator import Estimator, LineEstimator
from zobench.layout import CPU, HOW_TO_GIVE, Layout
from zobench.noise import NoiseModel, NoisySpace, as_model
from zobench.numbers import count
from zobench.plan import SLOPE, Plan
from zobench.query import query
from zobench.random.keys import derive
from zobench.space.flat import FlatSpace
from zobench.space.space import require_resolved
from zobench.stencil import StencilRule

Function = Callable[[Tensor], Tensor]
Shapes = Layout | Mapping[str, Any] | Sequence[Any]
"""The tensors that x stands for: see Layout.of."""
Result = TypeVar("Result")

CHUNK_ENTRIES = 1 << 18  # 2 MiB of float64 a direction: larger leaves the cache, smaller waits for the interpreter
CHUNK_ROWS = 1 << 14
QUADRATURE_DEGREE = 16
COVARIANCE_DIM = 64


class Cosine(NamedTuple):
    """cos = g . v / (|g| |v|) of one estimate with a vector, 0 where g is 0: E cos and sqrt(E cos^2), each with its
    standard error.
    """

    mean: float
    mean_error: float
    root_mean_square: float
    root_mean_square_error: float


@dataclass(frozen=True)
class Moments:
    """Mean (d,), its standard errors (d,), trace of the covariance of one estimate E|g - E g|^2 and its standard error.

    `covariance` (d, d) of one estimate is kept for d <= 64, `cosine` where a gradient was given.
    """

    mean: Tensor
    mean_error: Tensor
    covariance_trace: float
    covariance_trace_error: float
    samples: int
    covariance: Tensor | None = None
    cosine: Cosine | None = None

    def error_along(self, direction: Tensor) -> float:
        """Return the standard error of mean . direction; from the coordinates' errors alone where no covariance was
        kept.
        """
        if self.covariance is None:
            return float((direction * self.mean_error).norm())
        return math.sqrt(float(direction @ self.covariance @ direction) / self.samples)


def estimate(
    estimator: Estimator,
    f: Function,
    x: Tensor,
    key: int = 0,
    samples: int = 1,
    noise: float | NoiseModel = 0.0,
    layout: Shapes | None = None,
) -> Tensor:
    """Return `samples` independent dense estimates g = sum_i c_i u_i of grad f(x), float64 (samples, d).

    f maps (..., d) to (...) and must be safe to call from several threads; `noise` is the standard deviation of
    independent Gaussian noise added to each evaluation, or a model of noise. `layout` are the shapes of the tensors
    that x holds end to end, {"weight": (3, 2), "bias": (3,)} or [(3, 2), (3,)]: a law by tensor (PerTensor, method
    kerzoo-code) needs them. Cost: samples times the evaluations of a step; memory: the result and less than 256 MiB.

    Raises:
        ValueError: samples < 1, noise < 0, x is not a floating-point vector, f has the wrong shape, epsilon is below
            the resolution of x, the layout has another dimension, or the law is one by tensor and there is none.
    """
    job = _Job.of(estimator, f, x, layout, noise)
    samples = count("samples", samples)
    key, size = count("key", key, least=None), chunk_rows(job.dim)
    with torch.inference_mode(False):  # which threads do not inherit
        result = torch.empty(samples, job.dim, dtype=torch.float64, device=CPU)

    def fill(chunk: int, rows: int) -> None:
        result[chunk * size :][:rows] = job.rows(derive(key, chunk), rows)

    for _ in _each_chunk(fill, job.dim, samples):
        pass
    return result


def moments(
    estimator: Estimator,
    f: Function,
    x: Tensor,
    key: int = 0,
    samples: int = 1,
    noise: float | NoiseModel = 0.0,
    layout: Shapes | None = None,
    gradient: Tensor | None = None,
) -> Moments:
    """Return mean (1/N) sum_i g_i and covariance trace sum_i |g_i - mean|^2 / (N - 1) of N = `samples` estimates, the
    same as `estimate` draws, keeping nothing of size N; with `gradient` (d,) also the cosine of an estimate with it.

    Errors and costs as for `estimate`.
    """
    job = _Job.of(estimator, f, x, layout, noise)
    along = None if gradient is None else gradient.to(CPU, torch.float64)
    return _accumulate(job.rows, count("key", key, least=None), job.dim, count("samples", samples), along)


def controlled_moments(
    estimator: LineEstimator,
    f: Function,
    gradient: Tensor,
    x: Tensor,
    key: int = 0,
    samples: int = 1,
    layout: Shapes | None = None,
) -> Moments:
    """Return the moments of estimates of the *bias*: mean = E g - grad f, far below the noise of plain sampling.

    Average each estimate over u and -u, which have the same law, and over the random nodes, by quadrature; subtract
    (u . grad f) v sum_k w_k r_k, v the direction that is credited (u itself for most laws), whose mean is m_1 E[v u^T]
    grad f exactly. What is left is of the size of the bias itself. The bias does not depend on n, so n = 1 is sampled;
    the covariance is that of what is left. Cost: 2 evaluations for each distinct |r|.

    Raises:
        ValueError: as `estimate`.
        TypeError: the estimator is no LineEstimator, or not linear in the losses; or the mean of the law's u u^T is no
            known multiple of I.
    """
    if not isinstance(estimator, LineEstimator) or not estimator.linear:
        raise TypeError(
            f"a controlled mean is one of a LineEstimator that is linear in the losses, not of {estimator!r}: give its "
            ".at(step), or take `moments`"
        )
    second_moment = estimator.law.second_moment
    if second_moment is None:
        raise TypeError(
            f"a controlled mean needs E[u u^T], which the law {estimator.law!r} does not declare as a multiple of I: "
            "take `moments`"
        )
    job = _Job.of(estimator, f, x, layout)
    rule = estimator.stencil.quadrature(QUADRATURE_DEGREE)
    exact = estimator.stencil.asks == SLOPE  # the slope is odd in u already
    offsets, weights = (rule.nodes[0], rule.weights[0]) if exact else _folded(rule, estimator.epsilon)
    slope = rule.mean(rule.power_sums(1))
    unit = estimator.law.unit(job.dim)

    def draw(key: int, rows: int) -> Tensor:
        space = job.space()
        points, masses = (part.expand(rows, 1, -1) for part in (offsets, weights))
        plan = Plan(estimator.law, key, points, masses, estimator.stencil.asks)
        coefficients = (plan.weights * space.losses(f, plan)).sum(-1)
        probe, credit = (  # u / unit
            space.dense(Combination((Term(law, key, torch.ones_like(coefficients)),)))
            for law in (plan.law, plan.law.credit)
        )
        residual = coefficients - slope * unit**2 * (probe @ gradient.to(probe))[:, None]
        return residual * credit + (slope * second_moment - 1.0) * gradient

    return _accumulate(draw, count("key", key, least=None), job.dim, count("samples", samples))


def _folded(rule: StencilRule, epsilon: float) -> tuple[Tensor, Tensor]:
    """Offsets and weights of the rule's mean over u and -u: a central pair for each distinct |r|."""
    signed = (rule.probabilities[:, None] * rule.weights * rule.nodes.sign()).flatten()
    reach = rule.nodes.abs().flatten()
    distinct, inverse = torch.unique((reach * 1e12).round(), return_inverse=True)
    weights = torch.zeros_like(distinct).index_add_(0, inverse, signed) / (2 * epsilon)
    offsets = epsilon * torch.zeros_like(distinct).index_copy_(0, inverse, reach)
    kept = offsets > 0
    return torch.cat((offsets[kept], -offsets[kept])), torch.cat((weights[kept], -weights[kept]))


@dataclass(frozen=True)
class _Job:
    """What is sampled, checked: estimates of f at x, whose entries are those of the layout's tensors."""

    estimator: Estimator
    f: Function
    x: Tensor
    layout: Layout
    noise: NoiseModel | None

    @classmethod
    def of(
        cls, estimator: Estimator, f: Function, x: Tensor, layout: Shapes | None, noise: float | NoiseModel = 0.0
    ) -> "_Job":
        model, space = as_model(noise), FlatSpace(x, None if layout is None else Layout.of(layout))
        if x.ndim != 1:
            raise ValueError(f"x has shape {tuple(x.shape)}: estimates are taken at one point (d,)")
        if isinstance(estimator, LineEstimator):
            require_resolved(space, estimator.perturbed_by)
        law = estimator.ask(0, estimator.init()).law
        if layout is None and law.by_tensor:
            raise ValueError(f"the law {law!r} draws by tensor, but x is one vector: {HOW_TO_GIVE}")
        cut = space.layout if layout is not None else Layout.unshaped(len(x), x.device)
        return cls(estimator, f, x.detach().double(), cut, model)

    @property
    def dim(self) -> int:
        """Number of entries."""
        return self.layout.dim

    def space(self) -> FlatSpace:
        """A space at x."""
        return NoisySpace(self.x, self.noise, self.layout) if self.noise else FlatSpace(self.x, self.layout)

    def rows(self, key: int, rows: int) -> Tensor:
        """So many estimates under one key, (rows, d)."""
        space = self.space()
        estimate = query(space, self.estimator, self.f, key, self.estimator.init(), (rows,))
        return space.dense(estimate.gradient).expand(rows, -1)


def chunk_rows(dim: int) -> int:
    """Return how many estimates of dimension d one key draws: min(2^14, the power of 2 at or below 2^18 / d)."""
    return min(CHUNK_ROWS, 1 << max(0, (CHUNK_ENTRIES // dim).bit_length() - 1))


def _keep_freed_memory() -> None:
    """Let glibc keep the memory of temporaries, up to 62 MiB a thread: page faults at each of them took half the time.
    It raises its thresholds for returning memory to the system when a block as large is freed, of which no page exists.
    """
    torch.empty(31 << 20, dtype=torch.uint8, device=CPU)


def _each_chunk(work: Callable[[int, int], Result], dim: int, samples: int, first: int = 0) -> Iterator[Result]:
    """Yield work(chunk, rows) in order, on as many threads as torch uses, each of them with one torch thread."""
    size = chunk_rows(dim)
    threads = torch.get_num_threads()
    _keep_freed_memory()
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for chunk in range(first, -(-samples // size)):
                waiting.append(pool.submit(work, chunk, min(size, samples - chunk * size)))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            torch.set_num_threads(threads)


class _Sums(NamedTuple):
    """Sums over samples of y, y y^T (in large dimensions its diagonal), |y|^2 and |y|^4, y the estimate less a shift;
    and of the first, second and fourth power of its cosine with a vector, empty where there is none.
    """

    first: Tensor
    products: Tensor
    norm2: Tensor
    norm4: Tensor
    cosines: Tensor

    @classmethod
    def of(cls, samples: Tensor, shift: Tensor, along: Tensor | None) -> "_Sums":
        y = samples - shift
        squares = y * y
        norm2 = squares.sum(-1)
        products = y.T @ y if y.shape[1] <= COVARIANCE_DIM else squares.sum(0)
        return cls(y.sum(0), products, norm2.sum(), norm2 @ norm2, _cosine_powers(samples, along))


def _cosine_powers(samples: Tensor, along: Tensor | None) -> Tensor:
    if along is None:
        return samples.new_zeros(0)
    sizes = samples.norm(dim=-1) * along.norm()
    cosines = (samples @ along) / sizes.where(sizes > 0, 1.0)
    squares = cosines.square()
    return torch.stack((cosines.sum(), squares.sum(), squares @ squares))


def _accumulate(
    draw: Callable[[int, int], Tensor], key: int, dim: int, samples: int, along: Tensor | None = None
) -> Moments:
    """Merge the sums of the chunks, shifted by the mean of the first so that no digits cancel."""
    (head,) = _each_chunk(lambda c, rows: draw(derive(key, c), rows), dim, min(samples, chunk_rows(dim)))
    shift = head.mean(0)
    total = _Sums.of(head, shift, along)
    for part in _each_chunk(lambda c, rows: _Sums.of(draw(derive(key, c), rows), shift, along), dim, samples, first=1):
        total = _Sums(*(a + b for a, b in zip(total, part, strict=True)))
    return _moments(total, shift, samples)


def _moments(total: _Sums, shift: Tensor, samples: int) -> Moments:
    freedom = samples - 1 or math.nan  # one sample says nothing of its own error
    full = total.products.ndim == 2
    square = torch.outer(total.first, total.first) if full else total.first**2
    covariance = (total.products - square / samples) / freedom
    variance = (covariance.diagonal() if full else covariance).clamp(min=0)
    norm2_variance = float(total.norm4 - total.norm2**2 / samples) / freedom
    return Moments(
        mean=shift + total.first / samples,
        mean_error=(variance / samples).sqrt(),
        covariance_trace=float(variance.sum()),
        covariance_trace_error=math.sqrt(norm2_variance / samples if not norm2_variance < 0 else 0.0),
        samples=samples,
        covariance=covariance if full else None,
        cosine=_cosine(total.cosines, samples) if len(total.cosines) else None,
    )


def _cosine(sums: Tensor, samples: int) -> Cosine:
    mean, square, fourth = (sums / samples).tolist()
    freedom = samples - 1 or math.nan
    error, square_error = (math.sqrt(max(v, 0.0) / freedom) for v in (square - mean**2, fourth - square**2))
    size = math.sqrt(square)
    return Cosine(mean, error, size, square_error / (2 * size) if size else 0.0)
