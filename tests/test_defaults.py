"""Numbers do not depend on torch's default dtype and device, which belong to the user."""

import ast
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from engines import ISOTROPIC, bits
from scipy.optimize import minimize
from torch import Tensor, nn

import zobench
from synthetic import problems
from zobench import (
    FlatSpace,
    InForwardSpace,
    ModuleSpace,
    PerTensor,
    estimate,
    kernels,
    methods,
    moments,
    query,
    theory,
)
from zobench.integrations.scipy import zeroth_order
from zobench.law import LAWS
from zobench.random import native, streams

ROOT = Path(zobench.__file__).parent.parent
FACTORIES = {
    "arange", "as_tensor", "asarray", "empty", "empty_strided", "eye", "full", "linspace", "logspace", "normal", "ones",
    "rand", "randint", "randn", "randperm", "scalar_tensor", "tensor", "tril_indices", "triu_indices", "zeros",
}  # fmt: skip
OF_FLOATS = FACTORIES - {
    "arange",
    "as_tensor",
    "asarray",
    "randint",
    "randperm",
    "tensor",
    "tril_indices",
    "triu_indices",
}  # without ids and counts
DEFAULTS = ("float64", "bfloat16", "float16", "meta")


def unnamed(text: str, names: set[str], wanted: set[str]) -> list[str]:
    """Calls of torch's factories that leave one of the wanted arguments to a default."""
    calls = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    found = []
    for call in calls:
        of_torch = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "torch"
        if of_torch and call.func.attr in names and not wanted <= {str(word.arg) for word in call.keywords}:
            found.append(f"{call.lineno}: {ast.unparse(call)}")
    return found


@pytest.mark.parametrize("package", ["zobench", "synthetic", "llm"])
def test_every_tensor_is_made_with_a_dtype_and_a_device(package):
    rule = (OF_FLOATS, {"dtype"}) if package == "llm" else (FACTORIES, {"dtype", "device"})
    files = list((ROOT / package).rglob("*.py"))
    assert len(files) > 10
    found = {file.name: calls for file in files if (calls := unnamed(file.read_text(encoding="utf-8"), *rule))}
    assert not found, "name dtype= and device=: the defaults are the user's"


def test_a_call_that_leaves_it_open_is_found():
    assert unnamed("torch.empty(3)\nx.zeros(2)\ntorch.zeros(2, dtype=d, device=e)", FACTORIES, {"dtype", "device"}) == [
        "1: torch.empty(3)"
    ]


@contextmanager
def default(name: str) -> Iterator[None]:
    try:
        if name == "meta":
            torch.set_default_device(name)
        else:
            torch.set_default_dtype(getattr(torch, name))
        yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


def filled(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.sin(torch.arange(1, 1 + np.prod(shape), dtype=dtype, device="cpu")).reshape(shape)


class Net(nn.Module):
    """An embedding, whose rows are drawn one by one, and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(30, 8, dtype=torch.float32, device="cpu")
        self.layer = nn.Linear(8, 5, dtype=torch.float32, device="cpu")
        for p in self.parameters():
            p.data = filled(*p.shape)
        self.ids = torch.tensor([1, 4, 4, 29], dtype=torch.int64, device="cpu")

    def forward(self) -> Tensor:
        return self.layer(self.table(self.ids)).square().mean()


def of_module(space_of: type[ModuleSpace], estimator: zobench.Estimator) -> list[Tensor]:
    """Dense directions of one step, its losses, and the weights after it."""
    net = Net().eval()
    space = space_of(net)
    told = query(space, estimator, net, 5, estimator.init())
    before = space.dense(told.gradient)
    space.step_(told.gradient, -0.01, 0.1)
    return [before, told.losses, space.vector()]


def of_optimizer(estimator: zobench.Estimator) -> list[Tensor]:
    net = Net()
    optimizer = zobench.optim.ZerothOrder(net.named_parameters(), estimator, lr=1e-4, weight_decay=0.1)
    losses = [optimizer.step(net) for _ in range(3)]
    return [*losses, *(p.detach() for p in net.parameters())]


def of_flat(estimator: zobench.Estimator, name: str) -> list[Tensor]:
    problem = problems.make(name, dim=6) if name != "mlp" else problems.make(name, inputs=2, hidden=2)
    x = problems.start(problem)
    space = FlatSpace(x.clone())
    told = query(space, estimator, problem, 3, estimator.init())
    space.step_(told.gradient, -0.01, 0.1)
    found = moments(estimator, problem, x, key=2, samples=10, noise=0.1)
    return [space.x, estimate(estimator, problem, x, samples=20), found.mean, found.mean_error]


def of_theory(estimator: zobench.LineEstimator, name: str) -> list[Tensor]:
    problem = problems.make(name, dim=4)
    x = problems.start(problem)
    step = theory.DescentStep.of(estimator, problem, x, 0.1)
    numbers = [
        theory.mse(estimator, problem, x, 0.1), theory.best_epsilon(estimator, problem, x, 1e-3), step.slope,
        step.curvature, theory.covariance_trace(estimator, problem, x),
    ]  # fmt: skip
    theory.coverage(estimator, problem)
    return [theory.bias(estimator, problem, x), torch.tensor(numbers, dtype=torch.float64, device="cpu")]


def of_problem(name: str) -> list[Tensor]:
    problem = problems.make(name, **({} if name == "mlp" else {"dim": 4}))
    x = problems.start(problem)
    return [problem(x), problem.gradient(x), problem.hessian(x), *(problem.grad_laplacian(x, order=k) for k in (1, 2))]


def of_scipy() -> list[Tensor]:
    found = minimize(lambda x: float(x @ x), [1, 2], method=zeroth_order, options={"lr": 0.05, "maxiter": 5})
    return [torch.from_numpy(found.x)]


MADE = {
    **{law: methods.make("mezo", law=law, n=2) for law in LAWS},
    "per tensor": zobench.LineEstimator(PerTensor(kernels.legendre(3)), zobench.CentralStencil(), 1e-3),
    "auto": methods.make("mezo", epsilon="auto"),
    **{name: methods.make(name) for name in ("kerzoo", "optimal", "telescoping", "one-point", "central4")},
    "forward-gradient": methods.make("forward-gradient"),
}
BY_TENSOR = ("per tensor", *(set(LAWS) - set(ISOTROPIC)))
WORK = {
    "normals": lambda: [streams.normals(7, 3, 1001, dtype) for dtype in (torch.float32, torch.float64)],
    **{f"module {name}": partial(of_module, ModuleSpace, e) for name, e in MADE.items()},
    **{f"in-forward {name}": partial(of_module, InForwardSpace, e) for name, e in MADE.items()},
    **{f"optimizer {name}": partial(of_optimizer, e) for name, e in MADE.items()},
    **{f"flat {name}": partial(of_flat, e, "sextic") for name, e in MADE.items() if name not in BY_TENSOR},
    **{f"flat {name}": partial(of_flat, MADE["gaussian"], name) for name in ("mlp", "logistic", "rosenbrock")},
    **{
        f"theory {law} {name}": partial(of_theory, MADE[law], name)
        for law in ISOTROPIC
        for name in ("quartic", "rosenbrock")
        if (law, name) != ("orthogonal", "rosenbrock")
    },
    **{f"problem {name}": partial(of_problem, name) for name in ("quartic", "levy", "ackley", "logistic", "mlp")},
    "scipy": of_scipy,
}


def digest() -> str:
    parts = (bits(each).numpy().tobytes() for name in ("normals", "module sphere", "scipy") for each in WORK[name]())
    return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.parametrize("name", WORK)
def test_bits_are_the_same_under_every_default(name):
    wanted = [bits(each) for each in WORK[name]()]
    for other in DEFAULTS:
        with default(other):
            found = WORK[name]()
        assert len(found) == len(wanted)
        assert all(torch.equal(bits(a), b) for a, b in zip(found, wanted, strict=True)), other


RECORDED = [name for name in WORK if name.startswith(("flat", "theory")) and "forward-gradient" not in name]


@pytest.mark.parametrize("name", RECORDED)
def test_bits_are_the_same_under_inference_mode(name):
    """Threads do not inherit it, and gradients of problems are taken all the same."""
    wanted = [bits(each) for each in WORK[name]()]
    with torch.inference_mode():
        found = [bits(each) for each in WORK[name]()]
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


SET_BEFORE = """
import os, sys, pytest, scipy.optimize, torch
for default in sys.argv[1:]:
    if os.fork():
        assert os.wait()[1] == 0, default
    else:
        torch.set_default_device(default) if default == "meta" else torch.set_default_dtype(getattr(torch, default))
        import test_defaults as t
        print(default, t.native.status(), t.digest(), flush=True)
        os._exit(0)
"""


def test_a_default_that_is_set_before_the_import_changes_nothing():
    """The native code is tried under it, too. Children that are forked do not import torch and SciPy again."""
    paths = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    others = ["float32", *DEFAULTS]
    told = subprocess.run([sys.executable, "-c", SET_BEFORE, *others], env=paths, capture_output=True, text=True)
    assert told.stdout.splitlines() == [f"{other} {native.status()} {digest()}" for other in others], told.stderr
