"""Logistic regression with a quadratic penalty, on synthetic and on real data."""

from dataclasses import dataclass
from functools import cache, cached_property

import torch
from numpy.polynomial import Polynomial
from torch import Tensor

from synthetic.problems.draws import normal
from synthetic.problems.empirical import Empirical
from synthetic.problems.psi import spectrum
from synthetic.problems.series import softplus
from zobench.layout import CPU
from zobench.problem import Ridges
from zobench.random import streams
from zobench.random.keys import derive

TOLERANCE = 1e-12
NEWTON_STEPS = 100


@dataclass(frozen=True, eq=False)
class LogisticRegression(Empirical):
    """mean_i log(1 + exp(-y_i a_i . x)) + l2 |x|^2 / 2, with a_i the rows of `features` (N, d), y_i = ±1 the `labels`.

    Raises:
        ValueError: l2 is not positive: on data that a plane separates there would be no minimum.
    """

    name: str
    features: Tensor
    labels: Tensor
    l2: float

    def __post_init__(self) -> None:
        if not self.l2 > 0:
            raise ValueError(f"l2 is {self.l2!r}: give a positive penalty, else separable data have no minimum")

    @property
    def dim(self) -> int:
        """Number of variables, one for each feature."""
        return self.features.shape[1]

    @property
    def smoothness(self) -> float:
        """lambda_max(A^T A) / (4 N) + l2, A the features."""
        return float(torch.linalg.matrix_norm(self.features, 2)) ** 2 / (4 * self.examples) + self.l2

    @property
    def minimum(self) -> float:
        """The least value."""
        return float(self(self.centre))

    @cached_property
    def centre(self) -> Tensor:
        """The minimizer, by Newton steps, halved until f falls, until |grad f| <= 1e-12.

        Raises:
            ArithmeticError: 100 steps did not get there.
        """
        x = torch.zeros(self.dim, dtype=torch.float64, device=CPU)
        for _ in range(NEWTON_STEPS):
            gradient = self.gradient(x)
            if float(gradient.norm()) <= TOLERANCE:
                return x
            step = torch.linalg.solve(self.hessian(x), gradient)
            while float(self(x - step)) > float(self(x)) + TOLERANCE:
                step = step / 2
            x = x - step
        raise ArithmeticError(f"Newton's method left a gradient of norm {float(gradient.norm()):.1e}: raise l2")

    def __call__(self, x: Tensor) -> Tensor:
        """Return f(x) (...)."""
        return self._slopes(self._margins(x), 0).mean(-1) + self._penalty(x)

    def example_losses(self, x: Tensor) -> Tensor:
        """Return the loss of each example, penalty included, (..., N)."""
        return self._slopes(self._margins(x), 0) + self._penalty(x)[..., None]

    def gradient(self, x: Tensor) -> Tensor:
        """Return grad f(x) (..., d)."""
        return self._backed(x, 1) + self.l2 * x

    def example_gradients(self, x: Tensor) -> Tensor:
        """Return the gradient of each example's loss (N, d) at one point x (d,)."""
        return self._slopes(self._margins(x), 1)[:, None] * self._signed + self.l2 * x

    def hessian(self, x: Tensor) -> Tensor:
        """Return D^2 f(x) (d, d)."""
        weighted = self._slopes(self._margins(x), 2)[:, None] * self.features
        curvature = self.features.T @ weighted / self.examples
        return (curvature + curvature.T) / 2 + self.l2 * torch.eye(self.dim, dtype=torch.float64, device=CPU)

    def derivative(self, x: Tensor, u: Tensor, order: int) -> Tensor:
        """Return D^order f(x)[u, ..., u], broadcasting x and u, order >= 1."""
        u = u.double()
        value = (self._slopes(self._margins(x), order) * (u @ self._signed.T) ** order).mean(-1)
        penalty = (x * u).sum(-1) if order == 1 else (u * u).sum(-1) if order == 2 else 0.0
        return value + self.l2 * penalty

    def grad_laplacian(self, x: Tensor, order: int = 1) -> Tensor:
        """Return grad(Lap^order f)(x) (..., d): mean_i |a_i|^(2 order) l^(2 order + 1)(y_i a_i . x) y_i a_i."""
        return self._backed(x, 2 * order + 1, self.features.square().sum(-1) ** order)

    def _high_ridges(self, x: Tensor, order: int) -> Ridges:
        """The data are the directions."""
        coefficients = self._slopes(self._margins(x), order) * self.labels**order / self.examples
        return Ridges(coefficients, self.features)

    def _backed(self, x: Tensor, order: int, factor: Tensor | float = 1.0) -> Tensor:
        return (self._slopes(self._margins(x), order) * factor) @ self._signed / self.examples

    @cached_property
    def _signed(self) -> Tensor:
        return self.labels[:, None] * self.features

    def _margins(self, x: Tensor) -> Tensor:
        return x.double() @ self._signed.T

    def _penalty(self, x: Tensor) -> Tensor:
        return self.l2 / 2 * x.double().square().sum(-1)

    @staticmethod
    def _slopes(margins: Tensor, order: int) -> Tensor:
        """The order-th derivative of l(m) = log(1 + e^-m): from the second on, s (1 - s) times a polynomial in s."""
        if order == 0:
            return softplus(-margins)
        s, rest = torch.sigmoid(margins), torch.sigmoid(-margins)
        if order == 1:
            return -rest
        value = torch.zeros_like(s)
        for coefficient in reversed(_sigmoid_factor(order)):
            value = value * s + coefficient
        return s * rest * value


@cache
def _sigmoid_factor(order: int) -> tuple[float, ...]:
    """Coefficients of r with l^(order) = s (1 - s) r(s), s the sigmoid: r_2 = 1, r_{k+1} = (1 - 2 s) r_k + s (1 - s)
    r_k'.
    """
    factor = Polynomial([1.0])
    for _ in range(order - 2):
        factor = Polynomial([1.0, -2.0]) * factor + Polynomial([0.0, 1.0, -1.0]) * factor.deriv()
    return tuple(factor.coef.tolist())


def synthetic_logistic(
    dim: int = 16, examples: int = 256, condition: float = 10.0, l2: float = 1e-2, seed: int = 0
) -> LogisticRegression:
    """Return logistic regression on normal features whose variances run from 1 / condition to 1, and labels drawn from
    the model with logits of standard deviation 2.

    Raises:
        ValueError: dim < 1, examples < 1, condition < 1 or l2 <= 0.
    """
    variances = spectrum(dim, condition)
    if examples < 1:
        raise ValueError(f"examples is {examples}: give 1 or more")
    name = ("logistic", seed, dim)
    features = normal(derive(*name, "features"), (examples, dim)) * variances.sqrt()
    weights = normal(derive(*name, "weights"), (dim,))
    logits = features @ weights * (2 / (weights.square() @ variances).sqrt())
    heads = streams.uniform(derive(*name, "labels"), (examples,)) < torch.tanh(logits / 2)
    return LogisticRegression("logistic", features, torch.where(heads, 1.0, -1.0).double(), l2)


def breast_cancer(dim: int | None = None, bias: bool = False, l2: float = 1e-2) -> LogisticRegression:
    """Return logistic regression on the 569 examples of the breast cancer data of scikit-learn, 30 features of mean 0
    and variance 1, and with `bias` a feature that is 1 (penalised like the others).

    Source: Street, Wolberg and Mangasarian 1993; Wisconsin diagnostic data, UCI repository, CC BY 4.0.

    Raises:
        ValueError: dim is given and is not that of the data.
        ImportError: scikit-learn is not installed.
    """
    features, labels = _breast_cancer()
    if bias:
        features = torch.cat((features, torch.ones_like(features[:, :1])), 1)
    if dim is not None and dim != features.shape[1]:
        raise ValueError(f"dim is {dim}: the data have {features.shape[1]} features, so leave dim out")
    return LogisticRegression("logistic-real", features, labels, l2)


@cache
def _breast_cancer() -> tuple[Tensor, Tensor]:
    try:
        from sklearn.datasets import load_breast_cancer
    except ImportError as error:
        raise ImportError("logistic-real is on data that scikit-learn ships: pip install scikit-learn") from error
    raw, benign = load_breast_cancer(return_X_y=True)
    features = torch.from_numpy(raw).double()
    features = (features - features.mean(0)) / features.std(0, correction=0)
    return features, torch.from_numpy(benign).double() * 2 - 1
