"""Zero-shot, calibrated or tuned: accuracy of a model on a task, without training."""

from dataclasses import asdict, dataclass

from llm import models, tasks
from llm.objective import Objective, calibrated_accuracy
from zobench.options import option
from zobench.records import Run


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `python -m llm evaluate`."""

    model: str = option("tiny-opt", "as for train; the tuned weights of a run are in <run>/model")
    task: str = option("spam", "spam, sentences, sst2")
    data: str | None = option(None, "folder of the task's files; without it: shipped, or the hub")
    train: int = option(500, "training examples, on which the calibration is fitted")
    dev: int = option(200, "development examples")
    test: int = option(300, "test examples")
    max_tokens: int = option(64, "prompts are cut from the left to this many tokens")
    seed: int = option(0, "names the split")
    device: str = option("cpu", "cpu, cuda, cuda:1, ...")
    dtype: str = option("float32", "float32, bfloat16 or float16")
    trust_remote_code: bool = option(False, "run the Python code that comes with a model")
    out: str | None = option(None, "folder for the row; without it nothing is written")


def run(options: EvaluateOptions) -> None:
    """Measure loss and accuracy on dev and test, as the model stands and with calibrated scores."""
    task = tasks.find(options.task)
    split = tasks.split(task, options.data, options.train, options.dev, options.test, options.seed)
    language_model = models.load(options.model, options.device, options.dtype, options.trust_remote_code)
    objective = Objective.of(language_model, task.candidates, options.max_tokens)
    train, dev, test = (objective.measure(objective.encode(part)) for part in split)
    row = {
        "kind": "measurement",
        "model": options.model,
        "task": options.task,
        "dev_loss": dev.loss,
        "dev_accuracy": dev.accuracy,
        "test_loss": test.loss,
        "test_accuracy": test.accuracy,
        "calibrated_dev_accuracy": calibrated_accuracy(train, dev),
        "calibrated_test_accuracy": calibrated_accuracy(train, test),
        "test_examples": len(split.test),
        "weights": language_model.weights,
    }
    for name, value in row.items():
        print(f"{name:26}{value:.4f}" if isinstance(value, float) else f"{name:26}{value}")
    if options.out:
        record = Run(options.out, {"command": "evaluate", **asdict(options)})
        if not record.find(kind="measurement"):
            record.append(row)
