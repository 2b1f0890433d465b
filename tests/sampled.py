"""Tables of which `make test` takes a sample that covers every row and column; `make conformance` takes the rest."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def sampled(cases: Iterable[Any], usual: Callable[[Any], bool]) -> list[Any]:
    """Parameters; a case that is not usual is exhaustive."""
    marks = {True: (), False: (pytest.mark.exhaustive,)}
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=marks[bool(usual(case))]) for case in cases
    ]


def diagonal(rows: Iterable[Any], columns: Iterable[Any]) -> list[Any]:
    """Every pair of a row and a column; usual are as many as cover each row and each column once."""
    rows, columns = list(rows), list(columns)
    most = max(len(rows), len(columns))
    usual = {(k % len(rows), k % len(columns)) for k in range(most)}
    places = [(i, j) for i in range(len(rows)) for j in range(len(columns))]
    return [
        pytest.param(rows[i], columns[j], marks=() if (i, j) in usual else pytest.mark.exhaustive) for i, j in places
    ]
