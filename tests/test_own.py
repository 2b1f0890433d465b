"""The page docs/own.md: its code runs in one go, and what it makes is what it says."""

from typing import Any

import pytest
import torch
from own_page import blocks

from zobench import InForwardSpace, ModuleSpace, methods, query, state, theory

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    torch.manual_seed(0)
    found: dict[str, Any] = {"__name__": __name__}
    for block in blocks():
        exec(block, found)
    globals().update({name: found[name] for name in ("Mean", "Searching")})  # where states look their classes up
    return found


def test_estimators_of_the_page_are_right(names):
    """The sampled means against the exact gradient; a gradient a tenth off is seen."""
    gradient = names["problem"].gradient(names["x"])
    for found in (names["found"],):
        z = (found.mean - gradient) / found.mean_error
        assert float(z.abs().max()) < 5
        assert float(((found.mean - 1.2 * gradient) / found.mean_error).abs().max()) > 5
    assert names["z"].abs().max() < 5


def test_theory_is_asked_of_what_is_linear(names):
    with pytest.raises(TypeError, match="Baseline makes its own"):
        theory.bias(names["Baseline"](), names["problem"], names["x"])
    assert methods.make("mezo").linear


def test_states_are_kept_and_all_train(names):
    for kept in (names["Mean"](0.5, 3), names["Searching"]()):
        assert state.same(state.restored(state.plain(kept)), kept)
    assert len(names["losses"]) == 3 and all(loss == loss for loss in names["losses"])
    assert names["losses"][2] < names["losses"][0]


def test_theory_speaks_of_the_problem_of_the_page(names):
    """Its bias is seen, and is the predicted one."""
    assert names["biased"].abs().max() > 5 > names["predicted"].abs().max()


def test_the_engine_of_the_page_steps_as_the_in_forward_engine_to_the_bit(names):
    """Nothing is left of a point."""
    ends, inputs, mezo = [], torch.ones(3, 4).bfloat16(), methods.make("mezo", epsilon=0.1)
    for of in (lambda module: ModuleSpace(module, names["Copied"]()), InForwardSpace):
        torch.manual_seed(3)
        module = torch.nn.Linear(4, 2).bfloat16()
        space = of(module)
        told = query(space, mezo, lambda module=module: module(inputs).sum(), 1, ())
        ends.append([told.losses, space.vector()])
        space.step_(told.gradient, -0.1, 0.1)
        ends[-1].append(space.vector())
    ours, theirs = ends
    assert all(map(torch.equal, ours, theirs))
    assert not torch.equal(ours[1], ours[2])
