/* Keys of one octet and their counts in one pass, and the near ones of them, by AVX2. kernels.c includes this and has
 * loops that do the same for other keys and other processors. */

#define STEP 64               /* items whose keys are computed together */
#define MOST_OCTETS 16        /* of a code whose keys are of one octet */
#define MOST_LABEL_OCTETS 256 /* of labels */

/* What a query looks up: of each octet of a code twice its unlike bits, by the octet's low and high half; and those octets
 * of the labels in which the query has one. */
typedef struct {
    uint8_t low[MOST_OCTETS][32], high[MOST_OCTETS][32];
    int64_t label_octets;
    const uint8_t *labels[MOST_LABEL_OCTETS];
    uint8_t bits[MOST_LABEL_OCTETS];
} lookup;

#ifdef HAS_AVX2
#include <immintrin.h>

/* Whether the keys of a task are of one octet, and this processor can look them up. */
static int can_look_up(const task *t)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && t->kinds == 1 && 2 * t->bits + 1 < 256 &&
           t->label_octets <= MOST_LABEL_OCTETS;
}

static void set_lookup(lookup *l, const task *t, int64_t q)
{
    for (int64_t octet = 0; octet < t->octets; octet++) {
        uint8_t bits = t->query[q * t->octets + octet];
        for (int half = 0; half < 32; half++) { /* a vector has the 16 twice */
            l->low[octet][half] = 2 * __builtin_popcount((half ^ bits) & 15);
            l->high[octet][half] = 2 * __builtin_popcount((half ^ bits >> 4) & 15);
        }
    }
    l->label_octets = 0;
    for (int64_t octet = 0; octet < t->label_octets; octet++)
        if (t->query_labels[q * t->label_octets + octet]) {
            l->bits[l->label_octets] = t->query_labels[q * t->label_octets + octet];
            l->labels[l->label_octets++] = t->database_labels + octet * t->items;
        }
}

#define LOAD(address) _mm256_loadu_si256((const void *)(address))

/* Set the keys of items from `begin` on, as many whole STEPs as there are in `count`, and count them in pairs: two keys
 * are the place first + size * second. Returns for how many items. The counting waits for memory, the keys for the
 * vectors: together they take little more than the counting alone. */
__attribute__((target("avx2"))) static int64_t look_up(uint8_t *key, uint32_t *pairs, int64_t size, int64_t begin,
                                                       int64_t count, const lookup *l, const task *t)
{
    const __m256i half = _mm256_set1_epi8(15), zero = _mm256_setzero_si256(), one = _mm256_set1_epi8(1);
    const __m256i gap = _mm256_set1_epi16(256 - size); /* two octets are first + 256 * second */
    uint16_t places[STEP / 2];
    int64_t i = 0;
    for (; i + STEP <= count; i += STEP) {
        const uint8_t *codes = t->database + begin + i;
        __m256i a = one, b = one, a_shared = zero, b_shared = zero;
        for (int64_t octet = 0; octet < t->octets; octet++, codes += t->items) {
            __m256i u = LOAD(codes), v = LOAD(codes + 32), low = LOAD(l->low[octet]), high = LOAD(l->high[octet]);
            a = _mm256_add_epi8(a, _mm256_shuffle_epi8(low, _mm256_and_si256(u, half)));
            b = _mm256_add_epi8(b, _mm256_shuffle_epi8(low, _mm256_and_si256(v, half)));
            a = _mm256_add_epi8(a, _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi16(u, 4), half)));
            b = _mm256_add_epi8(b, _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi16(v, 4), half)));
        }
        for (int64_t octet = 0; octet < l->label_octets; octet++) {
            const uint8_t *labels = l->labels[octet] + begin + i;
            __m256i bits = _mm256_set1_epi8(l->bits[octet]);
            a_shared = _mm256_or_si256(a_shared, _mm256_and_si256(bits, LOAD(labels)));
            b_shared = _mm256_or_si256(b_shared, _mm256_and_si256(bits, LOAD(labels + 32)));
        }
        a = _mm256_add_epi8(a, _mm256_cmpeq_epi8(a_shared, zero)); /* 1 - 1 where no label is shared */
        b = _mm256_add_epi8(b, _mm256_cmpeq_epi8(b_shared, zero));
        _mm256_storeu_si256((void *)(key + i), a);
        _mm256_storeu_si256((void *)(key + i + 32), b);
        a = _mm256_sub_epi16(a, _mm256_mullo_epi16(_mm256_srli_epi16(a, 8), gap));
        b = _mm256_sub_epi16(b, _mm256_mullo_epi16(_mm256_srli_epi16(b, 8), gap));
        _mm256_storeu_si256((void *)places, a);
        _mm256_storeu_si256((void *)(places + STEP / 4), b);
#pragma GCC unroll 32
        for (int pair = 0; pair < STEP / 2; pair++)
            pairs[places[pair]]++;
    }
    return i;
}

/* As `pick` in kernels.c. near may be written up to NEAR_MORE keys behind its end. */
__attribute__((target("avx2,bmi,popcnt"))) static int64_t pick_by_avx2(uint8_t *near, int64_t count, const uint8_t *key,
                                                                      int64_t size, int64_t limit)
{
    const __m256i limits = _mm256_set1_epi8(limit);
    int64_t begin = 0;
    for (; begin + 64 <= size; begin += 64) {
        __m256i a = LOAD(key + begin), b = LOAD(key + begin + 32);
        uint32_t low = _mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_min_epu8(a, limits), a));
        uint32_t high = _mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_min_epu8(b, limits), b));
        uint64_t is_near = low | (uint64_t)high << 32;
        int64_t end = count + __builtin_popcountll(is_near);
        for (int64_t i = 0; i < NEAR_MORE; i++) { /* without a branch: how many there are is hard to predict */
            near[count + i] = key[begin + __builtin_ctzll(is_near | (uint64_t)1 << 63)];
            is_near &= is_near - 1;
        }
        for (int64_t i = count + NEAR_MORE; i < end; i++) {
            near[i] = key[begin + __builtin_ctzll(is_near)];
            is_near &= is_near - 1;
        }
        count = end;
    }
    for (; begin < size; begin++)
        if (key[begin] <= limit)
            near[count++] = key[begin];
    return count;
}

#undef LOAD
#else
static int can_look_up(const task *t) { return (void)t, 0; }
static void set_lookup(lookup *l, const task *t, int64_t q) { (void)l, (void)t, (void)q; }
#endif
