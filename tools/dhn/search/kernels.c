/* The loops of a search. Built when the package is installed; kernels.py loads them and says what each computes.
 *
 * Sums run in the order that is written here, on all machines. Each adds products of two float32, which are exact in
 * float64: a fused multiply-add gives the same.
 */
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 512 /* distinct codes that are looked at one by one only if the nearest of them is near enough */
#define CHUNK 64  /* items whose products are computed together */
#define BOUNDED 256 /* items of a code whose products have bounds */
#define AHEAD 6     /* items whose codes are on their way from memory */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define HAS_AVX2
#include <immintrin.h>
#else
#define EACH_PROCESSOR
#endif
#define INLINE static inline __attribute__((always_inline))

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

struct bound;

typedef struct {
    /* the index: kernels.py's Task, in this order */
    int64_t codes, words, bits, items;
    const uint64_t *binary;                         /* (codes, words), ascending */
    const int64_t *offsets, *postings, *ranks, *row_places;
    const float *real;                              /* (items, bits) in the order of the postings */
    uint8_t *has_bounds;                            /* (codes): whether its items' bounds are there; zeros at first */
    struct bound *bounds;                           /* (items) */
    /* the queries */
    int64_t queries, wanted, by_key;
    const uint64_t *packed;                         /* (queries, words) */
    const float *vectors;                           /* (queries, bits) */
    const int64_t *counts;                          /* (codes): items that are searched at each */
    const uint8_t *allowed;                         /* (items) in the order of the postings; null: all */
    int64_t *limits, *within, *starts;              /* (queries), (queries), (queries + 1): see kernels.py */
    uint16_t *minima;                               /* (queries, blocks): the least distance in a block, or less */
} task;

EACH_PROCESSOR
void pack(uint64_t *words, const float *codes, int64_t items, int64_t bits)
{
    for (int64_t item = 0; item < items; item++)
        for (int64_t begin = 0; begin < bits; begin += 64) {
            uint64_t word = 0;
            for (int64_t bit = begin; bit < least(bits, begin + 64); bit++)
                word |= (uint64_t)(codes[item * bits + bit] >= 0) << (bit - begin);
            *words++ = word;
        }
}

/* ---- texts: text i is text[offsets[i] .. offsets[i + 1]] */

static int compare(const uint8_t *text, const int64_t *offsets, int64_t one, int64_t other)
{
    int64_t size = offsets[one + 1] - offsets[one], other_size = offsets[other + 1] - offsets[other];
    int sign = memcmp(text + offsets[one], text + offsets[other], least(size, other_size));
    return sign ? sign : (size > other_size) - (size < other_size);
}

int is_ascending(const uint8_t *text, const int64_t *offsets, int64_t count)
{
    for (int64_t i = 1; i < count; i++)
        if (compare(text, offsets, i - 1, i) >= 0)
            return 0;
    return 1;
}

int64_t find_twin(const uint8_t *text, const int64_t *offsets, const int64_t *order, int64_t count)
{
    for (int64_t i = 1; i < count; i++)
        if (compare(text, offsets, order[i - 1], order[i]) == 0)
            return order[i - 1];
    return -1;
}

/* ---- inner products: sums of the bits 0, 4, 8, ..., of 1, 5, 9, ..., of 2, ... and of 3, ...; then (0 + 1) + (2 + 3) */

typedef double four __attribute__((vector_size(32)));
typedef float four_singles __attribute__((vector_size(16)));

EACH_PROCESSOR
static void add_products(double *values, const float *codes, const double *query, int64_t items, int64_t bits)
{
    int64_t whole = bits - bits % 4;
    for (int64_t item = 0; item < items; item++, codes += bits) {
        four sums = {0};
        double lanes[4];
        for (int64_t bit = 0; bit < whole; bit += 4) {
            four_singles code;
            four factors;
            memcpy(&code, codes + bit, sizeof code);
            memcpy(&factors, query + bit, sizeof factors);
            sums += __builtin_convertvector(code, four) * factors;
        }
        memcpy(lanes, &sums, sizeof lanes);
        for (int64_t bit = whole; bit < bits; bit++)
            lanes[bit - whole] += (double)codes[bit] * query[bit];
        values[item] = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
    }
}

static double *doubled(const float *code, int64_t bits)
{
    double *values = malloc(bits * sizeof *values);
    for (int64_t bit = 0; values && bit < bits; bit++)
        values[bit] = code[bit];
    return values;
}

int products(double *values, const float *codes, const float *query, int64_t items, int64_t bits)
{
    double *vector = doubled(query, bits);
    if (vector)
        add_products(values, codes, vector, items, bits);
    free(vector);
    return vector != NULL;
}

/* ---- distances */

INLINE int64_t distance_of(const uint64_t *code, const uint64_t *query, int64_t width)
{
    int64_t distance = 0;
    for (int64_t word = 0; word < width; word++)
        distance += __builtin_popcountll(code[word] ^ query[word]);
    return distance;
}

#ifdef HAS_AVX2
__attribute__((target("avx2"))) static int64_t nearest_by_avx2(const uint64_t *words, uint64_t query, int64_t count)
{
    const __m256i ones = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2,
                                          2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_set1_epi8(15), code = _mm256_set1_epi64x(query), zero = _mm256_setzero_si256();
    __m256i nearest = _mm256_set1_epi64x(64);
    for (int64_t i = 0; i < count; i += 4) {
        __m256i unlike = _mm256_xor_si256(_mm256_loadu_si256((const void *)(words + i)), code);
        __m256i octets = _mm256_add_epi8(_mm256_shuffle_epi8(ones, _mm256_and_si256(unlike, low)),
                                         _mm256_shuffle_epi8(ones, _mm256_and_si256(_mm256_srli_epi16(unlike, 4), low)));
        nearest = _mm256_min_epu8(nearest, _mm256_sad_epu8(octets, zero));
    }
    int64_t lanes[4];
    memcpy(lanes, &nearest, sizeof lanes);
    return least(least(lanes[0], lanes[1]), least(lanes[2], lanes[3]));
}
#endif

/* The least distance of the codes from `words` on. */
INLINE int64_t nearest_of(const uint64_t *words, const uint64_t *query, int64_t width, int64_t count)
{
#ifdef HAS_AVX2
    if (width == 1 && count % 4 == 0 && __builtin_cpu_supports("avx2"))
        return nearest_by_avx2(words, *query, count);
#endif
    int64_t nearest = 64 * width;
    for (int64_t i = 0; i < count; i++)
        nearest = least(nearest, distance_of(words + i * width, query, width));
    return nearest;
}

/* The block that has, or would have, a query's own code. */
static int64_t home_of(const task *t, const uint64_t *query)
{
    int64_t low = 0, high = t->codes;
    while (low < high) {
        int64_t middle = (low + high) / 2, word = 0;
        const uint64_t *code = t->binary + middle * t->words;
        while (word < t->words - 1 && code[word] == query[word])
            word++;
        if (code[word] < query[word])
            low = middle + 1;
        else
            high = middle;
    }
    return least(low, t->codes - 1) / BLOCK;
}

/* Add the items of a block to the histogram (radius + 1) of distances, and lower the query's limit; the least distance. */
INLINE int64_t count_block(const task *t, int64_t q, int64_t begin, int64_t end, int64_t *histogram)
{
    int64_t limit = t->limits[q], within = t->within[q], nearest = 64 * t->words;
    for (int64_t code = begin; code < end; code++) {
        int64_t distance = distance_of(t->binary + code * t->words, t->packed + q * t->words, t->words);
        if (distance <= limit) {
            histogram[distance] += t->counts[code];
            within += t->counts[code];
        }
        nearest = least(nearest, distance);
    }
    while (limit > 0 && within - histogram[limit] >= t->wanted)
        within -= histogram[limit--];
    t->limits[q] = limit;
    t->within[q] = within;
    return nearest;
}

/* What of a task a call has for itself. space: int64 (3 * queries + 1) and uint16 (queries, blocks) behind them. */
static task task_of(const task *index, int64_t queries, int64_t wanted, const uint64_t *packed, const int64_t *counts,
                    int64_t *space)
{
    task t;
    memcpy(&t, index, offsetof(task, queries)); /* the part that Python has filled */
    t.queries = queries, t.wanted = wanted, t.packed = packed, t.counts = counts;
    t.limits = space, t.within = space + queries, t.starts = space + 2 * queries;
    t.minima = (uint16_t *)(space + 3 * queries + 1);
    return t;
}

/* Fill the space; how many items there are to collect, or -1: no memory. */
EACH_PROCESSOR
int64_t find_limits(const task *index, int64_t queries, int64_t wanted, const uint64_t *packed, const int64_t *counts,
                    int64_t *space, int64_t radius)
{
    task all = task_of(index, queries, wanted, packed, counts, space), *t = &all;
    int64_t blocks = (t->codes + BLOCK - 1) / BLOCK;
    int64_t *histograms = calloc(queries * (radius + 1), sizeof *histograms), *homes = malloc(queries * sizeof *homes);
    int done = histograms && homes;
    t->starts[0] = 0;
    for (int64_t q = 0; q < queries; q++) {
        t->limits[q] = radius;
        t->within[q] = 0;
    }
    /* The block of a query's own code comes first: with a limit from there, most blocks of a net's codes, which are
     * close together, are left out by the bits that their codes share. */
    for (int64_t q = 0; done && blocks && q < t->queries; q++) {
        homes[q] = home_of(t, t->packed + q * t->words);
        t->minima[q * blocks + homes[q]] = count_block(t, q, homes[q] * BLOCK, least((homes[q] + 1) * BLOCK, t->codes),
                                                       histograms + q * (radius + 1));
    }
    for (int64_t block = 0; done && block < blocks; block++) {
        int64_t begin = block * BLOCK, end = least(begin + BLOCK, t->codes);
        const uint64_t *words = t->binary + begin * t->words;
        uint64_t other = words[0] ^ t->binary[(end - 1) * t->words]; /* word 0: the bits from the highest one in it on */
        uint64_t shared = other ? ~(~(uint64_t)0 >> __builtin_clzll(other)) : ~(uint64_t)0;
        for (int64_t q = 0; q < queries; q++) {
            const uint64_t *query = t->packed + q * t->words;
            if (block == homes[q])
                continue;
            int64_t nearest = __builtin_popcountll((words[0] ^ query[0]) & shared);
            if (nearest <= t->limits[q])
                nearest = nearest_of(words, query, t->words, end - begin);
            if (nearest <= t->limits[q])
                nearest = count_block(t, q, begin, end, histograms + q * (radius + 1));
            t->minima[q * blocks + block] = nearest;
        }
    }
    for (int64_t q = 0; q < queries; q++)
        t->starts[q + 1] = t->starts[q] + least(t->within[q], wanted);
    free(histograms), free(homes);
    return done ? t->starts[queries] : -1;
}

/* ---- order: distance, the greater product, the key; or distance, the key */

typedef struct {
    int64_t distance;
    double value; /* -product; by keys alone, the key's rank */
    int64_t place;
} item;

INLINE int64_t rank_of(const task *t, int64_t place)
{
    int64_t row = t->postings[place];
    return row >= 0 && row < t->items ? t->ranks[row] : -1; /* one that is damaged comes first */
}

INLINE int is_before(const task *t, const item *a, const item *b)
{
    if (a->distance != b->distance)
        return a->distance < b->distance;
    return a->value != b->value ? a->value < b->value : rank_of(t, a->place) < rank_of(t, b->place);
}

/* Swap items from low to high, at least two, until none of those up to *right stands behind one of those from *left. */
static void split(const task *t, item *items, int64_t low, int64_t high, int64_t *right, int64_t *left)
{
    item pivot = items[(low + high) / 2];
    while (low <= high) {
        while (is_before(t, items + low, &pivot))
            low++;
        while (is_before(t, &pivot, items + high))
            high--;
        if (low <= high) {
            item other = items[low];
            items[low++] = items[high];
            items[high--] = other;
        }
    }
    *right = high;
    *left = low;
}

/* Bring the first `wanted` of `size` items to the front, the last of them to the place wanted - 1 (quickselect). */
static void choose(const task *t, item *items, int64_t size, int64_t wanted)
{
    int64_t low = 0, high = size - 1, last = wanted - 1, right, left;
    while (low < high) {
        split(t, items, low, high, &right, &left);
        if (right < last && last < left)
            return;
        if (last <= right)
            high = right;
        else
            low = left;
    }
}

/* Sort items from low to high (quicksort, the shorter part first, so that few parts wait). */
static void sort(const task *t, item *items, int64_t low, int64_t high)
{
    while (high - low > 8) {
        int64_t right, left;
        split(t, items, low, high, &right, &left);
        if (right - low < high - left) {
            sort(t, items, low, right);
            low = left;
        } else {
            sort(t, items, left, high);
            high = right;
        }
    }
    for (int64_t i = low + 1; i <= high; i++) {
        item each = items[i];
        int64_t place = i;
        for (; place > low && is_before(t, &each, items + place - 1); place--)
            items[place] = items[place - 1];
        items[place] = each;
    }
}

/* Bounds of products, for those of a code with many items, of which few are among the first ones. A vector of absolute
 * values is its part along (1, ..., 1) and the rest of it, which is short where a net's codes are close to -1 and 1. With
 * their lengths, |x . y| <= |x| . |y| <= along(x) along(y) + rest(x) rest(y). Sums have errors; the lengths are a little
 * longer than they should be, by much more than these are. */
static void lengths_of(double *along, double *rest, const float *code, int64_t bits)
{
    double sum = 0, squares = 0;
    for (int64_t bit = 0; bit < bits; bit++) {
        sum += fabs((double)code[bit]);
        squares += (double)code[bit] * code[bit];
    }
    *along = sum / sqrt(bits) * (1 + 1e-6) + FLT_MIN; /* no float32 of them is one of few bits */
    *rest = sqrt(fmax(squares - sum * sum / bits, 0) + 1e-10 * squares) * (1 + 1e-6) + FLT_MIN;
}

typedef struct bound {
    float along, rest, longest_rest; /* of this item; of those from it on */
    uint32_t item;                   /* behind the first of its code */
} bound;

static int by_along(const void *one, const void *other) /* descending */
{
    const bound *a = one, *b = other;
    return a->along != b->along ? (a->along < b->along ? 1 : -1) : (a->item > b->item) - (a->item < b->item);
}

/* Fill the bounds of a code's items, in descending order, at the first call; threads that do it together write the same.
 * 0: no memory. */
static int ensure_bounds(const task *t, int64_t code)
{
    int64_t first = t->offsets[code], items = t->offsets[code + 1] - first;
    if (__atomic_load_n(t->has_bounds + code, __ATOMIC_ACQUIRE))
        return 1;
    bound *bounds = malloc(items * sizeof *bounds);
    if (!bounds)
        return 0;
    for (int64_t i = 0; i < items; i++) {
        double along, rest;
        lengths_of(&along, &rest, t->real + (first + i) * t->bits, t->bits);
        bounds[i] = (bound){along, rest, rest, i};
    }
    qsort(bounds, items, sizeof *bounds, by_along);
    for (int64_t i = items - 2; i >= 0; i--)
        bounds[i].longest_rest = fmaxf(bounds[i].rest, bounds[i + 1].longest_rest);
    memcpy(t->bounds + first, bounds, items * sizeof *bounds);
    free(bounds);
    __atomic_store_n(t->has_bounds + code, 1, __ATOMIC_RELEASE);
    return 1;
}

typedef struct { /* the first items of a query so far */
    item *items, last; /* no item behind the last one is among the first ones */
    int64_t size, room, wanted;
} ranking;

INLINE void add(const task *t, ranking *r, const item *next)
{
    if (r->size == r->room) {
        choose(t, r->items, r->size, r->wanted);
        r->size = r->wanted;
        r->last = r->items[r->wanted - 1];
    }
    r->items[r->size++] = *next;
}

/* Add those items of a code that may be among the first ones. */
static void add_items(const task *t, ranking *r, int64_t code, int64_t distance, const double *vector)
{
    int64_t end = t->offsets[code + 1], added = 0;
    double values[CHUNK];
    for (int64_t begin = t->offsets[code]; begin < end && distance <= r->last.distance; begin += CHUNK) {
        int64_t count = least(CHUNK, end - begin);
        if (!t->by_key)
            add_products(values, t->real + begin * t->bits, vector, count, t->bits);
        for (int64_t i = 0; i < count; i++) {
            item next = {distance, 0, begin + i};
            if (t->allowed && !t->allowed[next.place])
                continue;
            next.value = t->by_key ? rank_of(t, next.place) : -values[i];
            if ((distance < r->last.distance || next.value <= r->last.value) && !is_before(t, &r->last, &next)) {
                add(t, r, &next);
                added++;
            } else if (t->by_key) {
                return; /* the others of this code have keys that come later still */
            }
            if (t->by_key && added == r->wanted)
                return;
        }
    }
}

/* Whether bounds will leave out half of a code's items: whether the one in the middle may have as great a product as the
 * last of the first ones probably has. If not, reading all codes one behind the other is faster. */
static int are_useful(const task *t, int64_t code, int64_t wanted, double along, double rest)
{
    int64_t items = t->offsets[code + 1] - t->offsets[code];
    const bound *bounds = t->bounds + t->offsets[code], *middle = bounds + items / 2;
    return middle->along * along + middle->rest * rest < bounds[least(wanted, items) - 1].along * along;
}

/* The same as add_items of a code with bounds, at the limit's distance. */
static void add_bounded(const task *t, ranking *r, int64_t code, int64_t distance, const double *vector, double along,
                        double rest)
{
    int64_t first = t->offsets[code], items = t->offsets[code + 1] - first;
    const bound *bounds = t->bounds + first;
    for (int64_t i = 0; i < items; i++) {
        if (bounds[i].along * along + bounds[i].longest_rest * rest < -r->last.value)
            return;
        const char *soon = (const char *)(t->real + (first + bounds[least(i + AHEAD, items - 1)].item) * t->bits);
        for (int64_t byte = 0; byte < (int64_t)sizeof(float) * t->bits; byte += 64)
            __builtin_prefetch(soon + byte);
        item next = {distance, 0, first + bounds[i].item};
        if (bounds[i].along * along + bounds[i].rest * rest < -r->last.value || (t->allowed && !t->allowed[next.place]))
            continue;
        add_products(&next.value, t->real + next.place * t->bits, vector, 1, t->bits);
        next.value = -next.value;
        if (next.value <= r->last.value && !is_before(t, &r->last, &next))
            add(t, r, &next);
    }
}

/* The first `wanted` items of a query in their order; items: room for `room` of them. rows, distances and similarities
 * are their places, from the query's first one on. 0: a posting is damaged. */
EACH_PROCESSOR
static int collect_one(const task *t, int64_t q, const double *vector, item *items, int64_t wanted, int64_t room,
                       int64_t *rows, int64_t *found, double *similarities)
{
    int64_t limit = t->limits[q], blocks = (t->codes + BLOCK - 1) / BLOCK;
    ranking r = {items, {limit, INFINITY, -1}, 0, room, wanted};
    double along, rest;
    lengths_of(&along, &rest, t->vectors + q * t->bits, t->bits);
    for (int64_t block = 0; block < blocks; block++) {
        int64_t end = least((block + 1) * BLOCK, t->codes);
        for (int64_t code = block * BLOCK; code < end && t->minima[q * blocks + block] <= limit; code++) {
            int64_t distance = distance_of(t->binary + code * t->words, t->packed + q * t->words, t->words);
            if (distance > limit || t->counts[code] == 0)
                continue;
            if (!t->by_key && t->counts[code] >= BOUNDED && distance == r.last.distance && ensure_bounds(t, code) &&
                are_useful(t, code, wanted, along, rest))
                add_bounded(t, &r, code, distance, vector, along, rest);
            else
                add_items(t, &r, code, distance, vector);
        }
    }
    int64_t size = r.size;
    if (size < wanted)
        return 0;
    if (size > wanted)
        choose(t, items, size, wanted);
    sort(t, items, 0, wanted - 1);
    int intact = 1;
    for (int64_t i = 0; i < wanted; i++) {
        rows[i] = t->postings[items[i].place];
        found[i] = items[i].distance;
        similarities[i] = -items[i].value;
    }
    for (int64_t i = 0; i < wanted; i++)
        intact &= rows[i] >= 0 && rows[i] < t->items && t->row_places[rows[i]] == items[i].place;
    for (int64_t i = 0; t->by_key && i < wanted; i++)
        add_products(similarities + i, t->real + items[i].place * t->bits, vector, 1, t->bits);
    return intact;
}

/* The results of all queries, as many as find_limits said: rows, distances and similarities (total). 1: done; 0: a posting
 * is damaged; -1: no memory. */
int collect(const task *index, int64_t queries, int64_t wanted, const uint64_t *packed, const int64_t *counts,
            int64_t *space, const float *vectors, const uint8_t *allowed, int by_key, int64_t *rows, int64_t *distances,
            double *similarities)
{
    task all = task_of(index, queries, wanted, packed, counts, space), *t = &all;
    int result = 1;
    t->vectors = vectors, t->allowed = allowed, t->by_key = by_key;
    for (int64_t q = 0; result > 0 && q < queries; q++) {
        int64_t start = t->starts[q], count = t->starts[q + 1] - start;
        int64_t room = least(count + most(count / 2, 64), t->within[q]);
        if (!count)
            continue;
        double *vector = doubled(vectors + q * t->bits, t->bits);
        item *items = malloc((room + 1) * sizeof *items);
        result = vector && items ? collect_one(t, q, vector, items, count, room, rows + start, distances + start,
                                               similarities + start) : -1;
        free(vector), free(items);
    }
    return result;
}
