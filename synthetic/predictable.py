"""Estimators that theory predicts: those along lines, the same at every step."""

from typing import Any

from zobench import LineEstimator, methods


def parse(name: str, **defaults: Any) -> LineEstimator:
    """Return the estimator of a command-line spelling, as `methods.parse` does.

    Raises:
        UnknownNameError: no such method or option.
        ValueError: the estimator changes from step to step, or an option's value is out of range.
    """
    estimator = methods.parse(name, **defaults)
    if not isinstance(estimator, LineEstimator):
        raise ValueError(f"{name} changes from step to step: no prediction covers it, leave it out of --methods")
    return estimator
