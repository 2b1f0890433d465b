"""The options of `pretrain`."""

from dataclasses import dataclass
from pathlib import Path

from zobench.run.options import option


@dataclass(frozen=True)
class PretrainConfig:
    """Pretrain a tiny OPT on the shipped texts and write weights, tokenizer and record into a new folder.

    The defaults are the recipe of the committed `llm/tiny_opt`, in another folder.
    """

    out: Path = option(Path("runs/tiny-opt"), "folder to write: a new one")  # noqa: RUF009 a field
    data: Path = option(Path(__file__).parents[1] / "data", "folder of the texts")  # noqa: RUF009 a field
    steps: int = option(5000, "number of optimisation steps")
    batch: int = option(16, "texts in the minibatch of a step")
    length: int = option(128, "tokens of the longest text trained on")
    lr: float = option(3e-3, "learning rate, the greatest of its schedule")
    warmup: int = option(100, "steps over which the learning rate rises to it")
    weight_decay: float = option(0.1, "decoupled weight decay")
    dropout: float = option(0.2, "probability of dropout")
    layers: int = option(4, "number of layers")
    width: int = option(128, "numbers in the hidden state of a token")
    heads: int = option(4, "attention heads of a layer")
    vocabulary: int = option(2000, "number of tokens")
    positions: int = option(256, "tokens of the longest text that the model can read")
    seed: int = option(0, "seed of the weights and the order of the texts")
    threads: int = option(2, "threads of the CPU: float sums depend on them")
