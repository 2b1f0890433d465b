"""What must hold on every device: on the CPU always, and where marked `cuda` on a GPU, by `python -m llm gpu`."""

import pytest
import torch
from engines import Net
from torch.nn import functional

from zobench import InForwardSpace, ModuleSpace, derive, methods, query
from zobench.law import LAWS
from zobench.random import normals, signs, words

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
pytestmark = pytest.mark.parametrize("device", DEVICES)


@pytest.fixture(autouse=True)
def there(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


def loss_on(module, device):
    ids = torch.arange(24, device=device).view(3, 8)
    return lambda: functional.cross_entropy(module(ids).flatten(0, 1).float(), ids.roll(1, 0).flatten())


def stepped(engine, device, dtype=torch.float32, law="gaussian", **options):
    module = Net(dtype=dtype, width=32).to(device)
    space = ModuleSpace(module) if engine == "plain" else InForwardSpace(module, **options)
    estimator, f = methods.make("mezo", law=law), loss_on(module, device)
    losses = []
    for step in range(3):
        told = query(space, estimator, f, derive("device", step), ())
        losses.append(told.losses)
        space.step_(told.gradient, -1e-4, 1e-3)
    space.settle_()
    return torch.stack(losses), space.vector()


@pytest.mark.parametrize(("start", "stop"), [(0, 70000), (4099, 9973), ((1 << 34) - 3, (1 << 34) + 500)])
def test_integers_are_those_of_the_cpu_and_normals_to_two_units(device, start, stop):
    there = torch.device(device)
    for key in (0, derive("device"), (1 << 64) - 1):
        assert torch.equal(words(key, start, stop, there).cpu(), words(key, start, stop))
        assert torch.equal(signs(key, start, stop, device=there).cpu(), signs(key, start, stop))
        one, other = normals(key, start, stop, device=there).cpu(), normals(key, start, stop)
        assert int((one.view(torch.int32) - other.view(torch.int32)).abs().max()) <= 2


@pytest.mark.parametrize("law", ["gaussian", "rademacher"])
@pytest.mark.parametrize("engine", ["plain", "in-forward"])
def test_steps_are_those_of_the_cpu(device, engine, law):
    (losses, x), (expected, y) = stepped(engine, device, law=law), stepped("plain", "cpu", law=law)
    assert torch.allclose(losses, expected, rtol=1e-4)
    assert float((x - y).norm() / y.norm()) < 1e-5


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_deferred_steps_of_bfloat16_are_those_written_at_once_to_the_bit(device, rounding):
    deferred, at_once = (
        stepped("in-forward", device, torch.bfloat16, deferred=deferred, rounding=rounding)
        for deferred in (True, False)
    )
    assert torch.equal(deferred[0], at_once[0]) and torch.equal(deferred[1], at_once[1])


@pytest.mark.parametrize("law", sorted(set(LAWS) - {"distinct-coordinate"}))
def test_every_law_steps_there(device, law):
    losses, x = stepped("in-forward", device, law=law)
    assert losses.isfinite().all() and x.isfinite().all()
