"""The codes of all quantised layers as one long vector of whole numbers, which a search reads and writes."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from llm.quantised.layers import Quantised
from llm.quantised.model import codes_of, floats_, layers


def search_(model: nn.Module) -> None:
    """Let the codes be what is trained of a model, and nothing else.

    Raises:
        ValueError: the model has no quantised layer, or an adapter.
    """
    known = layers(model)
    if not known or hasattr(model, "peft_config"):
        raise ValueError("a search of codes needs a quantised model without an adapter: give --quantize int4")
    model.requires_grad_(False)
    floats_(model)
    for layer in known.values():
        layer.searched = True


def searched_codes(model: nn.Module) -> dict[str, Tensor]:
    """Return the codes that training changes, and smoothing factors with them, shared ones once, by layer."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in codes_of(model).items():
        if model.get_submodule(name.rpartition(".")[0]).searched:
            found.setdefault(id(tensor), (name, tensor))
    return dict(found.values())


class _Places(NamedTuple):
    """Places of codes in one layer: rows of them in its flat bytes, and which part of the byte."""

    layer: Quantised
    chosen: Tensor
    byte: Tensor
    part: Tensor


class Codes:
    """All codes of a model, in the order of its layers, shared ones once; `count` is their number."""

    def __init__(self, model: nn.Module) -> None:
        self.layers = list({id(layer.codes): layer for layer in layers(model).values()}.values())
        sizes = [layer.shape[0] * layer.shape[1] for layer in self.layers]
        self.ends = torch.tensor(sizes, dtype=torch.int64).cumsum(0)
        self.count = int(self.ends[-1])

    def moved(self, places: Tensor, steps: Tensor) -> Tensor:
        """Return the codes at ascending places after these steps, int64, within the range of their formats."""
        codes = torch.empty_like(places)
        for found in self._found(places):
            format = found.layer.format
            low, high = (-128, 127) if format.bits == 8 and not format.asymmetric else (0, 2**format.bits - 1)
            bits = self._bytes(found.layer)[found.byte].cpu().long() >> (format.bits * found.part)
            value = bits & (2**format.bits - 1)
            value = torch.where((low < 0) & (value > 127), value - 256, value)
            codes[found.chosen] = (value + steps[found.chosen]).clamp_(low, high)
        return codes

    def read(self, places: Tensor) -> Tensor:
        """Return the codes at ascending places, int64."""
        return self.moved(places, torch.zeros_like(places))

    def write_(self, places: Tensor, codes: Tensor) -> None:
        """Put codes to ascending places, each place once."""
        for found in self._found(places):
            format, octets = found.layer.format, self._bytes(found.layer)
            for part in range(format.codes_a_byte):  # within one part no two places share a byte
                mine = found.part == part
                byte, mask = found.byte[mine].to(octets.device), (2**format.bits - 1) << (format.bits * part)
                new = (codes[found.chosen[mine]] << (format.bits * part)) & mask
                octets[byte] = (octets[byte] & (255 - mask)) | new.to(torch.uint8).to(octets.device)

    def _found(self, places: Tensor) -> list[_Places]:
        owner = torch.searchsorted(self.ends, places, right=True)
        found = []
        for number in owner.unique().tolist():
            layer, chosen = self.layers[number], (owner == number).nonzero()[:, 0]
            start = int(self.ends[number - 1]) if number else 0
            group, within = (
                (places[chosen] - start) // layer.format.group,
                (places[chosen] - start) % layer.format.group,
            )
            size = layer.codes.shape[-1]
            found.append(_Places(layer, chosen, group * size + within % size, within // size))
        return found

    @staticmethod
    def _bytes(layer: Quantised) -> Tensor:
        return layer.codes.view(-1)
