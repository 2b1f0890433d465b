"""Models that are read and not trained: in memory, or streamed as the run that wrote them."""

from pathlib import Path

from llm.model import loading, streaming
from llm.model.language_model import LanguageModel
from llm.model.mapped import blocks_of
from llm.options.evaluate import AUTO, ENGINES, IN_FORWARD, STREAMED
from llm.quantised import Quantisation
from llm.run.folder import existing, run_of
from zobench.naming import require_known
from zobench.space.streamed import follow, layers_of


def load(
    engine: str,
    name: str,
    device: str = "cpu",
    dtype: str = "float32",
    trust_remote_code: bool = False,
    quantize: Quantisation | None = None,
    beside: str | None = None,
) -> LanguageModel:
    """Return a model for forwards, as `loading.load` does, or as `streaming.load` where the engine is "streamed", or is
    "auto" and a streamed run wrote the model.

    Args:
        engine: one of ENGINES.
        name: the model.
        device: where it computes.
        dtype: the dtype of the weights.
        trust_remote_code: run the code that comes with the model.
        quantize: how its layers are quantised.
        beside: a file or folder, there or not, on whose disk the working copy of a streamed model lies.

    Raises:
        UnknownNameError: no such engine.
        ValueError: as for these two.
    """
    require_known(engine, ENGINES, "engine")
    if engine == AUTO:
        possible = loading.require_device(device).type in streaming.DEVICES
        engine = STREAMED if possible and _was_streamed(name) else IN_FORWARD
    place = existing(Path(beside)) if beside else None
    loaded = streaming.load_for(engine, name, device, dtype, trust_remote_code, quantize, place)
    blocks = blocks_of(loaded.model)
    if blocks is not None and blocks.slots is None:  # no engine of steps fetches the layers that a forward enters
        follow(layers_of(loaded.model), blocks)
    return loaded


def _was_streamed(name: str) -> bool:
    run = run_of(Path(name)) if Path(name).is_dir() else None
    return run is not None and run.config["engine"] == STREAMED
