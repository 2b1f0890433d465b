/* One pass over a parameter: pay what is pending, then write it perturbed to each point.
 *
 * Entry j of a direction is a function of its key and j alone, so that whoever calls takes the next piece. Directions are
 * drawn chunk by chunk and applied while they are in the first-level cache. A direction of low rank is multiplied out of
 * its factors. Products and sums are rounded one by one, as torch's eager operations do, but for x + amount * u, which
 * torch's `add` rounds once where the processor multiplies and adds in one.
 */
#include <stdlib.h>

#include "draw.h"
#include "octets.h"

#define PIECE (32 * CHUNK) /* what a caller takes at once */

enum { NORMALS = 0, SIGNS = 1, LOW_RANK = 2, WORDS = 3 };

typedef struct {
    uint64_t key;              /* of the stream; of LOW_RANK it is not read */
    const float *amounts;      /* one for the stored value, or one for each point */
    const uint8_t *mask;       /* none, or octets: without bit j, lowest first, entry j is 0 */
    const float *left, *right; /* of LOW_RANK, (rows, rank) and (rank, columns): a matrix, row by row */
    int64_t mask_bytes, left_count, right_count, columns;
    int32_t amount_count, kind, rank;
    float scale; /* of the entries that a mask leaves */
} Line;

static inline float add_product(float x, float a, float u) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return __builtin_fmaf(a, u, x);
#else
    return x + a * u;
#endif
}

static inline uint16_t to_bfloat16(float value) {
    uint32_t bits = as_bits(value);
    if (value != value) return 0x7fc0u;
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline float nearest(float value, int type) {
    return type == BFLOAT16 ? as_float((uint32_t)to_bfloat16(value) << 16) : value;
}

static void load(float *restrict x, const void *from, long at, long count, int type) {
    if (type == FLOAT32) {
        memcpy(x, (const float *)from + at, count * sizeof *x);
        return;
    }
    const uint16_t *half = (const uint16_t *)from + at;
    for (long i = 0; i < count; i++) x[i] = as_float((uint32_t)half[i] << 16);
}

static void store(void *to, long at, const float *restrict x, long count, int type) {
    if (type == FLOAT32) {
        memcpy((float *)to + at, x, count * sizeof *x);
        return;
    }
    uint16_t *half = (uint16_t *)to + at;
    for (long i = 0; i < count; i++) half[i] = to_bfloat16(x[i]);
}

/* y = x + amount * u, rounded to the type unless it is rounded later. */
static void add(float *y, const float *x, const float *restrict u, float amount, long count, int type) {
    if (type == FLOAT32)
        for (long i = 0; i < count; i++) y[i] = add_product(x[i], amount, u[i]);
    else
        for (long i = 0; i < count; i++) y[i] = nearest(add_product(x[i], amount, u[i]), type);
}

/* Entries from `at` on of left * right, summed term by term. */
static void multiply(const Line *line, float *restrict u, int64_t at, long count) {
    for (long done = 0, n; done < count; done += n) {
        int64_t row = (at + done) / line->columns, column = (at + done) % line->columns;
        const float *left = line->left + row * line->rank, *right = line->right + column;
        n = line->columns - column < count - done ? line->columns - column : count - done;
        for (long i = 0; i < n; i++) u[done + i] = left[0] * right[i];
        for (int k = 1; k < line->rank; k++) {
            const float *term = right + k * line->columns;
            for (long i = 0; i < n; i++) u[done + i] = u[done + i] + left[k] * term[i];
        }
    }
}

/* Entries `at` to `at + count` of a line; `at` is a multiple of CHUNK, and so begins an octet of the mask and a counter. */
static void draw_line(const Line *line, float *restrict u, int64_t at, long count) {
    if (line->kind == LOW_RANK) multiply(line, u, at, count);
    else if (line->kind == SIGNS) draw_signs(line->key, (Counter){(uint64_t)at / 128, 0}, u, count);
    else draw_normals(line->key, (Counter){(uint64_t)at / 4, 0}, u, count);
    if (line->mask) scale_kept(u, line->scale, line->mask + at / 8, count);
    else if (line->scale != 1.0f)
        for (long i = 0; i < count; i++) u[i] = line->scale * u[i];
}

/* Numbers `skip` to `skip + count` of what begins at a counter; those of another type than float32 fill `to` from room. */
int draw(int kind, int type, uint64_t key, uint64_t low, uint64_t high, int64_t skip, void *to, int64_t count, int64_t bytes) {
    int64_t each = type == FLOAT32 ? 4 : 8, of_counter = kind == SIGNS ? 128 : 4;
    if (kind == WORDS ? type != INT64 : (kind != NORMALS && kind != SIGNS) || (type != FLOAT32 && type != FLOAT64)) return REFUSED;
    if (count < 0 || bytes != count * each || skip < 0 || skip >= of_counter || (count && !to)) return REFUSED;
    if (!count) return DONE;
    union {
        uint32_t words[CHUNK];
        float f[CHUNK];
        double d[CHUNK];
    } room;
    Counter at = {low, high};
    for (int64_t done = -skip; done < count; done += CHUNK, at = later(at, CHUNK / of_counter)) {
        int64_t begin = done < 0 ? -done : 0, n = count - done < CHUNK ? count - done : CHUNK;
        if (kind == WORDS) draw_words(key, at, room.words, n);
        else if (kind == SIGNS) draw_signs(key, at, room.f, n);
        else if (type == FLOAT32) draw_normals(key, at, room.f, n);
        else draw_normals64(key, at, room.d, n);
        if (kind == WORDS)
            for (int64_t i = begin; i < n; i++) ((int64_t *)to)[done + i] = room.words[i];
        else if (kind == SIGNS && type == FLOAT64)
            for (int64_t i = begin; i < n; i++) ((double *)to)[done + i] = room.f[i];
        else memcpy((char *)to + each * (done + begin), (char *)&room + each * begin, (size_t)(each * (n - begin)));
    }
    return DONE;
}

/* Side by side in each row the first counts[k] numbers of a stream of its own, whose key is keys[row * parts + k]. */
int draw_rows(int kind, int type, const uint64_t *keys, int64_t streams, const int64_t *counts, int64_t parts, void *to, int64_t bytes) {
    int64_t each = type == FLOAT32 ? 4 : 8, width = 0;
    if (streams < 0 || parts < 1 || streams % parts) return REFUSED;
    for (int64_t k = 0; k < parts; k++) {
        if (counts[k] < 0) return REFUSED;
        width += counts[k];
    }
    if (bytes != streams / parts * width * each) return REFUSED;
    char *at = to;
    for (int64_t stream = 0; stream < streams; stream++) {
        int64_t count = counts[stream % parts];
        int code = draw(kind, type, keys[stream], 0, 0, 0, at, count, count * each);
        if (code != DONE) return code;
        at += count * each;
    }
    return DONE;
}

typedef struct {
    void *stored;
    void *const *targets;
    const Line *pending, *lines;
    uint64_t rounding; /* key of random rounding */
    int64_t count;     /* entries of the parameter */
    int64_t stored_bytes, target_bytes; /* sizes of the buffers: of each target */
    uint8_t *small; /* none, or octets: which magnitudes are at most `bound` when what is pending is paid */
    int64_t small_bytes;
    int32_t pending_count, line_count, points, type, target_type, round_at_random;
    float keep, bound;
} Sweep;

static int line_fits(const Line *line, int64_t count, int amounts) {
    if (line->amount_count != amounts || (line->mask && line->mask_bytes != (count + 7) / 8)) return 0;
    if (line->kind == NORMALS || line->kind == SIGNS) return 1;
    if (line->kind != LOW_RANK || line->rank < 1 || line->columns < 1 || count % line->columns) return 0;
    if (line->left_count % line->rank || line->left_count / line->rank != count / line->columns) return 0;
    return line->right_count % line->rank == 0 && line->right_count / line->rank == line->columns;
}

static int lines_fit(const Line *lines, int lines_count, int64_t count, int amounts) {
    for (int k = 0; k < lines_count; k++)
        if (!line_fits(lines + k, count, amounts)) return 0;
    return 1;
}

static int holds(int64_t bytes, int64_t count, int type) {
    return (type == FLOAT32 || type == BFLOAT16) && bytes == count * (type == FLOAT32 ? 4 : 2);
}

/* Whether every buffer is as large as the sweep reads or writes it. */
static int fits(const Sweep *s) {
    if (s->count < 0 || s->pending_count < 0 || s->line_count < 0 || s->points < 0) return 0;
    if (!holds(s->stored_bytes, s->count, s->type)) return 0;
    if (s->points && !holds(s->target_bytes, s->count, s->target_type)) return 0;
    if (s->round_at_random && s->type != BFLOAT16) return 0;
    if (s->small && s->small_bytes != (s->count + 7) / 8) return 0;
    return lines_fit(s->pending, s->pending_count, s->count, 1) && lines_fit(s->lines, s->line_count, s->count, s->points);
}

/* Where the perturbed values of a chunk are summed: in the target itself, if it holds float32. */
static inline float *sum_at(const Sweep *s, float *out, long point, int64_t at) {
    return s->target_type == FLOAT32 ? (float *)s->targets[point] + at : out + point * CHUNK;
}

/* Entry j is rounded by 16 bits: those of word j / 2, the low ones first. */
static void round_at_random(uint64_t key, float *restrict x, int64_t at, long count) {
    uint32_t words[CHUNK];
    draw_words(key, (Counter){(uint64_t)at / 8, 0}, words, (count + 1) / 2);
    for (long i = 0; i < count; i++) {
        uint32_t bits = (words[i / 2] >> (16 * (i & 1))) & 0xffffu;
        x[i] = as_float((as_bits(x[i]) + bits) & 0xffff0000u);
    }
}

/* x <- keep x + sum of the pending lines, rounded at each sum, or once and at random. */
static void pay(const Sweep *s, float *restrict x, float *restrict u, int64_t at, long n) {
    int held = s->round_at_random ? FLOAT32 : s->type;
    if (s->keep != 1.0f)
        for (long i = 0; i < n; i++) x[i] = nearest(s->keep * x[i], held);
    for (int k = 0; k < s->pending_count; k++) {
        draw_line(s->pending + k, u, at, n);
        add(x, x, u, s->pending[k].amounts[0], n, held);
    }
    if (s->round_at_random) round_at_random(s->rounding, x, at, n);
    store(s->stored, at, x, n, s->type);
}

/* targets[p] <- x + sum of the lines */
static void perturb(const Sweep *s, const float *x, float *restrict u, float *out, int64_t at, long n) {
    for (int k = 0; k < s->line_count; k++) {
        draw_line(s->lines + k, u, at, n);
        for (int p = 0; p < s->points; p++) {
            float *y = sum_at(s, out, p, at);
            add(y, k ? y : x, u, s->lines[k].amounts[p], n, s->target_type);
        }
    }
    for (int p = 0; p < s->points; p++) {
        const float *y = s->line_count ? sum_at(s, out, p, at) : x;
        if (y != (float *)s->targets[p] + at) store(s->targets[p], at, y, n, s->target_type);
    }
}

/* Ask memory for the next chunk while this one is drawn. */
static void fetch(const Sweep *s, int64_t at, int64_t stop) {
    int64_t each = s->type == FLOAT32 ? 4 : 2, end = stop - at < CHUNK ? stop : at + CHUNK;
    for (const char *line = (const char *)s->stored + each * at; line < (const char *)s->stored + each * end; line += 64)
        __builtin_prefetch(line, 0, 2);
}

/* Sweep the pieces that nobody has taken yet; `taken` is shared by all who sweep. */
int sweep(const Sweep *s, int64_t *taken) {
    if (!fits(s)) return REFUSED;
    float *room = malloc(((size_t)s->points + 2) * CHUNK * sizeof *room);
    if (!room) return NO_MEMORY;
    float *x = room, *u = x + CHUNK, *out = u + CHUNK;
    for (int64_t start; (start = __atomic_fetch_add(taken, PIECE, __ATOMIC_RELAXED)) < s->count;) {
        int64_t stop = s->count - start < PIECE ? s->count : start + PIECE;
        for (int64_t at = start; at < stop; at += CHUNK) {
            long n = stop - at < CHUNK ? stop - at : CHUNK;
            load(x, s->stored, at, n, s->type);
            fetch(s, at + CHUNK, stop);
            if (s->pending_count || s->keep != 1.0f) pay(s, x, u, at, n);
            if (s->small) keep_at_most(x, s->bound, s->small + at / 8, n);
            perturb(s, x, u, out, at, n);
        }
    }
    free(room);
    return DONE;
}
