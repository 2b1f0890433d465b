"""The training loop: it takes steps, evaluates between them, and sends both as events to listeners."""

import time
from typing import Any

from llm.loop.costs import Costs
from llm.loop.crew import Crew
from llm.loop.divergence import Divergence, DivergenceReport
from llm.loop.evaluation import Evaluations, EvaluationSets, summary
from llm.loop.listener import Listener
from llm.loop.reports import Reports
from llm.loop.resume import Checkpoints, Resumption
from llm.loop.saved_model import SavedModel
from llm.loop.selection import Selection
from llm.loop.signals import interruptible
from llm.loop.step_rows import StepRows
from llm.options.train import TrainOptions
from llm.quantised import as_written_
from llm.run.context import RunContext, prepare
from llm.run.header import fingerprint, header, identity
from llm.run.log import RunLog
from llm.run.record import take
from llm.steppers.taken import Taken
from zobench import derive
from zobench.run.progress import bar, warn
from zobench.run.records import Row


class Loop:
    """A run with steps: its context, its stepper, its log, and the listeners to its events; of several processes
    this is rank 0.

    Raises:
        ValueError: the context does not suit its stepper, or the folder holds a run that cannot be resumed.
        FolderInUseError: another process writes there.
    """

    def __init__(self, context: RunContext, crew: Crew | None = None) -> None:
        self.context, options, self.crew = context, context.options, crew
        self.stepper = context.stepper(crew.shared if crew else None)
        self._lock, record = take(options)
        about = header(context, self.stepper) if options.journal or options.select == "best" else {}
        run = identity(about) if about else {}
        self.log = RunLog(record, about if options.journal else None)
        self.log.tell([*context.notes, *([str(crew)] if crew else [])])
        start = self.log.start_loss(context.start_loss)
        self.divergence = Divergence(start, options.max_skipped, options.diverged_at, options.diverged_window)
        self.costs = Costs(context, self.stepper, self.log)
        self.evaluations = Evaluations(context, self.stepper, self.log, self.costs)
        self.selection = Selection(context, self.stepper, self.log, run)
        model = context.language_model.model
        self.checkpoints = Checkpoints(self.log, self.stepper, model, run, options.checkpoint_every)
        # The order matters: StepRows reads the costs, DivergenceReport the divergence, and Selection comes last,
        # because the file of the best weights may go only when model/ is written.
        self.listeners: list[Listener] = [
            self.costs,
            self.divergence,
            self.evaluations,
            StepRows(self.log, context.names, self.costs, self.divergence),
            *([Reports(options, self.log, self.costs)] if options.report_to else []),
            DivergenceReport(self.divergence, self.log, context.names),
            EvaluationSets(context, self.stepper, self.log),
            *([SavedModel(context, self.log.folder)] if options.save else []),
            self.selection,
        ]

    @classmethod
    def of(cls, options: TrainOptions, test: bool = True) -> "Loop":
        """Return the loop of a run with these options, as `prepare` reads them."""
        return cls(prepare(options, test))

    def go(self) -> Row:
        """Start or resume the run, end it and return its final row. After an interruption the run can be resumed.

        Raises:
            OSError: no space, or the folder cannot be written; the steps and rows so far are kept.
        """
        options = self.context.options
        try:
            if self.crew:
                self.crew.join(self.context, self.stepper, self.log.file if self.log.journal else None)
            if options.baselines:
                self.evaluations.baselines()
            first = Resumption(self.log, self.stepper, self.checkpoints, self.selection, self._hear).first_step()
            if self.crew:
                self.crew.wait()
            with interruptible() as interrupted, self._bar(first) as shown:
                for step in shown:
                    if self.divergence.exhausted or self._evaluated(step):
                        break
                    if self._all_go(interrupted()):
                        self._step(step, shown)
                    if interrupted() or self._ended:  # between steps, where weights, journal and rows agree
                        self.checkpoints.save()
                        raise KeyboardInterrupt
            if self.crew:
                self.crew.end(self.stepper, self.context)
            return self._finish()
        finally:
            for listener in self.listeners:
                listener.on_left()
            self.log.close()
            self._lock.release()

    _ended = False
    """Whether another process got a signal to end."""

    def _all_go(self, interrupted: bool) -> bool:
        """Whether all processes, if there are several, take the next step."""
        self._ended = self.crew is not None and not self.crew.go(self.stepper, self.context, interrupted)
        return not self._ended

    def _bar(self, first: int) -> Any:
        steps, method = self.context.options.steps, self.context.options.method
        return bar(range(first, steps), desc=method, initial=first, total=steps, unit="step")

    def _evaluated(self, step: int) -> bool:
        """Evaluate before a step, if it is time; return whether patience ran out."""
        options = self.context.options
        if step % options.eval_every:
            return False
        self._evaluate(step)
        if not self.selection.stops(step):
            return False
        warn(f"no better dev loss in {options.patience} evaluations: stopped at step {step}")
        return True

    def _evaluate(self, step: int) -> None:
        if self.log.measured("evaluation", step=step):
            self.selection.keep_missing(step)
            return
        dev = self.evaluations.dev()
        self.log.sync()  # the steps must be on disk before a file or a row that depends on them
        for listener in self.listeners:
            listener.on_evaluated(step, dev)
        self.evaluations.keep(step, dev)  # last: the row selects weights that are on disk by now

    def _step(self, step: int, shown: Any) -> None:
        context, passes = self.context, self.stepper.forward_passes
        try:
            losses, began = context.losses(step, self.crew.shared if self.crew else None), time.perf_counter()
            with self.costs.measured():
                watched = step % context.options.eval_every == 0
                taken = self.stepper.step(derive(*context.keys["key"], step), losses, watched)
            if self.crew:
                self.crew.stepped()
            seconds = time.perf_counter() - began
            minibatch = derive(*context.keys["minibatch"], step)
            taken = taken._replace(record=taken.record._replace(minibatch=minibatch, seconds=seconds))
            self.log.append(taken.record)
            self.checkpoints.save_if_due()  # after the record: a checkpoint names the journal's checksum at its step
        except Exception as error:
            self.log.fail(step, context.names, error)
            raise
        self.costs.speed.see(self.stepper.forward_passes - passes, seconds)
        self._hear(taken)
        progress = ", ".join(
            filter(None, (f"train loss {taken.loss:.3f}", self.evaluations.status, str(self.costs.speed)))
        )
        shown.set_postfix_str(progress, refresh=False)

    def _hear(self, taken: Taken) -> None:
        for listener in self.listeners:
            listener.on_step(taken)

    def _finish(self) -> Row:
        if self.divergence.exhausted:
            warn(self.divergence.advice())
        self._evaluate(self.stepper.steps)
        selected, best = self.selection.restore(), self.selection.best()
        assert best is not None  # the last step was evaluated
        as_written_(self.context.language_model.model)
        weights = fingerprint(self.context.language_model.model)
        ended = self.log.measured("final")
        if ended:
            self._require_selected(ended[-1], weights)
        for listener in self.listeners:
            listener.on_selected(selected, weights)  # writes model/ before the final row says that the run has ended
        final = ended[-1] if ended else self.evaluations.final(selected, weights, best, self.divergence)
        for listener in self.listeners:
            listener.on_ended(final)
        print(summary(self.context.options.method, final))
        return final

    def _require_selected(self, final: Row, rebuilt: str) -> None:
        """Raise ValueError unless these are the weights whose final measurement the journal already holds."""
        wanted = final.get("fingerprint")
        if wanted not in (None, rebuilt):
            raise ValueError(
                f"{self.log.file}: the weights of step {final.get('selected_step')} have the fingerprint {rebuilt} "
                f"when they are rebuilt here, and had {wanted} when they were measured (another device, engine, number "
                "of threads or version of torch?): nothing was written; give another --out"
            )
