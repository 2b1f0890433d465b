"""A plain function x -> g as the subject of checks."""

import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zobench.naming import require_known
from zobench.spelling import taken
from zobench.testing.promises import Promises
from zobench.testing.subject import Function, Subject

ARRAYS = ("numpy", "torch")
SEED_BITS = 31
GRADIENT = Promises(mean=1.0)
EPSILON = 1e-2


class FunctionSubject(Subject):
    """g(f, x, seed) -> estimate, one at a time; see `from_function`."""

    def __init__(self, function: Callable[..., Any], array: str, promises: Promises, epsilon: float) -> None:
        require_known(array, ARRAYS, "kind of array")
        self.function, self.array, self.promises = function, array, promises
        parameters = inspect.signature(function).parameters
        self.takes_seed, self.takes_epsilon = "seed" in parameters, "epsilon" in parameters
        self.name = getattr(function, "__qualname__", None) or repr(function)
        self.given = epsilon
        self.epsilon = epsilon if self.takes_epsilon else None

    def at(self, epsilon: float) -> "FunctionSubject":
        """Return the same with another epsilon, where the function takes one."""
        return FunctionSubject(self.function, self.array, self.promises, epsilon)

    @property
    def n(self) -> int | None:
        """The number of directions that the function takes by default."""
        default = getattr(inspect.signature(self.function).parameters.get("n"), "default", None)
        return default if isinstance(default, int) else None

    def with_directions(self, n: int) -> "FunctionSubject | None":
        """Return the same with n directions, where the function has a parameter n."""
        if "n" not in inspect.signature(self.function).parameters:
            return None
        function = self.function

        def with_n(f: Any, x: Any, **options: Any) -> Any:
            return function(f, x, n=n, **options)

        names = [p for name, p in inspect.signature(function).parameters.items() if name != "n"]
        with_n.__signature__ = inspect.Signature(names)  # type: ignore[attr-defined]
        return FunctionSubject(with_n, self.array, self.promises, self.given)

    def estimate(self, f: Function, x: Tensor, key: int) -> Tensor:
        """Return g(f, x, seed), float64 (d,).

        Raises:
            ValueError: it is not a vector of the size of x.
        """
        return self._called(f, x, key)[0]

    def leaves(self, f: Function, x: Tensor, key: int) -> Tensor:
        """Return what is in x after a call."""
        return self._called(f, x, key)[1]

    def _called(self, f: Function, x: Tensor, key: int) -> tuple[Tensor, Tensor]:
        """The estimate, and what is in x afterwards."""
        given: Any = x.detach().clone()
        seed = key % 2**SEED_BITS
        options = taken(self.function, {"seed": seed, "epsilon": self.given})
        with nullcontext() if self.takes_seed else globally_seeded(seed):
            answer = self.function(self._scalar(f), given.numpy() if self.array == "numpy" else given, **options)
        plain = np.asarray(answer.detach() if isinstance(answer, Tensor) else answer, dtype=np.float64)
        vector = torch.from_numpy(plain)
        if vector.shape != x.shape:
            raise ValueError(f"{self.name} returned the shape {tuple(vector.shape)} at x of the shape {tuple(x.shape)}")
        return vector, given

    def _scalar(self, f: Function) -> Callable[[Any], Any]:
        """The function on NumPy's vectors, or on torch's."""
        if self.array == "torch":
            return f
        return lambda x: float(f(torch.from_numpy(np.array(x, dtype=np.float64))))


def from_function(
    function: Callable[..., Any], array: str = "numpy", promises: Promises = GRADIENT, epsilon: float = EPSILON
) -> FunctionSubject:
    """Return the subject of checks that a plain function is: g(f, x, seed) -> estimate of grad f(x), as in the code of
    a paper, with x a float64 vector (d,) and f a function of such that returns a number.

    Args:
        function: g. Without a parameter `seed` the global generators of torch, NumPy and random are seeded around
            each call, which is told as a warning; a parameter `epsilon` is given, and so is `n` where directions are
            checked.
        array: "numpy" or "torch", what x is.
        promises: what it is held to; by default E[g] = grad f for linear f.
        epsilon: the displacement to give.

    Raises:
        UnknownNameError: `array` is neither.
    """
    return FunctionSubject(function, array, promises, epsilon)


def global_states() -> tuple[Any, ...]:
    """Return the states of the global generators of torch, NumPy and random, in forms that compare."""
    name, keys, *rest = np.random.get_state()
    return torch.random.get_rng_state().numpy().tobytes(), (name, np.asarray(keys).tobytes(), *rest), random.getstate()


@contextmanager
def globally_seeded(seed: int) -> Iterator[None]:
    """The context in which the global generators of torch, NumPy and random start from a seed; their states come
    back.
    """
    before = torch.random.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        torch.random.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])
