/* Random calls of every entry point of sweep.c and masks.c, every buffer of its exact size: built with sanitizers by sanitize.py.
 *
 * A call is made by one thread and by several, which must leave the same bits; and with one length that is wrong, which
 * must be refused and leave every buffer as it was.
 */
#include <pthread.h>
#include <stdio.h>

#include "sweep.c"
#include "masks.c"

#if defined(__has_feature)
#if __has_feature(memory_sanitizer)
#include <sanitizer/msan_interface.h>
#define forget(at, bytes) __msan_poison(at, bytes) /* an entry of it that a call leaves unwritten is then an error */
#endif
#endif
#ifndef forget
#define forget(at, bytes) ((void)(at), (void)(bytes))
#endif

static uint64_t state;

static uint32_t draw32(void) { /* xorshift64* */
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return (uint32_t)((state * 2685821657736338717ull) >> 32);
}

static int64_t below(int64_t n) { return draw32() % n; }

static void check(int holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "not true: %s\n", what);
    exit(1);
}

/* A buffer that begins `skew` numbers into its memory, as a slice of a tensor does, and ends with it. */
typedef struct {
    char *memory, *at;
    int64_t bytes;
} Buffer;

static Buffer buffer(int64_t count, int type) {
    int64_t size = type == FLOAT32 ? 4 : 2, skew = below(4) * size;
    Buffer b = {malloc(skew + count * size + 1), NULL, count * size};
    check(b.memory != NULL, "there is memory");
    b.memory = realloc(b.memory, skew + count * size ? skew + count * size : 1);
    b.at = b.memory + skew;
    for (int64_t i = 0; i < count; i++) {
        float value = (float)(int32_t)draw32() * 0x1p-31f;
        if (type == FLOAT32) memcpy(b.at + 4 * i, &value, 4);
        else ((uint16_t *)b.at)[i] = to_bfloat16(value);
    }
    return b;
}

static uint64_t key(void) { return (uint64_t)draw32() << 32 | draw32(); }

static float *floats(int64_t count) {
    float *found = malloc(count ? count * sizeof *found : 1);
    for (int64_t i = 0; i < count; i++) found[i] = (float)below(5) - 2.0f;
    return found;
}

static void add_mask(Line *line, int64_t count) {
    uint8_t *mask = malloc(count ? (count + 7) / 8 : 1);
    for (int64_t k = 0; k < (count + 7) / 8; k++) mask[k] = (uint8_t)draw32();
    line->mask = mask, line->mask_bytes = (count + 7) / 8;
}

static void add_factors(Line *line, int64_t count) {
    line->kind = LOW_RANK, line->rank = 1 + (int32_t)below(3), line->columns = count;
    for (int64_t d = 1 + below(40); d > 1; d--)
        if (count % d == 0) line->columns = below(2) && count ? d : line->columns;
    if (!count) line->columns = 1;
    line->left_count = count / line->columns * line->rank, line->right_count = line->columns * line->rank;
    line->left = floats(line->left_count), line->right = floats(line->right_count);
}

static Line *lines(int number, int64_t count, int amounts) {
    Line *found = malloc(number ? number * sizeof *found : 1);
    for (int k = 0; k < number; k++) {
        found[k] = (Line){.key = key(), .amounts = floats(amounts), .amount_count = amounts};
        found[k].kind = (int32_t)below(2), found[k].scale = below(2) ? 1.0f : 1.5f;
        if (!below(3)) add_factors(found + k, count);
        if (below(2)) add_mask(found + k, count);
    }
    return found;
}

static void free_lines(const Line *them, int number) {
    for (int k = 0; k < number; k++) {
        free((void *)them[k].mask), free((void *)them[k].left), free((void *)them[k].right);
        free((void *)them[k].amounts);
    }
    free((void *)them);
}

typedef struct {
    const Sweep *sweep;
    int64_t taken;
} Shared;

static void *take(void *shared) {
    Shared *both = shared;
    return (void *)(intptr_t)sweep(both->sweep, &both->taken);
}

static void run(const Sweep *s, int threads) {
    for (int p = 0; p < s->points; p++) forget(s->targets[p], s->target_bytes);
    if (s->small) forget(s->small, s->small_bytes);
    Shared shared = {s, 0};
    pthread_t ids[4];
    for (int i = 0; i < threads; i++) check(!pthread_create(ids + i, NULL, take, &shared), "a thread starts");
    for (int i = 0; i < threads; i++) {
        void *code;
        pthread_join(ids[i], &code);
        check((intptr_t)code == DONE, "a call that fits is done");
    }
}

/* The call with one of its lengths wrong. */
static int refused(Sweep wrong) {
    int64_t none = 0, *lengths[] = {&wrong.stored_bytes, &wrong.target_bytes, &wrong.count};
    int64_t by = below(2) ? 1 : -1;
    Line line = wrong.line_count ? wrong.lines[0] : (Line){0};
    int way = (int)below(11);
    if (wrong.small && !below(4)) {
        wrong.small_bytes += by;
        return sweep(&wrong, &none) == REFUSED && none == 0;
    }
    if (way == 1 && !wrong.points) way = 0;
    if (way > 4 && !wrong.line_count) way = 3;
    if (way == 4 && wrong.type == BFLOAT16) way = 3;
    if (way == 7 && !line.mask) way = 5;
    if (way > 7 && line.kind != LOW_RANK) way = 6;
    if (way < 3) *lengths[way] += by;
    if (way == 3) wrong.type = 2;
    if (way == 4) wrong.round_at_random = 1;
    if (way == 5) line.amount_count += (int32_t)by;
    if (way == 6) line.kind = 3;
    if (way == 7) line.mask_bytes += by;
    if (way == 8) line.left_count += by;
    if (way == 9) line.right_count += by;
    if (way == 10) line.columns = 0;
    if (way > 4) wrong.lines = &line, wrong.line_count = 1;
    return sweep(&wrong, &none) == REFUSED && none == 0;
}

/* Whether the mask is that of the stored values, and its bits behind the last are 0. */
static int is_small(const Sweep *s) {
    for (int64_t i = 0; i < 8 * s->small_bytes; i++) {
        int kept = 0;
        if (i < s->count) {
            float x;
            load(&x, s->stored, i, 1, s->type);
            kept = fabsf(x) <= s->bound;
        }
        if ((s->small[i / 8] >> i % 8 & 1) != kept) return 0;
    }
    return 1;
}

static void one_sweep(void) {
    int64_t count = below(4) ? below(3 * CHUNK) : PIECE - 2 + below(2 * PIECE);
    Sweep s = {.count = count, .type = (int32_t)below(2), .target_type = (int32_t)below(2), .rounding = key()};
    s.pending_count = (int32_t)below(4), s.line_count = (int32_t)below(4), s.points = (int32_t)below(4);
    s.keep = below(2) ? 1.0f : 0.9f;
    s.pending = lines(s.pending_count, count, 1), s.lines = lines(s.line_count, count, s.points);
    s.round_at_random = s.type == BFLOAT16 && below(2);
    Buffer stored = buffer(count, s.type), before = {malloc(stored.bytes + 1), NULL, stored.bytes}, target[4], first[4];
    void *targets[4];
    memcpy(before.memory, stored.at, stored.bytes);
    for (int p = 0; p < s.points; p++) {
        target[p] = buffer(count, s.target_type), targets[p] = target[p].at;
        first[p] = (Buffer){malloc(target[p].bytes + 1), NULL, target[p].bytes};
    }
    s.stored = stored.at, s.stored_bytes = stored.bytes, s.targets = targets;
    s.target_bytes = s.points ? target[0].bytes : 0;
    if (below(2)) s.small_bytes = (count + 7) / 8, s.small = malloc(count ? s.small_bytes : 1), s.bound = below(2) ? 0.5f : 0.0f;
    for (int i = 0; i < 8; i++) check(refused(s), "a call whose length is wrong is refused");
    check(!memcmp(before.memory, stored.at, stored.bytes), "a refused call writes nothing");
    run(&s, 1);
    if (s.small) check(is_small(&s), "a bit is that of its stored value");
    char *after = malloc(stored.bytes + 1);
    memcpy(after, stored.at, stored.bytes), memcpy(stored.at, before.memory, stored.bytes);
    for (int p = 0; p < s.points; p++) memcpy(first[p].memory, target[p].at, target[p].bytes);
    run(&s, 2 + (int)below(3));
    check(!memcmp(after, stored.at, stored.bytes), "threads change no bit of the stored values");
    for (int p = 0; p < s.points; p++) {
        check(!memcmp(first[p].memory, target[p].at, target[p].bytes), "threads change no bit of a target");
        free(first[p].memory), free(target[p].memory);
    }
    if (s.small) check(is_small(&s), "threads change no bit of the mask");
    free(after), free(before.memory), free(stored.memory), free(s.small);
    free_lines(s.pending, s.pending_count), free_lines(s.lines, s.line_count);
}

/* A part of a stream, and the same part in two. */
static void one_draw(void) {
    int kind = (int)below(3), type, each;
    if (kind == 2) kind = WORDS, type = INT64;
    else type = below(2) ? FLOAT32 : FLOAT64;
    each = type == FLOAT32 ? 4 : 8;
    int64_t per = kind == SIGNS ? 128 : 4, skip = below(per), count = below(3 * CHUNK), first = below(count + 1);
    uint64_t k = key(), low = below(2) ? key() : 0 - (uint64_t)below(CHUNK), high = key();
    char *whole = malloc(count ? each * count : 1), *left = malloc(first ? each * first : 1);
    char *right = malloc(count > first ? each * (count - first) : 1);
    check(draw(kind, type, k, low, high, skip, whole, count, each * count) == DONE, "a part is drawn");
    check(draw(kind, type, k, low, high, skip, left, first, each * first) == DONE, "its begin is drawn");
    Counter at = later((Counter){low, high}, (uint64_t)((skip + first) / per));
    int code = draw(kind, type, k, at.low, at.high, (skip + first) % per, right, count - first, each * (count - first));
    check(code == DONE, "its end is drawn");
    check(!memcmp(whole, left, each * first) && !memcmp(whole + each * first, right, each * (count - first)), "both are it");
    check(draw(kind, type, k, low, high, skip, whole, count, each * count + 1) == REFUSED, "another size is refused");
    check(draw(kind, type, k, low, high, per, whole, count, each * count) == REFUSED, "a skipped counter is refused");
    check(draw(kind, BFLOAT16, k, low, high, skip, whole, count, each * count) == REFUSED, "another type is refused");
    free(whole), free(left), free(right);
}

/* Streams side by side, and each of them alone. */
static void many_draws(void) {
    int kind = (int)below(2), type = below(2) ? FLOAT32 : FLOAT64, each = type == FLOAT32 ? 4 : 8;
    int64_t rows = below(4), parts = 1 + below(4), width = 0, *counts = malloc(parts * sizeof *counts);
    for (int64_t k = 0; k < parts; k++) width += counts[k] = below(300);
    uint64_t *keys = malloc(rows ? rows * parts * sizeof *keys : 1);
    for (int64_t i = 0; i < rows * parts; i++) keys[i] = key();
    char *all = malloc(rows * width > 0 ? rows * width * each : 1), *at = all, *alone = malloc(300 * each);
    forget(all, rows * width * each);
    check(draw_rows(kind, type, keys, rows * parts, counts, parts, all, rows * width * each) == DONE, "rows are drawn");
    for (int64_t i = 0; i < rows * parts; at += each * counts[i++ % parts]) {
        int64_t count = counts[i % parts];
        check(draw(kind, type, keys[i], 0, 0, 0, alone, count, each * count) == DONE, "a stream is drawn");
        check(!memcmp(at, alone, each * count), "each lies where its row has it");
    }
    check(draw_rows(kind, type, keys, rows * parts, counts, parts, all, rows * width * each + 1) == REFUSED, "another size is refused");
    check(draw_rows(kind, type, keys, rows * parts, counts, 0, all, 0) == REFUSED, "rows of nothing are refused");
    counts[0] = -1;
    check(draw_rows(kind, type, keys, rows * parts, counts, parts, all, 0) == REFUSED, "a negative count is refused");
    free(counts), free(keys), free(all), free(alone);
}

/* Masks of weights and of a stream, bit by bit. */
static void one_mask(void) {
    int type = (int)below(3);
    int64_t count = below(3 * CHUNK), octets = (count + 7) / 8, each = type == FLOAT32 ? 4 : type == BFLOAT16 ? 2 : 8;
    uint64_t k = key(), start = 4 * (uint64_t)below(CHUNK), limit = draw32(), bound = key() >> (65 - 8 * each);
    char *weights = malloc(count ? each * count : 1);
    uint8_t *small = malloc(octets ? octets : 1), *chosen = malloc(octets ? octets : 1);
    for (int64_t i = 0; i < each * count; i++) weights[i] = (char)draw32();
    forget(small, octets), forget(chosen, octets);
    check(keep_small(type, weights, each * count, bound, count, small, octets) == DONE, "weights are compared");
    check(keep_at_random(k, start, limit, count, chosen, octets) == DONE, "words are compared");
    for (int64_t i = 0; i < count; i++) {
        uint64_t bits = 0, word;
        memcpy(&bits, weights + each * i, each);
        check((small[i / 8] >> i % 8 & 1) == ((bits & (~0ull >> (65 - 8 * each))) <= bound), "a bit is that of its weight");
        check(draw(WORDS, INT64, k, (start + i) / 4, 0, (start + i) % 4, &word, 1, 8) == DONE, "a word is drawn");
        check((chosen[i / 8] >> i % 8 & 1) == (word < limit), "a bit is that of its word");
    }
    if (count % 8) check(!(small[octets - 1] >> count % 8) && !(chosen[octets - 1] >> count % 8), "bits behind the last are 0");
    check(keep_small(type, weights, each * count + 1, bound, count, small, octets) == REFUSED, "another size is refused");
    check(keep_small(INT64, weights, each * count, bound, count, small, octets) == REFUSED, "another type is refused");
    check(keep_small(type, weights, each * count, bound, count, small, octets + 1) == REFUSED, "other octets are refused");
    check(keep_at_random(k, start + 1, limit, count, chosen, octets) == REFUSED, "a part of a counter is refused");
    check(keep_at_random(k, start, limit, count, chosen, octets + 1) == REFUSED, "other octets are refused");
    free(weights), free(small), free(chosen);
}

int main(int arguments, char **texts) {
    long calls = arguments > 1 ? atol(texts[1]) : 1000;
    state = arguments > 2 ? strtoull(texts[2], NULL, 10) | 1 : 1;
    for (long i = 0; i < calls; i++) one_sweep(), one_draw(), many_draws(), one_mask();
    printf("%ld random sweeps (8 of wrong lengths each), %ld draws and masks: no error\n", calls, calls);
    return 0;
}
