"""The same kernel on another interval."""

from zobench.kernels.kernel import Kernel, require_scale


def rescaled(kernel: Kernel, scale: float) -> Kernel:
    """Return K_s(r) = K(r / s) / s with r / s of the kernel's own law: r ~ Uniform[-s, s] for a polynomial kernel.

    E[r K_s] and E[r^2 K_s^2] are those of K, every condition E[r^j K] = 0 still holds, and E[K_s^2] is E[K^2] / s^2.
    It is no new estimator: with epsilon e it is K with epsilon s e, so that shrinking the interval rightly is
    shrinking epsilon. `shrunk` is the variant that leaves K as it was.

    Raises:
        ValueError: `scale` is not positive and finite.
    """
    scale = require_scale(scale)
    return kernel if scale == 1.0 else kernel.rescaled(scale)
