"""Language models on every engine: grouped queries, tied heads, layers that are no nn.Linear."""

import copy

import pytest
import torch
from engines import ENGINES, IDS, IN_FORWARD, bits, loss_of, space_of, steps, swept_by
from sampled import diagonal
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
)

from zobench import Combination, Gaussian, InForwardSpace, Term, layout, methods, query
from zobench.space.closure import evaluate

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(layout, "BLOCK_SIZE", 300)


def llama() -> PreTrainedModel:
    """Four heads share two keys and values; no biases; the head is untied."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=16, tie_word_embeddings=False,
        )
    )  # fmt: skip


def opt() -> PreTrainedModel:
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=40, hidden_size=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=16, word_embed_proj_dim=12, dropout=0.0,
        )
    )  # fmt: skip


def gpt2() -> PreTrainedModel:
    """Its matrices are Conv1D's, and it adds two embeddings."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=40,
            n_embd=16,
            n_layer=2,
            n_head=4,
            n_positions=16,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    )


MODELS = {"llama": llama, "opt": opt, "gpt2": gpt2}


def model_of(name: str, dtype: torch.dtype) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS[name]().to(dtype).eval()
        for p in model.parameters():  # as they come, all logits are nearly equal
            nn.init.normal_(p, std=0.3)
    return model


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_losses_are_those_of_a_copy_with_the_direction_added(name, dtype):
    """On every engine, after a step that is still pending in some of them."""
    found, ends = {}, {}
    step = Combination((Term(Gaussian(), 8, torch.tensor([0.02], dtype=torch.float64)),))
    for engine in ENGINES:
        model = model_of(name, dtype)
        space = space_of(engine, model)
        space.step_(step, 1.0, 0.1)
        found[engine] = query(space, methods.make("mezo", epsilon=0.05), loss_of(model), 1, ()).losses
        space.settle_()
        ends[engine] = torch.cat([bits(p) for p in model.parameters()])
    direct = []
    settled = model_of(name, dtype)
    space = InForwardSpace(settled)
    space.step_(step, 1.0, 0.1)
    u = space.dense(Combination((Term(Gaussian(), 1, torch.ones(1, dtype=torch.float64)),)))
    parts = {
        s.name: part.view(s.shape).to(s.dtype)
        for s, part in zip(space.layout.segments, u.split([s.size for s in space.layout.segments]), strict=True)
    }
    for amount in (0.05, -0.05):
        there = copy.deepcopy(settled)
        with torch.no_grad():
            for key, part in parts.items():
                p = there.get_parameter(key)
                p.copy_(torch.add(p, part, alpha=amount))
        direct.append(evaluate(loss_of(there)))
    for engine in IN_FORWARD:
        assert found[engine].tolist() == [direct], engine
        assert torch.equal(ends[engine], ends["in-forward"])
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]
    assert found["plain"].tolist()[0] == pytest.approx(direct, rel=tolerance)
    assert abs(direct[0] - direct[1]) > 1e-4 * abs(direct[0])  # planted: nothing perturbed


@pytest.mark.parametrize(("way", "name"), diagonal(["native", "eager"], MODELS))
def test_ten_steps_are_the_same_on_all(name, way):
    ends = []
    for engine in IN_FORWARD:
        model = model_of(name, torch.float32)
        with swept_by(way):
            losses = steps(space_of(engine, model), loss_of(model), methods.make("mezo", epsilon=0.02, n=2), 10)
        ends.append((losses, torch.cat([bits(p) for p in model.parameters()])))
    assert all(torch.equal(a, b) for end in ends for a, b in zip(end, ends[0], strict=True))
    assert len(set(ends[0][0].flatten().tolist())) > 10  # planted: steps of nothing


@pytest.mark.parametrize("engine", IN_FORWARD)
@pytest.mark.parametrize("name", MODELS)
def test_rows_that_the_batch_touches(name, engine):
    """Only hidden states are looked at, or logits of chosen tokens; the full normaliser is refused where it is tied."""
    model = model_of(name, torch.float64)
    space, table = space_of(engine, model), model.get_input_embeddings()
    (row_name,) = [key for key, p in model.named_parameters() if p is table.weight]
    space.restrict({row_name: IDS.flatten()})
    mezo = methods.make("mezo", epsilon=0.05)

    def some() -> torch.Tensor:
        body = model.get_decoder() if hasattr(model, "get_decoder") else model.transformer
        hidden = body(IDS).last_hidden_state
        return (hidden @ model.get_output_embeddings().weight[IDS[0].unique()].t()).log_softmax(-1)[..., 0]

    told = query(space, mezo, some, 1, ())
    assert float(told.losses.diff().abs()) > 1e-6
    if name == "llama":
        query(space, mezo, loss_of(model), 1, ())
    else:
        with pytest.raises(ValueError, match="whole vocabulary"):
            query(space, mezo, loss_of(model), 1, ())
