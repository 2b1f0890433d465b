"""The tokenizer of the pretrained model: byte-level BPE with the conventions of the published OPT."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # ids 0 to 3, as in the published OPT
PAD, BOS = 1, 2  # OPT begins a text with "</s>" too
# Words that the shipped tasks answer with. They are single tokens in the published OPT, hence here too.
WHOLE_WORDS = (" normal", " spam", " terrible", " great")


def train_tokenizer(texts: Sequence[str], vocabulary: int, positions: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE with OPT's conventions: pad 1, bos = eos = unk = 2, BOS before each text.

    Returns:
        the tokenizer; `WHOLE_WORDS` are single tokens of it.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([*texts, *WHOLE_WORDS * len(texts)], trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single="</s> $A", pair="</s> $A </s> $B", special_tokens=[("</s>", BOS)]
    )
    end = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", model_max_length=positions, **end)
