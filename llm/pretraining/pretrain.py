"""A tiny OPT language model, pretrained on the shipped texts: `python -m llm pretrain --out FOLDER`.

Small enough to sit in the repository, real enough that fine-tuning it on messages means something. Its
tokenizer and its weights have seen the texts outside the test pool, and never a label nor a held-out text.
A document is one text, begun by BOS and padded, not packed with others: just what a prompt looks like later.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from random import Random
from typing import Any

import tokenizers
import torch
import transformers
from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

from llm.options.pretrain import PretrainConfig
from llm.pretraining.bpe import BOS, PAD, train_tokenizer
from llm.pretraining.perplexity import encode, perplexity, shuffled_words, token_losses
from llm.tasks import corpus
from zobench.run.files import sync, sync_all
from zobench.run.progress import bar


def pretrain(config: PretrainConfig) -> dict[str, object]:
    """Train a tokenizer and a language model on the texts outside the test pool, and save both.

    `config.out` then holds what `AutoTokenizer` and `AutoModelForCausalLM` need, and `pretraining.json`. It
    appears whole or not at all. Malformed data raises `CorpusError`.

    Returns:
        the record in pretraining.json: configuration, losses, perplexities per token, versions, seconds.

    Raises:
        FileExistsError: `config.out` is already there.
    """
    out = Path(config.out)
    if out.exists():
        raise FileExistsError(f"{out} already exists: pretraining never overwrites a folder; give another --out")
    began = time.perf_counter()
    tokenizer = train_tokenizer(corpus.pretraining_texts(config.data), config.vocabulary, config.positions)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(config.threads)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = new_model(config)
            losses = train(model, tokenizer, config)
        perplexities = held_out_perplexities(model, tokenizer, config)
    finally:
        torch.set_num_threads(threads)
    record = _record(config, model, losses, perplexities, time.perf_counter() - began)
    _write(out, tokenizer, model, record)
    return record


def new_model(config: PretrainConfig) -> OPTForCausalLM:
    """Build an untrained OPT; its initial weights come from torch's global generator.

    Returns:
        the model, its head tied to its embeddings.
    """
    shape = OPTConfig(
        vocab_size=config.vocabulary,
        hidden_size=config.width,
        word_embed_proj_dim=config.width,
        ffn_dim=4 * config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        max_position_embeddings=config.positions,
        dropout=config.dropout,
        attention_dropout=0.0,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=BOS,
        tie_word_embeddings=True,
    )
    return OPTForCausalLM(shape)


def train(model: OPTForCausalLM, tokenizer: PreTrainedTokenizerFast, config: PretrainConfig) -> list[float]:
    """Train by AdamW with a cosine schedule on next-token cross-entropy.

    Returns:
        the training loss of each step, in nats per token.
    """
    documents = encode(tokenizer, corpus.pretraining_texts(config.data), config.length)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    kept = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": kept, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), weight_decay=config.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, config))
    losses: list[float] = []
    model.train()
    with bar(total=config.steps, desc="pretraining", unit="step") as shown:
        for batch in _batches(documents, config):
            loss = token_losses(model, batch).mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
            shown.set_postfix_str(f"loss {_recent(losses):.3f}", refresh=False)
            shown.update()
    model.eval()
    return losses


def held_out_perplexities(
    model: OPTForCausalLM, tokenizer: PreTrainedTokenizerFast, config: PretrainConfig
) -> dict[str, float]:
    """Measure what was learned. A model that knew only word frequencies would do no worse on shuffled texts.

    Returns:
        perplexity per token on the test pool, on its texts with words shuffled, and on texts trained on.
    """
    texts = corpus.held_out_texts(config.data)
    seen = corpus.pretraining_texts(config.data)[:: config.batch]
    return {
        "held_out": perplexity(model, tokenizer, texts),
        "held_out_shuffled": perplexity(model, tokenizer, shuffled_words(texts)),
        "training_sample": perplexity(model, tokenizer, seen),
    }


def _batches(documents: list[list[int]], config: PretrainConfig) -> Iterator[list[list[int]]]:
    """`config.steps` batches. Texts of like length go together, which leaves little padding."""
    random, made, size = Random(config.seed), 0, 16 * config.batch
    while True:
        order = random.sample(documents, len(documents))
        pools = [sorted(order[i : i + size], key=len) for i in range(0, len(order), size)]
        batches = [pool[i : i + config.batch] for pool in pools for i in range(0, len(pool), config.batch)]
        random.shuffle(batches)
        yield from batches[: config.steps - made]
        made += len(batches)
        if made >= config.steps:
            return


def _rate(step: int, config: PretrainConfig) -> float:
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))


def _recent(losses: list[float]) -> float:
    return sum(losses[-50:]) / len(losses[-50:])


def _record(
    config: PretrainConfig,
    model: OPTForCausalLM,
    losses: list[float],
    perplexities: dict[str, float],
    seconds: float,
) -> dict[str, object]:
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items() if k != "data"}
    every = max(1, len(losses) // 50)
    shown = range(every - 1, len(losses), every)
    return {
        "command": _command(config),
        "config": settings,
        "seed": config.seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "losses": {str(i + 1): round(_recent(losses[: i + 1]), 4) for i in shown},
        "perplexity_per_token": perplexities,
        "versions": {m.__name__: m.__version__ for m in (torch, transformers, tokenizers)},
        "seconds": round(seconds, 1),
    }


def _command(config: PretrainConfig) -> str:
    """The command line that repeats a run: the folder, and whatever differs from the defaults."""
    changed = [f for f in fields(config) if f.name == "out" or getattr(config, f.name) != f.default]
    options = [f"--{f.name.replace('_', '-')} {getattr(config, f.name)}" for f in changed]
    return " ".join(["python -m llm pretrain", *options])


def _write(out: Path, tokenizer: PreTrainedTokenizerFast, model: OPTForCausalLM, record: dict[str, object]) -> None:
    """Write beside the goal and rename, so that no half-written model can be mistaken for a whole one."""
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        tokenizer.save_pretrained(aside)
        model.save_pretrained(aside)
        (aside / "pretraining.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        aside.chmod(0o755)
        for file in aside.iterdir():
            file.chmod(0o644)
        sync_all(aside)
        os.rename(aside, out)
        sync(out.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def run(config: PretrainConfig) -> None:
    """Run the command: PretrainConfig says what it does."""
    record = pretrain(config)
    print(json.dumps(record["perplexity_per_token"], indent=2))
