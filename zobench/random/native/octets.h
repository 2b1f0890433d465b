/* Masks: bit j % 8 of octet j / 8, the lowest first, says whether entry j is kept. */
#ifndef OCTETS_H
#define OCTETS_H

#include "draw.h"

/* Eight bytes of 0 or 1 to an octet; the bytes behind the last one are 0. */
static inline void pack(const uint8_t *restrict kept, uint8_t *restrict octets, long count) {
    for (long k = 0; k < (count + 7) / 8; k++) {
        uint64_t eight;
        memcpy(&eight, kept + 8 * k, sizeof eight);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        eight = __builtin_bswap64(eight);
#endif
        octets[k] = (uint8_t)(eight * 0x0102040810204080u >> 56); /* brings byte j to bit j of the highest byte */
    }
}

/* Octets of the numbers of a chunk whose magnitude is at most `bound`: of no NaN. */
static inline void keep_at_most(const float *restrict x, float bound, uint8_t *restrict octets, long count) {
    uint8_t kept[CHUNK];
    memset(kept + count, 0, (size_t)(CHUNK - count));
    for (long i = 0; i < count; i++) kept[i] = fabsf(x[i]) <= bound;
    pack(kept, octets, count);
}

typedef uint32_t Eight __attribute__((vector_size(32)));
typedef float EightFloats __attribute__((vector_size(32)));

/* u <- scale * u where it is kept, 0 elsewhere */
static inline void scale_kept(float *restrict u, float scale, const uint8_t *octets, long count) {
    const Eight bit = {1, 2, 4, 8, 16, 32, 64, 128};
    for (long k = 0; k < count / 8; k++) {
        EightFloats eight;
        Eight kept = (Eight)(((uint32_t)octets[k] - (Eight){0}) & bit) != 0; /* a comparison that holds is -1 */
        memcpy(&eight, u + 8 * k, sizeof eight);
        kept &= (Eight)(scale * eight);
        memcpy(u + 8 * k, &kept, sizeof kept);
    }
    for (long i = count - count % 8; i < count; i++)
        u[i] = (octets[i / 8] >> (i % 8)) & 1 ? scale * u[i] : 0.0f;
}

#endif
