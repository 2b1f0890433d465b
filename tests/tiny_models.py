"""Random models of each architecture, tokenizers of each convention, and the plain reference: one text at a time."""

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers import models as tokenizer_models
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedTokenizerFast,
)

from llm.model.language_model import LanguageModel

VOCABULARY = 300
SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
WIDE = {"initializer_range": 0.3, "max_position_embeddings": 128, "pad_token_id": 1}  # scores that differ visibly
GROUPED = {"intermediate_size": 32, "num_key_value_heads": 1, "bos_token_id": 2, "eos_token_id": 2}
CAUSAL = {
    "opt": {"ffn_dim": 32, "word_embed_proj_dim": 8, "bos_token_id": 2, "eos_token_id": 2, "init_std": 0.3},
    "gpt2": {"n_positions": 128, "bos_token_id": 2, "eos_token_id": 2},
    "llama": GROUPED,
    "qwen2": GROUPED,
    "qwen3": {**GROUPED, "head_dim": 8},
    "smollm3": GROUPED,
    "mistral": {**GROUPED, "sliding_window": 64},
    "gemma2": {**GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8},
    "gpt_neo": {
        **{"num_layers": 2, "num_heads": 2, "intermediate_size": 32, "bos_token_id": 2, "eos_token_id": 2},
        **{"attention_types": [[["global", "local"], 1]], "window_size": 64},
    },
    "gpt_neox": {"intermediate_size": 32, "bos_token_id": 2, "eos_token_id": 2},
    "bloom": {"bos_token_id": 2, "eos_token_id": 2},
}
PACKING = ("opt", "gpt2", "llama", "qwen2", "qwen3", "mistral", "gpt_neox")
MASKED = ("roberta", "bert")
TEXTS = (
    "a film that is great and terrible",
    "the quick brown fox jumps over the lazy dog. yes or no?",
    "It was great. It was terrible. Was it spam?\nYes\nNo\nMaybe\n",
)


def model(kind, **changes):
    config = AutoConfig.for_model(kind, **{**SHAPE, **WIDE, **CAUSAL.get(kind, {"intermediate_size": 32}), **changes})
    maker = AutoModelForMaskedLM if kind in MASKED else AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return maker.from_config(config).eval()


def language_model(kind, tokenizer=None, **changes):
    tokenizer = tokenizer or (masked_tokenizer() if kind in MASKED else byte_level())
    return LanguageModel(kind, model(kind, **changes), tokenizer, "random")


def _trained(bpe, special):
    llama = isinstance(bpe.pre_tokenizer, pre_tokenizers.Metaspace)
    alphabet = ["\n"] if llama else pre_tokenizers.ByteLevel.alphabet()
    options = {"vocab_size": VOCABULARY, "special_tokens": list(special), "initial_alphabet": alphabet}
    lines = [line for text in TEXTS * 3 for line in text.split("\n")]  # no token crosses a line break
    bpe.train_from_iterator(lines, trainers.BpeTrainer(show_progress=False, **options))
    return bpe


def _fast(bpe, **names):
    return PreTrainedTokenizerFast(tokenizer_object=bpe, **names)


def byte_level(bos=True, eos=False):
    """GPT-2's kind: a leading space belongs to the word. OPT begins with BOS, GPT-2 and Qwen do not; some add EOS."""
    bpe = Tokenizer(tokenizer_models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    _trained(bpe, ("<unk>", "<pad>", "</s>"))
    single = " ".join(["</s>"] * bos + ["$A"] + ["</s>"] * eos)
    if bos or eos:
        bpe.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("</s>", 2)])
    return _fast(bpe, bos_token="</s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>")


def metaspace():
    """Llama's kind: a space is put before every text, so that a word alone looks as one in the middle of a line."""
    bpe = Tokenizer(tokenizer_models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    bpe.decoder = decoders.Metaspace(prepend_scheme="always", split=False)
    _trained(bpe, ("<unk>", "<pad>", "<s>", "</s>"))
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    return _fast(bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>")


def masked_tokenizer():
    """RoBERTa's kind: <s> text </s>, and a mask that takes the space before it."""
    bpe = Tokenizer(tokenizer_models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    _trained(bpe, ("<s>", "<pad>", "</s>", "<unk>", "<mask>"))
    ends = [("<s>", 0), ("</s>", 2)]
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    made = _fast(bpe, bos_token="<s>", cls_token="<s>", eos_token="</s>", sep_token="</s>", pad_token="<pad>")
    made.add_special_tokens({"mask_token": "<mask>"})
    return made


@torch.no_grad()
def token_logs(made, ids):
    """Log-probabilities of the vocabulary after each token of one text, float64, no padding."""
    return made(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)


def reference_score(made, prompt, candidate):
    logs = token_logs(made, [*prompt, *candidate])
    return sum(logs[len(prompt) - 1 + i, t] for i, t in enumerate(candidate)) / len(candidate)
