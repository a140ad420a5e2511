/* BatchNorm and Scale: a channel at a time, so that what a pass reads again is still in the cache.
 *
 * A channel is `images` rows of `positions` contiguous values. Where these rows are short, several channels, which lie
 * next to each other in each image, are worked on together. Sums are of float32 within a part of a row, double beyond:
 * no less exact than torch's. */

#define ADDED 2048    /* values that are added up in float32, in 4 vectors of partial sums */
#define GROUP 64      /* channels that are worked on together, at most */
#define GROUPED 32768 /* values of all channels of a group together, about */

INLINE int64_t channels_together(int64_t images, int64_t positions)
{
    return most(1, least(GROUP, GROUPED / (images * positions)));
}

/* *first += the sum of A, *second += the sum of B, both of value i of a row */
#define ADD_UP(first, second, A, B)                                                                                   \
    for (int64_t start = 0; start < positions; start += ADDED) {                                                      \
        int64_t end = least(positions, start + ADDED), i = start, quarter = (end - start) / 4;                        \
        float a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;                                         \
        _Pragma("omp simd reduction(+ : a0, a1, a2, a3, b0, b1, b2, b3)")                                             \
        for (i = start; i < start + quarter; i++) {                                                                   \
            a0 += A(i), a1 += A(i + quarter), a2 += A(i + 2 * quarter), a3 += A(i + 3 * quarter);                     \
            b0 += B(i), b1 += B(i + quarter), b2 += B(i + 2 * quarter), b3 += B(i + 3 * quarter);                     \
        }                                                                                                             \
        for (i = start + 4 * quarter; i < end; i++)                                                                   \
            a0 += A(i), b0 += B(i);                                                                                   \
        first += (double)(a0 + a1) + (a2 + a3);                                                                       \
        second += (double)(b0 + b1) + (b2 + b3);                                                                      \
    }

/* y = (x - mean) * inverse, inverse = (variance + eps)^-1/2. y may be x. variance: the unbiased one, the one that is
 * kept; it and mean and inverse, (C,), are of the batch. */
EACH_PROCESSOR
void batch_norm(float *y, const float *x, float *mean, float *variance, float *inverse, int64_t images,
                int64_t channels, int64_t positions, float eps)
{
    int64_t together = channels_together(images, positions);
    double count = (double)images * positions;
#pragma omp parallel for
    for (int64_t first = 0; first < channels; first += together) {
        int64_t width = least(together, channels - first);
        double sums[GROUP] = {0}, squares[GROUP] = {0}, rests[GROUP] = {0};
        for (int64_t n = 0; n < images; n++)
            for (int64_t c = 0; c < width; c++) {
                const float *row = x + (n * channels + first + c) * positions;
#define VALUE(i) row[i]
#define NOTHING(i) 0
                ADD_UP(sums[c], rests[c], VALUE, NOTHING)
            }
        for (int64_t c = 0; c < width; c++)
            mean[first + c] = (float)(sums[c] / count);
        for (int64_t n = 0; n < images; n++)
            for (int64_t c = 0; c < width; c++) {
                const float *row = x + (n * channels + first + c) * positions, middle = mean[first + c];
#define DEVIATION(i) (row[i] - middle)
#define SQUARE(i) (DEVIATION(i) * DEVIATION(i))
                ADD_UP(squares[c], rests[c], SQUARE, DEVIATION)
            }
        for (int64_t c = 0; c < width; c++) { /* less what the mean's rounding adds */
            double all = squares[c] - rests[c] * rests[c] / count;
            variance[first + c] = (float)(all / (count - 1));
            inverse[first + c] = (float)(1 / sqrt(all / count + eps));
        }
        for (int64_t n = 0; n < images; n++)
            for (int64_t c = 0; c < width; c++) {
                int64_t start = (n * channels + first + c) * positions;
                const float *row = x + start, middle = mean[first + c], factor = inverse[first + c];
                float *out = y + start;
                ANY_ORDER
                for (int64_t i = 0; i < positions; i++)
                    out[i] = (row[i] - middle) * factor;
            }
    }
}

/* Of y = x * factor + bias: dfactor, dbias (C,), the sums of dy * x and dy, and dx = dy * factor (NULL: not wanted),
 * which may be dy. With `normalized`, of the y that batch_norm makes: dx = (dy - mean dy - x * mean (dy * x)) * factor,
 * where x is that y, and factor its inverse. */
EACH_PROCESSOR
void channel_gradient(float *dx, float *dfactor, float *dbias, const float *dy, const float *x, const float *factor,
                      int64_t images, int64_t channels, int64_t positions, int64_t normalized)
{
    int64_t together = channels_together(images, positions);
    double count = (double)images * positions;
#pragma omp parallel for
    for (int64_t first = 0; first < channels; first += together) {
        int64_t width = least(together, channels - first);
        double products[GROUP] = {0}, sums[GROUP] = {0};
        for (int64_t n = 0; n < images; n++)
            for (int64_t c = 0; c < width; c++) {
                int64_t start = (n * channels + first + c) * positions;
                const float *row = x + start, *diff = dy + start;
#define PRODUCT(i) (row[i] * diff[i])
#define DIFF(i) diff[i]
                ADD_UP(products[c], sums[c], PRODUCT, DIFF)
                if (dx == NULL || normalized)
                    continue;
                float by = factor[first + c], *out = dx + start;
                ANY_ORDER
                for (int64_t i = 0; i < positions; i++)
                    out[i] = diff[i] * by;
            }
        for (int64_t c = 0; c < width; c++)
            dfactor[first + c] = (float)products[c], dbias[first + c] = (float)sums[c];
        for (int64_t n = 0; n < images && normalized; n++)
            for (int64_t c = 0; c < width; c++) {
                int64_t start = (n * channels + first + c) * positions;
                const float *row = x + start, *diff = dy + start, by = factor[first + c];
                float *out = dx + start, along = (float)(products[c] / count), middle = (float)(sums[c] / count);
                ANY_ORDER
                for (int64_t i = 0; i < positions; i++)
                    out[i] = (diff[i] - middle - row[i] * along) * by;
            }
    }
}

/* y = x * factor + bias, channel by channel (bias NULL: 0). y may be x. */
EACH_PROCESSOR
void scale_channels(float *y, const float *x, const float *factor, const float *bias, int64_t images,
                    int64_t channels, int64_t positions)
{
#pragma omp parallel for
    for (int64_t each = 0; each < images * channels; each++) {
        const float *row = x + each * positions, by = factor[each % channels];
        float *out = y + each * positions, plus = bias ? bias[each % channels] : 0;
        ANY_ORDER
        for (int64_t i = 0; i < positions; i++)
            out[i] = row[i] * by + plus;
    }
}
