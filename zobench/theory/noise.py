"""The noise of evaluations, as theory sees it."""

from dataclasses import dataclass

from torch import Tensor

from zobench.numbers import flag, real, store


@dataclass(frozen=True, eq=False)
class Noise:
    """Noise of the evaluations of one step: y = f(x) + (g_B - grad f) . x + s xi, xi ~ N(0, 1), g_B of minibatch B.

    `evaluation` is the standard deviation of noise that is independent at each evaluation. `minibatch` (d, d) is the
    covariance of the gradient over minibatches: both ends of a difference see the same one, and so do all directions
    of a step if `shared`; otherwise each direction draws its own. Exact where the minibatch changes f by a function
    linear in x; otherwise to leading order in epsilon.

    Raises:
        ValueError: evaluation is negative or not finite.
    """

    evaluation: float = 0.0
    minibatch: Tensor | None = None
    shared: bool = True

    def __post_init__(self) -> None:
        advice = "give the standard deviation of one evaluation, 0 or more"
        evaluation = real("noise", self.evaluation, advice, lambda s: s >= 0)
        store(self, evaluation=evaluation, shared=flag("shared", self.shared))

    @classmethod
    def of(cls, noise: "float | Noise") -> "Noise":
        """Return the noise; a number is the standard deviation of one evaluation."""
        return noise if isinstance(noise, Noise) else cls(noise)
