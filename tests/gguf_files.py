"""A tiny Llama as a GGUF file, its matrices in a chosen type."""

import json

import gguf
import numpy as np
import torch

from tests import tiny_models

SHAPE = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}


def permuted(weight, heads):
    """The rows of a projection in llama.cpp's order (convert_hf_to_gguf.py)."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write(file, kind="Q4_1", embedding="Q8_0"):
    """Write the file and return the model and the bytes of each matrix by its name in the model."""
    model, tokenizer = tiny_models.model("llama", tie_word_embeddings=True, **SHAPE), tiny_models.byte_level()
    writer = gguf.GGUFWriter(file, "llama")
    _describe(writer, tokenizer)
    weights = {name: p.detach().numpy() for name, p in model.named_parameters()}
    packed = {}

    def put(there, here, type_name, heads=None):
        kind = getattr(gguf.GGMLQuantizationType, type_name)
        whole = gguf.quants.quantize(weights[here], kind)
        packed[here] = (whole, kind)
        rows = whole if heads is None else permuted(whole, heads)
        writer.add_tensor(there, np.ascontiguousarray(rows), raw_dtype=kind)

    put("token_embd.weight", "model.embed_tokens.weight", embedding)
    writer.add_tensor("output_norm.weight", weights["model.norm.weight"])
    for i in range(2):
        for there, here in NORMS.items():
            writer.add_tensor(f"blk.{i}.{there}.weight", weights[f"model.layers.{i}.{here}.weight"])
        for there, here in LAYER.items():
            heads = {"attn_q": 4, "attn_k": 2}.get(there)
            put(f"blk.{i}.{there}.weight", f"model.layers.{i}.{here}.weight", kind, heads)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model, packed


def _describe(writer, tokenizer):
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(tiny_models.VOCABULARY)
    made = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    by_id = {number: token for token, number in made["vocab"].items()}
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([by_id.get(i, f"<unused{i}>") for i in range(tiny_models.VOCABULARY)])
    writer.add_token_types([1] * tiny_models.VOCABULARY)
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in made["merges"]])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(1)
    writer.add_add_bos_token(True)


def dequantised(packed):
    """The matrices of `write`, as the gguf package dequantises them."""
    return {name: torch.from_numpy(gguf.dequantize(*parts)) for name, parts in packed.items()}
