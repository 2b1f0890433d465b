"""The speed of one step: the published loop, this library's engines, and the limit of two bare forwards."""

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from llm.models import DTYPES, LanguageModel
from llm.objective import Encoded, Objective
from zobench import InForwardSpace, ModuleSpace, derive, methods, query, streams
from zobench.naming import require_known
from zobench.options import option
from zobench.records import Run
from zobench.timing import alternating

SIZES = {  # hidden, layers, heads, vocabulary
    "opt-1m": (64, 4, 4, 8192),
    "opt-10m": (256, 6, 4, 16384),
    "opt-125m": (768, 12, 12, 50272),
    "opt-350m": (1024, 24, 16, 50272),
}
ENGINES: dict[str, Callable[[Any], ModuleSpace]] = {
    "plain": ModuleSpace,
    "in-forward": InForwardSpace,
    "in-forward, paired": partial(InForwardSpace, paired=True),
}


@dataclass(frozen=True)
class BenchOptions:
    """Options of `python -m llm bench`."""

    size: str = option("opt-125m", f"{', '.join(SIZES)}: OPT of this size with random weights")
    laws: tuple[str, ...] = option(("gaussian", "rademacher"), "laws of directions")
    batch: int = option(16, "examples a step")
    tokens: int = option(48, "tokens of a prompt")
    candidates: int = option(2, "candidates of one token")
    dtype: str = option("float32", "float32, bfloat16")
    repetitions: int = option(7, "alternating repetitions; the median counts")
    out: str = option("runs/llm-bench", "folder of the results; every call appends rows")


def run(options: BenchOptions) -> None:
    """Time one MeZO step of each engine against the published four-walk loop and against two bare forwards."""
    if options.repetitions < 1 or options.batch < 1 or options.candidates < 2 or options.tokens < 2:
        raise ValueError(f"{options}: give repetitions and batch of 1 or more, candidates and tokens of 2 or more")
    require_known(options.size, SIZES, "size")
    require_known(options.dtype, DTYPES, "dtype")
    model = random_opt(options.size, options.dtype)
    objective, batch = _task(model, options)
    jobs = _jobs(model, objective, batch, options)
    record = Run(options.out, {"command": "bench", **asdict(options)})
    seconds = alternating(jobs, options.repetitions)
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    threads = torch.get_num_threads()
    print(f"{options.size}, {options.dtype}, batch {options.batch} x {options.tokens} tokens, {threads} threads")
    print(f"{'job':28}{'seconds':>9}{'of the limit':>14}{'times faster than published':>29}")
    for name, value in middle.items():
        print(f"{name:28}{value:9.3f}{value / middle['limit']:14.2f}{middle['published'] / value:29.2f}")
        row = {"kind": "bench", "job": name, "seconds": seconds[name], "of_limit": value / middle["limit"]}
        record.append({**row, "speedup": middle["published"] / value, "threads": threads})
    print(f"rows: {record.folder / 'rows.jsonl'}")


def random_opt(size: str, dtype: str) -> Any:
    """Return an OPT of a named size with random weights, in evaluation mode."""
    from transformers import OPTConfig, OPTForCausalLM

    hidden, layers, heads, vocabulary = SIZES[size]
    config = OPTConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        word_embed_proj_dim=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        ffn_dim=4 * hidden,
        max_position_embeddings=2048,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return OPTForCausalLM(config).to(DTYPES[dtype]).eval()


class _NoTokenizer:
    pad_token_id = 1


def _task(model: Any, options: BenchOptions) -> tuple[Objective, list[Encoded]]:
    vocabulary = model.config.vocab_size
    ids = streams.integers(derive("bench", "tokens"), (options.batch, options.tokens), vocabulary - 4) + 4
    labels = streams.integers(derive("bench", "labels"), (options.batch,), options.candidates).tolist()
    language_model = LanguageModel(options.size, model, _NoTokenizer(), "random")
    objective = Objective(language_model, tuple((10 + c,) for c in range(options.candidates)), options.tokens)
    return objective, [Encoded(row, label) for row, label in zip(ids.tolist(), labels, strict=True)]


def _jobs(
    model: Any, objective: Objective, batch: list[Encoded], options: BenchOptions
) -> dict[str, Callable[[], object]]:
    def loss() -> Tensor:
        return objective.losses(batch)

    @torch.inference_mode()
    def limit() -> None:
        loss(), loss()

    published = Published(model, objective, batch)
    jobs: dict[str, Callable[[], object]] = {"published": published.step, "limit": limit}
    for law in options.laws:
        for name, engine in ENGINES.items():
            jobs[f"{name}, {law}"] = _step(engine(model), methods.make("mezo", law=law), loss)
    return jobs


def _step(space: ModuleSpace, estimator: Any, loss: Callable[[], Tensor]) -> Callable[[], None]:
    keys = iter(range(10**9))

    def step() -> None:
        told = query(space, estimator, loss, derive("bench", "step", next(keys)), ())
        assert told.gradient is not None  # query returns only then
        space.step_(told.gradient, -1e-7)

    return step


class Published:
    """MeZO as published (Malladi et al. 2023): three walks that displace, one that updates, new normals each time;
    every example is forwarded once for each candidate, with logits of every token.
    """

    def __init__(self, model: Any, objective: Objective, batch: list[Encoded]) -> None:
        self.model, self.parameters = model, list(model.parameters())
        rows = [row.tokens + list(c) for row in batch for c in objective.candidates]
        self.ids = torch.tensor(rows)
        self.labels = torch.tensor([row.label for row in batch])
        self.count, self.seed = len(objective.candidates), 0

    def step(self, epsilon: float = 1e-3, lr: float = 1e-7) -> None:
        """Take one step."""
        self.seed += 1
        with torch.no_grad():
            self.walk(epsilon)
            first = float(self.loss())
            self.walk(-2 * epsilon)
            second = float(self.loss())
            self.walk(epsilon)
            self.walk(-lr * (first - second) / (2 * epsilon))

    def walk(self, scale: float) -> None:
        """Add scale * z to every parameter, z from the seed of the step."""
        torch.manual_seed(self.seed)
        for p in self.parameters:
            z = torch.normal(mean=0, std=1, size=p.size(), device=p.device, dtype=p.dtype)
            p.data = p.data + scale * z

    def loss(self) -> Tensor:
        """Return the mean cross-entropy over the candidates' log-probabilities."""
        logits = self.model(input_ids=self.ids, attention_mask=torch.ones_like(self.ids)).logits
        chosen = logits[:, :-1].float().log_softmax(-1).gather(2, self.ids[:, 1:, None])[:, -1, 0]
        return functional.cross_entropy(chosen.view(-1, self.count), self.labels)
