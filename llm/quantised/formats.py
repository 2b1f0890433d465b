"""Formats of quantised weights: codes of 8, 4 or 2 bits by groups, and what they stand for.

GGUF's Q8_0, Q4_0 and Q4_1 are the formats int8, int4 and int4-asymmetric in groups of 32: the same codes in the same
order, the same scales.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from zobench.naming import require_known

LEAST = 1e-7
"""The smallest size of a scale after a step (QZO's code); float16 still tells it from 0."""
GGUF = "gguf"
"""The choice that takes the codes of a GGUF file as they are."""


class Packed(NamedTuple):
    """A matrix (out, in): codes uint8 (out, groups, bytes), scales and zero points float16 (out, groups)."""

    codes: Tensor
    scales: Tensor
    zeros: Tensor | None


@dataclass(frozen=True)
class Format:
    """w = s (q - c) + z in each group of `group` entries of a row, q a whole number of `bits` bits.

    Symmetric: z = 0 and c = 2^(bits - 1), with 8 bits c = 0 and q in two's complement. Asymmetric: c = 0, and the zero
    point z is the weight of the code 0. A byte holds 8 / bits codes: its low bits are of the first part of the group,
    the next ones of the second part, which is the order of GGUF.
    """

    name: str
    bits: int
    asymmetric: bool
    group: int = 32

    @property
    def codes_a_byte(self) -> int:
        """Codes in one byte."""
        return 8 // self.bits

    @property
    def shift(self) -> int:
        """The code c of the weight 0."""
        return 0 if self.asymmetric or self.bits == 8 else 2 ** (self.bits - 1)

    @property
    def bits_a_weight(self) -> float:
        """Bits of code, scale and zero point a weight, both in float16."""
        return self.bits + 16 * (1 + self.asymmetric) / self.group

    @property
    def gguf(self) -> str | None:
        """The name of the format in GGUF files, None where they have none that is equal."""
        names = {"int8": "Q8_0", "int4": "Q4_0", "int4-asymmetric": "Q4_1"}
        return names.get(self.name) if self.group == 32 else None

    def quantise(self, weight: Tensor, clipping: Tensor | None = None) -> Packed:
        """Return the matrix (out, in) rounded to the nearest codes, scales rounded to float16 before.

        Symmetric: s = w / -2^(bits - 1) for the entry w of the largest size in the group, as Q4_0, so that all codes
        are used; s = |w| / 127 with 8 bits, as Q8_0. Asymmetric: s = (max - min) / (2^bits - 1), z = min. A clipping
        factor for each row, (out,), multiplies w, min and max: weights beyond them get the nearest code.

        Raises:
            ValueError: the group does not divide `in`, or a scale or zero point is beyond float16.
        """
        codes, scales, zeros = self._nearest(weight, clipping)
        if not bool(scales.isfinite().all()) or (zeros is not None and not bool(zeros.isfinite().all())):
            raise ValueError("a weight is not finite, or beyond what a scale in float16 reaches (65,504)")
        unsigned = codes.add_(self.shift).to(torch.int16).bitwise_and_(255).to(torch.uint8)
        return Packed(self.pack(unsigned), scales, zeros)

    def fake_quantise(self, weight: Tensor, clipping: Tensor | None = None) -> Tensor:
        """Return what `dequantise` gives of `quantise`, to the bit and without codes: float32 (out, in). Weights beyond
        float16 give numbers that are not finite.
        """
        codes, scales, zeros = self._nearest(weight, clipping)
        codes.mul_(scales.unsqueeze(-1))
        return (codes if zeros is None else codes.add_(zeros.unsqueeze(-1))).flatten(-2)

    def _nearest(self, weight: Tensor, clipping: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """The nearest q - c in float32 (out, groups, group), scales and zero points."""
        groups = self._grouped(weight)
        scales, zeros = self._ranges(groups, 1.0 if clipping is None else clipping.float().unsqueeze(-1))
        s = scales.float()
        steps = (groups if zeros is None else groups - zeros.float().unsqueeze(-1)) / torch.where(
            s == 0, 1.0, s
        ).unsqueeze(-1)
        low, high = (-128, 127) if self.bits == 8 and not self.asymmetric else (0, 2**self.bits - 1)
        return steps.round_().clamp_(low - self.shift, high - self.shift), scales, zeros

    def _grouped(self, weight: Tensor) -> Tensor:
        rows, columns = weight.shape
        if columns % self.group:
            raise ValueError(f"a row of {columns} weights is not made of whole groups of {self.group}")
        return weight.detach().float().reshape(rows, columns // self.group, self.group)

    def _ranges(self, groups: Tensor, clipping: Tensor | float) -> tuple[Tensor, Tensor | None]:
        """Scales and zero points, float16 (out, groups)."""
        if self.asymmetric:
            low, high = groups.amin(-1) * clipping, groups.amax(-1) * clipping
            return ((high - low) / (2**self.bits - 1)).half(), low.half()
        if self.bits == 8:
            return (groups.abs().amax(-1) * clipping / 127).half(), None
        extreme = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))[..., 0]
        return (extreme * clipping / -(2 ** (self.bits - 1))).half(), None

    def blank(self, rows: int, columns: int) -> Packed:
        """Return the parts of a matrix without numbers, on the meta device."""
        groups = columns // self.group
        with torch.device("meta"):
            codes = torch.empty(rows, groups, self.group * self.bits // 8, dtype=torch.uint8)
            scales = torch.empty(rows, groups, dtype=torch.float16)
            return Packed(codes, scales, torch.empty_like(scales) if self.asymmetric else None)

    def pack(self, codes: Tensor) -> Tensor:
        """Return codes uint8 (..., group) as bytes (..., group bits / 8)."""
        parts = codes.unflatten(-1, (self.codes_a_byte, -1)).unbind(-2)
        packed: Tensor = parts[0].clone()
        for place, part in enumerate(parts[1:], 1):
            packed |= part << (self.bits * place)
        return packed

    def unpack(self, packed: Tensor) -> Tensor:
        """Return q - c of bytes (..., group bits / 8): int8, or uint8 where codes reach 255, (..., group)."""
        if self.bits == 8:
            return packed if self.asymmetric else packed.view(torch.int8)
        mask, places = 2**self.bits - 1, range(self.codes_a_byte)
        codes: Tensor = torch.stack([(packed >> (self.bits * place)) & mask for place in places], -2).flatten(-2)
        return codes.view(torch.int8).sub_(self.shift)

    def dequantise(self, packed: Tensor, scales: Tensor, zeros: Tensor | None) -> Tensor:
        """Return w = s (q - c) + z, (out, in), in the dtype of the scales or float32; product and sum round one after
        the other, as those of GGUF's readers.
        """
        wide = torch.promote_types(scales.dtype, torch.float32)
        weight = self.unpack(packed).to(wide)
        if torch.is_grad_enabled():  # the graph needs what in-place products would overwrite
            weight = weight * scales.unsqueeze(-1).to(wide)
            return (weight if zeros is None else weight + zeros.unsqueeze(-1).to(wide)).flatten(-2)
        weight.mul_(scales.unsqueeze(-1))
        return (weight if zeros is None else weight.add_(zeros.unsqueeze(-1))).flatten(-2)


FORMATS: dict[str, tuple[int, bool]] = {
    "int8": (8, False),
    "int8-asymmetric": (8, True),
    "int4": (4, False),
    "int4-asymmetric": (4, True),
    "int2": (2, False),
    "int2-asymmetric": (2, True),
}
"""Bits, and whether there are zero points, by name."""


def parse(name: str, group: int = 32) -> Format | None:
    """Return the format of a name; None for "gguf", whose layers have the formats of the file.

    Raises:
        UnknownNameError: no such format.
        ValueError: a group is not of whole bytes, or GGUF is to have other groups than its own.
    """
    require_known(name, (*FORMATS, GGUF), "format of quantised weights")
    if type(group) is not int or group < 4 or group % 4:
        raise ValueError(f"group is {group!r}: give a multiple of 4, such as 32, 64 or 128")
    if name == GGUF:
        if group != 32:
            raise ValueError(f"group is {group}, but the groups of a GGUF file have 32 weights: leave --group out")
        return None
    bits, asymmetric = FORMATS[name]
    return Format(name, bits, asymmetric, group)


class Choice(NamedTuple):
    """How the weights of a model are quantised on loading, as `--quantize` and `--group` say it."""

    name: str
    group: int = 32

    @classmethod
    def of(cls, name: str | None, group: int = 32) -> "Choice | None":
        """Return the choice; None where nothing is quantised.

        Raises:
            ValueError: as `parse`, or a group is given without a format.
        """
        if name is None:
            if group != 32:
                raise ValueError(f"group is {group}, but nothing is quantised: give --quantize int4, or leave it out")
            return None
        parse(name, group)
        return cls(name, group)

    @property
    def format(self) -> Format | None:
        """The format; None for GGUF's own."""
        return parse(self.name, self.group)
