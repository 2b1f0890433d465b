"""Learning rates tried: the best of each method, and whether it lies inside its grid, as every comparison demands."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from analysis import text
from analysis.labels import meaning
from analysis.rows import Results


@dataclass(frozen=True)
class Grid:
    """The rates that one method tried, in increasing order, with the loss at each (infinite where it diverged)."""

    method: str
    losses: Mapping[float, float]

    @property
    def best(self) -> float:
        """The rate of least loss; NaN where every one diverged."""
        least = min(self.losses.values(), default=math.inf)
        return next(rate for rate, loss in self.losses.items() if loss == least) if math.isfinite(least) else math.nan

    @property
    def inside(self) -> bool:
        """Whether a smaller and a larger rate were tried and both are worse."""
        return not math.isnan(self.best) and min(self.losses) < self.best < max(self.losses)

    @property
    def fault(self) -> str:
        """The reason why the method cannot be compared; empty if it can."""
        if self.inside:
            return ""
        if math.isnan(self.best):
            return f"{self.method} diverged at every rate tried"
        if len(self.losses) == 1:
            return f"{self.method} tried one rate only, {text.rate(self.best)}"
        end = "smallest" if self.best == min(self.losses) else "largest"
        return f"the best rate of {self.method}, {text.rate(self.best)}, is the {end} tried"


def grid(method: str, rates: Iterable[float], losses: Iterable[float]) -> Grid:
    """Rates with their losses; a loss that is not a number is that of a divergence."""
    pairs = sorted(zip(map(float, rates), losses, strict=True))
    return Grid(method, {rate: loss if loss is not None and math.isfinite(loss) else math.inf for rate, loss in pairs})


def faults(grids: Iterable[Grid]) -> list[str]:
    """The reasons why these methods cannot be compared."""
    return [one.fault for one in grids if one.fault]


def synthetic(tune: pd.DataFrame) -> dict[tuple[str, float], list[Grid]]:
    """The grids of rows of kind "tune", by problem and dimension."""
    grids: dict[tuple[str, float], list[Grid]] = {}
    for (problem, dim, method), rows in tune.groupby(["problem", "dim", "method"], sort=False):
        losses = rows["loss"].where(rows["status"] != "diverged", math.inf)
        grids.setdefault((problem, dim), []).append(grid(method, rows["lr"], losses))
    return grids


def training(results: Results) -> dict[str, Grid]:
    """The grids of studies of language models, by arm: `mezo`, `mezo-lora` with an adapter, `mezo-gguf` if quantised.

    They come from rows of kind "chosen" and, of studies that kept none, from the runs that tuned: those of negative
    seeds.
    """
    grids = {name: grid(name, rates, losses) for name, (rates, losses) in _tuned(results).items()}
    for row in results.of("chosen").itertuples():
        if isinstance(row.rates, list) and isinstance(row.dev_losses, list) and len(row.rates) == len(row.dev_losses):
            grids[row.method] = grid(row.method, row.rates, row.dev_losses)
    return grids


def arm(method: str, config: Mapping[str, object]) -> str:
    """The name by which studies know a method with what it trains."""
    parts = (method, meaning(config, "quantize"), meaning(config, "adapter"))
    return "-".join(str(part) for part in parts if part)


def at_edge(ends: pd.DataFrame, grids: Mapping[str, Grid]) -> pd.Series:
    """For each training run what is wrong with its learning rate; empty where it is inside its grid or not tuned."""
    return pd.Series(
        [grids[name].fault if name in grids and grids[name].best == rate else "" for name, rate in _arms(ends)],
        ends.index,
        dtype=object,
    )


def _arms(ends: pd.DataFrame) -> Iterable[tuple[str, float]]:
    return zip(ends["arm"], ends["lr"] if "lr" in ends else [math.nan] * len(ends), strict=True)


def _tuned(results: Results) -> dict[str, tuple[list[float], list[float]]]:
    ends = results.of("final")
    measured = results.of("evaluation").drop_duplicates("run", keep="last").set_index("run")["dev_loss"]
    losses: dict[str, dict[float, list[float]]] = {}
    for end in ends[ends["seed"] < 0].drop_duplicates("run", keep="last").itertuples():
        config = results.config_of(end.run)
        if "lr" not in config:
            continue
        loss = measured.get(end.run, math.nan) if math.isnan(end.dev_loss) else end.dev_loss
        at = losses.setdefault(arm(end.method, config), {}).setdefault(float(config["lr"]), [])
        at.append(loss if end.status == "ok" else math.inf)
    return {name: (list(at), [sum(one) / len(one) for one in at.values()]) for name, at in losses.items()}
