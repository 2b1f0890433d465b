"""Runs that are interrupted, or that fail."""

from dataclasses import replace

import pytest


def gone(loop, stop=None):
    """Let a run go to its end, or interrupt it before step `stop`, and return its loop."""
    take = loop.stepper.step

    def step(*arguments):
        if loop.stepper.steps == stop:
            raise KeyboardInterrupt
        return take(*arguments)

    loop.stepper.step = step
    if stop is None:
        loop.go()
    else:
        with pytest.raises(KeyboardInterrupt):
            loop.go()
    return loop


def fail_at(loop, step):
    """Let the minibatch of a step raise ZeroDivisionError."""
    losses = loop.context.losses

    def failing(number, *given):
        return 1 / 0 if number == step else losses(number, *given)

    object.__setattr__(loop.context, "losses", failing)  # the dataclass is frozen


def with_objective(loop, objective):
    """Let the steps of a run minimise another objective, and return its loop."""
    loop.context = replace(loop.context, objective=objective)
    return loop
