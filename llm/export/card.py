"""Model cards: what an exported folder holds, how it was made, what was measured, and how to make it again."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from torch import Tensor

from llm import tasks
from llm.export.base_model import WEIGHTS, BaseModel, base_model
from llm.export.escaped import code, line, placeless, plain
from llm.model.adapted import is_adapted
from llm.model.language_model import LanguageModel
from llm.options.train import TrainOptions
from llm.run import checkpoint
from llm.run.folder import JOURNAL, MODEL, RECORD, RunFolder, selected_step
from llm.steppers.first_order import HYBRID, backpropagates
from llm.tasks.published import PUBLISHED
from zobench.run import toml
from zobench.run.options import code_arguments
from zobench.run.records import Row, write_atomically
from zobench.spelling import names_code
from zobench.version import VERSION

PLACES = ("out", "data", "command")
"""Entries of a configuration that a card leaves out: paths on the machine."""


@dataclass(frozen=True)
class Exported:
    """What was written: by whose loader it is read, with what in it, and where that came from.

    `record` is the folder, seen from the card, with the run's configuration and journal.
    """

    library: str
    masked: bool
    dtype: str
    entries: int
    step: int
    origin: str
    base: BaseModel
    journal: bool = False
    record: str = RECORD


def exported(
    library: str, masked: bool, weights: Iterable[Tensor], at: tuple[int, str], base: BaseModel, run: RunFolder | None
) -> Exported:
    """Return what a card says of these weights; `at` is the step they are of, and where they come from."""
    kept = list(weights)
    dtype, entries = str(kept[0].dtype).removeprefix("torch."), sum(tensor.numel() for tensor in kept)
    return Exported(library, masked, dtype, entries, *at, base, journal_of(run) is not None)


def of_model(language_model: LanguageModel, at: tuple[int, str], base: BaseModel, run: RunFolder | None) -> Exported:
    """Return what a card says of a model; of one that peft has adapted, of the adapter."""
    model = language_model.model
    adapted = is_adapted(language_model)
    kept = checkpoint.weights(model).values() if adapted else model.parameters()
    return exported("peft" if adapted else "transformers", language_model.masked, kept, at, base, run)


def journal_of(run: RunFolder | None) -> Path | None:
    """Return the journal of a run, where the weights can be rebuilt from it without the run's data."""
    if run is None or run.config["rows"] != "all" or not (run.folder / JOURNAL).is_file():
        return None
    return None if backpropagates(run.config["method"]) else run.folder / JOURNAL


def describe(folder: Path, language_model: LanguageModel) -> None:
    """Write the card of the weights that a run has just put into its folder.

    Raises:
        OSError: no space, or the like.
    """
    run = RunFolder.read(folder)
    final = run.rows_of("final")[-1]
    made = of_model(
        language_model, (selected_step(final) or 0, "as the run wrote it"), base_model(str(run.config["model"])), run
    )
    write_atomically(folder / MODEL / "README.md", text(folder.resolve().name, replace(made, record=".."), run))


def text(name: str, made: Exported, run: RunFolder | None) -> str:
    """Return the README.md of an exported folder; `run` is what trained it, if that is known."""
    parts = [
        f"---\n{metadata(name, made, run).to_yaml()}\n---",
        f"# {plain(name)}",
        _introduction(made, run),
        _use(made, run),
    ]
    if run is not None:
        parts += [_results(made, run), _cost(made, run), _configuration(run), _again(made, run)]
    return "\n\n".join(part for part in parts if part) + "\n"


def metadata(name: str, made: Exported, run: RunFolder | None) -> ModelCardData:
    """Return what the hub reads of a card; a licence only where that of the base model is known."""
    published = PUBLISHED.get(run.config["task"]) if run else None
    method = str(run.config["method"]).partition(":")[0] if run else None
    tags = ["zobench", *(["zeroth-order-optimization", method, _task(run)] if run and method else [])]
    weights: dict[str, Any] = {WEIGHTS: made.base.weights} if made.base.weights else {}
    return ModelCardData(
        base_model=made.base.name,
        datasets=[published.hub.path] if published else None,
        license=made.base.license,
        library_name=made.library,
        pipeline_tag=_job(made),
        tags=tags,
        model_name=name if run else None,
        eval_results=_eval_results(made, run) if run else None,
        **weights,
    )


def _job(made: Exported) -> str:
    return "fill-mask" if made.masked else "text-generation"


def _eval_results(made: Exported, run: RunFolder) -> list[EvalResult] | None:
    task, final = _task(run), _final(made, run)
    if final is None or final.get("test_accuracy") is None:
        return None
    metric = line(final.get("metric", "accuracy"))
    published = PUBLISHED.get(task) if task == run.config["task"] else None
    return [
        EvalResult(
            task_type=_job(made),
            dataset_type=published.hub.path if published else task,
            dataset_name=task,
            metric_type=metric.replace("-", "_"),
            metric_value=final["test_accuracy"],
            metric_name=line(f"{metric} on {final.get('test_examples')} test examples"),
        )
    ]


def _introduction(made: Exported, run: RunFolder | None) -> str:
    name = made.base.name
    base = f"[{name}](https://huggingface.co/{name})" if made.base.on_hub else plain(name)
    what = "An adapter of" if made.library == "peft" else "The weights of" if run is None else "A fine-tuning of"
    lines = [f"{what} {base}" + (f" on the task {plain(_task(run))}" if run else "") + f", {made.origin}."]
    if made.base.weights:
        lines.append(f"**The base weights are {plain(made.base.weights)}.**")
    if run is not None:
        first = backpropagates(run.config["method"])
        how = "with backpropagation" if first else "from loss values alone, by forward passes, without backpropagation"
        if str(run.config["method"]).partition(":")[0] == HYBRID:
            how = "with backpropagation through its last blocks, and from loss values alone elsewhere"
        version = run.environment.get("zobench", "of unknown version")
        lines.append(f"It was trained {how}: method {code(str(run.config['method']))} of zobench {plain(version)}.")
        lines += _warnings(made, run)
    lines.append(f"{made.entries:,} weights in {made.dtype}; exported by zobench {VERSION}.")
    return "\n".join(lines)


def _warnings(made: Exported, run: RunFolder) -> list[str]:
    """Warnings that a reader needs before trusting the numbers."""
    lines, final = [], run.rows_of("final")
    if not final:
        lines.append(f"**The run is not finished: these are the weights after step {made.step} of {_steps(run)}.**")
    elif final[-1].get("status") != "ok":
        lines.append(
            f"**The run ended as {plain(final[-1].get('status'))}: use these weights only to study the failure.**"
        )
    elif made.step < final[-1].get("step", made.step):
        lines.append(f"Of {final[-1]['step']} steps, these are the weights after step {made.step}: lowest dev loss.")
    if run.config.get("bos") is not None:
        lines.append(f"Prompts began with token {run.config['bos']} instead of the tokenizer's own (--bos).")
    return lines


def _steps(run: RunFolder) -> int:
    return int(run.config["steps"])


def _use(made: Exported, run: RunFolder | None) -> str:
    auto = "AutoModelForMaskedLM" if made.masked else "AutoModelForCausalLM"
    imports = [f"from transformers import {auto}, AutoTokenizer"]
    if made.library == "peft":
        auto = "AutoPeftModel" if made.masked else "AutoPeftModelForCausalLM"
        imports = [f"from peft import {auto}", "from transformers import AutoTokenizer"]
    lines = [
        "## Use",
        "",
        "```python",
        *imports,
        "",
        'folder = "."  # this one',
        f"tokenizer, model = AutoTokenizer.from_pretrained(folder), {auto}.from_pretrained(folder)",
        "```",
    ]
    if run is not None:
        lines += ["", *_prompt(str(run.config["task"]))]
    return "\n".join(lines)


def _prompt(name: str) -> list[str]:
    """How the model was asked, where the task still is to be found; a function that a file names is not called."""
    if names_code(name):
        return []
    try:
        task = tasks.find(name)
    except ValueError:
        return []
    if task.template is not None and (task.candidates or task.sample is None):
        return _template(task)
    example = task.sample
    if example is None:
        answers = ", ".join(code(repr(candidate)) for candidate in task.candidates or ())
        return [f"Its answers are {answers}."] if answers else []
    answers = ", ".join(code(repr(candidate)) for candidate in example.candidates)
    return [f"Prompts are written as in training: {code(repr(example.prompt))}, followed by one of {answers}."]


def _template(task: tasks.Task) -> list[str]:
    """The prompt of a task by its template, and which continuation stands for which label."""
    where = " (what the user says, in the chat template of the model)" if not task.writing.one_line else ""
    lines = [f"Prompts are written as in training, by the template {code(repr(task.template))}{where}."]
    pairs = zip(task.candidates or (), task.label_names, strict=False)
    stands = ", ".join(f"{code(repr(text))} for {code(name)}" for text, name in pairs)
    if stands:
        lines.append(f"What follows stands for a label: {stands}.")
    ask = "`python -m llm predict --model FOLDER --task TASK --input new.csv --out answers.csv`"
    return ["\n".join([*lines, f"In a checkout of zobench, {ask} answers rows without labels."])]


def _results(made: Exported, run: RunFolder) -> str:
    """A table: the base model before training, and the exported weights."""
    rows = [(plain(row.get("name")), row) for row in run.rows_of("baseline")]
    measured = _final(made, run) or _of_step(run.rows_of("evaluation"), made.step)
    if measured:
        rows.append(("**these weights**", measured))
    if not rows:
        return ""
    metric = next((plain(row["metric"]) for _, row in rows if "metric" in row), "accuracy")
    titles = ("", f"dev {metric}", f"test {metric}", "dev loss", "test loss")
    names = ("dev_accuracy", "test_accuracy", "dev_loss", "test_loss")
    body = [(name, *(_number(row, key) for key in names)) for name, row in rows]
    sizes = f"{run.config.get('dev')} development and {run.config.get('test')} test examples"
    more = "" if measured else "\n\nThe exported weights were not measured at their step."
    return f"## Results\n\nOn {sizes}, seed {run.config.get('seed')}; one run.\n\n{_table(titles, body)}{more}"


def _final(made: Exported, run: RunFolder) -> Row | None:
    """The final row, if it is of these weights."""
    return next((row for row in run.rows_of("final") if selected_step(row) == made.step), None)


def _of_step(rows: Sequence[Row], step: int) -> Row | None:
    return next((row for row in reversed(rows) if row.get("step") == step), None)


def _number(row: Row, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, int | float):
        return ""
    return f"{value:.1%}" if name.endswith("accuracy") else f"{value:.4f}"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def _cost(made: Exported, run: RunFolder) -> str:
    wanted = ("step", "forward_passes", "backward_passes", "seconds")
    measured = [row for row in run.rows if all(row.get(name) is not None for name in wanted)]
    if not measured:
        return ""
    last = measured[-1]
    hardware = run.environment.get("gpu") or run.environment.get("cpu") or "an unknown machine"
    skipped, steps = len(run.rows_of("skipped")), last["step"] + (last["kind"] in ("step", "skipped"))
    return (
        f"## Cost\n\n{steps:,} steps of {run.config['batch']} examples, {skipped} of them skipped: "
        f"{last['forward_passes']:,} forward passes and {last['backward_passes']:,} backward passes in "
        f"{last['seconds']:,.1f} seconds (without evaluations), on {plain(hardware)}."
    )


def _configuration(run: RunFolder) -> str:
    return f"## Configuration\n\n```toml\n{toml.dumps(shown_config(run)).strip()}\n```"


def shown_config(run: RunFolder) -> dict[str, Any]:
    """Return the configuration without the places of files; of a model or a task by its path, the name."""
    kept = {name: value for name, value in run.config.items() if value is not None and name not in PLACES}
    kept |= {name: placeless(str(kept[name])) for name in ("model", "task")}
    return kept | {"also": [placeless(text.partition("@")[0]) for text in kept["also"]]}


def _task(run: RunFolder) -> str:
    """The task's name; of a task file, that of the file."""
    return line(placeless(str(run.config["task"])))


def _again(made: Exported, run: RunFolder) -> str:
    commit, data = run.environment.get("commit"), run.config.get("data")
    config = f"{made.record}/config.toml"
    command = ["python", "-m", "llm", "train", "--config", config, "--out", "runs/again"]
    command += ["--data", "FOLDER"] if data else []
    shown, words = shown_config(run), {"model": "MODEL", "task": "TASK.toml"}
    command += [word for name in words if shown[name] != run.config[name] for word in (f"--{name}", words[name])]
    lines = [
        "## Make it again",
        "",
        f"From a checkout of zobench{f' at commit {plain(commit)}' if commit else ''}, in this folder:",
        "",
        f"    {shlex.join(command)} {code_arguments(TrainOptions, shown)}".rstrip(),
    ]
    if made.journal:
        lines += [
            "",
            "or, without data and without a forward pass, from the base model and the journal:",
            "",
            f"    python -m llm journal replay {made.record}/{JOURNAL} --steps {made.step} --out rebuilt",
        ]
    versions = ", ".join(
        f"{name} {plain(run.environment[name])}" for name in ("python", "torch") if name in run.environment
    )
    return "\n".join([*lines, "", f"Versions: {versions}." if versions else ""]).rstrip()
