"""Lists of tasks, methods, models and presets, and the examples of a task as a model reads them."""

from llm import tasks
from llm.baselines import BASELINES
from llm.model import loading
from llm.options import presets
from llm.options.listing import ListOptions
from llm.steppers.code_search import CODE_SEARCH
from llm.steppers.first_order import FIRST_ORDER, HYBRID
from zobench import methods
from zobench.methods import listing
from zobench.naming import require_known
from zobench.run.progress import note

MODELS = {
    "tiny-opt": "1.1 M weights, comes with the repository: tests, demo, results/spam",
    loading.SMOLLM2: "135 M weights, a 4-bit rounding that comes with a package",
    "a hub id": "facebook/opt-1.3b, ...",
    "a folder": "of transformers (safetensors), or an adapter of peft",
    "a .gguf file": "its weights become floats, or keep their codes with --quantize gguf",
}
CAUSAL = ("opt", "gpt2", "llama", "qwen2", "qwen3", "smollm3", "mistral", "gemma2", "gpt_neo", "gpt_neox", "bloom")
MASKED = ("roberta", "bert")
"""Architectures whose tokens and losses are tested against one text at a time; others of transformers may work."""
LONGEST = 4000
"""Letters of a prompt that are shown; the middle of a longer one is left out."""
KEYS = ("lr", "epsilon", "batch", "steps", "adapter", "dtype")


def run(options: ListOptions) -> None:
    """Run the command: ListOptions says what it does."""
    if options.presets is not None:
        print(_whole_presets(options.presets))
    elif options.methods:
        print("\n".join((listing.plain(), _references())))
    elif options.task is None:
        print("\n\n".join((all_tasks(), _methods(), _models(), _presets())))
    else:
        print(_one(tasks.find(options.task), options))
        note(f"next: python -m llm train --task {options.task} --out runs/NAME --dry-run prints what training costs")


def all_tasks() -> str:
    """Return the tasks as lines: usual sizes, objective, metric, source, and a made-up question."""
    lines = ["tasks", f"  {'name':12}{'train/dev/test':16}{'objective':16}{'metric':10}source"]
    for task in tasks.TASKS.values():
        lines.append(f"  {task.name:12}{_usual(task):16}{task.objective:16}{task.metric:10}{task.source}")
        if task.sample is not None:
            lines.append(f"    {_shown(task.sample)}")
    lines.append("  or a task file (my.toml), or package.module:function: docs/tasks.md")
    return "\n".join(lines)


def _usual(task: tasks.Task) -> str:
    return "/".join(map(str, task.sizes[:3]))


def _shown(example: tasks.Example) -> str:
    """Prompt and continuations, as Python writes them; a star is at the right one."""
    written = " ".join(f"{'*' if i == example.label else ''}{text!r}" for i, text in enumerate(example.candidates))
    return f"{_ends(example.prompt)!r} -> {written}"


def _ends(text: str) -> str:
    """A text, or the two ends of one that would flood the screen."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} [...] {text[-LONGEST // 2 :]}"


def _methods() -> str:
    rows = [(row.name, row.formula) for row in methods.table()]
    rows += _others()
    width = max(len(name) for name, _ in rows) + 2
    head = "methods (--methods shows their axes, evaluations a step and options)"
    return "\n".join([head, *(f"  {name:{width}}{formula}" for name, formula in rows)])


def _others() -> list[tuple[str, str]]:
    """First-order references and baselines."""
    first = [(name, "first-order reference") for name in FIRST_ORDER]
    both = [
        (HYBRID, "sgd or adamw on the last blocks, mezo or another method on the rest, in one step"),
        (CODE_SEARCH, "with --quantize: the best of the codes, and of size=1024 codes moved by +-1 to either side"),
    ]
    return [*first, *both, *((name, baseline.about) for name, baseline in BASELINES.items())]


def _references() -> str:
    return "\n".join(f"{name:20}{about}" for name, about in _others())


def _models() -> str:
    lines = ["models", *(f"  {name:24}{about}" for name, about in MODELS.items())]
    tested = f"tested architectures: {', '.join(CAUSAL)}; masked: {', '.join(MASKED)}"
    return "\n".join([*lines, f"  {tested}"])


def _presets() -> str:
    """The presets, those of the same values and source together."""
    groups: dict[str, list[presets.Preset]] = {}
    for preset in presets.table().values():
        groups.setdefault(repr(({**preset.values, "task": ""}, preset.source)), []).append(preset)
    lines = ["presets (--presets NAME shows all values)"]
    for first, *others in groups.values():
        also = f"  and for {', '.join(preset.values['task'] for preset in others)}" if others else ""
        values = ", ".join(f"{key} {first.values[key]}" for key in KEYS if key in first.values)
        lines += [f"  {first.name}{also}", f"    {first.values['method']}: {values}", f"    {first.source}"]
    return "\n".join(lines)


def _whole_presets(text: str) -> str:
    known = presets.table()
    chosen = [preset for preset in known.values() if text == "all" or text in preset.name]
    if not chosen:
        require_known(text, known, "preset")
    lines = []
    for preset in chosen:
        lines += [preset.name, f"  source: {preset.source}"]
        lines += [f"  --{key.replace('_', '-')} {value}" for key, value in preset.values.items()]
    return "\n".join(lines)


def _one(task: tasks.Task, options: ListOptions) -> str:
    split = tasks.split(task, options.data, None, None, None, options.seed)
    sizes = ", ".join(f"{len(part)} {name}" for name, part in zip(("train", "dev", "test"), split, strict=True))
    lines = [f"{task.name}: {sizes}; {task.objective}, {task.metric}; {task.source}", *split.notes]
    for label in sorted({example.label for example in split.train}):
        shown = [example for example in split.train if example.label == label]
        lines.append(f"label {label}: {len(shown)} of the training examples")
        lines.extend(f"  {_shown(example)}" for example in shown[: options.examples])
    return "\n".join(lines)
