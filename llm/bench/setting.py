"""The timed setting: OPT models of published sizes with random weights, random prompts, candidates of one token."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llm.model.language_model import DTYPES, LanguageModel
from llm.objective import Encoded, Objective
from llm.objective.touched import touched_rows
from llm.options.bench import SIZES
from llm.steppers import engines
from zobench import ModuleSpace, derive, methods, query
from zobench.products import widen_products_
from zobench.random import streams

POSITIONS = 2048
ENGINES: dict[str, Callable[[Any], ModuleSpace]] = {  # those of training, under the names that rows have
    "plain": engines.ENGINES["plain"],
    "in-forward": engines.ENGINES["in-forward"],
    "in-forward, paired": engines.ENGINES["paired"],
}


class _NoTokenizer:
    pad_token_id = 1


@dataclass(frozen=True, eq=False)
class BenchSetting:
    """A model, its objective and one minibatch."""

    size: str
    dtype: str
    tokens: int
    model: Any
    objective: Objective
    batch: list[Encoded]

    def loss(self) -> Tensor:
        """Return the loss of each example."""
        return self.objective.losses(self.batch)

    @torch.inference_mode()
    def limit(self) -> None:
        """Do what no two-point step can do without: two bare forwards of the loss."""
        self.loss(), self.loss()

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.objective.language_model.device

    @property
    def about(self) -> dict[str, Any]:
        """The columns of rows that describe the setting: a CPU by its threads, another device by its name."""
        cpu = self.device.type == "cpu"
        where = {"threads": torch.get_num_threads()} if cpu else {"device": str(self.device)}
        return {"size": self.size, "dtype": self.dtype, "batch": len(self.batch), "tokens": self.tokens, **where}


def waited(device: torch.device, job: Callable[[], object]) -> Callable[[], None]:
    """Return the job, ended when its device has done all of it."""

    def whole() -> None:
        job()
        if device.type != "cpu":
            getattr(torch, device.type).synchronize()

    return whole


def setting(size: str, dtype: str, batch: int, tokens: int, candidates: int = 2, device: str = "cpu") -> BenchSetting:
    """Return the setting of a named size: weights, prompts and labels are the same in every process."""
    return of_model(random_opt(size, dtype, device, max(POSITIONS, tokens + 1)), size, dtype, batch, tokens, candidates)


def of_model(model: Any, size: str, dtype: str, batch: int, tokens: int, candidates: int = 2) -> BenchSetting:
    """Return the setting of a model, with the prompts and labels of `setting` and the products of a loaded model."""
    widen_products_(model)
    ids = streams.integers(derive("bench", "tokens"), (batch, tokens), model.config.vocab_size - 4) + 4
    labels = streams.integers(derive("bench", "labels"), (batch,), candidates).tolist()
    language_model = LanguageModel(size, model, _NoTokenizer(), "random")
    objective = Objective(language_model, tuple((10 + c,) for c in range(candidates)), tokens)
    rows = [Encoded(row, label) for row, label in zip(ids.tolist(), labels, strict=True)]
    return BenchSetting(size, dtype, tokens, model, objective, rows)


def opt_configuration(size: str, positions: int = POSITIONS) -> Any:
    """Return the configuration of an OPT of a named size."""
    from transformers import OPTConfig

    hidden, layers, heads, vocabulary = SIZES[size]
    return OPTConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        word_embed_proj_dim=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        ffn_dim=4 * hidden,
        max_position_embeddings=positions,
    )


def random_opt(size: str, dtype: str, device: str = "cpu", positions: int = POSITIONS) -> Any:
    """Return an OPT of a named size with random weights, made on its device, in evaluation mode; of a device "meta"
    without weights.
    """
    from transformers import OPTForCausalLM

    config = opt_configuration(size, positions)
    before = torch.get_default_dtype()
    torch.set_default_dtype(DTYPES[dtype])  # never held in two dtypes at once
    try:
        with torch.random.fork_rng(), torch.device(device):
            torch.manual_seed(0)
            return OPTForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


def stepper(
    here: BenchSetting, engine: str, law: str, touched: bool = False, method: str = "mezo"
) -> Callable[[], None]:
    """Return what takes one step of an engine each time it is called."""
    space, estimator, keys = ENGINES[engine](here.model), methods.make(method, law=law), iter(range(10**9))

    def step() -> None:
        if touched:
            space.restrict(touched_rows(here.objective, here.batch))
        estimate = query(space, estimator, here.loss, derive("bench", "step", next(keys)), ())
        assert estimate.gradient is not None  # query returns only then
        space.step_(estimate.gradient, -1e-7)

    return step
