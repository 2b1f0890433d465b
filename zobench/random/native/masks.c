/* Masks that are made of weights, or of the words of a stream. */
#include "draw.h"
#include "octets.h"

/* Magnitudes are ordered as their bits without that of the sign. */
#define COMPARE(type) \
    for (long i = 0; i < n; i++) kept[i] = (((const type *)weights)[at + i] & (type)((type)-1 >> 1)) <= (type)bound

/* Keep the weights whose magnitude is at most the one with the bits `bound`. */
int keep_small(int type, const void *weights, int64_t bytes, uint64_t bound, int64_t count, uint8_t *octets, int64_t octet_count) {
    int64_t each = type == BFLOAT16 ? 2 : type == FLOAT32 ? 4 : 8;
    if ((type != BFLOAT16 && type != FLOAT32 && type != FLOAT64) || count < 0) return REFUSED;
    if (bytes != each * count || octet_count != (count + 7) / 8) return REFUSED;
    uint8_t kept[CHUNK];
    for (int64_t at = 0; at < count; at += CHUNK) {
        long n = count - at < CHUNK ? count - at : CHUNK;
        memset(kept + n, 0, (size_t)(CHUNK - n));
        if (type == BFLOAT16) COMPARE(uint16_t);
        else if (type == FLOAT32) COMPARE(uint32_t);
        else COMPARE(uint64_t);
        pack(kept, octets + at / 8, n);
    }
    return DONE;
}

/* Keep the entries `start` to `start + count`, `start` a multiple of 4, where the word of the stream is below `limit`. */
int keep_at_random(uint64_t key, uint64_t start, uint64_t limit, int64_t count, uint8_t *octets, int64_t octet_count) {
    if (start % 4 || count < 0 || octet_count != (count + 7) / 8) return REFUSED;
    uint32_t words[CHUNK];
    uint8_t kept[CHUNK];
    for (int64_t at = 0; at < count; at += CHUNK) {
        long n = count - at < CHUNK ? count - at : CHUNK;
        draw_words(key, later((Counter){start / 4, 0}, (uint64_t)at / 4), words, n);
        memset(kept + n, 0, (size_t)(CHUNK - n));
        for (long i = 0; i < n; i++) kept[i] = words[i] < limit;
        pack(kept, octets + at / 8, n);
    }
    return DONE;
}
