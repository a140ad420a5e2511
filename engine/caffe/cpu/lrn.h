/* LRN across channels, beta 3/4: y = x s^-3/4, s = k + factor * the sum of x^2 over `size` channels */

#define BLOCK 512   /* positions of an image that are worked on together: rows that are long, and stay in the cache */
#define RATIOS 65536 /* of a block in lrn_gradient */

INLINE void scales(float *restrict s, const float *x, int64_t c, int64_t channels, int64_t positions, int64_t size,
                   int64_t count, float factor, float k)
{
    for (int64_t i = 0; i < count; i++)
        s[i] = 0;
    for (int64_t other = most(0, c - size / 2); other < least(channels, c + size / 2 + 1); other++) {
        const float *row = x + other * positions;
        for (int64_t i = 0; i < count; i++)
            s[i] += row[i] * row[i];
    }
    for (int64_t i = 0; i < count; i++)
        s[i] = k + factor * s[i];
}

EACH_PROCESSOR
void lrn(float *y, const float *x, int64_t images, int64_t channels, int64_t positions, int64_t size, float factor,
         float k)
{
    int64_t blocks = (positions + BLOCK - 1) / BLOCK;
#pragma omp parallel for collapse(2)
    for (int64_t n = 0; n < images; n++)
        for (int64_t block = 0; block < blocks; block++) {
            float s[BLOCK];
            int64_t start = n * channels * positions + block * BLOCK, count = least(BLOCK, positions - block * BLOCK);
            for (int64_t c = 0; c < channels; c++) {
                const float *row = x + start + c * positions;
                float *out = y + start + c * positions;
                scales(s, x + start, c, channels, positions, size, count, factor, k);
                ANY_ORDER
                for (int64_t i = 0; i < count; i++) {
                    float root = sqrtf(s[i]);
                    out[i] = row[i] / (root * sqrtf(root));
                }
            }
        }
}

/* dx = dy s^-3/4 - 3/2 factor x * the sum of dy y / s over `size` channels */
EACH_PROCESSOR
void lrn_gradient(float *dx, const float *x, const float *dy, int64_t images, int64_t channels, int64_t positions,
                  int64_t size, float factor, float k)
{
    int64_t length = least(BLOCK, RATIOS / channels), blocks = (positions + length - 1) / length;
#pragma omp parallel for collapse(2)
    for (int64_t n = 0; n < images; n++)
        for (int64_t block = 0; block < blocks; block++) {
            float s[BLOCK], ratios[RATIOS];
            int64_t start = n * channels * positions + block * length;
            int64_t count = least(length, positions - block * length);
            for (int64_t c = 0; c < channels; c++) {
                const float *row = x + start + c * positions, *diff = dy + start + c * positions;
                float *out = dx + start + c * positions, *ratio = ratios + c * length;
                scales(s, x + start, c, channels, positions, size, count, factor, k);
                ANY_ORDER
                for (int64_t i = 0; i < count; i++) {
                    float root = sqrtf(s[i]), direct = diff[i] / (root * sqrtf(root));
                    out[i] = direct;
                    ratio[i] = direct * row[i] / s[i];
                }
            }
            for (int64_t c = 0; c < channels; c++) {
                const float *row = x + start + c * positions;
                float *out = dx + start + c * positions;
                for (int64_t i = 0; i < count; i++)
                    s[i] = 0;
                for (int64_t other = most(0, c - size / 2); other < least(channels, c + size / 2 + 1); other++) {
                    const float *ratio = ratios + other * length;
                    for (int64_t i = 0; i < count; i++)
                        s[i] += ratio[i];
                }
                ANY_ORDER
                for (int64_t i = 0; i < count; i++)
                    out[i] -= 1.5f * factor * row[i] * s[i];
            }
        }
}
