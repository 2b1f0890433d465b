"""A run without steps: a baseline is measured, and its row is that of any other run."""

from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING

from llm import baselines
from llm.baselines import Baseline, Setting
from llm.cost.meter import Meter
from zobench.run.records import Row

if TYPE_CHECKING:
    from llm.loop.session import Session
    from llm.run.options import TrainOptions

READ = frozenset(
    {
        *("model", "task", "data", "objective", "method", "train", "dev", "test", "max_tokens", "bos", "seed"),
        *("device", "dtype", "trust_remote_code", "provenance", "out", "resume", "preset", "dry_run"),
    }
)
UNTOLD = frozenset({"save", "select", "journal", "baselines"})  # nothing to save or to compare with


class Untrained:
    """What a session has in place of a trainer, where no step is taken."""

    steps = backward_passes = 0

    def __init__(self, baseline: Baseline) -> None:
        self.baseline, self.identity = baseline, repr(baseline)
        self.forward_passes = 0

    def settle(self) -> None:
        """Do nothing: no step is owed."""


def unread(options: "TrainOptions") -> list[str]:
    """Return the options that the method of a run does not read: those of steps, for a baseline."""
    return [f.name for f in fields(options) if f.name not in READ] if baselines.known(options.method) else []


def without_unread(options: "TrainOptions") -> "TrainOptions":
    """Return the options with those that are not read at their defaults: no adapter, no weights in another dtype."""
    usual = {f.name: f.default for f in fields(options) if f.name in unread(options)}
    return replace(options, **usual)


def ignored(options: "TrainOptions") -> str:
    """Return what to tell of options that were given and are not read, or nothing."""
    values = asdict(options)
    given = [f for f in fields(options) if f.name in unread(options) and values[f.name] != f.default]
    names = ", ".join("--" + f.name.replace("_", "-") for f in given if f.name not in UNTOLD)
    return f"{options.method} takes no step: {names} not used" if names else ""


def setting(session: "Session") -> Setting:
    """Return what a session gives a baseline to work with."""
    data = session.data
    return Setting(
        session.task,
        session.objective,
        data.train,
        data.dev,
        data.test,
        session.options.seed,
        lambda note: session.note([note]),
    )


def measure(session: "Session", baseline: Baseline) -> Row:
    """Measure a baseline, keep its final row and return it. All it costs counts, the evaluation of dev too."""
    with Meter(session.language_model) as meter:
        dev, test, columns = baseline.measure(setting(session))
    row: Row = {"dev_loss": dev.loss, "dev_accuracy": dev.accuracy, **dev.named("dev")}
    row |= {"test_loss": test.loss, "test_accuracy": test.accuracy, **test.named("test")}
    row |= {"test_examples": len(session.data.test), "best_step": 0, "status": session.status(test.loss)}
    row |= {"weights": session.language_model.weights, "skipped": 0}
    about = {**session.names(), **meter.row, "backward_passes": 0, **columns}
    session.record.append({"kind": "final", "step": 0, **about, **row})
    print(f"{session.options.method}: dev {test.metric} {dev.accuracy:.1%}, test {test.accuracy:.1%}")
    return row
