"""Runs that are interrupted."""

import pytest


def gone(session, stop=None):
    """Let a session go to its end, or interrupt it before step `stop`, and return it."""
    take = session.trainer.step

    def step(key, losses):
        if session.trainer.steps == stop:
            raise KeyboardInterrupt
        return take(key, losses)

    session.trainer.step = step
    if stop is None:
        session.go()
    else:
        with pytest.raises(KeyboardInterrupt):
            session.go()
    return session
