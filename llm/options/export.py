"""The options of `export`."""

from dataclasses import dataclass

from zobench.run.options import argument, option

FORMATS = ("transformers", "gguf", "codes")
GGUF, CODES = "gguf", "codes"


@dataclass(frozen=True)
class ExportOptions:
    """Write the tuned weights of a run into a folder that transformers or peft loads, with a model card."""

    run: str = argument("folder of a run, a model as train --model takes it, or the folder of an adapter")
    to: str | None = option(None, "folder to write: a new or an empty one")
    source: str = option(
        "auto", "source of the weights: model, checkpoint, journal, or auto (the first of these that the run has)"
    )
    dtype: str | None = option(None, "float32, bfloat16 or float16; by default the dtype of the weights")
    format: str = option(
        "transformers",
        "transformers (safetensors; quantised layers as dense ones), gguf (codes and scales), or codes (a quantised "
        "model as train --model reads it: codes, scales, smoothing factors, and the bits of activations)",
    )
    merge: bool = option(False, "merge an adapter into its base model")
    model: str | None = option(None, "the base model, if it is not the one that the run or the adapter names")
    device: str | None = option(
        None, "device on which the steps of a journal are repeated; by default the device of the journal"
    )
    trust_remote_code: bool = option(False, "allow the model to run Python code of its own", code=True)
