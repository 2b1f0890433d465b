"""A step makes the host wait for the device once: the losses of all points are read together.

On a CPU nothing waits. What would wait is counted: numbers and shapes that Python asks of tensors of the model, which
computes in float32 with int64 ids; the books are kept in float64 on the host.
"""

import pytest
import torch
from engines import IDS, Net, space_of
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zobench import derive, methods, query
from zobench.random import native
from zobench.space.closure import evaluate, read

METHODS = ("tolist", "cpu", "numpy")
OPERATIONS = ("_local_scalar_dense", "_unique2", "unique_dim", "equal", "nonzero", "masked_select", "bincount")


class HostReads(TorchDispatchMode):
    """The operations that would have waited for a device, by name; what is made of a device's tensors is there too."""

    def __init__(self):
        super().__init__()
        self.names, self._there = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given, name = tree_leaves((args, kwargs)), func.overloadpacket.__name__
        on_device = any(map(self.is_there, given))
        if name == "index" and any(isinstance(t, Tensor) and t.dtype == torch.bool for t in given):
            name = "nonzero"
        if on_device and name in OPERATIONS:
            self.names.append(name)
        out = func(*args, **(kwargs or {}))
        self._there += [t for t in tree_leaves(out) if isinstance(t, Tensor) and on_device and t.dtype == torch.bool]
        return out

    def is_there(self, value):
        known = isinstance(value, Tensor) and any(value is t for t in self._there)
        return known or (isinstance(value, Tensor) and value.dtype in (torch.float32, torch.int64))


def reads_of(work):
    seen = HostReads()

    def counted(name, method):
        def call(tensor, *arguments, **more):
            if seen.is_there(tensor):
                seen.names.append(name)
            return method(tensor, *arguments, **more)

        return call

    with pytest.MonkeyPatch.context() as patch, seen:
        for name in METHODS:
            patch.setattr(Tensor, name, counted(name, getattr(Tensor, name)))
        work()
    return seen.names


def narrow_loss(module):
    return lambda: functional.cross_entropy(module(IDS).flatten(0, 1), IDS.roll(1, 0).flatten(), reduction="none")


@pytest.mark.parametrize("method", ["mezo", "forward:n=3", "kerzoo:n=2"])
@pytest.mark.parametrize("engine", ["plain"])
def test_a_step_reads_its_losses_once_and_nothing_else(engine, method):
    native.available()  # which compares numbers once a process
    module = Net(dtype=torch.float32)
    space, estimator, f = space_of(engine, module), methods.parse(method), narrow_loss(module)

    def step():
        told = query(space, estimator, f, derive("step"), estimator.init())
        space.step_(told.gradient, -1e-3, 1e-3)

    assert reads_of(step) == ["tolist"]


def test_the_count_sees_what_would_wait():
    x = torch.ones(3)
    waits = {
        "_local_scalar_dense": lambda: float(x.sum()), "tolist": lambda: x.tolist(), "_unique2": lambda: x.unique(),
        "nonzero": lambda: x[x > 0], "equal": lambda: torch.equal(x, x), "cpu": lambda: x.cpu(),
    }  # fmt: skip
    assert {name: reads_of(wait) for name, wait in waits.items()} == {name: [name] for name in waits}
    assert reads_of(lambda: bool((x > 0).all())) == reads_of(lambda: x.sum().item()) == ["_local_scalar_dense"]
    assert reads_of(lambda: x.double().tolist()) == []


def test_losses_are_read_as_each_alone_would_be():
    low, wide = torch.tensor(1 / 3), torch.tensor(1 / 3, dtype=torch.float64)
    assert read([low, 0.1, wide, low.bfloat16()]) == [float(low), 0.1, 1 / 3, float(low.bfloat16())]
    assert read([]) == [] and read([2]) == [2.0]
    assert evaluate(lambda: torch.ones(4)) == 1.0
