"""A run without steps: a baseline is measured, and its row is that of any other run."""

import math

from llm.baselines import Baseline
from llm.cost.meter import Meter
from llm.run.context import RunContext
from llm.run.log import RunLog
from llm.run.record import take
from zobench.run.records import Row


class BaselineRun:
    """Measures a baseline. All it costs counts, the evaluation of dev too.

    Raises:
        ValueError: the folder holds something else.
        FolderInUseError: another process writes there.
    """

    def __init__(self, context: RunContext, baseline: Baseline) -> None:
        self.context, self.baseline = context, baseline
        self._lock, record = take(context.options)
        self.log = RunLog(record, None)
        self.log.tell(context.notes)

    def go(self) -> Row:
        """Measure, keep the final row and return it; a failure is a row too."""
        try:
            return self._measured()
        except Exception as error:
            self.log.fail(0, self.context.names, error)
            raise
        finally:
            self._lock.release()

    def _measured(self) -> Row:
        context = self.context
        with Meter(context.language_model) as meter:
            setting = context.setting(lambda note: self.log.tell([note]))
            dev, test, columns = self.baseline.measure(setting)
        row: Row = {"dev_loss": dev.loss, "dev_accuracy": dev.accuracy, **dev.named("dev")}
        row |= {"test_loss": test.loss, "test_accuracy": test.accuracy, **test.named("test")}
        row |= {"test_examples": len(context.data.test), "best_step": 0}
        row |= {"status": "ok" if math.isfinite(test.loss) else "diverged"}
        row |= {"weights": context.language_model.weights, "skipped": 0}
        about = {"kind": "final", "step": 0, **context.names, **meter.row, "backward_passes": 0, **columns}
        print(f"{context.options.method}: dev {test.metric} {dev.accuracy:.1%}, test {test.accuracy:.1%}")
        return self.log.keep({**about, **row})
