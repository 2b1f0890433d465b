"""The training suite: fine-tune a language model with a zeroth-order or a first-order method, and keep every
measurement.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from tqdm import tqdm

from llm import models, objective, tasks
from llm.first_order import FIRST_ORDER, FirstOrder
from llm.models import LanguageModel
from llm.objective import Encoded, calibrated_accuracy, chance_accuracy
from llm.zeroth_order import ZerothOrder
from zobench import derive, methods, schedule, streams
from zobench.naming import require_known
from zobench.options import option
from zobench.records import Row, Run
from zobench.space import require_reproducible

BASELINES = 3


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
    save: bool = option(True, "write the tuned weights to <out>/model")
    journal: bool = option(True, "a row for each step, from which an interrupted zeroth-order run continues")
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
    """Run, or continue, to the final row and return it; a finished run is neither loaded nor repeated."""
    if (Path(options.out) / "rows.jsonl").exists():
        options = options if options.train and options.dev and options.test else _sized(options, _split(options))
        finished = Run(options.out, _config(options)).find(kind="final")
        if finished:
            print(f"{options.out} holds a finished run")
            return finished[-1]
    session = Session(options)
    session.go()
    return session.record.find(kind="final")[-1]


def _config(options: TrainOptions) -> Row:
    return {"command": "train", **asdict(options)}


class Session:
    """One run: everything is checked before the folder of results is touched, and before long work starts."""

    def __init__(self, options: TrainOptions) -> None:
        _check(options)
        self.task = tasks.find(options.task)
        chosen = objective.choose(options.objective, self.task)
        split = _split(options)
        self.options = options = _sized(options, split)
        _check(options)
        self.language_model = models.load(options.model, options.device, options.dtype)
        self.objective = chosen(self.language_model, max_tokens=options.max_tokens, bos=options.bos)
        if options.method in FIRST_ORDER and not self.objective.differentiable:
            raise ValueError(f"objective {options.objective} has no gradient for {options.method}: give --method mezo")
        self.data = Data(*(self.objective.encode(part) for part in split))
        self.trainer = trainer(options, self.language_model)
        self.start_loss = require_reproducible(lambda: self.objective.losses(self.minibatch(0)))
        if not math.isfinite(self.start_loss):
            raise ValueError(
                f"the loss is {self.start_loss} before the first step: check --dtype (now {options.dtype})"
            )
        self.record = Run(options.out, _config(options))
        self._tell(split.notes)
        self.seconds = 0.0
        self.losses: list[float] = []
        self._dev = ""
        self._journalled = 0

    def _tell(self, notes: Sequence[str]) -> None:
        """Print what was not as usual with the data, and keep it in rows."""
        for note in notes:
            print(note)
            if not self.record.find(kind="note", note=note):
                self.record.append({"kind": "note", "note": note})

    def minibatch(self, step: int) -> list[Encoded]:
        """Return the examples of a step: drawn by the seed and the step, the same for every method."""
        order = streams.uniform(derive("minibatch", self.options.seed, step), (len(self.data.train),)).argsort()
        return [self.data.train[i] for i in order[: self.options.batch].tolist()]

    def go(self) -> None:
        """Run, or continue, to the final row. An interruption keeps what was measured and can be continued."""
        self._baselines()
        steps = self.record.find(kind="step")
        self._journalled = len(steps)
        first = self.trainer.replay(steps)
        if first:
            self.seconds = steps[-1]["seconds"]
            evaluated = max((row["step"] for row in self.record.find(kind="evaluation")), default=0)
            self.losses = [row["train_loss"] for row in steps if row["step"] >= evaluated]
        status = "ok"
        with interruptible() as interrupted, self._bar(first) as bar:
            for step in bar:
                if step % self.options.eval_every == 0 and not self.record.find(kind="evaluation", step=step):
                    self._evaluate(step)
                try:
                    self._step(step, bar)
                except FloatingPointError as error:
                    self._fail(step, error)
                    status = "diverged"
                    break
                except Exception as error:
                    self._fail(step, error)
                    raise
                if interrupted():
                    raise KeyboardInterrupt
        self._finish(status)

    def _bar(self, first: int) -> Any:
        return tqdm(
            range(first, self.options.steps), initial=first, total=self.options.steps, unit="step", mininterval=1.0
        )

    def _step(self, step: int, bar: Any) -> None:
        batch = self.minibatch(step)
        key = derive("directions", self.options.seed, step)
        began = time.perf_counter()
        row = self.trainer.step(key, lambda: self.objective.losses(batch))
        self.seconds += time.perf_counter() - began
        self.losses.append(row["train_loss"])
        if self.options.journal and step >= self._journalled:
            self.record.append({"kind": "step", "step": step, **self._cost(), **row})
        bar.set_postfix_str(f"train loss {row['train_loss']:.3f} {self._dev}", refresh=False)

    def _fail(self, step: int, error: Exception) -> None:
        self.record.append(
            {"kind": "failure", "step": step, **self._names(), "reason": f"{type(error).__name__}: {error}"}
        )

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
        found = self.objective.measure(self.data.dev)
        train_loss = sum(self.losses) / len(self.losses) if self.losses else None
        self.losses.clear()
        row = {"train_loss": train_loss, "dev_loss": found.loss, "dev_accuracy": found.accuracy, **found.named("dev")}
        self.record.append({"kind": "evaluation", "step": step, **self._names(), **self._cost(), **row})
        self._dev = f"dev loss {found.loss:.3f} {found.metric} {found.accuracy:.1%}"

    def _finish(self, status: str) -> None:
        step = self.trainer.steps
        if not self.record.find(kind="evaluation", step=step):
            self._evaluate(step)
        test = self.objective.measure(self.data.test)
        if not math.isfinite(test.loss):
            status = "diverged"
        evaluations = self.record.find(kind="evaluation")
        best = min(evaluations, key=lambda row: math.inf if row["dev_loss"] is None else row["dev_loss"])
        if self.options.save:
            models.save(self.language_model, self.record.folder / "model")
        last = {name: evaluations[-1][name] for name in ("dev_loss", "dev_accuracy")}
        row = {**last, "test_loss": test.loss, "test_accuracy": test.accuracy, "test_examples": len(self.data.test)}
        row |= test.named("test")
        about = {"best_step": best["step"], "status": status, "weights": self.language_model.weights}
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
    if options.steps < 1 or options.batch < 1 or options.eval_every < 1:
        raise ValueError(
            f"steps {options.steps}, batch {options.batch}, eval_every {options.eval_every}: give 1 or more"
        )
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


def trainer(options: TrainOptions, language_model: LanguageModel) -> ZerothOrder | FirstOrder:
    """Return what takes the steps of the named method.

    Raises:
        ValueError: an option of the method is out of range, or epsilon is below the resolution of the weights.
    """
    rate = schedule(options.schedule, options.lr, options.steps, options.warmup)
    if options.method in FIRST_ORDER:
        return FirstOrder(language_model.model, options.method, rate, options.weight_decay)
    estimator = methods.parse(options.method, epsilon=options.epsilon)
    return ZerothOrder(language_model.model, estimator, rate, options.weight_decay)


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
