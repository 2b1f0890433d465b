"""Zero-shot, calibrated or tuned: accuracy of a model on a task, without training."""

from dataclasses import asdict, dataclass, replace

from llm import models, objective, tasks
from llm.baselines import untouched
from llm.objective import MAX_TOKENS
from zobench.options import option
from zobench.progress import note
from zobench.records import Run


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `python -m llm evaluate`."""

    model: str = option("tiny-opt", "as for train; the tuned weights of a run are in <run>/model")
    task: str = option("spam", tasks.HELP)
    data: str | None = option(None, "folder of the task's files; without it: shipped, beside the task file, or the hub")
    objective: str = option("task", f"what the loss is: {objective.HELP}")
    train: int | None = option(None, "training examples, on which the calibration is fitted")
    dev: int | None = option(None, "development examples; without it the task's usual number")
    test: int | None = option(None, "test examples; without it the task's usual number, or all there are")
    max_tokens: int | None = option(None, MAX_TOKENS)
    bos: int | None = option(None, "id of the first token instead of the tokenizer's; 0 as MeZO's runs of OPT had it")
    seed: int = option(0, "names the split")
    device: str = option("cpu", "cpu, cuda, cuda:1, ...")
    dtype: str = option("float32", "float32, bfloat16 or float16")
    trust_remote_code: bool = option(False, "run the Python code that comes with a model", code=True)
    out: str | None = option(None, "folder for the row; without it nothing is written")


def run(options: EvaluateOptions) -> None:
    """Measure loss and accuracy on dev and test, as the model stands and with calibrated scores."""
    task = tasks.find(options.task)
    chosen = objective.choose(options.objective, task)
    split = tasks.split(task, options.data, options.train, options.dev, options.test, options.seed)
    options = replace(options, train=len(split.train), dev=len(split.dev), test=len(split.test))
    language_model = models.load(options.model, options.device, options.dtype, options.trust_remote_code)
    minimised = chosen(language_model, max_tokens=options.max_tokens, bos=options.bos)
    parts = {name: minimised.encode(getattr(split, name)) for name in ("train", "dev", "test")}
    notes = [*split.notes, *objective.told(minimised, parts)]
    for text in notes:
        note(text)
    found = untouched(minimised, **parts)
    dev, test, calibrated = found.dev, found.test, found.rows()["calibrated zero-shot"]
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
        **found.cost,
    }
    for name, value in row.items():
        print(f"{name:26}{value:.4f}" if isinstance(value, float) else f"{name:26}{value}")
    if options.out:
        record = Run(options.out, {"command": "evaluate", **asdict(options)})
        if not record.find(kind="measurement"):
            for text in notes:
                record.append({"kind": "note", "note": text})
            record.append(row)
