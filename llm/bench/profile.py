"""The time of a step by its parts."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from llm.bench.setting import ENGINES, BenchSetting, setting, stepper
from llm.model.language_model import DTYPES
from llm.options.bench import SIZES, ProfileOptions
from zobench import Combination, ModuleSpace, Term, derive
from zobench.law import LAWS
from zobench.naming import require_known
from zobench.random import native
from zobench.run.progress import bar, note
from zobench.run.records import Row, Run
from zobench.space import in_forward, stored
from zobench.space import sweep as sweep_module
from zobench.space.sweep import Sweep

DRAW, APPLY, REST = "draw", "apply", "Python and the rest"
PARTS = (DRAW, APPLY, "attention", "MLP", "embeddings and logits", REST)
ATTENTION, MLP = ("self_attn", "attn", "attention"), ("fc1", "fc2", "mlp", "activation_fn")


def run(options: ProfileOptions) -> None:
    """Run the command: ProfileOptions says what it does."""
    if min(options.steps, options.batch) < 1 or options.tokens < 2:
        raise ValueError(f"{options}: give steps and batch of 1 or more, and tokens of 2 or more")
    require_known(options.size, SIZES, "size")
    require_known(options.dtype, DTYPES, "dtype")
    for law in options.laws:
        require_known(law, LAWS, "law")
    for engine in options.engines:
        require_known(engine, [name for name in ENGINES if "paired" not in name], "engine of one thread")
    record = Run(options.out, {"command": "profile", **asdict(options)})
    here = setting(options.size, options.dtype, options.batch, options.tokens)
    print(f"{'engine, law':30}" + "".join(f"{part:>24}" for part in PARTS))
    for engine in options.engines:
        for law in options.laws:
            rows = profile(here, engine, law, options.steps)
            for row in rows:
                record.append(row)
            print(f"{engine + ', ' + law:30}" + "".join(f"{r['seconds']:16.3f} ({r['share']:4.0%})" for r in rows))
    note(f"rows: {record.folder / 'rows.jsonl'}")


def profile(here: BenchSetting, engine: str, law: str, steps: int) -> list[Row]:
    """Return a row a part, in seconds a step, all rows perturbed.

    Sweeps are timed whole; of them as much is drawing as drawing the same numbers alone takes.
    """
    step = stepper(here, engine, law)
    step()
    clock = Clock()
    with clock.on_sweeps(), clock.on_modules(here.model):
        began = time.perf_counter()
        for _ in bar(range(steps), desc=f"{engine}, {law}", unit="step", leave=False):
            step()
        total = (time.perf_counter() - began) / steps
    spent = {part: seconds / steps for part, seconds in clock.seconds.items()}
    draws = min(spent.get(APPLY, 0.0), clock.numbers / steps * _seconds_a_number(law))
    spent[DRAW], spent[APPLY] = draws, spent.get(APPLY, 0.0) - draws
    spent[REST] = total - sum(spent.values())
    about = {"kind": "profile", **here.about, "engine": engine, "law": law, "rows": "all", "native": native.status()}
    return [{**about, "part": p, "seconds": spent.get(p, 0.0), "share": spent.get(p, 0.0) / total} for p in PARTS]


def _seconds_a_number(law: str, entries: int = 1 << 24) -> float:
    """The time of a number on all threads, where nothing but a small block of memory is written."""
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(entries, dtype=torch.float32))
    space = ModuleSpace(module)
    seconds = []
    for key in range(3):
        term = Term(LAWS[law], derive("draw", key), torch.ones(1, dtype=torch.float64))
        began = time.perf_counter()
        space.step_(Combination((term,)), 1e-9)
        seconds.append(time.perf_counter() - began)
    return min(seconds) / entries


@dataclass
class Clock:
    """Seconds by part; time within a part that belongs to another is counted there alone."""

    seconds: dict[str, float] = field(default_factory=dict)
    numbers: int = 0
    _open: list[tuple[str, float]] = field(default_factory=list)

    def enter(self, part: str) -> None:
        """Begin a part; the one that is open pauses."""
        now = time.perf_counter()
        if self._open:
            self._add(self._open[-1], now)
        self._open.append((part, now))

    def leave(self) -> None:
        """End the latest part; the one that it interrupted goes on."""
        now = time.perf_counter()
        self._add(self._open.pop(), now)
        if self._open:
            self._open[-1] = (self._open[-1][0], now)

    def _add(self, entry: tuple[str, float], now: float) -> None:
        self.seconds[entry[0]] = self.seconds.get(entry[0], 0.0) + now - entry[1]

    @contextmanager
    def on_sweeps(self) -> Iterator[None]:
        """Count the sweeps of both engines, and the numbers that they draw."""

        def timed(work: Callable[..., None]) -> Callable[..., None]:
            def sweep(*arguments: Any) -> None:
                self.enter(APPLY)
                work(*arguments)
                self.leave()

            return sweep

        def counted(make: Callable[..., Any]) -> Callable[..., Any]:
            def made(*arguments: Any, **more: Any) -> Any:
                job = make(*arguments, **more)
                lines = len(job.lines) + (len(job.update.lines) if isinstance(job, Sweep) else 0)
                self.numbers += lines * sum(block.size for block in job.blocks)
                return job

            return made

        with ExitStack() as stack:
            for module in (in_forward, stored):
                stack.enter_context(_replaced(module, "Sweep", counted))
            stack.enter_context(_replaced(in_forward, "RowSweep", counted))
            for module in (in_forward, sweep_module):
                stack.enter_context(_replaced(module, "in_parallel", timed))
            yield

    @contextmanager
    def on_modules(self, model: nn.Module) -> Iterator[None]:
        """Count the parts of a transformer: what is neither attention nor MLP nor a layer's own is embeddings and
        logits.
        """
        hooks = []
        for name, module in model.named_modules():
            kind = _part(name)
            if kind:
                hooks.append(module.register_forward_pre_hook(lambda *_, kind=kind: self.enter(kind)))
                hooks.append(module.register_forward_hook(lambda *_: self.leave(), always_call=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _part(name: str) -> str | None:
    last = name.split(".")[-1]
    if last in ATTENTION:
        return PARTS[2]
    if last in MLP:
        return PARTS[3]
    return PARTS[4] if last.startswith("embed") else None


@contextmanager
def _replaced(owner: Any, name: str, change: Callable[[Any], Any]) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, change(before))
    try:
        yield
    finally:
        setattr(owner, name, before)
