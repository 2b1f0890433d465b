/* Philox4x32-10 (Salmon et al. 2011) and what is made of its words, as zobench/random/philox.py writes it down.
 *
 * Word j of a stream is output j % 4 at counter j / 4. Counters go through the rounds side by side, each in 64 bits of a
 * vector; then the four outputs lie apart, outputs[k][i] that of counter i, which is how the arithmetic wants them. Sums
 * and products are rounded one by one: nothing here may be compiled with contraction.
 */
#ifndef DRAW_H
#define DRAW_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#define LANES 8
#elif defined(__AVX2__)
#include <immintrin.h>
#define LANES 4
#else
#define LANES 2
#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif
#endif

#define GROUPS 4           /* vectors of counters that are scrambled together: one alone waits for its products */
#define PACKED (2 * LANES) /* 32-bit lanes of a vector */
#define CHUNK 2048         /* entries drawn at once; a multiple of 128, the signs of a counter */
#define STRIDE (GROUPS * LANES)

typedef uint64_t Lanes __attribute__((vector_size(8 * LANES)));
typedef uint32_t Words __attribute__((vector_size(8 * LANES)));

enum { FLOAT32 = 0, BFLOAT16 = 1, FLOAT64 = 2, INT64 = 3 };

enum { DONE = 0, NO_MEMORY = 1, REFUSED = 2 };

typedef struct {
    uint64_t low, high; /* of a counter */
} Counter;

static Counter later(Counter c, uint64_t by) {
    c.low += by;
    c.high += c.low < by;
    return c;
}

/* The products of the low halves; the compilers do not see that one instruction does it. */
static inline Lanes product(Lanes a, uint64_t by) {
    Lanes b = by - (Lanes){0};
#if defined(__AVX512F__)
    return (Lanes)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (Lanes)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return (Lanes)_mm_mul_epu32((__m128i)a, (__m128i)b);
#elif defined(__ARM_NEON)
    return (Lanes)vmull_u32(vmovn_u64((uint64x2_t)a), vmovn_u64((uint64x2_t)b));
#else
    return (a & 0xffffffffu) * b;
#endif
}

/* The ten rounds. High halves of the lanes hold anything: no product reads them. */
static inline __attribute__((always_inline)) void scramble(Lanes c[GROUPS][4], uint64_t key) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
#pragma GCC unroll 4
        for (int g = 0; g < GROUPS; g++) {
            Lanes p0 = product(c[g][0], 0xD2511F53u), p1 = product(c[g][2], 0xCD9E8D57u);
            c[g][0] = (p1 >> 32) ^ c[g][1] ^ (uint64_t)k0;
            c[g][2] = (p0 >> 32) ^ c[g][3] ^ (uint64_t)k1;
            c[g][1] = p1, c[g][3] = p0;
        }
}

/* Which of PACKED counters lane 4 b + r of a packed vector holds: such that `interleave` never crosses 128 bits. */
static inline uint64_t counter_of(int lane) { return (uint64_t)(PACKED / 4 * (lane % 4) + lane / 4); }

/* The outputs of STRIDE counters, those of one vector in the lanes of `counter_of`. */
static inline __attribute__((always_inline)) void scrambled(uint64_t key, Counter first, uint32_t outputs[4][STRIDE]) {
    Lanes c[GROUPS][4], step[2];
    for (int i = 0; i < LANES; i++) step[0][i] = counter_of(2 * i), step[1][i] = counter_of(2 * i + 1);
#pragma GCC unroll 4
    for (int g = 0; g < GROUPS; g++) {
        Lanes low = step[g % 2] + (first.low + (uint64_t)(g / 2 * PACKED));
        Lanes high = first.high - (Lanes)(low < first.low); /* a comparison that holds is -1 */
        c[g][0] = low, c[g][1] = low >> 32, c[g][2] = high, c[g][3] = high >> 32;
    }
    scramble(c, key);
#pragma GCC unroll 4
    for (int g = 0; g < GROUPS; g += 2)
        for (int k = 0; k < 4; k++) {
            Lanes both = (c[g][k] & 0xffffffffu) | c[g + 1][k] << 32;
            memcpy(outputs[k] + g / 2 * PACKED, &both, sizeof both);
        }
}

/* to[4 i + k] = outputs[k][lane of counter i]: pairs of 32 bits, then pairs of 64. */
#if defined(__clang__)
#define SHUFFLED(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLED(a, b, ...) __builtin_shuffle(a, b, (__typeof__(a)){__VA_ARGS__})
#endif
#if LANES == 8
#define LOW32(a, b) SHUFFLED(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29)
#define HIGH32(a, b) SHUFFLED(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31)
#define LOW64(a, b) SHUFFLED(a, b, 0, 8, 2, 10, 4, 12, 6, 14)
#define HIGH64(a, b) SHUFFLED(a, b, 1, 9, 3, 11, 5, 13, 7, 15)
#elif LANES == 4
#define LOW32(a, b) SHUFFLED(a, b, 0, 8, 1, 9, 4, 12, 5, 13)
#define HIGH32(a, b) SHUFFLED(a, b, 2, 10, 3, 11, 6, 14, 7, 15)
#define LOW64(a, b) SHUFFLED(a, b, 0, 4, 2, 6)
#define HIGH64(a, b) SHUFFLED(a, b, 1, 5, 3, 7)
#else
#define LOW32(a, b) SHUFFLED(a, b, 0, 4, 1, 5)
#define HIGH32(a, b) SHUFFLED(a, b, 2, 6, 3, 7)
#define LOW64(a, b) SHUFFLED(a, b, 0, 2)
#define HIGH64(a, b) SHUFFLED(a, b, 1, 3)
#endif

static inline void interleave(uint32_t outputs[4][STRIDE], uint32_t *restrict to) {
    for (long at = 0; at < STRIDE; at += PACKED) {
        Words out[4];
        for (int k = 0; k < 4; k++) memcpy(&out[k], outputs[k] + at, sizeof out[k]);
        Lanes even[2] = {(Lanes)LOW32(out[0], out[1]), (Lanes)HIGH32(out[0], out[1])};
        Lanes odd[2] = {(Lanes)LOW32(out[2], out[3]), (Lanes)HIGH32(out[2], out[3])};
        for (int h = 0; h < 2; h++) {
            Lanes low = LOW64(even[h], odd[h]), high = HIGH64(even[h], odd[h]);
            memcpy(to + 4 * at + 2 * h * PACKED, &low, sizeof low);
            memcpy(to + 4 * at + (2 * h + 1) * PACKED, &high, sizeof high);
        }
    }
}

static inline float as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t as_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* sqrt(-2 ln u), u = (word + 1/2) / 2^32 = 2^e m, m between sqrt(1/2) and sqrt(2), by a polynomial in m - 1. */
static inline float radius(uint32_t word) {
    uint32_t shifted = as_bits((float)word + 0.5f) - 0x4f3504f3u; /* the bits of 2^32 sqrt(1/2) */
    float e = (float)(int32_t)(shifted & 0xff800000u); /* times 2^23 */
    float x = as_float((shifted & 0x007fffffu) + 0x3f3504f3u) - 1.0f, z = x * x;
    float low = (-0.666693807f * x + 1.0f) + (-0.398204774f * x + 0.499611497f) * z;
    float high = (-0.322823435f * x + 0.343337923f) + 0.204484627f * z;
    return sqrtf((e * (-1.38629436f * 0x1p-23f) - (x + x)) + (low + high * (z * z)) * z);
}

/* Words are whole turns / 2^32: a quarter in the two highest bits of word + 2^29, and a rest within an eighth of a turn,
 * of which these are four times as many units. */
#define QUARTERS(word) ((word) + 0x20000000u)
#define REST(word) ((int32_t)((word) << 2))
#define ODD(quarters) ((int32_t)((quarters) << 1) < 0)
#define COSINE_SIGN(quarters) (((quarters) ^ (quarters) << 1) & 0x80000000u)
#define SINE_SIGN(quarters) ((quarters) & 0x80000000u)
#define RADIANS (1.46291807926715968105e-9 / 4) /* pi / 2^33 */

static inline void pair(uint32_t first, uint32_t second, uint32_t *even, uint32_t *odd) {
    uint32_t quarters = QUARTERS(second);
    float r = radius(first), x = (float)REST(second) * (float)RADIANS, z = x * x;
    float c = (-0.499998957f * z + 1.0f) + (-0.0013597823f * z + 0.041656293f) * (z * z);
    float s = ((-0.166666508f * z + 1.0f) + (-0.000194956359f * z + 0.0083319787f) * (z * z)) * x;
    uint32_t cosine = as_bits(ODD(quarters) ? s : c) ^ COSINE_SIGN(quarters);
    uint32_t sine = as_bits(ODD(quarters) ? c : s) ^ SINE_SIGN(quarters);
    *even = as_bits(as_float(cosine) * r);
    *odd = as_bits(as_float(sine) * r);
}

/* The same in double precision, with the polynomials of Cephes. */
static inline double radius64(uint32_t word) {
    double f = (double)word + 0.5;
    uint64_t bits;
    memcpy(&bits, &f, sizeof bits);
    bits -= 0x41e6a09e667f3bcdu; /* those of 2^32 sqrt(1/2) */
    double e = (double)((int32_t)(bits >> 32) >> 20);
    bits = (bits & 0x000fffffffffffffu) + 0x3fe6a09e667f3bcdu;
    memcpy(&f, &bits, sizeof f);
    double x = f - 1.0, z = x * x;
    double p = 1.01875663804580931796e-4;
    p = p * x + 4.97494994976747001425e-1;
    p = p * x + 4.70579119878881725854e0;
    p = p * x + 1.44989225341610930846e1;
    p = p * x + 1.79368678507819816313e1;
    p = p * x + 7.70838733755885391666e0;
    double q = x + 1.12873587189167450590e1;
    q = q * x + 4.52279145837532221105e1;
    q = q * x + 8.29875266912776603211e1;
    q = q * x + 7.11544750618563894466e1;
    q = q * x + 2.31251620126765340583e1;
    double y = x + (x * (z * p / q) - z * 0.5);
    return sqrt(-2.0 * (y + e * 6.93147180559945309417e-1));
}

static inline void pair64(uint32_t first, uint32_t second, double *even, double *odd) {
    uint32_t quarters = QUARTERS(second);
    double r = radius64(first), x = (double)REST(second) * RADIANS, z = x * x;
    double c = -1.13585365213876817300e-11;
    c = c * z + 2.08757008419747316778e-9;
    c = c * z + -2.75573141792967388112e-7;
    c = c * z + 2.48015872888517045348e-5;
    c = c * z + -1.38888888888730564116e-3;
    c = c * z + 4.16666666666665929218e-2;
    c = c * z + -0.5;
    c = c * z + 1.0;
    double s = 1.58962301576546568060e-10;
    s = s * z + -2.50507477628578072866e-8;
    s = s * z + 2.75573136212857245213e-6;
    s = s * z + -1.98412698295895385996e-4;
    s = s * z + 8.33333333332211858878e-3;
    s = s * z + -1.66666666666666307295e-1;
    s = s * z + 1.0;
    s = s * x;
    double cosine = ODD(quarters) ? s : c, sine = ODD(quarters) ? c : s;
    *even = (COSINE_SIGN(quarters) ? -cosine : cosine) * r;
    *odd = (SINE_SIGN(quarters) ? -sine : sine) * r;
}

/* Entries 0 to `count`, of CHUNK or fewer, of what begins at a counter; `to` has room for a multiple of 4 STRIDE. */
static void draw_words(uint64_t key, Counter at, uint32_t *restrict to, long count) {
    uint32_t w[4][STRIDE];
    for (long done = 0; done < count; done += 4 * STRIDE, at = later(at, STRIDE)) {
        scrambled(key, at, w);
        interleave(w, to + done);
    }
}

static void draw_normals(uint64_t key, Counter at, float *restrict to, long count) {
    uint32_t w[4][STRIDE], u[4][STRIDE];
    for (long done = 0; done < count; done += 4 * STRIDE, at = later(at, STRIDE)) {
        scrambled(key, at, w);
        for (long i = 0; i < STRIDE; i++) pair(w[0][i], w[1][i], &u[0][i], &u[1][i]);
        for (long i = 0; i < STRIDE; i++) pair(w[2][i], w[3][i], &u[2][i], &u[3][i]);
        interleave(u, (uint32_t *)to + done);
    }
}

static void draw_normals64(uint64_t key, Counter at, double *restrict to, long count) {
    uint32_t w[CHUNK];
    double u[2][CHUNK / 2];
    draw_words(key, at, w, count);
    long n = (count + 1) / 2;
    for (long i = 0; i < n; i++) pair64(w[2 * i], w[2 * i + 1], &u[0][i], &u[1][i]);
    for (long i = 0; i < n; i++) to[2 * i] = u[0][i], to[2 * i + 1] = u[1][i];
}

static void draw_signs(uint64_t key, Counter at, float *restrict to, long count) {
    uint32_t words[CHUNK / 32 + 4 * STRIDE];
    long n = (count + 31) / 32;
    draw_words(key, at, words, n);
    for (long k = 0; k < n; k++)
        for (int j = 0; j < 32; j++) to[32 * k + j] = as_float((~words[k] >> j) << 31 | 0x3f800000u);
}

#endif
