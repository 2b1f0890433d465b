"""Products in 16 bits on a processor without instructions for them."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from llm.model.loading import load
from zobench import products
from zobench.random import normals

CAPABILITY = "torch.backends.cpu.get_cpu_capability"


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A processor with AVX2 alone."""
    monkeypatch.setattr(CAPABILITY, lambda: "AVX2")
    yield


def _numbers(key: int, *shape: int) -> torch.Tensor:
    return normals(key, 0, torch.Size(shape).numel()).view(shape)


@pytest.mark.parametrize("dtype", products.NARROW, ids=str)
@pytest.mark.parametrize("biased", [False, True])
def test_a_product_is_rounded_once(plain: None, dtype: torch.dtype, biased: bool) -> None:
    x, weight = _numbers(1, 2, 3, 64).to(dtype), _numbers(2, 5, 64).to(dtype)
    bias = _numbers(3, 5).to(dtype) if biased else None
    exact = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    found = products.linear(x, weight, bias)
    assert found.dtype == dtype and found.shape == (2, 3, 5)
    assert ((found.double() - exact).abs() <= torch.finfo(dtype).eps / 2 * exact.abs() + 1e-5).all()


def test_other_products_are_torchs(plain: None, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = _numbers(1, 3, 64), _numbers(2, 5, 64)
    for dtype in (torch.float32, torch.float64):
        assert not products.in_float32(dtype, x.device)
        one, other = x.to(dtype), weight.to(dtype)
        assert torch.equal(products.linear(one, other), nn.functional.linear(one, other))
    assert products.in_float32(torch.bfloat16, torch.device("cpu"))
    assert not products.in_float32(torch.bfloat16, torch.device("cuda"))
    for other in ("AVX512", "DEFAULT", "SVE256"):
        monkeypatch.setattr(CAPABILITY, lambda other=other: other)
        assert not products.in_float32(torch.bfloat16, x.device)


def test_a_loaded_model_computes_its_products_so(plain: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def kinds(dtype: str) -> set[type]:
        found = [m for m in load("tiny-opt", dtype=dtype).model.modules() if isinstance(m, nn.Linear)]
        return {type(m) for m in found}

    assert kinds("bfloat16") == {products.Linear} and kinds("float32") == {nn.Linear}
    ids = torch.arange(5, 25)[None]
    wide = load("tiny-opt", dtype="bfloat16").model
    monkeypatch.setattr(CAPABILITY, lambda: "AVX512")
    narrow = load("tiny-opt", dtype="bfloat16").model
    with torch.no_grad():
        one, other = wide(ids).logits, narrow(ids).logits
    assert one.dtype == torch.bfloat16
    assert (one - other).norm() <= 0.02 * other.norm(), "they differ by the rounding of 16 bits alone"
