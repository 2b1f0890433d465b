"""The tuned weights of a run: those it wrote, those of its latest checkpoint, or those its journal rebuilds."""

from pathlib import Path
from typing import NamedTuple

from llm.model import loading, streaming, trainable
from llm.model.adapters import adapt
from llm.model.language_model import LanguageModel
from llm.quantised import Quantisation, all_trained_, as_written_, is_quantised, quantisation
from llm.quantised.codes import search_
from llm.run import calibrated, checkpoint, journal
from llm.run.folder import CHECKPOINTS, JOURNAL, MODEL, RunFolder, selected_step
from llm.steppers.code_search import searches_codes
from zobench.naming import require_known
from zobench.run.journal import Contents
from zobench.run.progress import warn

SOURCES = ("auto", "model", "checkpoint", "journal")


class Tuned(NamedTuple):
    """A model with the weights after `step` steps, and where they come from in words."""

    language_model: LanguageModel
    step: int
    origin: str


class BaseSource(NamedTuple):
    """Options that load the base model, where they differ from those of the run; `beside` is the folder on whose disk
    a run of the streamed engine has its working copy.
    """

    model: str | None = None
    device: str | None = None
    trust_remote_code: bool = False
    beside: Path | None = None

    def load(self, run: RunFolder, name: str, dtype: str, chosen: Quantisation | None = None) -> LanguageModel:
        """Return a model as the engine of a run loads it; errors as there."""
        how = (self.device or "cpu", dtype, self.trust_remote_code, chosen, self.beside)
        return streaming.load_for(str(run.config["engine"]), name, *how)


def find(run: RunFolder, source: str = "auto", places: BaseSource = BaseSource()) -> Tuned:
    """Return the tuned weights, those that a finished run selected; "auto" takes those that it wrote, else a checkpoint
    of their step, else the journal, and else the latest checkpoint.

    No loss is evaluated. A journal is walked at the cost of its sweeps over the weights.

    Raises:
        UnknownNameError: no such source.
        ValueError: the run has no such weights, or what it has is damaged.
    """
    require_known(source, SOURCES, "source of weights")
    if source == "model" or (source == "auto" and (run.folder / MODEL / "config.json").is_file()):
        return _written(run, places)
    contents = _journal(run)
    step = len(contents.records) if contents else int(run.config["steps"])
    step = min(step, last_step(run, contents))
    if source != "journal":
        kept = checkpoint.latest(run.folder / CHECKPOINTS, step, {}, contents.marks if contents else None)
        if kept is not None and (source == "checkpoint" or contents is None or kept.step == step):
            return _restored(run, kept, places)
    if contents is None or source == "checkpoint":
        raise ValueError(
            f"{run.folder} has no weights of step {step} or before (model, checkpoints, {JOURNAL}): baselines tune "
            "none; give the command of a run again without --no-save"
        )
    rebuilt = journal.rebuild(
        contents, step, places.model, places.device, places.trust_remote_code, beside=places.beside
    )
    return Tuned(rebuilt, step, "rebuilt from it and the journal of its steps")


def _written(run: RunFolder, places: BaseSource) -> Tuned:
    folder = run.folder / MODEL
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: the run wrote no weights there; --source auto takes a checkpoint or the journal")
    loaded = places.load(run, str(folder), loading.dtype_of(str(folder)))
    _select(loaded, run)
    return Tuned(loaded, last_step(run), "as the run wrote it")


def _select(loaded: LanguageModel, run: RunFolder) -> None:
    """Tell what the run trained of a model from what it did not."""
    if run.config["fake_quantize"] and is_quantised(loaded.model):
        all_trained_(loaded.model)
    elif searches_codes(str(run.config["method"])):
        search_(loaded.model)
    else:
        trainable.select(loaded.model, run.config["trained"])


def selected(run: RunFolder) -> str | None:
    """Return the fingerprint of the weights that a run selected; None of one that has not ended or is of before."""
    finals = run.rows_of("final")
    said = finals[-1].get("fingerprint") if finals else None
    return said if isinstance(said, str) else None


def last_step(run: RunFolder, contents: Contents | None = None) -> int:
    """Return the step whose weights a run wrote, or will at the latest: as its journal says, or its rows where it kept
    none.
    """
    final = run.rows_of("final")
    step = journal.selected_step(contents) if contents else selected_step(final[-1]) if final else None
    return int(run.config["steps"] if step is None else step)


def _restored(run: RunFolder, kept: checkpoint.Checkpoint, places: BaseSource) -> Tuned:
    if run.config.get("journal") and not (run.folder / JOURNAL).is_file():
        warn(
            f"{run.folder / JOURNAL} is missing: nothing shows whether checkpoint {kept.step} is the run's latest step"
        )
    chosen = quantisation(run.config["quantize"], run.config["group"], run.config["fake_quantize"])
    base = places.load(run, places.model or str(run.config["model"]), run.held, chosen)
    base = adapt(base, run.config["adapter"], run.config["seed"])
    _smooth(base, run)
    _select(base, run)
    checkpoint.restore(base.model, kept)
    as_written_(base.model)
    return Tuned(base, kept.step, f"from the checkpoint of step {kept.step}")


def _smooth(base: LanguageModel, run: RunFolder) -> None:
    """Give the layers the smoothing factors of the run, which a checkpoint holds only if they are trained."""
    if not run.config["fake_quantize"] or not run.config["smoothing"]:
        return
    contents = _journal(run)
    if contents is None or not calibrated.smooth_as_(base.model, contents.header):
        raise ValueError(f"{run.folder} has no {JOURNAL}, which holds the smoothing factors: give --source model")


def _journal(run: RunFolder) -> Contents | None:
    file = run.folder / JOURNAL
    return journal.read_told(file) if file.is_file() else None
