/* One pass over a parameter: pay what is pending, then write it perturbed to each point.
 *
 * A parameter is cut into blocks, each with a seed a line; whoever calls takes the next block. Directions are drawn chunk
 * by chunk and applied while they are in the first-level cache, with the numbers of torch's CPU generator: MT19937; for
 * normals 24-bit uniforms and Box-Muller over groups of 16, with the single-precision Cephes logarithm, sine and cosine;
 * for signs the low 16 bits of each word, the highest first. A direction of low rank is multiplied out of its factors.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define STATE 624
#define SHIFT 397
#define GROUP 16
#define CHUNK (2 * STATE) /* a multiple of GROUP */

enum { FLOAT32 = 0, BFLOAT16 = 1 };

enum { NORMALS = 0, SIGNS = 1, LOW_RANK = 2 };

enum { DONE = 0, NO_MEMORY = 1, REFUSED = 2 };

typedef struct {
    const uint32_t *seeds;        /* one a block; none of LOW_RANK */
    const float *amounts;         /* one for the stored value, or one for each point */
    const uint8_t *const *masks;  /* none, or the octets of each block: without bit j, lowest first, entry j is 0 */
    const int64_t *mask_bytes;    /* the length of each */
    const float *left, *right;    /* of LOW_RANK, (rows, rank) and (rank, columns): a matrix, row by row */
    int64_t seed_count, mask_count, left_count, right_count, columns;
    int32_t amount_count, kind, rank;
    float scale; /* of the entries that a mask leaves */
} Line;

typedef struct {
    uint32_t word[STATE];
    int used;
} Twister;

static void seed_twister(Twister *t, uint32_t seed) {
    t->used = STATE;
    t->word[0] = seed;
    for (uint32_t i = 1; i < STATE; i++) t->word[i] = 1812433253u * (t->word[i - 1] ^ (t->word[i - 1] >> 30)) + i;
}

static inline uint32_t twisted(uint32_t far, uint32_t here, uint32_t next) {
    uint32_t mixed = (here & 0x80000000u) | (next & 0x7fffffffu);
    return far ^ (mixed >> 1) ^ ((0u - (mixed & 1u)) & 0x9908b0dfu);
}

static void next_state(Twister *t) {
    uint32_t *w = t->word;
    for (int i = 0; i < STATE - SHIFT; i++) w[i] = twisted(w[i + SHIFT], w[i], w[i + 1]);
#pragma GCC ivdep
    for (int i = STATE - SHIFT; i < STATE - 1; i++) w[i] = twisted(w[i + SHIFT - STATE], w[i], w[i + 1]);
    w[STATE - 1] = twisted(w[SHIFT - 1], w[STATE - 1], w[0]);
    t->used = 0;
}

static inline uint32_t tempered(uint32_t word) {
    word ^= word >> 11;
    word ^= (word << 7) & 0x9d2c5680u;
    word ^= (word << 15) & 0xefc60000u;
    return word ^ (word >> 18);
}

static inline float uniform(uint32_t word) { return (float)(int32_t)(tempered(word) & 0xffffffu) * 0x1p-24f; }

static uint32_t next_word(Twister *t) {
    if (t->used == STATE) next_state(t);
    return t->word[t->used++];
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

static inline float logarithm(float x) { /* of a normal number in (0, 1] */
    uint32_t bits = as_bits(x);
    float e = (float)((int32_t)(bits >> 23) - 127) + 1.0f;
    x = as_float((bits & 0x807fffffu) | 0x3f000000u); /* in [1/2, 1) */
    float low = x < 0.707106781186547524f ? 1.0f : 0.0f;
    float twice = x < 0.707106781186547524f ? x : 0.0f;
    x = x - 1.0f;
    e = e - low;
    x = x + twice;
    float z = x * x;
    float y = 7.0376836292e-2f;
    y = y * x + -1.1514610310e-1f;
    y = y * x + 1.1676998740e-1f;
    y = y * x + -1.2420140846e-1f;
    y = y * x + 1.4249322787e-1f;
    y = y * x + -1.6668057665e-1f;
    y = y * x + 2.0000714765e-1f;
    y = y * x + -2.4999993993e-1f;
    y = y * x + 3.3333331174e-1f;
    y = y * x;
    y = y * z;
    y = y + e * -2.12194440e-4f;
    y = y - z * 0.5f;
    x = x + y;
    return x + e * 0.693359375f;
}

static inline void sine_cosine(float x, float *sine, float *cosine) { /* of x >= 0 */
    int32_t octant = ((int32_t)(x * 1.27323954473516f) + 1) & ~1;
    float y = (float)octant;
    uint32_t sine_sign = (uint32_t)(octant & 4) << 29;
    uint32_t cosine_sign = (uint32_t)(~(octant - 2) & 4) << 29;
    x = x + y * -0.78515625f;
    x = x + y * -2.4187564849853515625e-4f;
    x = x + y * -3.77489497744594108e-8f;
    float z = x * x;
    float c = 2.443315711809948e-5f;
    c = c * z + -1.388731625493765e-3f;
    c = c * z + 4.166664568298827e-2f;
    c = c * z;
    c = c * z;
    c = c - z * 0.5f;
    c = c + 1.0f;
    float s = -1.9515295891e-4f;
    s = s * z + 8.3321608736e-3f;
    s = s * z + -1.6666654611e-1f;
    s = s * z;
    s = s * x + x;
    int swapped = octant & 2;
    *sine = as_float(as_bits(swapped ? c : s) ^ sine_sign);
    *cosine = as_float(as_bits(swapped ? s : c) ^ cosine_sign);
}

/* first[8 g + j], second[8 g + j]: uniforms 16 g + j and 16 g + 8 + j; they become the normals at these places. */
static void box_muller(float *restrict first, float *restrict second, long pairs) {
    for (long i = 0; i < pairs; i++) {
        float radius = sqrtf(-2.0f * logarithm(1.0f - first[i])), s, c;
        sine_cosine(6.283185307179586f * second[i], &s, &c);
        first[i] = radius * c;
        second[i] = radius * s;
    }
}

/* Whole groups: `count` is a multiple of GROUP, and every call but the last of a block asks for CHUNK. */
static void draw_groups(Twister *t, float *restrict u, long count) {
    float first[CHUNK / 2 + GROUP], second[CHUNK / 2 + GROUP];
    for (long done = 0; done < count; done += STATE) {
        next_state(t);
        long groups = (count - done < STATE ? count - done : STATE) / GROUP;
        for (long g = 0; g < groups; g++)
            for (int j = 0; j < 8; j++) {
                first[done / 2 + 8 * g + j] = uniform(t->word[GROUP * g + j]);
                second[done / 2 + 8 * g + j] = uniform(t->word[GROUP * g + 8 + j]);
            }
        t->used = (int)(GROUP * groups);
    }
    box_muller(first, second, count / 2);
    for (long g = 0; g < count / GROUP; g++) {
        memcpy(u + GROUP * g, first + 8 * g, 8 * sizeof *u);
        memcpy(u + GROUP * g + 8, second + 8 * g, 8 * sizeof *u);
    }
}

/* As torch does: where a block ends within a group, its last GROUP numbers are drawn again. */
static void draw_normals(Twister *t, float *restrict u, long count) {
    long rest = count % GROUP;
    draw_groups(t, u, count - rest);
    if (!rest) return;
    float first[GROUP / 2], second[GROUP / 2];
    for (long i = 0; i < rest; i++) next_word(t);
    for (int j = 0; j < GROUP / 2; j++) first[j] = uniform(next_word(t));
    for (int j = 0; j < GROUP / 2; j++) second[j] = uniform(next_word(t));
    box_muller(first, second, GROUP / 2);
    memcpy(u + count - GROUP, first, sizeof first);
    memcpy(u + count - GROUP / 2, second, sizeof second);
}

static void draw_words(Twister *t, uint32_t *restrict words, long count) {
    for (long done = 0, n; done < count; done += n) {
        if (t->used == STATE) next_state(t);
        n = count - done < STATE - t->used ? count - done : STATE - t->used;
        for (long i = 0; i < n; i++) words[done + i] = tempered(t->word[t->used + i]);
        t->used += (int)n;
    }
}

static void draw_signs(Twister *t, float *restrict u, long count) { /* u has room up to a multiple of GROUP */
    uint32_t words[CHUNK / GROUP + 1];
    draw_words(t, words, (count + GROUP - 1) / GROUP);
    for (long k = 0; k < (count + GROUP - 1) / GROUP; k++) {
        uint32_t minus = ~words[k];
        for (int j = 0; j < GROUP; j++)
            u[GROUP * k + j] = as_float(((minus << (16 + j)) & 0x80000000u) | 0x3f800000u);
    }
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
        for (long i = 0; i < count; i++) y[i] = x[i] + amount * u[i];
    else
        for (long i = 0; i < count; i++) y[i] = nearest(x[i] + amount * u[i], type);
}

/* A call of its own, so that no compiler fuses a product and the sum it goes into: torch rounds both. */
static __attribute__((noinline)) void scaled(float *restrict to, const float *restrict from, float by, long count) {
    for (long i = 0; i < count; i++) to[i] = by * from[i];
}

/* Entries from `at` on of left * right, summed term by term. */
static void multiply(const Line *line, float *restrict u, long at, long count) {
    float term[CHUNK + GROUP];
    for (long done = 0, n; done < count; done += n) {
        long row = (at + done) / line->columns, column = (at + done) % line->columns;
        const float *left = line->left + row * line->rank, *right = line->right + column;
        n = line->columns - column < count - done ? line->columns - column : count - done;
        scaled(u + done, right, left[0], n);
        for (int k = 1; k < line->rank; k++) {
            scaled(term, right + k * line->columns, left[k], n);
            for (long i = 0; i < n; i++) u[done + i] += term[i];
        }
    }
}

static void mask(float *restrict u, const uint8_t *octets, long count) {
    for (long k = 0; k < count / 8; k++)
        for (int j = 0; j < 8; j++) u[8 * k + j] = as_float(as_bits(u[8 * k + j]) & (0u - ((octets[k] >> j) & 1u)));
    for (long i = count - count % 8; i < count; i++)
        if (!((octets[i / 8] >> (i % 8)) & 1)) u[i] = 0.0f;
}

/* Entries `at` to `at + count` of a line; a chunk begins with an octet of the mask, as CHUNK is a multiple of 8. */
static void draw(const Line *line, Twister *t, float *restrict u, long number, long start, long at, long count) {
    if (line->kind == LOW_RANK) multiply(line, u, at, count);
    else if (line->kind == SIGNS) draw_signs(t, u, count);
    else draw_normals(t, u, count);
    if (line->scale != 1.0f)
        for (long i = 0; i < count; i++) u[i] = line->scale * u[i];
    if (line->masks) mask(u, line->masks[number] + (at - start) / 8, count);
}

/* `bytes` is the size of the buffer: another than that of `count` floats is of another type, and refused. */
int normals(uint32_t seed, float *to, int64_t count, int64_t bytes) { /* at least GROUP */
    Twister t;
    if (!to || count < GROUP || bytes != count * (int64_t)sizeof *to) return REFUSED;
    seed_twister(&t, seed);
    for (long at = 0, n; at < count; at += n) {
        n = count - at < CHUNK + GROUP ? count - at : CHUNK;
        draw_normals(&t, to + at, n);
    }
    return DONE;
}

typedef struct {
    void *stored;
    void *const *targets;
    const Line *pending, *lines;
    const uint32_t *rounding; /* seeds of random rounding, one a block; none: to the nearest */
    int64_t count, block;     /* entries of the parameter, and of a block */
    int64_t stored_bytes, target_bytes, rounding_count; /* sizes of the buffers: of each target, of rounding */
    int32_t pending_count, line_count, points, type, target_type;
    float keep;
} Sweep;

static int64_t blocks_of(const Sweep *s) { return s->count / s->block + (s->count % s->block != 0); }

static int factors_fit(const Line *line, int64_t count) {
    if (line->kind != LOW_RANK) return 1;
    if (line->rank < 1 || line->columns < 1 || count % line->columns) return 0;
    if (line->left_count % line->rank || line->left_count / line->rank != count / line->columns) return 0;
    return line->right_count % line->rank == 0 && line->right_count / line->rank == line->columns;
}

static int masks_fit(const Sweep *s, const Line *line, int64_t blocks) {
    if (!line->masks) return 1;
    if (line->mask_count != blocks) return 0;
    for (int64_t b = 0; b < blocks; b++) {
        int64_t size = s->count - b * s->block < s->block ? s->count - b * s->block : s->block;
        if (line->mask_bytes[b] != (size + 7) / 8) return 0;
    }
    return 1;
}

static int lines_fit(const Sweep *s, const Line *lines, int count, int64_t blocks, int amounts) {
    for (int k = 0; k < count; k++) {
        const Line *line = lines + k;
        if (line->kind != NORMALS && line->kind != SIGNS && line->kind != LOW_RANK) return 0;
        if (line->seed_count != (line->kind == LOW_RANK ? 0 : blocks) || line->amount_count != amounts) return 0;
        if (!factors_fit(line, s->count) || !masks_fit(s, line, blocks)) return 0;
    }
    return 1;
}

static int holds(int64_t bytes, int64_t count, int type) {
    return (type == FLOAT32 || type == BFLOAT16) && bytes == count * (type == FLOAT32 ? 4 : 2);
}

/* Whether every buffer is as large as the sweep reads or writes it, and no block is too small for a group. */
static int fits(const Sweep *s) {
    if (s->count < 0 || s->block < GROUP || s->pending_count < 0 || s->line_count < 0 || s->points < 0) return 0;
    int64_t rest = s->count % s->block, blocks = blocks_of(s);
    if (rest && rest < GROUP) return 0;
    if (!holds(s->stored_bytes, s->count, s->type)) return 0;
    if (s->points && !holds(s->target_bytes, s->count, s->target_type)) return 0;
    if (s->rounding && (s->type != BFLOAT16 || s->rounding_count != blocks)) return 0;
    return lines_fit(s, s->pending, s->pending_count, blocks, 1) && lines_fit(s, s->lines, s->line_count, blocks, s->points);
}

static void begin(const Line *line, Twister *t, long number) {
    if (line->kind != LOW_RANK) seed_twister(t, line->seeds[number]);
}

/* Where the perturbed values of a chunk are summed: in the target itself, if it holds float32. */
static inline float *sum_at(const Sweep *s, float *out, long point, long at) {
    return s->target_type == FLOAT32 ? (float *)s->targets[point] + at : out + point * (CHUNK + GROUP);
}

/* x <- keep x + sum of the pending lines, rounded at each sum, or once and at random; targets[p] <- x + sum of the lines. */
static void sweep_block(const Sweep *s, long number, Twister *states, float *room) {
    long start = number * s->block, stop = start + s->block < s->count ? start + s->block : s->count;
    int held = s->rounding ? FLOAT32 : s->type, write = s->pending_count > 0 || s->keep != 1.0f;
    float *x = room, *u = x + CHUNK + GROUP, *out = u + CHUNK + GROUP;
    Twister *pending = states, *lines = pending + s->pending_count, *rounder = lines + s->line_count;
    for (int k = 0; k < s->pending_count; k++) begin(s->pending + k, pending + k, number);
    for (int k = 0; k < s->line_count; k++) begin(s->lines + k, lines + k, number);
    if (s->rounding) seed_twister(rounder, s->rounding[number]);
    for (long at = start, n; at < stop; at += n) {
        n = stop - at < CHUNK + GROUP ? stop - at : CHUNK;
        load(x, s->stored, at, n, s->type);
        if (s->keep != 1.0f)
            for (long i = 0; i < n; i++) x[i] = nearest(s->keep * x[i], held);
        for (int k = 0; k < s->pending_count; k++) {
            draw(s->pending + k, pending + k, u, number, start, at, n);
            add(x, x, u, s->pending[k].amounts[0], n, held);
        }
        if (s->rounding && write) {
            uint32_t words[CHUNK + GROUP];
            draw_words(rounder, words, n);
            for (long i = 0; i < n; i++) x[i] = as_float((as_bits(x[i]) + (words[i] & 0xffffu)) & 0xffff0000u);
        }
        if (write) store(s->stored, at, x, n, s->type);
        for (int k = 0; k < s->line_count; k++) {
            draw(s->lines + k, lines + k, u, number, start, at, n);
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
}

/* Sweep the blocks that nobody has taken yet; `taken` is shared by all who sweep. */
int sweep(const Sweep *s, int64_t *taken) {
    if (!fits(s)) return REFUSED;
    Twister *states = malloc(((size_t)s->pending_count + s->line_count + 1) * sizeof *states);
    float *room = malloc(((size_t)s->points + 2) * (CHUNK + GROUP) * sizeof *room);
    int failed = !states || !room;
    int64_t blocks = blocks_of(s);
    for (int64_t number; !failed && (number = __atomic_fetch_add(taken, 1, __ATOMIC_RELAXED)) < blocks;)
        sweep_block(s, number, states, room);
    free(states), free(room);
    return failed ? NO_MEMORY : DONE;
}
