"""Engines by name, and one's own: how a stepper perturbs the weights of a model."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from llm.model.language_model import DTYPES
from llm.model.mapped import blocks_of
from zobench import Estimator, InForwardSpace, ModuleSpace
from zobench.naming import require_known
from zobench.space import Batched, Engine, Streamed
from zobench.spelling import made, own, spelled, taken

AUTO, STREAMED = "auto", "streamed"
LARGE = 10_000_000
"""Number of trainable weights from which `auto` takes the in-forward engine."""


def batched_space(
    model: nn.Module, points: int | None = None, rounding: str = "nearest", reads: torch.dtype | None = None
) -> ModuleSpace:
    """Return the space of the batched engine, with so many points in one forward, None for all of a plan."""
    return ModuleSpace(model, Batched(points, rounding, reads))


def streamed_space(model: nn.Module, rounding: str = "nearest", reads: torch.dtype | None = None) -> ModuleSpace:
    """Return the space of the streamed engine, which fetches the layers of a model that `streaming.load` mapped."""
    blocks = blocks_of(model)
    return ModuleSpace(model, Streamed(rounding, reads, blocks.slots or blocks if blocks else None))


ENGINES: dict[str, Callable[..., ModuleSpace]] = {
    "plain": ModuleSpace,
    "in-forward": partial(InForwardSpace, deferred=True),
    "paired": partial(InForwardSpace, deferred=True, paired=True),
    "batched": batched_space,
    STREAMED: streamed_space,
}
WHOLE = ("plain", "in-forward", "paired")
"""Engines in which a layer may read its perturbed matrix as a whole."""


def is_own(name: str) -> bool:
    """Return whether the name is `package.module:function` and not one of the table.

    Raises:
        UnknownNameError: it is neither.
    """
    known = (AUTO, *ENGINES)
    if spelled(name, known).is_own:
        return True
    require_known(name, known, "engine")
    return False


def chosen_engine(name: str, model: nn.Module) -> str:
    """Return the engine; "auto" is plain below ten million trainable weights, and above paired on a CPU, in-forward
    elsewhere.

    Raises:
        UnknownNameError: no such engine.
    """
    if is_own(name) or name != AUTO:
        return name
    trained = [p for p in model.parameters() if p.requires_grad]
    if sum(p.numel() for p in trained) < LARGE:
        return "plain"
    return "paired" if all(p.device.type == "cpu" for p in trained) else "in-forward"


def rounded(rounding: str, dtype: str) -> tuple[str, torch.dtype | None]:
    """Return how a space rounds steps and what its layers read: "master" holds float32 and reads the dtype.

    Raises:
        UnknownNameError: no such dtype.
    """
    require_known(dtype, DTYPES, "dtype")
    return ("nearest", DTYPES[dtype]) if rounding == "master" else (rounding, None)


def require_rounding(engine: str, rounding: str, reads: torch.dtype | None) -> None:
    """Raise ValueError if the engine cannot round steps so or read parameters so; one's own is imported and made."""
    if is_own(engine):
        own_engine(engine, rounding, reads)
    if engine == "plain" and (rounding != "nearest" or reads is not None):
        raise ValueError(
            "the plain engine perturbs the weights in place and rounds to the nearest: give --engine in-forward"
        )


def own_engine(name: str, rounding: str = "nearest", reads: torch.dtype | None = None) -> Engine:
    """Return the engine that `package.module:function:option=value` makes. The function receives `rounding` and
    `reads` if it has parameters of these names.

    Raises:
        ValueError: the function cannot be imported, does not take the options, makes no engine, or makes one that
            rounds or reads otherwise.
    """
    spelt = spelled(name, ENGINES)
    engine = made(spelt.name, {**taken(own(spelt.name), {"rounding": rounding, "reads": reads}), **spelt.options})
    if not isinstance(engine, Engine):
        raise ValueError(f"{spelt.name!r} makes {engine!r}, which is no zobench.space.Engine")
    if (engine.rounding, engine.reads) != (rounding, reads):
        raise ValueError(
            f"the engine {name!r} has rounding {engine.rounding!r} and reads {engine.reads}, but --rounding asks for "
            f"rounding {rounding!r} and reads {reads}: change --rounding, or give the engine's function the parameters "
            "rounding and reads"
        )
    return engine


def make_space(
    model: nn.Module,
    engine: str,
    rounding: str,
    reads: torch.dtype | None,
    points: int | None = None,
) -> ModuleSpace:
    """Return a space with the engine.

    Args:
        model: the module whose trainable parameters the space perturbs.
        engine: "plain", "in-forward", "paired", "batched", "streamed", or the spelling of one's own.
        rounding: "nearest" or "stochastic", for steps of bfloat16 parameters.
        reads: the dtype in which layers read the parameters; None for the parameters' own dtype.
        points: the most points in one forward of the batched engine; None for all.

    Raises:
        ValueError: the engine cannot round or read so, or as for `own_engine`.
    """
    if is_own(engine):
        return ModuleSpace(model, own_engine(engine, rounding, reads))
    if engine == "batched":
        return batched_space(model, points, rounding, reads)
    if engine != "plain":
        return ENGINES[engine](model, rounding=rounding, reads=reads)
    require_rounding(engine, rounding, reads)
    return ModuleSpace(model)


def require_batched(engine: str, points: int | None, estimator: Estimator) -> None:
    """Raise ValueError if points are to share a forward and cannot: another engine, or a first plan whose law is of no
    low rank.
    """
    if engine != "batched":
        if points is not None:
            raise ValueError(f"points is {points}, but engine {engine} does not read it: leave --points out")
        return
    if points is not None and points < 1:
        raise ValueError(f"points is {points}: give 1 or more points a forward, or leave it out")
    law = estimator.ask(0, estimator.init()).law
    if not law.factored:
        raise ValueError(
            f"the batched engine needs directions of low rank, but the law is {law!r}: give a method law=low-rank, as "
            "--method mezo:law=low-rank:n=8, or --engine in-forward"
        )
