"""The streams in torch's own operations, on any device: every other backend gives the same numbers.

Word j of the stream of a key is output j % 4 of Philox4x32-10 (Salmon et al. 2011) at the 128-bit counter j // 4, key
and counter low word first. Sign j is bit j % 32 of word j // 32, set for +1. Normals 2 k and 2 k + 1 are r cos t and
r sin t, r = sqrt(-2 ln u) of word 2 k and t of word 2 k + 1, where

    u = (word + 1/2) / 2^32,    t = 2 pi word / 2^32.

In float64 both are exact. In float32 the word is rounded to 24 bits, then the sum with 1/2: u is in [2^-33, 1]. So
|normal| is at most sqrt(66 ln 2) = 6.764. The logarithm is e ln 2 + ln(1 + x) of u = 2^e (1 + x), sqrt(1/2) <= 1 + x <
sqrt(2); t is cut into quarter turns and a rest within an eighth of a turn, in integers. ln(1 + x), cosine and sine of
the rest are the polynomials below. Every product and every sum is rounded by itself: no compiler may contract them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
ROUNDS = 10
SCHEDULE = ((32, 0xBB67AE85), (0, 0x9E3779B9))
"""For outputs 2 and 0: which half of the key is mixed in, and what is added to it each round."""
PIECE, LAUNCHED = 1 << 16, 1 << 22
"""Words that are made at once: on a CPU, their temporaries take some MiB; on another device some hundred."""

# float32, the constant first: -2 ln(1 + x) = z p(x) - 2 x, to 2e-7; cos = p(z), sin = x p(z), to 4e-8; z = x^2
LOG = (1.0, -0.666693807, 0.499611497, -0.398204774, 0.343337923, -0.322823435, 0.204484627)
COSINE = (1.0, -0.499998957, 0.041656293, -0.0013597823)
SINE = (1.0, -0.166666508, 0.0083319787, -0.000194956359)
# float64, the constant last: those of Cephes, ln(1 + x) = x - x^2 / 2 + x^3 p(x) / q(x)
LOG_P = (
    1.01875663804580931796e-4, 4.97494994976747001425e-1, 4.70579119878881725854, 1.44989225341610930846e1,
    1.79368678507819816313e1, 7.70838733755885391666,
)  # fmt: skip
LOG_Q = (
    1.0, 1.12873587189167450590e1, 4.52279145837532221105e1, 8.29875266912776603211e1, 7.11544750618563894466e1,
    2.31251620126765340583e1,
)  # fmt: skip
COSINE64 = (
    -1.13585365213876817300e-11, 2.08757008419747316778e-9, -2.75573141792967388112e-7, 2.48015872888517045348e-5,
    -1.38888888888730564116e-3, 4.16666666666665929218e-2, -0.5, 1.0,
)  # fmt: skip
SINE64 = (
    1.58962301576546568060e-10, -2.50507477628578072866e-8, 2.75573136212857245213e-6, -1.98412698295895385996e-4,
    8.33333333332211858878e-3, -1.66666666666666307295e-1, 1.0,
)  # fmt: skip
RADIANS = 1.46291807926715968105e-9
"""pi / 2^31, what an integer of the rest stands for."""


def words(key: int, start: int, stop: int, device: torch.device) -> Tensor:
    """Return words start to stop - 1, int64."""
    drawn = torch.empty(stop - start, dtype=torch.int64, device=device)
    size = _piece(device)
    for at in range(start - start % 4, stop, size):
        piece = _outputs(key, at // 4, (min(stop - at, size) + 3) // 4, device)
        begin, end = max(start, at), min(stop, at + size)
        drawn[begin - start : end - start] = piece[begin - at : end - at]
    return drawn


def signs(key: int, start: int, stop: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return signs start to stop - 1."""
    first = start // 32
    bits = torch.arange(32, dtype=torch.int64, device=device)
    drawn = (words(key, first, -(-stop // 32), device)[:, None] >> bits).bitwise_and_(1).flatten()
    return drawn[start - 32 * first :][: stop - start].to(dtype).mul_(2).sub_(1)


def normals(key: int, start: int, stop: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return normals start to stop - 1, float32 or float64."""
    values = torch.empty(stop - start, dtype=dtype, device=device)
    size = _piece(device)
    for at in range(start - start % 2, stop, size):
        drawn = words(key, at, min(at + size, stop + stop % 2), device).view(-1, 2)
        pairs = _pairs64(*drawn.unbind(-1)) if dtype == torch.float64 else _pairs(*drawn.unbind(-1))
        begin, end = max(start, at), min(stop, at + size)
        values[begin - start : end - start] = torch.stack(pairs, -1).flatten()[begin - at : end - at]
    return values


def _piece(device: torch.device) -> int:
    return PIECE if device.type == "cpu" else LAUNCHED


def _outputs(key: int, counter: int, count: int, device: torch.device) -> Tensor:
    """The outputs of so many counters from this one on, int64 (4 count,).

    The product of two words fits 64 bits; torch's are signed, so that a shift right is masked.
    """
    low = torch.arange(count, dtype=torch.int64, device=device) + (counter & MASK)
    higher = [[(counter >> 32) + carry >> shift & MASK for carry in (0, 1)] for shift in (0, 32, 64)]
    c1, c2, c3 = torch.tensor(higher, dtype=torch.int64, device=device)[:, low >> 32]
    keys = [[(key >> shift) + r * step & MASK for shift, step in SCHEDULE] for r in range(ROUNDS)]
    schedule = torch.tensor(keys, dtype=torch.int64, device=device)[..., None]
    factors = torch.tensor(MULTIPLIERS, dtype=torch.int64, device=device)[:, None]
    multiplied, mixed = torch.stack((low & MASK, c2)), torch.stack((c3, c1))
    for round_key in schedule:
        product = multiplied * factors
        multiplied = ((product >> 32) ^ mixed ^ round_key).bitwise_and_(MASK).flip(0)
        mixed = product
    (c0, c2), (c3, c1) = multiplied, mixed & MASK
    return torch.stack((c0, c1, c2, c3), -1).flatten()


def _pairs(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Normals 2 k and 2 k + 1 of words 2 k and 2 k + 1, float32."""
    shifted = (first.to(torch.float32) + 0.5).view(torch.int32) - 0x4F3504F3  # the bits of 2^32 sqrt(1/2)
    e = (shifted & -0x800000).to(torch.float32)  # times 2^23
    x = ((shifted & 0x7FFFFF) + 0x3F3504F3).view(torch.float32) - 1.0
    z = x * x
    p = _cubic(LOG[:4], x, z) + ((x * LOG[5] + LOG[4]) + z * LOG[6]) * (z * z)
    radius = _root((e * (-1.38629436 * 2.0**-23) - (x + x)) + p * z)
    quarter, x = _turned(second, torch.float32)
    z = x * x
    return _times(radius, quarter, _cubic(COSINE, z, z * z), _cubic(SINE, z, z * z) * x)


def _pairs64(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The same in float64."""
    shifted = (first.to(torch.float64) + 0.5).view(torch.int64) - 0x41E6A09E667F3BCD
    e = (shifted >> 52).to(torch.float64)
    x = ((shifted & 0xFFFFFFFFFFFFF) + 0x3FE6A09E667F3BCD).view(torch.float64) - 1.0
    z = x * x
    y = x + (x * (z * _horner(LOG_P, x) / _horner(LOG_Q, x)) - z * 0.5)
    radius = _root((y + e * 6.93147180559945309417e-1) * -2.0)
    quarter, x = _turned(second, torch.float64)
    z = x * x
    return _times(radius, quarter, _horner(COSINE64, z), _horner(SINE64, z) * x)


def _turned(word: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The turn of a word: quarter turns, in its highest two bits once 2^29 is added, and the rest in radians."""
    shifted = word + 0x20000000
    return (shifted >> 30) & 3, ((shifted & 0x3FFFFFFF) - 0x20000000).to(dtype) * RADIANS


def _times(radius: Tensor, quarter: Tensor, c: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """A radius times cosine and sine of a turn, c and s those of its rest."""
    odd = (quarter & 1).bool()
    even = torch.where(odd, s, c) * torch.where((quarter == 1) | (quarter == 2), -radius, radius)
    return even, torch.where(odd, c, s) * torch.where(quarter >= 2, -radius, radius)


def _cubic(p: Sequence[float], x: Tensor, square: Tensor) -> Tensor:
    """The sum of p[k] x^k, in the order of its roundings."""
    return (x * p[1] + p[0]) + (x * p[3] + p[2]) * square


def _horner(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """The polynomial with these coefficients, the highest first."""
    total = x * coefficients[0] if coefficients[0] != 1.0 else x
    for coefficient in coefficients[1:-1]:
        total = (total + coefficient).mul_(x)
    return total + coefficients[-1]


def _root(x: Tensor) -> Tensor:
    """The square root, rounded correctly; torch's on a CPU is not always."""
    return torch.from_numpy(np.sqrt(x.numpy())) if x.device.type == "cpu" else x.sqrt()
