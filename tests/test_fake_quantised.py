"""Fake-quantised layers: their forward, smoothing and clipping, and the layers of codes that they become."""

import pytest
import torch

from llm.model import loading
from llm.model.trainable import select, tensors
from llm.quantised import SCHEMES, Scheme, as_written_, fake_layers
from llm.quantised import model as models
from llm.quantised.activations import per_token
from llm.quantised.fake import FakeQuantisedLinear, check_fake, watched
from llm.quantised.formats import FORMATS, Format
from llm.quantised.smoothing import as_text, factors, from_text_, smooth_

pytestmark = pytest.mark.usefixtures("one_thread")


def layer(scheme="w4a4", rows=6, columns=64, seed=0):
    """A fake-quantised layer with factors of its own, and inputs."""
    drawn = torch.Generator().manual_seed(seed)
    linear = torch.nn.Linear(columns, rows)
    for p in linear.parameters():
        p.data = torch.randn(p.shape, generator=drawn) * 0.1
    made = FakeQuantisedLinear(SCHEMES[scheme], linear).requires_grad_(False)
    made.log_smoothing += torch.randn(columns, generator=drawn) * 0.3
    made.log_clipping += torch.randn(rows, generator=drawn) * 0.1
    return made, torch.randn(3, 5, columns, generator=drawn)


def rounded_rows(matrix, bits, clipping=None):
    """The plain formula, entry by entry: the nearest of the 2^bits levels between the clipped extremes of a row."""
    found = torch.empty_like(matrix, dtype=torch.float64)
    for i, row in enumerate(matrix):
        factor = 1.0 if clipping is None else float(clipping[i])
        low, high = float(row.min()) * factor, float(row.max()) * factor
        levels = torch.linspace(low, high, 2**bits, dtype=torch.float64)
        for j, value in enumerate(row.double()):
            found[i, j] = levels[(levels - value).abs().argmin()]
    return found


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_the_forward_is_the_plain_formula(scheme):
    made, x = layer(scheme.name)
    smoothing, clipping = made.log_smoothing.exp(), made.log_clipping.exp()
    weight = rounded_rows(made.weight * smoothing, scheme.weights, clipping)
    read = (x / smoothing).flatten(0, 1)
    read = read.double() if scheme.activations is None else rounded_rows(read, scheme.activations)
    wanted = (read @ weight.T + made.bias).view(3, 5, -1)
    # A scale in float16 moves the levels by 2^-11 of the range.
    torch.testing.assert_close(made(x).double(), wanted, rtol=0, atol=2e-2 * float(wanted.abs().max()))


@pytest.mark.parametrize("name", FORMATS)
def test_rounding_without_codes_is_that_with_codes_to_the_bit(name):
    format, weight = Format(name, *FORMATS[name], 32), torch.randn(6, 128)
    for clipping in (None, torch.rand(6) + 0.5):
        with torch.no_grad():
            assert torch.equal(
                format.fake_quantise(weight, clipping), format.dequantise(*format.quantise(weight, clipping))
            )


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("tile", [2**20, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_of_codes_computes_what_the_fake_one_does_to_the_bit(scheme, tile, dtype, monkeypatch):
    monkeypatch.setattr("llm.quantised.layers.TILE", tile)
    made, x = layer(scheme)
    made.weight.data, made.bias.data, x = made.weight.to(dtype), made.bias.to(dtype), x.to(dtype)
    held = made.rounded()
    with torch.no_grad():
        assert torch.equal(held(x), made(x)) and held(x).dtype == dtype
    assert held.format.group == 64 and held.codes.shape[1] == 1  # a row is one group


def test_tokens_keep_their_extremes_and_equal_entries():
    x = torch.tensor([[0.0, 1.0, 2.9, 3.1, 15.0], [7.0, 7.0, 7.0, 7.0, 7.0]])
    assert torch.equal(per_token(x, 4), torch.tensor([[0.0, 1.0, 3.0, 3.0, 15.0], [7.0] * 5]))


def test_smoothing_leaves_the_function_and_helps_where_a_channel_stands_out():
    """Without rounding W t and x / t cancel; with a planted outlier channel smoothing brings rounding errors down."""
    made, x = layer("w8a4", columns=64)
    x[..., 7] *= 100
    made.log_smoothing.zero_(), made.log_clipping.zero_()
    full = torch.nn.functional.linear(x, made.weight, made.bias)
    plain = float((made(x) - full).norm())
    model = torch.nn.Sequential(made)
    with watched(model):
        assert torch.equal(model(x), full)  # full precision while it is watched
        torch.testing.assert_close(made.largest, x.abs().amax((0, 1)))
        smooth_(model, 0.75)
    assert made.largest is None
    t = made.log_smoothing.exp()
    wanted = x.abs().amax((0, 1)) ** 0.75 / made.weight.abs().amax(0) ** 0.25
    torch.testing.assert_close(t, wanted)
    unrounded = torch.nn.functional.linear(x / t, made.weight * t, made.bias)
    torch.testing.assert_close(unrounded, full, rtol=1e-5, atol=1e-5)
    assert float((made(x) - full).norm()) < plain / 4


def test_factors_of_channels_that_no_input_reaches_are_positive_and_finite():
    made, _ = layer()
    made.weight[:, 3] = 0
    found = factors(made, torch.zeros(64), 0.75)
    assert bool((found > 0).all()) and bool(found.isfinite().all())


def test_smoothing_factors_survive_as_text():
    model, other = (torch.nn.Sequential(layer(seed=seed)[0], layer(rows=4, seed=seed)[0]) for seed in (0, 1))
    from_text_(other, as_text(model))
    assert all(torch.equal(a.log_smoothing, b.log_smoothing) for a, b in zip(model, other, strict=True))
    with pytest.raises(ValueError, match="128 smoothing factors, and the model 64"):
        from_text_(other[:1], as_text(model))
    with pytest.raises(ValueError, match="cannot be read"):
        from_text_(other, "!")


def test_what_is_trained_and_what_a_model_becomes():
    model = loading.load("tiny-opt", quantize=Scheme.of("w4a4")).model
    known = fake_layers(model)
    assert len(known) == 24 and not any("head" in name for name in known)
    select(model, ())
    names = {each.name for each in tensors(model)}
    assert "model.decoder.layers.0.fc1.weight" in names and not any("log_" in name for name in names)
    model.requires_grad_(True)
    select(model, ("*smoothing", "*clipping"))
    assert {each.name.rpartition(".")[2] for each in tensors(model)} == {"log_smoothing", "log_clipping"}
    model.requires_grad_(True)
    select(model, ("*fc1.weight",))
    assert {each.name.split(".", 4)[-1] for each in tensors(model)} == {"fc1.weight"}
    ids = torch.arange(40).view(2, 20)
    with torch.no_grad():
        before = model(ids).logits
        as_written_(model)
        assert torch.equal(model(ids).logits, before)
    assert len(models.layers(model)) == 24 and not fake_layers(model)


def test_layers_that_cannot_be_rounded_by_channels_are_told():
    with pytest.raises(ValueError, match="rows of 6 weights"):
        check_fake(torch.nn.Sequential(torch.nn.Linear(6, 4)))
    with pytest.raises(ValueError, match=r"Conv1d, which cannot be quantised.*leave --fake-quantize out"):
        check_fake(torch.nn.Sequential(torch.nn.Conv1d(4, 4, 1)))
