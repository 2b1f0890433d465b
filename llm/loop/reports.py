"""Runs shown elsewhere: TensorBoard, Weights & Biases, MLflow, each through its own library, as far as installed."""

import importlib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from llm.loop.costs import Costs
from llm.loop.listener import Listener
from llm.objective import Measured
from llm.options.train import TrainOptions
from llm.run.log import RunLog
from llm.steppers.taken import Taken
from zobench.run.records import Row


class Sink(Protocol):
    """What shows numbers by step."""

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Show numbers of a step."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard:
    """Event files in the folder `tensorboard` of the run."""

    def __init__(self, options: TrainOptions, library: Any) -> None:
        self._writer = library.SummaryWriter(str(Path(options.out) / "tensorboard"))

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A run of the project `zobench`, or of the one that WANDB_PROJECT names; a continued run goes on."""

    def __init__(self, options: TrainOptions, library: Any) -> None:
        out = Path(options.out)
        place = {"name": out.name, "id": out.name, "dir": str(out), "resume": "allow"}
        self._run = library.init(project=_environment("WANDB_PROJECT"), config=asdict(options), **place)

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """A run of the experiment `zobench`, or of the one that MLFLOW_EXPERIMENT_NAME names."""

    def __init__(self, options: TrainOptions, library: Any) -> None:
        self._library = library
        library.set_experiment(_environment("MLFLOW_EXPERIMENT_NAME"))
        library.start_run(run_name=Path(options.out).name)
        library.log_params({name: str(value)[:500] for name, value in asdict(options).items()})

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self._library.log_metrics(dict(numbers), step=step)

    def close(self) -> None:
        self._library.end_run()


Make = Callable[[TrainOptions, Any], Sink]
SINKS: dict[str, tuple[Make, tuple[str, ...]]] = {
    "tensorboard": (TensorBoard, ("torch.utils.tensorboard", "tensorboardX")),
    "wandb": (Wandb, ("wandb",)),
    "mlflow": (MLflow, ("mlflow",)),
}
"""Name -> what shows a run there, and the libraries that do it, the first that is installed."""


class Reports(Listener):
    """Sends the losses, rates and metrics of a run to the places that --report-to names. Steps that the journal held
    already were sent when they were taken.
    """

    def __init__(self, options: TrainOptions, log: RunLog, costs: Costs) -> None:
        self.costs, self._first = costs, len(log.records)
        self._sinks = [SINKS[name][0](options, library(name)) for name in options.report_to]

    def on_step(self, taken: Taken) -> None:
        if taken.record.step >= self._first:
            passes = float(self.costs.row["forward_passes"])
            numbers = {"loss": taken.loss, "lr": taken.record.lr, "forward_passes": passes}
            self._send(taken.record.step, {f"train/{name}": value for name, value in numbers.items()})

    def on_evaluated(self, step: int, dev: Measured) -> None:
        self._send(step, {"dev/loss": dev.loss, f"dev/{dev.metric}": dev.accuracy})

    def on_ended(self, final: Row) -> None:
        metric = final.get("metric", "accuracy")
        named = {"test/loss": final.get("test_loss"), f"test/{metric}": final.get("test_accuracy")}
        self._send(int(final["step"]), {name: value for name, value in named.items() if value is not None})

    def on_left(self) -> None:
        for sink in self._sinks:
            sink.close()
        self._sinks = []

    def _send(self, step: int, numbers: Mapping[str, float]) -> None:
        finite = {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
        for sink in self._sinks:
            sink.log(finite, step)


def library(name: str) -> Any:
    """Return the library of a place.

    Raises:
        ValueError: it is not installed.
    """
    for module in SINKS[name][1]:
        try:
            return importlib.import_module(module)
        except ImportError:
            continue
    raise ValueError(f"--report-to {name} needs its library: pip install {name}")


def _environment(variable: str) -> str:
    return os.environ.get(variable, "zobench")
