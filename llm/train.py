"""The training suite: fine-tune a language model with a zeroth-order or a first-order method, and keep every
measurement.
"""

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from tqdm import tqdm

from llm import models, objective, tasks
from llm.faults import Watch
from llm.first_order import FIRST_ORDER, FirstOrder
from llm.models import LanguageModel
from llm.objective import Encoded, calibrated_accuracy, chance_accuracy
from llm.past import Past
from llm.realised import Realised
from llm.touched import touched_rows
from llm.zeroth_order import ENGINES, ZerothOrder, rounded
from zobench import derive, methods, schedule, streams
from zobench.journal import Record
from zobench.lock import lock
from zobench.naming import require_known
from zobench.options import option
from zobench.records import Row, Run
from zobench.space import require_reproducible

BASELINES = 3
ROWS = ("all", "touched")
ROUNDING = ("nearest", "stochastic", "master")
MOST_STEPS = 2**32 - 1


@dataclass(frozen=True)
class TrainOptions:
    """Options of `python -m llm train`; `seconds` in rows are those of the steps, without evaluations."""

    model: str = option("tiny-opt", "tiny-opt, smollm2-135m-instruct, a hub id, a folder or a .gguf file")
    task: str = option("spam", tasks.HELP)
    data: str | None = option(None, "folder of the task's files; without it: shipped, beside the task file, or the hub")
    objective: str = option("task", f"what is minimised: {objective.HELP}")
    method: str = option("mezo", "mezo, kerzoo, forward, richardson, coordinate (name:option=value...), sgd, adamw")
    steps: int = option(500, "optimisation steps")
    lr: float = option(1e-4, "learning rate")
    epsilon: float | str = option(1e-3, "displacement of the zeroth-order methods, or auto")
    schedule: str = option("constant", "constant, linear or cosine")
    warmup: int = option(0, "steps of linear warm-up")
    weight_decay: float = option(0.0, "decoupled weight decay, not on biases and norms")
    batch: int = option(16, "examples a step")
    train: int | None = option(None, "training examples; without it the task's usual number")
    dev: int | None = option(None, "development examples; without it the task's usual number")
    test: int | None = option(None, "test examples; without it the task's usual number, or all there are")
    max_tokens: int = option(64, "prompts are cut from the left to this many tokens")
    bos: int | None = option(None, "id of the first token instead of the tokenizer's; 0 as MeZO's runs of OPT had it")
    eval_every: int = option(50, "steps between evaluations on dev")
    seed: int = option(0, "names the split, the minibatches and the directions")
    device: str = option("cpu", "cpu, cuda, cuda:1, ...")
    dtype: str = option("float32", "float32, bfloat16 or float16")
    engine: str = option("auto", "plain, in-forward, paired (in-forward, both points at once), or auto by size")
    rows: str = option("all", "embedding rows with directions: all, or touched: those that the minibatch reads")
    rounding: str = option("nearest", "of steps in 16 bits: nearest, stochastic, or master (weights kept in float32)")
    save: bool = option(True, "write the tuned weights to <out>/model")
    journal: bool = option(True, "keep what each step did, so that an interrupted run continues where it was")
    checkpoint_every: int = option(1000, "steps between checkpoints, the last two of which are kept; 0: none")
    resume: bool = option(True, "continue what --out holds; --no-resume refuses a folder that holds something")
    max_skipped: int = option(10, "steps in a row whose losses are not finite, after which training stops")
    diverged_at: float = option(5.0, "mean loss over the window, in start losses, from which a run counts as diverged")
    diverged_window: int = option(50, "steps of that window")
    trust_remote_code: bool = option(False, "run the Python code that comes with a model")
    provenance: str = option("live", "a word about where the rows come from, shown in reports")
    out: str = option("runs/train", "folder of the results; an interrupted run continues there")


@dataclass(frozen=True, eq=False)
class Data:
    """The encoded examples of a run."""

    train: list[Encoded]
    dev: list[Encoded]
    test: list[Encoded]


def run(options: TrainOptions) -> None:
    """Fine-tune a causal language model with forward passes only (or a first-order reference) on a labelled task."""
    train(options)
    print(f"rows: {Path(options.out) / 'rows.jsonl'}")


def train(options: TrainOptions) -> Row:
    """Run, or continue, to the final row and return it; a finished run is neither loaded nor repeated.

    Raises:
        ValueError: the folder holds something that cannot be continued, or must not with --no-resume.
        FolderInUseError: another process writes there.
    """
    if (Path(options.out) / "rows.jsonl").exists():
        options = options if options.train and options.dev and options.test else _sized(options, _split(options))
        record = open_record(options)
        finished = record.find(kind="final")
        if finished:
            print(f"{options.out} holds a finished run")
            return finished[-1]
        if record.rows and not options.resume:
            raise ValueError(f"{options.out} holds an unfinished run: give --resume, or another --out")
    session = Session(options)
    session.go()
    return session.record.find(kind="final")[-1]


def open_record(options: TrainOptions) -> Run:
    """Return the record of a run; where it is kept, when its checkpoints are written and that it is continued are no
    part of its identity.
    """
    return Run(options.out, _config(options), defaults=_config(TrainOptions()), free=("out", "checkpoint_every"))


def _config(options: TrainOptions) -> Row:
    return {"command": "train", **asdict(options), "resume": None}


class Session:
    """One run: everything is checked before the folder of results is touched, and before long work starts."""

    def __init__(self, options: TrainOptions) -> None:
        _check(options)
        self.task = tasks.find(options.task)
        chosen = objective.choose(options.objective, self.task)
        split = _split(options)
        self.options = options = _sized(options, split)
        _check(options)
        held = "float32" if options.rounding == "master" else options.dtype
        self.language_model = models.load(options.model, options.device, held, options.trust_remote_code)
        self.objective = chosen(self.language_model, max_tokens=options.max_tokens, bos=options.bos)
        if options.method in FIRST_ORDER and not self.objective.differentiable:
            raise ValueError(f"objective {options.objective} has no gradient for {options.method}: give --method mezo")
        self.data = Data(*(self.objective.encode(part) for part in split))
        self.trainer = trainer(options, self.language_model, self._touched if options.rows == "touched" else None)
        if options.rows == "touched" and options.method not in FIRST_ORDER:
            self._touched(0)  # whether the objective allows it
        self.start_loss = require_reproducible(lambda: self.objective.losses(self.minibatch(0)))
        if not math.isfinite(self.start_loss):
            raise ValueError(
                f"the loss is {self.start_loss} before the first step: check --dtype (now {options.dtype})"
            )
        Path(options.out).mkdir(parents=True, exist_ok=True)
        self._lock = lock(options.out)
        self.record = open_record(options)
        self._tell(split.notes)
        self.watch = Watch(self.start_loss, options.max_skipped, options.diverged_at, options.diverged_window)
        self.past = Past(self)
        self.seconds = 0.0
        self.losses: list[float] = []
        self._dev = ""
        _require_rows(self.record)
        self._evaluated = max((row["step"] for row in self.record.find(kind="evaluation")), default=0)
        self._rows_to = 1 + max((row["step"] for row in self.past.rows()), default=-1)

    @property
    def names(self) -> dict[str, tuple[str, int]]:
        """What the keys of the steps are derived from."""
        return {"key": ("directions", self.options.seed), "minibatch": ("minibatch", self.options.seed)}

    def _tell(self, notes: Sequence[str]) -> None:
        """Print what was not as usual with the data, and keep it in rows."""
        for note in notes:
            print(note)
            if not self.record.find(kind="note", note=note):
                self.record.append({"kind": "note", "note": note})

    def minibatch(self, step: int) -> list[Encoded]:
        """Return the examples of a step: drawn by the seed and the step, the same for every method."""
        order = streams.uniform(derive(*self.names["minibatch"], step), (len(self.data.train),)).argsort()
        return [self.data.train[i] for i in order[: self.options.batch].tolist()]

    def _touched(self, step: int) -> dict[str, list[int]]:
        return touched_rows(self.objective, self.minibatch(step))

    def go(self) -> None:
        """Run, or continue, to the final row. An interruption keeps what was measured and can be continued.

        Raises:
            OSError: no space, or the folder cannot be written: what was reached is kept.
        """
        try:
            self._baselines()
            first = self.past.resume()
            with interruptible() as interrupted, self._bar(first) as bar:
                for step in bar:
                    if self.watch.exhausted:
                        break
                    self._evaluate_if_due(step)
                    self._step(step, bar)
                    if interrupted():
                        self.past.checkpoint()
                        raise KeyboardInterrupt
            self._finish()
        finally:
            self.past.close()
            self._lock.release()

    def _bar(self, first: int) -> Any:
        return tqdm(
            range(first, self.options.steps), initial=first, total=self.options.steps, unit="step", mininterval=1.0
        )

    def _evaluate_if_due(self, step: int) -> None:
        if step % self.options.eval_every == 0 and not self.record.find(kind="evaluation", step=step):
            self._evaluate(step)

    def _step(self, step: int, bar: Any) -> None:
        try:
            batch = self.minibatch(step)
            self.trainer.watched = step % self.options.eval_every == 0
            began = time.perf_counter()
            record = self.trainer.step(derive(*self.names["key"], step), lambda: self.objective.losses(batch))
            seconds = time.perf_counter() - began
            record = record._replace(minibatch=derive(*self.names["minibatch"], step), seconds=seconds)
            self.past.append(record)
        except Exception as error:
            self._fail(step, error)
            raise
        self.see(record, self.trainer.realised)
        bar.set_postfix_str(f"train loss {record.loss:.3f} {self._dev}", refresh=False)

    def see(self, record: Record, realised: Realised | None = None) -> None:
        """Take note of a step that was taken or repeated: what it cost, its row, and what it says of the run's
        health.
        """
        if realised and realised.noise and not self.record.find(kind="rounding"):
            self.record.append({"kind": "rounding", "step": record.step, **self._names(), **realised._asdict()})
            _tell(
                f"training is rounding noise: {realised.moved:.1%} of the weights moved, and the cosine of the "
                f"intended and the realised step is {realised.cosine:.2f}: raise --lr, or use a wider --dtype"
            )
        self.seconds += record.seconds
        self.watch.see(record)
        if record.step >= self._evaluated and not record.skipped:
            self.losses.append(record.loss)
        if record.step >= self._rows_to and (self.options.journal or record.skipped):
            self.record.append(self._row(record) | (realised._asdict() if realised else {}), sync=record.skipped)
        if self.watch.diverged and not self.record.find(kind="divergence"):
            about = {"mean_loss": self.watch.mean, "limit": self.watch.limit, "steps": self.watch.window}
            self.record.append({"kind": "divergence", "step": record.step, **self._names(), **about})
            _tell(self.watch.warning())

    def _row(self, record: Record) -> Row:
        row = {"step": record.step, **self._cost(), "train_loss": record.loss, "lr": record.lr}
        extra = record.extra or {}
        if "choice" in extra:
            row |= {"epsilon": extra["choice"][0], "choice": extra["choice"]}
        if record.skipped:
            return {"kind": "skipped", **row, **self._names(), "reason": extra["reason"]}
        return {"kind": "step", **row}

    def _fail(self, step: int, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        with suppress(OSError):  # a full disk takes no row about itself
            self.record.append({"kind": "failure", "step": step, **self._names(), "reason": reason})

    def _baselines(self) -> None:
        if len(self.record.find(kind="baseline")) == BASELINES:
            return
        train, dev, test = (self.objective.measure(part) for part in (self.data.train, self.data.dev, self.data.test))
        zero = {"dev_accuracy": dev.accuracy, "test_accuracy": test.accuracy}
        fitted = {
            name: calibrated_accuracy(train, part) for name, part in (("dev_accuracy", dev), ("test_accuracy", test))
        }
        chance = dict(zip(zero, (chance_accuracy(train, part) for part in (dev, test)), strict=True))
        named = (("chance", chance), ("zero-shot", zero), ("calibrated zero-shot", fitted))
        for name, row in (pair for pair in named if not self.record.find(kind="baseline", name=pair[0])):
            self.record.append(
                {"kind": "baseline", "name": name, **self._names(), **row, "test_examples": len(self.data.test)}
            )

    def _evaluate(self, step: int) -> None:
        self.trainer.settle()
        found = self.objective.measure(self.data.dev)
        train_loss = sum(self.losses) / len(self.losses) if self.losses else None
        self.losses.clear()
        row = {"train_loss": train_loss, "dev_loss": found.loss, "dev_accuracy": found.accuracy, **found.named("dev")}
        self.past.sync()
        self.record.append({"kind": "evaluation", "step": step, **self._names(), **self._cost(), **row})
        self._dev = f"dev loss {found.loss:.3f} {found.metric} {found.accuracy:.1%}"

    def _finish(self) -> None:
        step = self.trainer.steps
        if self.watch.exhausted:
            _tell(self.watch.advice())
        if not self.record.find(kind="evaluation", step=step):
            self._evaluate(step)
        self.trainer.settle()
        test = self.objective.measure(self.data.test)
        bad = self.watch.exhausted or self.watch.diverged or not math.isfinite(test.loss)
        bad = bad or self.watch.skipped == self.options.steps
        status = "diverged" if bad else "ok"
        evaluations = self.record.find(kind="evaluation")
        best = min(evaluations, key=lambda row: math.inf if row["dev_loss"] is None else row["dev_loss"])
        if self.options.save:
            models.save(self.language_model, self.record.folder / "model")
        last = {name: evaluations[-1][name] for name in ("dev_loss", "dev_accuracy")}
        row = {**last, "test_loss": test.loss, "test_accuracy": test.accuracy, "test_examples": len(self.data.test)}
        row |= test.named("test")
        about = {"best_step": best["step"], "status": status, "weights": self.language_model.weights}
        about["skipped"] = self.watch.skipped
        self.record.append({"kind": "final", "step": step, **self._names(), **self._cost(), **row, **about})
        dev = math.nan if last["dev_accuracy"] is None else last["dev_accuracy"]
        print(f"{self.options.method}: dev {test.metric} {dev:.1%}, test {test.accuracy:.1%} ({status})")

    def _names(self) -> Row:
        options = self.options
        return {
            "model": Path(options.model).name if Path(options.model).exists() else options.model,
            "task": self.task.name,
            "method": options.method,
            "estimator": self.trainer.identity,
            "seed": options.seed,
            "lr": options.lr,
            "provenance": options.provenance,
        }

    def _cost(self) -> Row:
        return {
            "forward_passes": self.trainer.forward_passes,
            "backward_passes": self.trainer.backward_passes,
            "seconds": self.seconds,
        }


def _split(options: TrainOptions) -> tasks.Split:
    task = tasks.find(options.task)
    return tasks.split(task, options.data, options.train, options.dev, options.test, options.seed)


def _sized(options: TrainOptions, split: tasks.Split) -> TrainOptions:
    """The options with the sizes of the splits, so that config.toml is complete."""
    return replace(options, train=len(split.train), dev=len(split.dev), test=len(split.test))


def _check(options: TrainOptions) -> None:
    """Refuse what cannot work before anything is loaded."""
    check_method(options.method)
    require_known(options.engine, ("auto", *ENGINES), "engine")
    require_known(options.rows, ROWS, "choice of rows")
    require_known(options.rounding, ROUNDING, "rounding")
    if options.steps < 1 or options.batch < 1 or options.eval_every < 1:
        raise ValueError(
            f"steps {options.steps}, batch {options.batch}, eval_every {options.eval_every}: give 1 or more"
        )
    if options.max_skipped < 1 or options.diverged_window < 1 or options.checkpoint_every < 0:
        raise ValueError(
            f"max_skipped {options.max_skipped}, diverged_window {options.diverged_window}, checkpoint_every "
            f"{options.checkpoint_every}: give 1 or more, and 0 or more for checkpoint_every"
        )
    if not options.diverged_at > 1:
        raise ValueError(f"diverged_at is {options.diverged_at}: give a factor above 1")
    if options.steps > MOST_STEPS:
        raise ValueError(f"steps is {options.steps}: a journal counts to {MOST_STEPS}")
    if options.train is not None and options.batch > options.train:
        raise ValueError(f"batch is {options.batch} but there are {options.train} training examples: lower --batch")


def check_method(text: str) -> None:
    """Raise ValueError unless the text names a zeroth-order method with its options, or a first-order one."""
    name, _, extra = text.partition(":")
    require_known(name, [method.name for method in methods.table()] + list(FIRST_ORDER), "method")
    if name not in FIRST_ORDER:
        methods.parse(text)
    elif extra:
        raise ValueError(f"method {text!r}: {name} has no options of its own")


def trainer(
    options: TrainOptions, language_model: LanguageModel, touched: Callable[[int], dict[str, list[int]]] | None = None
) -> ZerothOrder | FirstOrder:
    """Return what takes the steps of the named method.

    Raises:
        ValueError: an option of the method is out of range, or epsilon is below the resolution of the weights.
    """
    rate = schedule(options.schedule, options.lr, options.steps, options.warmup)
    if options.method in FIRST_ORDER:
        return FirstOrder(language_model.model, options.method, rate, options.weight_decay)
    estimator = methods.parse(options.method, epsilon=options.epsilon)
    engine = "in-forward" if options.engine == "auto" and options.rounding != "nearest" else options.engine
    how = rounded(options.rounding, options.dtype)
    return ZerothOrder(language_model.model, estimator, rate, options.weight_decay, engine, *how, touched)


NUMBERS = {
    "evaluation": ("step", "dev_loss", "dev_accuracy"),
    "step": ("step", "train_loss", "seconds"),
    "skipped": ("step", "train_loss", "seconds"),
}


def _require_rows(record: Run) -> None:
    """Refuse rows that a run would go on from, but that lack what it needs of them."""
    for number, row in enumerate(record.rows, 1):
        for name in NUMBERS.get(str(row.get("kind")), ()):
            value = row.get(name, "nothing")
            good = type(value) is int and value >= 0 if name == "step" else type(value) in (int, float, type(None))
            if not good:
                raise ValueError(
                    f"{record.folder / 'rows.jsonl'}:{number}: {name} is {value!r}: mend or remove the line"
                )


def _tell(text: str) -> None:
    """Tell the user something that is no result, above a progress bar."""
    tqdm.write(text, file=sys.stderr)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Let the first SIGINT or SIGTERM only be noted, so that no step is torn; the second acts as usual."""
    seen: list[int] = []
    previous: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.signal(number, previous[number])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, note)
    except ValueError:  # not the main thread: signals are somebody else's business
        pass
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
