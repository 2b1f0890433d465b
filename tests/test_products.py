"""Products in 16 bits on a processor without instructions for them."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from llm.model.adapted import quietly
from llm.model.adapters import Lora
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

    def is_torchs(dtype: torch.dtype) -> bool:
        one, other = x.to(dtype), weight.to(dtype)
        return torch.equal(products.linear(one, other), nn.functional.linear(one, other))

    assert is_torchs(torch.float32) and is_torchs(torch.float64)
    assert not products.without_instructions(torch.device("cuda"))
    for other in ("AVX512", "SVE256"):
        monkeypatch.setattr(CAPABILITY, lambda other=other: other)
        assert is_torchs(torch.bfloat16) and is_torchs(torch.float16)


@pytest.mark.parametrize("held", ["float32", "bfloat16"])
def test_a_loaded_model_computes_its_products_so(plain: None, monkeypatch: pytest.MonkeyPatch, held: str) -> None:
    """Weights held in float32 may be read in bfloat16: --rounding master."""

    def logits() -> torch.Tensor:
        with quietly():
            model = Lora().put(load("tiny-opt", dtype=held), seed=0)
        kinds.append({type(m) for m in model.modules() if type(m) in (nn.Linear, products.WideLinear)})
        with torch.no_grad():
            found: torch.Tensor = model.to(torch.bfloat16)(torch.arange(5, 25)[None]).logits
        return found

    kinds: list[set[type]] = []
    wide = logits()
    monkeypatch.setattr(CAPABILITY, lambda: "AVX512")
    narrow = logits()
    assert kinds == [{products.WideLinear}, {nn.Linear}]
    assert wide.dtype == torch.bfloat16
    assert (wide - narrow).norm() <= 0.02 * narrow.norm(), "they differ by the rounding of 16 bits alone"
