"""Zero-shot, calibrated or tuned: accuracy of a model on a task, without training."""

from dataclasses import asdict, replace
from pathlib import Path

from llm import objective, tasks
from llm.baselines import untouched
from llm.objective.calibration import calibrate_
from llm.options.evaluate import EvaluateOptions
from llm.quantised import is_fake_quantised
from llm.quantised.schemes import check_smoothing
from llm.run import reading
from llm.run.folder import run_of
from zobench.run.progress import note
from zobench.run.records import Run


def run(options: EvaluateOptions) -> None:
    """Run the command: EvaluateOptions says what it does."""
    task = tasks.find(options.task)
    chosen = objective.choose(options.objective, task)
    split = tasks.split(task, options.data, options.train, options.dev, options.test, options.seed)
    options = replace(options, train=len(split.train), dev=len(split.dev), test=len(split.test))
    check_smoothing(options.smoothing)
    how = (options.model, options.device, options.dtype, options.trust_remote_code, options.quantisation())
    language_model = reading.load(options.engine, *how, options.out)
    minimised = chosen(language_model, max_tokens=options.max_tokens, bos=options.bos)
    parts = {name: minimised.encode(getattr(split, name)) for name in ("train", "dev", "test")}
    if is_fake_quantised(language_model.model):
        calibrate_(language_model.model, minimised, parts["train"], options.smoothing, options.seed)
    notes = [*split.notes, *objective.data_notes(minimised, parts)]
    for text in notes:
        note(text)
    if trained := _trained_on(options):
        note(f"{options.model} was trained on the task {trained}; it is evaluated on {options.task}")
    measured = untouched(minimised, **parts)
    dev, test, calibrated = measured.dev, measured.test, measured.rows()["calibrated zero-shot"]
    row = {
        "kind": "measurement",
        "model": options.model,
        "task": task.name,
        "dev_loss": dev.loss,
        "dev_accuracy": dev.accuracy,
        "test_loss": test.loss,
        "test_accuracy": test.accuracy,
        "calibrated_dev_accuracy": calibrated["dev_accuracy"],
        "calibrated_test_accuracy": calibrated["test_accuracy"],
        "test_examples": len(split.test),
        "weights": language_model.weights,
        **dev.named("dev"),
        **test.named("test"),
        **measured.cost,
    }
    for key, value in row.items():
        name = key.replace("accuracy", test.metric)
        print(f"{name:26}{value:.4f}" if isinstance(value, float) else f"{name:26}{value}")
    if options.out:
        record = Run(options.out, {"command": "evaluate", **asdict(options)})
        if not record.find(kind="measurement"):
            for text in notes:
                record.append({"kind": "note", "note": text})
            record.append(row)
    note(next_command(options))


def _trained_on(options: EvaluateOptions) -> str | None:
    """The task of the run whose model is evaluated, where it is another one."""
    run = run_of(Path(options.model)) if Path(options.model).is_dir() else None
    task = run and run.config["task"]
    return str(task) if task and task != options.task else None


def next_command(options: EvaluateOptions) -> str:
    """Return what follows an evaluation: predictions."""
    return (
        f"next: python -m llm predict --model {options.model} --task {options.task} --input NEW.csv --out answers.csv"
    )
