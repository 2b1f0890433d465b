"""The step where only an adapter is trained: LoRA and prefix tuning, against two forwards of the adapted model."""

import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from llm.bench.setting import BenchSetting, stepper
from zobench.run.records import Row
from zobench.run.timing import alternating

BAR = 1.05
ENGINE = "in-forward"


def measure(make: Callable[[], BenchSetting], repetitions: int) -> list[Row]:
    """Return a row an adapter, each on a model of its own: MeZO's settings (LoRA of rank 8 on queries and values; 5
    prefix tokens).

    Raises:
        ValueError: peft is missing.
    """
    try:
        import peft
    except ImportError:
        raise ValueError("adapters need peft: pip install peft, or leave them out of --parts") from None
    task = peft.TaskType.CAUSAL_LM
    makers = {
        "lora": peft.LoraConfig(task_type=task, r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]),
        "prefix": peft.PrefixTuningConfig(task_type=task, num_virtual_tokens=5),
    }
    return [_row(make(), name, config, repetitions) for name, config in makers.items()]


def _row(here: BenchSetting, name: str, config: Any, repetitions: int) -> Row:
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft reads what transformers renames
        adapted = peft.get_peft_model(here.model, config).eval()
    inner = adapted if name == "prefix" else adapted.get_base_model()  # LoRA is within its layers
    language_model = replace(here.objective.language_model, model=inner)
    there = replace(here, model=inner, objective=replace(here.objective, language_model=language_model))
    there.limit()
    seconds = alternating({"limit": there.limit, "step": stepper(there, ENGINE, "gaussian")}, repetitions)
    trainable = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    ratio = statistics.median(seconds["step"]) / statistics.median(seconds["limit"])
    return {
        "kind": "bench-adapter", **here.about, "adapter": name, "trainable": trainable, "engine": ENGINE,
        "seconds": seconds["step"], "limit_seconds": seconds["limit"], "of_limit": ratio, "bar": BAR,
    }  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text."""
    lines = [f"{'adapter':42}{'seconds':>9}{'of two forwards':>17}{'bar':>6}{'trainable':>11}"]
    for row in rows:
        middle, ratio, bar = statistics.median(row["seconds"]), row["of_limit"], row["bar"]
        lines.append(f"{row['adapter']:42}{middle:9.3f}{ratio:17.3f}{bar:6.2f}{row['trainable']:11}")
    return "\n".join(lines)
