"""What the folder of a training run says of it: configuration, environment and rows, read and never written."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from llm.options.train import TrainOptions
from zobench.run.options import checked, unnamed
from zobench.run.reading import file_bytes, json_object, toml_table
from zobench.run.records import Row

CONFIG, ENVIRONMENT, ROWS = "config.toml", "environment.json", "rows.jsonl"
JOURNAL, CHECKPOINTS, BEST, MODEL = "journal.bin", "checkpoints", "best.safetensors", "model"
RECORD = "zobench"
"""Folder of an export with what makes its weights again."""
MEASURED = ("dev_loss", "dev_accuracy", "test_loss", "test_accuracy")
OWN = (CONFIG, JOURNAL)
"""Files by which a folder is known as that of a run."""
NUMBERS = ("step", "forward_passes", "backward_passes", "seconds", "selected_step", *MEASURED)


@dataclass(frozen=True)
class RunFolder:
    """A training run as its files tell it; `config` is complete, whatever version wrote it."""

    folder: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    rows: list[Row]

    @classmethod
    def read(cls, folder: Path) -> "RunFolder":
        """Return the run of a folder; a torn last row is left out.

        Raises:
            ValueError: the folder is not that of a training run, or a file of it is damaged; the message names it.
        """
        file = folder / CONFIG
        try:
            config = toml_table(file_bytes(file), str(file))
        except (OSError, ValueError) as error:
            raise ValueError(f"{error}: restore the file from a copy, or give the folder of a training run") from None
        if config.get("command") != "train":
            raise ValueError(f"{file} is of the command {config.get('command')!r}: give the folder of a training run")
        names = [field.name for field in fields(TrainOptions)]
        known = checked(TrainOptions, {name: value for name, value in config.items() if name in names}, str(file))
        environment, rows = _objects(folder / ENVIRONMENT), _objects(folder / ROWS)
        for number, row in enumerate(rows, 1):
            wrong = [name for name in NUMBERS if type(row.get(name, 0)) not in (int, float, type(None))]
            if wrong:
                raise ValueError(f"{folder / ROWS}:{number}: {wrong[0]} is {row[wrong[0]]!r}: correct the line")
        return cls(folder, unnamed(TrainOptions) | known, (environment or [{}])[0], rows)

    def rows_of(self, kind: str) -> list[Row]:
        """Return the rows of a kind, in order."""
        return [row for row in self.rows if row.get("kind") == kind]

    @property
    def held(self) -> str:
        """The dtype in which the run held its weights."""
        return "float32" if self.config["rounding"] == "master" else str(self.config["dtype"])


def selected_step(final: Row) -> int | None:
    """Return the step of the weights that a final row measured: rows of earlier versions measured the last."""
    step = final.get("selected_step")
    return final.get("step") if step is None else step


def journal_of(path: str | Path) -> Path:
    """Return the journal of a run's folder, or the path itself if it is a file."""
    file = Path(path)
    return file / JOURNAL if file.is_dir() else file


def existing(path: Path) -> Path:
    """Return the nearest folder above a path that is there, or the path itself."""
    path = path.resolve()
    return path if path.exists() or path == path.parent else existing(path.parent)


def run_of(folder: Path) -> RunFolder | None:
    """Return the run that a folder is of, or that wrote its weights there, if any."""
    for candidate in (folder, folder.parent) if folder.name == MODEL else (folder,):
        if any((candidate / name).is_file() for name in OWN):
            return RunFolder.read(candidate)
    return None


def _objects(file: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file: one over all lines, or one a line."""
    if not file.exists():
        return []
    data = file_bytes(file)
    if file.suffix == ".json":
        return [json_object(data, str(file))]
    return [json_object(text, f"{file}:{number}") for number, text in enumerate(data.split(b"\n")[:-1], 1)]
