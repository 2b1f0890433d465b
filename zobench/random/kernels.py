"""The sweep and the streams in Triton: Philox, drawing and applying in one pass over a parameter.

`zobench.random.eager` writes the arithmetic down. Integers are the same bits; float32 numbers are as long as the device
rounds each product and sum, for which contraction is turned off where a kernel is launched.
"""

import triton
import triton.language as tl


@triton.jit
def _outputs(counter, k0, k1):
    """The four outputs of Philox4x32-10 at counters of 64 bits."""
    c0, c1 = counter.to(tl.uint32), (counter >> 32).to(tl.uint32)
    c2, c3 = c0 ^ c0, c0 ^ c0
    for _ in tl.static_range(10):
        high0, high1 = tl.umulhi(c0, 0xD2511F53), tl.umulhi(c2, 0xCD9E8D57)
        low0, low1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def _cubic(p0, p1, p2, p3, x, square):
    return (x * p1 + p0) + (x * p3 + p2) * square


@triton.jit
def _pair(first, second):
    """Normals 2 k and 2 k + 1 of words 2 k and 2 k + 1."""
    shifted = (first.to(tl.float32) + 0.5).to(tl.int32, bitcast=True) - 0x4F3504F3
    e = (shifted >> 23).to(tl.float32)
    x = ((shifted & 0x7FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True) - 1.0
    z = x * x
    low = _cubic(1.0, -0.666693807, 0.499611497, -0.398204774, x, z)
    p = low + ((x * -0.322823435 + 0.343337923) + z * 0.204484627) * (z * z)
    radius = tl.sqrt_rn((e * -1.38629436 - (x + x)) + p * z)
    turn = second + 0x20000000
    quarter = (turn >> 30).to(tl.int32)
    y = ((turn & 0x3FFFFFFF).to(tl.int32) - 0x20000000).to(tl.float32) * 1.46291807926715968105e-9
    z = y * y
    c = _cubic(1.0, -0.499998957, 0.041656293, -0.0013597823, z, z * z)
    s = _cubic(1.0, -0.166666508, 0.0083319787, -0.000194956359, z, z * z) * y
    odd = (quarter & 1) == 1
    even = tl.where(odd, s, c) * tl.where((quarter == 1) | (quarter == 2), -radius, radius)
    return even, tl.where(odd, c, s) * tl.where(quarter >= 2, -radius, radius)


@triton.jit
def _in_order(a, b, c, d):
    """a0 b0 c0 d0 a1 b1 ..."""
    return tl.interleave(tl.interleave(a, c), tl.interleave(b, d))


@triton.jit
def _drawn(start, k0, k1, KIND: tl.constexpr, BLOCK: tl.constexpr):
    """Numbers start to start + BLOCK - 1 of a stream: normals (KIND 0), signs, halves of words, words. start is a
    multiple of 128, BLOCK of 512.
    """
    if KIND == 0:
        counter = start // 4 + tl.arange(0, BLOCK // 4).to(tl.int64)
        w0, w1, w2, w3 = _outputs(counter, k0, k1)
        n0, n1 = _pair(w0, w1)
        n2, n3 = _pair(w2, w3)
        drawn = _in_order(n0, n1, n2, n3)
    elif KIND == 1:
        counter = start // 128 + tl.arange(0, BLOCK // 128).to(tl.int64)
        w0, w1, w2, w3 = _outputs(counter, k0, k1)
        words = _in_order(w0, w1, w2, w3)
        bits = (words[:, None] >> tl.arange(0, 32).to(tl.uint32)[None, :]) & 1
        drawn = tl.reshape(bits, (BLOCK,)).to(tl.float32) * 2.0 - 1.0
    elif KIND == 2:
        counter = start // 8 + tl.arange(0, BLOCK // 8).to(tl.int64)
        w0, w1, w2, w3 = _outputs(counter, k0, k1)
        words = _in_order(w0, w1, w2, w3)
        drawn = tl.interleave(words & 0xFFFF, words >> 16)
    else:
        counter = start // 4 + tl.arange(0, BLOCK // 4).to(tl.int64)
        w0, w1, w2, w3 = _outputs(counter, k0, k1)
        drawn = _in_order(w0, w1, w2, w3)
    return drawn


@triton.jit
def _line(table, start, KIND: tl.constexpr, BLOCK: tl.constexpr):
    """The entries of the direction in a row of the table: two words of key, the bits of a scale, amounts."""
    k0 = tl.load(table).to(tl.uint32, bitcast=True)
    k1 = tl.load(table + 1).to(tl.uint32, bitcast=True)
    return _drawn(start, k0, k1, KIND, BLOCK) * tl.load(table + 2).to(tl.float32, bitcast=True)


@triton.jit
def _nearest(x, NARROW: tl.constexpr):
    """x, with NARROW as the nearest bfloat16: what it is cast to is then the same whichever way a cast rounds."""
    if NARROW:
        bits = x.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000
        x = bits.to(tl.float32, bitcast=True)
    return x


@triton.jit(do_not_specialize=["k0", "k1", "first", "count"])
def draw(out, k0, k1, first, count, KIND: tl.constexpr, BLOCK: tl.constexpr):
    """out[j] = number first + j of a stream; first is a multiple of 128."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    offsets = start + tl.arange(0, BLOCK)
    drawn = _drawn(start + first, k0.to(tl.uint32), k1.to(tl.uint32), KIND, BLOCK)
    tl.store(out + offsets, drawn.to(out.dtype.element_ty), mask=offsets < count)


@triton.jit(do_not_specialize=["count", "keep", "r0", "r1"])
def sweep(
    stored, target0, target1, table, count, keep, r0, r1,
    PENDING: tl.constexpr, LINES: tl.constexpr, POINTS: tl.constexpr, COLUMNS: tl.constexpr, KIND: tl.constexpr,
    DECAYS: tl.constexpr, AT_RANDOM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Stored <- keep stored + sum of amount u over PENDING rows of the table; targets[p] <- that + sum of amounts[p] u
    over the LINES rows after them. Rounded where torch rounds: to the dtype after each sum, or at random once.
    """
    start = tl.program_id(0).to(tl.int64) * BLOCK
    offsets = start + tl.arange(0, BLOCK)
    inside = offsets < count
    NARROW: tl.constexpr = stored.dtype.element_ty == tl.bfloat16
    NARROWED: tl.constexpr = target0.dtype.element_ty == tl.bfloat16
    x = tl.load(stored + offsets, mask=inside, other=0.0).to(tl.float32)
    if DECAYS:
        x = x * keep
        if not AT_RANDOM:
            x = _nearest(x, NARROW)
    for line in range(PENDING):
        row = table + line * COLUMNS
        amount = tl.load(row + 3).to(tl.float32, bitcast=True)
        x = tl.fma(_line(row, start, KIND, BLOCK), amount, x)
        if not AT_RANDOM:
            x = _nearest(x, NARROW)
    if AT_RANDOM:
        halves = _drawn(start, r0.to(tl.uint32), r1.to(tl.uint32), 2, BLOCK).to(tl.int32)
        bits = (x.to(tl.int32, bitcast=True) + halves) & -0x10000
        x = bits.to(tl.float32, bitcast=True)
    if DECAYS or PENDING > 0:
        tl.store(stored + offsets, x.to(stored.dtype.element_ty), mask=inside)
    if POINTS > 0:
        y0, y1 = x, x
        for line in range(LINES):
            row = table + (PENDING + line) * COLUMNS
            u = _line(row, start, KIND, BLOCK)
            y0 = tl.fma(u, tl.load(row + 3).to(tl.float32, bitcast=True), y0)
            y0 = _nearest(y0, NARROWED)
            if POINTS > 1:
                y1 = tl.fma(u, tl.load(row + 4).to(tl.float32, bitcast=True), y1)
                y1 = _nearest(y1, NARROWED)
        tl.store(target0 + offsets, y0.to(target0.dtype.element_ty), mask=inside)
        if POINTS > 1:
            tl.store(target1 + offsets, y1.to(target1.dtype.element_ty), mask=inside)


@triton.jit
def rows(
    target, wanted, table, width,
    LINES: tl.constexpr, COLUMNS: tl.constexpr, KIND: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """target[i] += sum of amount u over the rows of the table, u the entries of row wanted[i] of a matrix, whose width
    is a multiple of 128.
    """
    within = tl.program_id(1) * BLOCK
    offsets = within + tl.arange(0, BLOCK)
    start = tl.load(wanted + tl.program_id(0)) * width + within
    place = target + tl.program_id(0).to(tl.int64) * width + offsets
    x = tl.load(place, mask=offsets < width, other=0.0).to(tl.float32)
    for line in range(LINES):
        row = table + line * COLUMNS
        x = tl.fma(_line(row, start, KIND, BLOCK), tl.load(row + 3).to(tl.float32, bitcast=True), x)
        x = _nearest(x, target.dtype.element_ty == tl.bfloat16)
    tl.store(place, x.to(target.dtype.element_ty), mask=offsets < width)
