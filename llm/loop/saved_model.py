"""The tuned model that a run writes."""

from pathlib import Path

from llm.export import card
from llm.loop.listener import Listener
from llm.model import loading
from llm.run import saved
from llm.run.context import RunContext
from llm.run.folder import MODEL
from zobench.run.records import Row


class SavedModel(Listener):
    """Writes the selected weights and their checksums to the folder `model` of the run, and describes them then."""

    def __init__(self, context: RunContext, folder: Path) -> None:
        self.language_model, self.folder = context.language_model, folder

    def on_selected(self, step: int, weights: str) -> None:
        saved.save(self.language_model, self.folder / MODEL, weights)

    def on_ended(self, final: Row) -> None:
        card.describe(self.folder, self.language_model)


def complete(folder: Path) -> None:
    """Write the card of a finished run that has a model and, because a kill came between them, no card of it.

    Raises:
        OSError: no space, or the like.
    """
    model = folder / MODEL
    if model.is_dir() and not (model / "README.md").is_file():
        card.describe(folder, loading.load(str(model), dtype=loading.dtype_of(str(model))))
