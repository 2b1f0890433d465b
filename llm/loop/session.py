"""A training run: a model, its data, what takes the steps, and everything that is kept of them."""

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llm import baselines, objective, tasks
from llm.baselines import Baseline
from llm.cost.memory import PeakMemory
from llm.export import card
from llm.loop import evaluation_sets
from llm.loop.divergence import Watch
from llm.loop.evaluation import Evaluations
from llm.loop.past import Past
from llm.loop.selection import Selection, discard
from llm.loop.signals import interruptible
from llm.model import loading, trainable
from llm.model.adapters import adapt
from llm.objective import Encoded
from llm.objective.minibatch import Minibatch
from llm.objective.touched import touched_rows
from llm.run.options import TrainOptions, check
from llm.run.record import open_record, require_rows
from llm.steppers import untrained
from llm.steppers.first_order import FIRST_ORDER
from llm.steppers.make import make_trainer, needs_gradient
from llm.steppers.realised import Realised
from llm.steppers.taken import Taken
from llm.steppers.untrained import Untrained
from zobench import derive
from zobench.random import streams
from zobench.run.lock import lock
from zobench.run.progress import Speed, bar, note, warn
from zobench.run.records import Row
from zobench.space import require_reproducible


@dataclass(frozen=True, eq=False)
class Data:
    """The encoded examples of a run."""

    train: list[Encoded]
    dev: list[Encoded]
    test: list[Encoded]


class Session:
    """One run: everything is checked before the folder of results is touched, and before long work starts."""

    measures = Evaluations

    def __init__(self, options: TrainOptions) -> None:
        check(options)
        unused, options = untrained.ignored(options), untrained.without_unread(options)
        self.task = tasks.find(options.task)
        if baselines.known(options.method):
            baselines.parse(options.method).check(self.task)
        chosen = objective.choose(options.objective, self.task)
        split = split_of(options)
        self.options = options = sized(options, split)
        check(options)
        sets = evaluation_sets.read(options)
        held = "float32" if options.rounding == "master" else options.dtype
        self.language_model = loading.load(options.model, options.device, held, options.trust_remote_code)
        self.language_model = adapt(self.language_model, options.adapter, options.seed)
        trainable.select(self.language_model.model, options.trained)
        self.objective = chosen(self.language_model, max_tokens=options.max_tokens, bos=options.bos)
        self.also = evaluation_sets.Also(self, sets, self.language_model)
        if needs_gradient(options.method) and not self.objective.differentiable:
            raise ValueError(f"objective {options.objective} has no gradient for {options.method}: give --method mezo")
        self.data = self._encoded(split)
        self.trainer = make_trainer(options, self.language_model, self._touched if options.rows == "touched" else None)
        if options.rows == "touched" and options.method not in FIRST_ORDER:
            self._touched(0)  # whether the objective allows it
        self.start_loss = require_reproducible(self._losses(0))
        if not math.isfinite(self.start_loss):
            raise ValueError(
                f"the loss is {self.start_loss} before the first step: check --dtype (now {options.dtype})"
            )
        if isinstance(self.trainer, Untrained):
            self.trainer.baseline.check_setting(untrained.setting(self))
        part = trainable.told(self.language_model.model) if options.adapter or options.trained else None
        notes = (*split.notes, *(note for one in sets for note in one.notes))
        notes = (*notes, *objective.told(self.objective, vars(self.data)), *self.also.notes)
        self.notes = [*notes, *filter(None, (unused, part))]
        if not options.dry_run:
            self._open(self.notes)

    def _encoded(self, split: tasks.Split) -> Data:
        return Data(*(self.objective.encode(part) for part in split))

    def _open(self, notes: Sequence[str]) -> None:
        """Take the folder of results."""
        options = self.options
        Path(options.out).mkdir(parents=True, exist_ok=True)
        self._lock = lock(options.out)
        self.record = open_record(options)
        self.note(notes)
        require_rows(self.record)
        self.past = Past(self)
        start = self.past.start_loss(self.start_loss)
        self.watch = Watch(start, options.max_skipped, options.diverged_at, options.diverged_window)
        self.seconds, self.clipped, self.speed = 0.0, 0, Speed()
        self.selection = Selection(self)
        known = [row["peak_mb"] for row in self.record.find(kind="evaluation") if row.get("peak_mb") is not None]
        self.peak = PeakMemory(self.language_model.device, max(known, default=None))
        self.evaluations = self.measures(self)
        self._rows_to = 1 + max((row["step"] for row in self.past.rows()), default=-1)

    @property
    def keys(self) -> dict[str, tuple[str, int]]:
        """What the keys of the steps are derived from."""
        return {"key": ("directions", self.options.seed), "minibatch": ("minibatch", self.options.seed)}

    def note(self, notes: Sequence[str]) -> None:
        """Print what was not as usual with the data, and keep it in rows."""
        for text in notes:
            note(text)
            if not self.record.find(kind="note", note=text):
                self.record.append({"kind": "note", "note": text})

    def minibatch(self, step: int) -> list[Encoded]:
        """Return the examples of a step: drawn by the seed and the step, the same for every method."""
        order = streams.uniform(derive(*self.keys["minibatch"], step), (len(self.data.train),)).argsort()
        return [self.data.train[i] for i in order[: self.options.batch].tolist()]

    def _losses(self, step: int) -> Minibatch:
        return Minibatch(self.objective, self.minibatch(step), self.options.micro_batch)

    def _touched(self, step: int) -> dict[str, list[int]]:
        return touched_rows(self.objective, self.minibatch(step))

    def go(self) -> None:
        """Run, or continue, to the final row. An interruption keeps what was measured and can be continued.

        Raises:
            OSError: no space, or the folder cannot be written: what was reached is kept.
        """
        try:
            if isinstance(self.trainer, Untrained):
                self._measure(self.trainer.baseline)
                return
            if self.options.baselines:
                self.evaluations.baselines()
            first = self.past.resume()
            with interruptible() as interrupted, self._bar(first) as shown:
                for step in shown:
                    if self.watch.exhausted:
                        break
                    if step % self.options.eval_every == 0:
                        self.evaluations.at(step)
                        if self.selection.stops(step):
                            warn(f"no better dev loss in {self.options.patience} evaluations: stopped at step {step}")
                            break
                    self._step(step, shown)
                    if interrupted():
                        self.past.checkpoint()
                        raise KeyboardInterrupt
            self._finish()
        finally:
            self.past.close()
            self._lock.release()

    def _measure(self, baseline: Baseline) -> None:
        try:
            untrained.measure(self, baseline)
        except Exception as error:
            self._fail(0, error)
            raise

    def _bar(self, first: int) -> Any:
        steps = self.options.steps
        return bar(range(first, steps), desc=self.options.method, initial=first, total=steps, unit="step")

    def _step(self, step: int, shown: Any) -> None:
        try:
            losses = self._losses(step)
            self.trainer.watched = step % self.options.eval_every == 0
            began, passes = time.perf_counter(), self.trainer.forward_passes
            with self.peak:
                taken = self.trainer.step(derive(*self.keys["key"], step), losses)
            seconds = time.perf_counter() - began
            record = taken.record._replace(minibatch=derive(*self.keys["minibatch"], step), seconds=seconds)
            taken = taken._replace(record=record)
            self.past.append(record)
            self.speed.see(self.trainer.forward_passes - passes, seconds)
        except Exception as error:
            self._fail(step, error)
            raise
        self.see(taken, self.trainer.realised)
        shown.set_postfix_str(f"train loss {taken.loss:.3f}, {self.speed} {self.evaluations.said}", refresh=False)

    def see(self, taken: Taken, realised: Realised | None = None) -> None:
        """Take note of a step that was taken or repeated: what it cost, its row, and what it says of the run's
        health.
        """
        record = taken.record
        if realised and realised.noise and not self.past.measured("rounding"):
            self.past.keep({"kind": "rounding", "step": record.step, **self.names(), **realised._asdict()})
            warn(
                f"training is rounding noise: {realised.moved:.1%} of the weights moved, and the cosine of the "
                f"intended and the realised step is {realised.cosine:.2f}: raise --lr, or use a wider --dtype"
            )
        self.seconds += record.seconds
        self.clipped += taken.clipped
        self.watch.see(taken)
        if not record.skipped:
            self.evaluations.see(record.step, taken.loss)
        if record.step >= self._rows_to and (self.options.journal or record.skipped):
            row = self._row(taken) | (realised._asdict() if realised else {})
            self.record.append(row, sync=bool(record.skipped))
        if self.watch.diverged and not self.record.find(kind="divergence"):
            about = {"mean_loss": self.watch.mean, "limit": self.watch.limit, "steps": self.watch.window}
            self.record.append({"kind": "divergence", "step": record.step, **self.names(), **about})
            warn(self.watch.warning())

    def _row(self, taken: Taken) -> Row:
        record = taken.record
        row = {"step": record.step, **self.cost(), "train_loss": taken.loss, "lr": record.lr, **taken.report}
        if record.skipped:
            return {"kind": "skipped", **row, **self.names(), "reason": record.skipped}
        return {"kind": "step", **row}

    def _fail(self, step: int, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        with suppress(OSError):  # a full disk takes no row about itself
            self.record.append({"kind": "failure", "step": step, **self.names(), "reason": reason})

    def _finish(self) -> None:
        if self.watch.exhausted:
            warn(self.watch.advice())
        self.evaluations.at(self.trainer.steps)
        selected = self.selection.take()
        if self.options.save:
            loading.save(self.language_model, self.record.folder / "model")
        self.evaluations.final(selected)
        if self.options.save:
            card.describe(self.record.folder, self.language_model)
        discard(self.record.folder)

    def status(self, *losses: float | None) -> str:
        """Return "diverged" or "ok", by the steps and losses at the end of them."""
        finite = all(loss is not None and math.isfinite(loss) for loss in losses)
        bad = self.watch.exhausted or self.watch.diverged or not finite
        return "diverged" if bad or self.watch.skipped == self.options.steps else "ok"

    def names(self) -> Row:
        """Return what every row says of the run."""
        options = self.options
        return {
            "model": Path(options.model).name if Path(options.model).exists() else options.model,
            "task": self.task.name,
            "method": options.method,
            **({"adapter": options.adapter} if options.adapter else {}),
            "estimator": self.trainer.identity,
            "seed": options.seed,
            "lr": None if baselines.known(options.method) else options.lr,
            "provenance": options.provenance,
        }

    def cost(self) -> Row:
        """Return what the steps so far have cost, without evaluations; `peak_mb` is None before the first."""
        return {
            "forward_passes": self.trainer.forward_passes,
            "backward_passes": self.trainer.backward_passes,
            "seconds": self.seconds,
            "peak_mb": self.peak.mb,
            **({} if self.options.clip is None else {"clipped": self.clipped}),
        }


def split_of(options: TrainOptions) -> tasks.Split:
    """Return the examples that the options name."""
    task = tasks.find(options.task)
    return tasks.split(task, options.data, options.train, options.dev, options.test, options.seed)


def sized(options: TrainOptions, split: tasks.Split) -> TrainOptions:
    """The options with the sizes of the splits, so that config.toml is complete."""
    return replace(options, train=len(split.train), dev=len(split.dev), test=len(split.test))
