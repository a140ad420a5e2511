/* The loops of scoring: packed bits, rankings, average precision under ties. Built when the package is installed;
 * kernels.py loads them and says what each computes. Each call has its own queries or items: threads call it for theirs.
 *
 * Sums run in the order that is written here, on all machines: no -ffast-math, no fused multiply-add.
 */
#ifndef KEY

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { STABLE, EXPECTED, LOW, HIGH, CHANCE, MAY_MISS };

#define RADIUS 2         /* of the Hamming ball that papers report precision, recall and MAP in */
#define BINS 4096        /* coarse score bins, to sort only the part of a ranking that is looked at */
#define PAIR 2           /* queries that read the database's signs together, from the cache */
#define STRETCH 196608   /* database items whose keys each of them keeps at a time, in its core's cache */
#define TEAM 8           /* queries that a stretch serves before the next: it is read from memory once for them */
#define TOGETHER 4       /* queries that read the real-valued codes together */
#define BLOCK 2048       /* items whose codes stay in the cache while their keys or scores are summed */
#define VECTOR 32        /* bytes of keys that are compared together */
#define NEAR_MORE 4      /* keys that may be written behind the near ones */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define HAS_AVX2
#else
#define EACH_PROCESSOR
#endif
#define INLINE static inline __attribute__((always_inline))

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* ---- packed bits: (ceil(bits / 8), items), bits in order from the highest */

/* A product with it has 8 octets of 0 or 1, as they are in memory, as the bits of its highest octet. */
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define GATHER 0x0102040810204080u
#else
#define GATHER 0x8040201008040201u
#endif

/* Pack flags (count) of an item into octets that are `items` apart. */
INLINE void pack_flags(uint8_t *packed, const uint8_t *flags, int64_t items, int64_t count)
{
    for (; count > 0; count -= 8, flags += 8, packed += items) {
        uint64_t eight = 0;
        if (count >= 8)
            memcpy(&eight, flags, 8);
        else
            memcpy(&eight, flags, count);
        *packed = eight * GATHER >> 56;
    }
}

EACH_PROCESSOR
void pack(uint8_t *packed, const uint8_t *flags, int64_t items, int64_t bits, int64_t begin, int64_t end)
{
    for (int64_t item = begin; item < end; item++)
        pack_flags(packed + item, flags + item * bits, items, bits);
}

/* positive, sizes (bits): how many codes are at least 0, and sums of |code|; zeros at first. sums (3): the sum of sizes,
 * and how many codes are 0 and are not finite. */
EACH_PROCESSOR
void pack_signs(uint8_t *packed, int64_t *positive, double *sizes, double *sums, const float *codes, int64_t items,
                int64_t bits, int64_t begin, int64_t end)
{
    int64_t zeros = 0;
    for (int64_t item = begin; item < end; item++)
        for (int64_t first = 0; first < bits; first += 64) {
            const float *code = codes + item * bits + first;
            int64_t count = least(64, bits - first);
            uint8_t flags[64];
            int32_t equal = 0;
            for (int64_t bit = 0; bit < count; bit++) {
                flags[bit] = code[bit] >= 0;
                equal += code[bit] == 0;
            }
            for (int64_t bit = 0; bit < count; bit++)
                positive[first + bit] += code[bit] >= 0;
            for (int64_t bit = 0; bit < count; bit++)
                sizes[first + bit] += (double)fabsf(code[bit]);
            pack_flags(packed + first / 8 * items + item, flags, items, count);
            zeros += equal;
        }
    sums[1] = zeros;
    for (int64_t bit = 0; bit < bits; bit++)
        sums[0] += sizes[bit];
    for (int64_t item = begin; item < end && !isfinite(sums[0]); item++) {
        int finite = 1;
        for (int64_t bit = 0; bit < bits; bit++)
            finite &= isfinite(codes[item * bits + bit]) != 0;
        sums[2] += !finite;
    }
}

/* ---- average precision over the orders of ties. table (2, length): harmonic numbers and their rounding errors */

typedef struct {
    const double *value, *error;
} harmonic;

INLINE double reciprocals(harmonic table, int64_t begin, int64_t end) /* the sum of 1/p for p = begin + 1 .. end */
{
    return (table.value[end] - table.value[begin]) + (table.error[end] - table.error[begin]);
}

/* The sum of precision at `relevant` hits in a row after rank `begin`, `hits` hits before them. */
INLINE double packed_sum(harmonic table, int64_t begin, int64_t hits, int64_t relevant)
{
    if (relevant == 0)
        return 0;
    if (relevant == 1)
        return (double)(hits + 1) / (double)(begin + 1);
    /* (hits + i) / (begin + i) = 1 + (hits - begin) / (begin + i) */
    return relevant + (hits - begin) * reciprocals(table, begin, begin + relevant);
}

/* The expected sum of precision at hits when `relevant` of `size` ranks after `begin`, drawn at random, hit. Rank
 * begin + i hits with chance relevant/size; given that, (i - 1)(relevant - 1)/(size - 1) hits are expected in the ranks
 * of the group before it. */
INLINE double random_sum(harmonic table, int64_t begin, int64_t hits, int64_t size, int64_t relevant)
{
    if (relevant == 0 || relevant == size)
        return packed_sum(table, begin, hits, relevant);
    double sum = reciprocals(table, begin, begin + size), total = (hits + 1) * sum;
    if (relevant > 1)
        total += (double)(relevant - 1) / (double)(size - 1) * (size - (begin + 1) * sum);
    return total * relevant / size;
}

void ap_over_ties(const uint8_t *relevance, int64_t items, const int64_t *ends, int64_t groups, int64_t top,
                  int64_t over, const double *values, int64_t length, double *row)
{
    harmonic table = {values, values + length};
    int64_t begin = 0, end = 0, hits = 0, stable_hits = 0;
    double stable = 0, expected = 0, low = 0, high = 0;
    for (int64_t group = 0; group < groups; group++) {
        end = ends[group];
        if (begin >= top)
            break;
        for (int64_t rank = begin; rank < least(end, top); rank++) { /* no branch: hits are hard to predict */
            int64_t hit = relevance[rank];
            stable_hits += hit;
            stable += (double)(int32_t)(hit * stable_hits) / (double)(int32_t)(rank + 1);
        }
        if (end > top)
            break;
        int64_t relevant = stable_hits - hits;
        expected += random_sum(table, begin, hits, end - begin, relevant);
        high += packed_sum(table, begin, hits, relevant);
        low += packed_sum(table, end - relevant, hits, relevant);
        hits += relevant;
        begin = end;
    }
    row[STABLE] = stable_hits == 0 ? 0 : stable / (over > 0 ? over : stable_hits);

    /* The group that rank R cuts, if any: `slots` of its `size` items are in the top R, and `inside` of its `relevant`
     * ones, a hypergeometric number. Walk over it from the mode, chances relative to the mode's. */
    int64_t size = 0, relevant = 0, slots = 0;
    if (begin < top && begin < items) {
        size = end - begin;
        slots = top - begin;
        for (int64_t rank = begin; rank < end; rank++)
            relevant += relevance[rank];
    }
    int64_t fewest = most(0, relevant - (size - slots)), greatest = least(relevant, slots);
    int64_t mode = least(greatest, most(fewest, (relevant + 1) * (slots + 1) / (size + 2)));
    double weights = 0, missing = 0, mean = 0, lowest = INFINITY, highest = -INFINITY;
    row[MAY_MISS] = 0;
    for (int direction = 1; direction >= -1; direction -= 2) {
        double weight = 1;
        for (int64_t inside = mode; fewest <= inside && inside <= greatest; inside += direction) {
            if (direction == 1 || inside != mode) {
                weights += weight;
                if (hits + inside == 0) {
                    missing = weight;
                    row[MAY_MISS] = 1;
                } else {
                    double divisor = over > 0 ? over : hits + inside;
                    mean += weight * (expected + random_sum(table, begin, hits, slots, inside)) / divisor;
                    highest = fmax(highest, (high + packed_sum(table, begin, hits, inside)) / divisor);
                    lowest = fmin(lowest, (low + packed_sum(table, top - inside, hits, inside)) / divisor);
                }
            }
            if (direction == 1) {
                weight *= (double)((relevant - inside) * (slots - inside));
                weight /= (inside + 1.0) * (size - relevant - slots + inside + 1);
            } else {
                weight *= (double)(inside * (size - relevant - slots + inside));
                weight /= (relevant - inside + 1.0) * (slots - inside + 1);
            }
        }
    }
    row[EXPECTED] = mean / weights;
    row[CHANCE] = 1.0 - missing / weights;
    row[LOW] = highest > -INFINITY ? lowest : 0;
    row[HIGH] = highest > -INFINITY ? highest : 0;
}

/* aps (queries, 3): expected, least and greatest AP of the items within RADIUS; balls (queries, distances, 2) */
void ap_in_balls(double *aps, const int64_t *balls, int64_t queries, int64_t distances, const double *values,
                 int64_t length)
{
    harmonic table = {values, values + length};
    for (int64_t q = 0; q < queries; q++) {
        int64_t begin = 0, hits = 0;
        double *ap = aps + 3 * q;
        for (int64_t distance = 0; distance < least(RADIUS + 1, distances); distance++) {
            int64_t size = balls[2 * (q * distances + distance)], relevant = balls[2 * (q * distances + distance) + 1];
            ap[0] += random_sum(table, begin, hits, size, relevant);
            ap[1] += packed_sum(table, begin + size - relevant, hits, relevant);
            ap[2] += packed_sum(table, begin, hits, relevant);
            begin += size;
            hits += relevant;
        }
        for (int i = 0; i < 3; i++)
            ap[i] /= most(hits, 1);
    }
}

/* Hits in the top N for each N of ascending at (count): found (count, 2), ties in database order and expected. */
static void hits_over_ties(const uint8_t *relevance, const int64_t *ends, int64_t groups, const int64_t *at,
                           int64_t count, double *found)
{
    int64_t begin = 0, hits = 0, wanted = 0;
    for (int64_t group = 0; group < groups; group++) {
        int64_t end = ends[group], relevant = 0, inside = 0, rank = begin;
        for (int64_t i = begin; i < end; i++)
            relevant += relevance[i];
        for (; wanted < count && at[wanted] <= end; wanted++) {
            for (; rank < at[wanted]; rank++)
                inside += relevance[rank];
            found[2 * wanted] = hits + inside;
            found[2 * wanted + 1] = hits + (double)(relevant * (at[wanted] - begin)) / (double)(end - begin);
        }
        hits += relevant;
        begin = end;
    }
}

static double mean_precision(const uint8_t *relevance, int64_t count)
{
    int64_t hits = 0;
    double total = 0;
    for (int64_t rank = 0; rank < count; rank++) {
        int64_t hit = relevance[rank];
        hits += hit;
        total += (double)(int32_t)(hit * hits) / (double)(int32_t)(rank + 1);
    }
    return total / most(hits, 1);
}

/* ---- rankings */

INLINE int64_t ranks_needed(int64_t items, int64_t top, const int64_t *at, int64_t count)
{
    return least(items, count ? most(top, at[count - 1]) : top);
}

/* The greatest key of the best `need` items and of those that tie with the last; counts (size), by key. */
INLINE int64_t limit_of(const int64_t *counts, int64_t size, int64_t need)
{
    int64_t total = 0, key = -1;
    for (; total < need && key + 1 < size; key += 2)
        total += counts[key + 1] + counts[key + 2];
    return key;
}

INLINE uint8_t ones_of(uint8_t x) /* the number of set bits, in steps that become vectors */
{
    x -= (x >> 1) & 0x55;
    x = (x & 0x33) + ((x >> 2) & 0x33);
    return (x + (x >> 4)) & 0x0f;
}

typedef struct {
    int64_t queries, items, kinds, octets, label_octets, bits, top, over_relevant, depths, length;
    const uint8_t *query, *database, *query_labels, *database_labels;
    const int64_t *at;
    const double *table;
    double *statistics, *precisions, *ball_aps;
    int64_t *balls;
} task;

#include "keys_avx2.h"

#define KEY uint8_t
#define NAMED(name) name##_8
#include "kernels.c"
#undef KEY
#undef NAMED
#define KEY uint16_t
#define NAMED(name) name##_16
#include "kernels.c"
#undef KEY
#undef NAMED

/* Rank by the signs of codes for the queries from `first` to `last`; see kernels.py. False: no memory. */
int rank_by_signs(const task *t, int64_t first, int64_t last)
{
    return (2 * t->bits * t->kinds + 1 < 256 ? rank_8 : rank_16)(t, first, last);
}

/* scores (count, items): float64 dot products. Products of float32 are exact in float64 and each sum runs over the bits
 * in order, so equal codes get equal scores: no tie is made or broken by how a BLAS blocks its loops. */
EACH_PROCESSOR
static void dot_products(double *scores, const float *queries, const float *database, int64_t count, int64_t items,
                         int64_t bits)
{
    memset(scores, 0, count * items * sizeof *scores);
    for (int64_t begin = 0; begin < items; begin += BLOCK) {
        int64_t size = least(BLOCK, items - begin);
        for (int64_t q = 0; q < count; q++) {
            double *restrict part = scores + q * items + begin;
            for (int64_t bit = 0; bit < bits; bit += 4) {
                const float *query = queries + q * bits + bit, *rows = database + bit * items + begin;
                double a = query[0], b = query[1], c = query[2], d = query[3];
                for (int64_t i = 0; i < size; i++) {
                    double score = part[i] + a * (double)rows[i];
                    score = score + b * (double)rows[items + i];
                    score = score + c * (double)rows[2 * items + i];
                    part[i] = score + d * (double)rows[3 * items + i];
                }
            }
        }
    }
}

typedef struct {
    double score;
    int64_t item;
} scored;

static int by_score(const void *one, const void *other) /* descending, ties in database order */
{
    const scored *a = one, *b = other;
    return a->score != b->score ? (a->score < b->score ? 1 : -1) : (a->item > b->item) - (a->item < b->item);
}

/* The best `need` items and all that tie with the last of them, in order; returns how many. Bins of scores choose what
 * is sorted: whole bins from the best one down, so whole tie groups. */
static int64_t head(scored *chosen, const double *scores, int64_t items, int64_t need)
{
    double best = scores[0], worst = scores[0];
    for (int64_t i = 1; i < items; i++) {
        best = scores[i] > best ? scores[i] : best;
        worst = scores[i] < worst ? scores[i] : worst;
    }
    double scale = best > worst ? (BINS - 1) / (best - worst) : 0;
    int64_t counts[BINS] = {0}, last = 0, total = 0, count = 0;
    for (int64_t i = 0; i < items; i++)
        counts[(int64_t)((best - scores[i]) * scale)]++;
    for (; total + counts[last] < need; last++)
        total += counts[last];
    for (int64_t i = 0; i < items; i++)
        if ((int64_t)((best - scores[i]) * scale) <= last)
            chosen[count++] = (scored){scores[i], i};
    qsort(chosen, count, sizeof *chosen, by_score);
    return count;
}

/* Rank by descending dot products; query (queries, bits), database (bits, items) float32, bits a multiple of 4. */
int rank_by_dot(const task *t, int64_t first, int64_t last)
{
    int64_t items = t->items, need = ranks_needed(items, t->top, t->at, t->depths);
    double *scores = malloc(TOGETHER * items * sizeof *scores);
    scored *chosen = malloc(items * sizeof *chosen);
    int64_t *ends = malloc(items * sizeof *ends);
    uint8_t *shared = malloc(items), *relevance = malloc(items);
    int done = scores && chosen && ends && shared && relevance;
    for (; done && first < last; first += TOGETHER) {
        int64_t members = least(TOGETHER, last - first);
        dot_products(scores, (const float *)t->query + first * t->bits, (const float *)t->database, members, items,
                     t->bits);
        for (int64_t q = first; q < first + members; q++) {
            const double *score = scores + (q - first) * items;
            set_shared_8(shared, 0, items, t, q);
            int64_t count = head(chosen, score, items, need), groups = 0, over = 0;
            for (int64_t rank = 0; rank < count; rank++) {
                relevance[rank] = shared[chosen[rank].item];
                if (rank + 1 == count || chosen[rank + 1].score != chosen[rank].score)
                    ends[groups++] = rank + 1;
            }
            for (int64_t i = 0; t->over_relevant && i < items; i++)
                over += shared[i];
            ap_over_ties(relevance, count, ends, groups, t->top, over, t->table, t->length, t->statistics + 6 * q);
            hits_over_ties(relevance, ends, groups, t->at, t->depths, t->precisions + 2 * t->depths * q);
        }
    }
    free(scores), free(chosen), free(ends), free(shared), free(relevance);
    return done;
}

#else /* what ranks by signs, for keys of one octet and of two. An item's key is twice its distance, plus 1 if it is
       * relevant. */

/* Set key (size) to 1 where items from `begin` on share a label with query q, else to 0. */
INLINE void NAMED(set_shared)(KEY *restrict key, int64_t begin, int64_t size, const task *t, int64_t q)
{
    memset(key, 0, size * sizeof *key);
    for (int64_t octet = 0; octet < t->label_octets; octet++) {
        uint8_t bits = t->query_labels[q * t->label_octets + octet];
        const uint8_t *octets = t->database_labels + octet * t->items + begin;
        for (int64_t i = 0; i < size; i++)
            key[i] |= bits & octets[i];
    }
    for (int64_t i = 0; i < size; i++)
        key[i] = key[i] != 0;
}

/* Add twice the Hamming distances of items from `begin` on. */
INLINE void NAMED(add_twice_hamming)(KEY *restrict key, int64_t begin, int64_t size, const task *t, int64_t q)
{
    for (int64_t octet = 0; octet < t->octets; octet++) {
        uint8_t bits = t->query[q * t->octets + octet];
        const uint8_t *octets = t->database + octet * t->items + begin;
        for (int64_t i = 0; i < size; i++)
            key[i] += (uint8_t)(ones_of(bits ^ octets[i]) << 1);
    }
}

/* Add twice bits minus the dot products of signs, 0 having the sign 0; the second kind of bits are codes not 0. */
INLINE void NAMED(add_twice_distance)(KEY *restrict key, int64_t begin, int64_t size, const task *t, int64_t q)
{
    const uint8_t *query = t->query + 2 * q * t->octets;
    for (int64_t i = 0; i < size; i++)
        key[i] += 2 * t->bits;
    for (int64_t octet = 0; octet < t->octets; octet++) {
        uint8_t positive = query[octet], is_signed = query[t->octets + octet];
        const uint8_t *octets = t->database + octet * t->items + begin, *signs = octets + t->octets * t->items;
        for (int64_t i = 0; i < size; i++) {
            uint8_t both = is_signed & signs[i], unlike = ones_of((positive ^ octets[i]) & both);
            key[i] += (KEY)((unlike << 2) - (ones_of(both) << 1));
        }
    }
}

/* Count how often each key comes: two keys of one octet together in pairs (65536), or one of two octets; a last odd one
 * in counts. One increment for two keys: they are the greatest part of a query's time. */
INLINE void NAMED(count)(uint32_t *pairs, int64_t *counts, const KEY *key, int64_t size)
{
    int64_t each = 2 / sizeof(KEY), whole = size - size % each;
    for (int64_t i = 0; i < whole; i += each) {
        uint16_t pair;
        memcpy(&pair, key + i, sizeof pair);
        pairs[pair]++;
    }
    for (int64_t i = whole; i < size; i++)
        counts[key[i]]++;
}

/* Set the keys of items from `begin` on and count them, by what query q looks up, if that is not null. */
INLINE void NAMED(add_keys)(KEY *restrict key, uint32_t *pairs, int64_t *counts, int64_t begin, int64_t items,
                            const lookup *l, const task *t, int64_t q)
{
#ifdef HAS_AVX2
    if (sizeof(KEY) == 1 && l) {
        int64_t whole = look_up((uint8_t *)key, pairs, 2 * t->bits + 2, begin, items, l, t);
        key += whole, begin += whole, items -= whole;
    }
#endif
    NAMED(set_shared)(key, begin, items, t, q);
    if (t->kinds == 1)
        NAMED(add_twice_hamming)(key, begin, items, t, q);
    else
        NAMED(add_twice_distance)(key, begin, items, t, q);
    if (!l)
        NAMED(count)(pairs, counts, key, items);
    for (int64_t i = 0; l && i < items; i++)
        counts[key[i]]++;
}

/* Add to counts (size) what was counted in pairs, of which a second key has the place `stride`, and clear it there. */
INLINE void NAMED(move)(uint32_t *pairs, int64_t *counts, int64_t size, int64_t stride)
{
    if (sizeof(KEY) == 2) {
        for (int64_t i = 0; i < size; i++)
            counts[i] += pairs[i];
        memset(pairs, 0, size * sizeof *pairs);
        return;
    }
    for (int64_t second = 0; second < size; second++) {
        uint32_t *firsts = pairs + stride * second;
        int64_t total = 0;
        for (int64_t i = 0; i < size; i++) {
            counts[i] += firsts[i];
            total += firsts[i];
        }
        memset(firsts, 0, size * sizeof *firsts);
        counts[second] += total;
    }
}

typedef KEY NAMED(vector) __attribute__((vector_size(VECTOR)));

/* Put the keys (size) that are at most `limit` behind the first `count` of near, which may be their own memory; returns
 * how many there are then. */
INLINE int64_t NAMED(pick)(KEY *near, int64_t count, const KEY *key, int64_t size, int64_t limit)
{
#ifdef HAS_AVX2
    if (sizeof(KEY) == 1 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi"))
        return pick_by_avx2((uint8_t *)near, count, (const uint8_t *)key, size, limit);
#endif
    const int64_t lanes = VECTOR / sizeof(KEY), bits = 8 * sizeof(KEY);
    int64_t begin = 0;
    NAMED(vector) limits = (KEY)limit - (NAMED(vector)){0};
    for (; begin + lanes <= size; begin += lanes) {
        NAMED(vector) chunk, is_near;
        uint64_t words[VECTOR / 8];
        memcpy(&chunk, key + begin, VECTOR);
        is_near = (NAMED(vector))(chunk <= limits);
        memcpy(words, &is_near, VECTOR);
        for (int word = 0; word < VECTOR / 8; word++)
            while (words[word]) { /* an octet, or two, of ones for each key that is near, the first one lowest */
                int64_t place = __builtin_ctzll(words[word]);
                near[count++] = chunk[word * (64 / bits) + place / bits];
                words[word] ^= (uint64_t)(KEY)-1 << place;
            }
    }
    for (; begin < size; begin++)
        if (key[begin] <= limit)
            near[count++] = key[begin];
    return count;
}

/* Rank by near (count), keys of whole tie groups in database order, by counting sort, and measure the ranking. counts
 * (size): how many items have each key, near or not. relevance (count) and ends (distances): workspace. */
INLINE void NAMED(measure)(const KEY *near, int64_t count, const int64_t *counts, int64_t size, int64_t inside,
                           uint8_t *relevance, int64_t *ends, uint32_t *place, const task *t, int64_t q)
{
    int64_t total = 0, groups = 0, over = 0;
    for (int64_t d = 0; d < size / 2; d++) {
        int64_t group = counts[2 * d] + counts[2 * d + 1];
        if (group > 0 && total < count) {
            place[d] = total;
            ends[groups++] = total + group;
        }
        total += group;
        over += t->over_relevant ? counts[2 * d + 1] : 0;
    }
    for (int64_t i = 0; i < count; i++)
        relevance[place[near[i] >> 1]++] = near[i] & 1;
    ap_over_ties(relevance, count, ends, groups, t->top, over, t->table, t->length, t->statistics + 6 * q);
    hits_over_ties(relevance, ends, groups, t->at, t->depths, t->precisions + 2 * t->depths * q);
    t->ball_aps[q] = mean_precision(relevance, inside);
}

EACH_PROCESSOR
static int NAMED(rank)(const task *t, int64_t first, int64_t last)
{
    int64_t items = t->items, distances = t->bits * t->kinds + 1, size = 2 * distances;
    int64_t inner = least(2 * RADIUS + 1, size - 1); /* the greatest key within RADIUS */
    int64_t need = ranks_needed(items, t->top, t->at, t->depths), room = items + NEAR_MORE;
    uint32_t *pairs = calloc(PAIR * 65536, sizeof *pairs), *place = malloc(distances * sizeof *place);
    KEY *keys = malloc(PAIR * STRETCH * sizeof *keys), *nears = malloc(TEAM * room * sizeof *nears);
    int64_t *counts = malloc(TEAM * size * sizeof *counts), *ends = malloc(distances * sizeof *ends);
    uint8_t *relevance = malloc(items);
    lookup *lookups = malloc(TEAM * sizeof *lookups);
    int fast = sizeof(KEY) == 1 && can_look_up(t), done = pairs && place && keys && nears && counts && ends;
    done = done && relevance && lookups;
    for (; done && first < last; first += TEAM) {
        int64_t members = least(TEAM, last - first), near_counts[TEAM] = {0};
        memset(counts, 0, members * size * sizeof *counts);
        for (int64_t member = 0; fast && member < members; member++)
            set_lookup(lookups + member, t, first + member);
        for (int64_t start = 0; start < items; start += STRETCH) {
            int64_t stop = least(items, start + STRETCH);
            for (int64_t two = 0; two < members; two += PAIR) {
                int64_t end = least(two + PAIR, members);
                for (int64_t begin = start; begin < stop; begin += BLOCK)
                    for (int64_t member = two; member < end; member++) {
                        int64_t count = least(BLOCK, stop - begin), q = first + member;
                        KEY *key = keys + (member - two) * STRETCH + begin - start;
                        NAMED(add_keys)(key, pairs + (member - two) * 65536, counts + member * size, begin, count,
                                        fast ? lookups + member : NULL, t, q);
                    }
                for (int64_t member = two; member < end; member++) {
                    NAMED(move)(pairs + (member - two) * 65536, counts + member * size, size,
                                fast ? size : 256);
                    int64_t limit = most(inner, limit_of(counts + member * size, size, need));
                    near_counts[member] = NAMED(pick)(nears + member * room, near_counts[member],
                                                      keys + (member - two) * STRETCH, stop - start, limit);
                }
            }
        }
        for (int64_t member = 0; member < members; member++) {
            int64_t q = first + member, inside = 0, *counted = counts + member * size;
            for (int64_t d = 0; d < distances; d++) {
                t->balls[2 * (q * distances + d)] = counted[2 * d] + counted[2 * d + 1];
                t->balls[2 * (q * distances + d) + 1] = counted[2 * d + 1];
            }
            for (int64_t key = 0; key <= inner; key++)
                inside += counted[key];
            KEY *near = nears + member * room;
            int64_t limit = most(inner, limit_of(counted, size, need));
            int64_t count = NAMED(pick)(near, 0, near, near_counts[member], limit);
            NAMED(measure)(near, count, counted, size, inside, relevance, ends, place, t, q);
        }
    }
    free(pairs), free(place), free(keys), free(nears), free(counts), free(ends), free(relevance);
    free(lookups);
    return done;
}

#endif
