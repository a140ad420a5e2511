/* Max pooling: the first maximum of each window, and its index y * width + x; a NaN counts as greater than all */

#define VECTOR 8   /* loops run over whole vectors where that is allowed: rows are short, and a rest takes as long */
#define BEYOND 64 /* that such loops may read of a row's buffer beyond its WIDEST values */

/* Of each column in 3 rows of x, the first maximum and its index. */
INLINE void down_3(float *restrict column, int32_t *restrict at, const float *restrict x, int32_t base, int64_t width,
                   int64_t length)
{
    ANY_ORDER
    for (int64_t i = 0; i < length; i++) {
        float best = x[i];
        int32_t known = base + (int32_t)i;
        for (int64_t row = 1; row < 3; row++) {
            float value = x[row * width + i];
            int take = (value > best) | (value != value);
            best = take ? value : best;
            known = take ? base + (int32_t)(row * width + i) : known;
        }
        column[i] = best, at[i] = known;
    }
}

/* The same of any number of rows. */
INLINE void down(float *restrict column, int32_t *restrict at, const float *restrict x, int32_t base, int64_t width,
                 int64_t count)
{
    for (int64_t i = 0; i < width; i++)
        column[i] = x[i], at[i] = base + (int32_t)i;
    for (int64_t row = 1; row < count; row++) {
        const float *values = x + row * width;
        int32_t start = base + (int32_t)(row * width);
        ANY_ORDER
        for (int64_t i = 0; i < width; i++) {
            int take = (values[i] > column[i]) | (values[i] != values[i]);
            column[i] = take ? values[i] : column[i];
            at[i] = take ? start + (int32_t)i : at[i];
        }
    }
}

/* Of each window in a row of columns' maxima, the greatest; of equal ones the one that comes first in the image. */
INLINE void across(float *restrict y, int32_t *restrict index, const float *restrict column,
                   const int32_t *restrict at, int64_t pooled, int64_t kernel, int64_t stride)
{
    for (int64_t i = 0; i < pooled; i++)
        y[i] = column[i * stride], index[i] = at[i * stride];
    for (int64_t tap = 1; tap < kernel; tap++) {
        ANY_ORDER
        for (int64_t i = 0; i < pooled; i++) {
            float value = column[i * stride + tap], best = y[i];
            int32_t here = at[i * stride + tap], known = index[i];
            int take = (value > best) | (value != value) | ((value == best) & (here < known));
            y[i] = take ? value : best;
            index[i] = take ? here : known;
        }
    }
}

/* The same of windows of 3 columns, 2 apart, in one loop: most nets have them. */
INLINE void across_3_2(float *restrict y, int32_t *restrict index, const float *restrict column,
                       const int32_t *restrict at, int64_t pooled)
{
    ANY_ORDER
    for (int64_t i = 0; i < pooled; i++) {
        float best = column[i * 2];
        int32_t known = at[i * 2];
        for (int64_t tap = 1; tap < 3; tap++) {
            float value = column[i * 2 + tap];
            int32_t here = at[i * 2 + tap];
            int take = (value > best) | (value != value) | ((value == best) & (here < known));
            best = take ? value : best;
            known = take ? here : known;
        }
        y[i] = best, index[i] = known;
    }
}

/* max_pool of one plane; `kernel` and `stride` are its width's. `after`: the values that may be read after it. */
INLINE void pool_plane(float *y, int32_t *index, const float *x, int64_t height, int64_t width, int64_t pooled_height,
                       int64_t pooled_width, int64_t kernel_height, int64_t kernel, int64_t stride_height,
                       int64_t stride, int64_t pad_height, int64_t pad_width, int64_t after)
{
    float padded[WIDEST + BEYOND], values[WIDEST + BEYOND], *column = padded + pad_width;
    int32_t padded_at[WIDEST + BEYOND], indices[WIDEST + BEYOND], *at = padded_at + pad_width;
    int64_t reached = (pooled_width - 1) * stride + kernel - pad_width;
    int64_t whole = (width + VECTOR - 1) / VECTOR * VECTOR, windows = (pooled_width + VECTOR - 1) / VECTOR * VECTOR;
    for (int64_t i = 0; i < pad_width; i++)
        padded[i] = -INFINITY, padded_at[i] = INT32_MAX;
    for (int64_t row = 0; row < pooled_height; row++) {
        int64_t first = most(0, row * stride_height - pad_height);
        int64_t count = least(height, row * stride_height - pad_height + kernel_height) - first;
        const float *rows = x + first * width;
        int32_t base = (int32_t)(first * width);
        int64_t length = (height - first - count) * width + after >= whole - width ? whole : width;
        if (count == 3)
            down_3(column, at, rows, base, width, length);
        else
            down(column, at, rows, base, width, count);
        for (int64_t i = width; i < reached; i++)
            column[i] = -INFINITY, at[i] = INT32_MAX;
        float *top = y + row * pooled_width;
        int32_t *top_index = index + row * pooled_width;
        if (kernel != 3 || stride != 2) {
            across(top, top_index, padded, padded_at, pooled_width, kernel, stride);
            continue;
        }
        across_3_2(values, indices, padded, padded_at, windows);
        memcpy(top, values, pooled_width * sizeof *top);
        memcpy(top_index, indices, pooled_width * sizeof *top_index);
    }
}

EACH_PROCESSOR
void max_pool(float *y, int32_t *index, const float *x, int64_t planes, int64_t height, int64_t width,
              int64_t pooled_height, int64_t pooled_width, int64_t kernel_height, int64_t kernel_width,
              int64_t stride_height, int64_t stride_width, int64_t pad_height, int64_t pad_width)
{
#define POOL_PLANE(kernel, stride)                                                                                    \
    pool_plane(y + plane * pooled, index + plane * pooled, x + plane * size, height, width, pooled_height,            \
               pooled_width, kernel_height, kernel, stride_height, stride, pad_height, pad_width,                     \
               (planes - 1 - plane) * size)
    int64_t size = height * width, pooled = pooled_height * pooled_width;
#pragma omp parallel for
    for (int64_t plane = 0; plane < planes; plane++) {
        if (kernel_width == 3 && stride_width == 2)
            POOL_PLANE(3, 2);
        else if (stride_width == 2)
            POOL_PLANE(kernel_width, 2);
        else if (stride_width == 1)
            POOL_PLANE(kernel_width, 1);
        else
            POOL_PLANE(kernel_width, stride_width);
    }
}

/* The greater of two values; a NaN counts as greater than all. */
INLINE float greater(float value, float best) { return (value > best) | (value != value) ? value : best; }

/* Of each window in a row of columns' maxima, the greatest. Those of all windows with stride 1 are computed, from which
   every stride-th is taken: values side by side are many times as fast as values apart. */
INLINE void greatest(float *restrict y, const float *restrict column, int64_t pooled, int64_t kernel, int64_t stride)
{
    float every[WIDEST];
    int64_t windows = (pooled - 1) * stride + 1;
    ANY_ORDER
    for (int64_t i = 0; i < windows; i++)
        every[i] = kernel == 1 ? column[i] : greater(column[i + 1], column[i]);
    for (int64_t tap = 2; tap < kernel; tap++) {
        ANY_ORDER
        for (int64_t i = 0; i < windows; i++)
            every[i] = greater(column[i + tap], every[i]);
    }
    for (int64_t i = 0; i < pooled; i++)
        y[i] = every[i * stride];
}

/* max_pool without the indices, which a forward pass alone has no use for */
EACH_PROCESSOR
void max_pool_values(float *y, const float *x, int64_t planes, int64_t height, int64_t width, int64_t pooled_height,
                     int64_t pooled_width, int64_t kernel_height, int64_t kernel_width, int64_t stride_height,
                     int64_t stride_width, int64_t pad_height, int64_t pad_width)
{
    int64_t reached = (pooled_width - 1) * stride_width + kernel_width;
#pragma omp parallel for
    for (int64_t plane = 0; plane < planes; plane++) {
        float padded[WIDEST], *restrict column = padded + pad_width;
        for (int64_t i = 0; i < reached; i++)
            padded[i] = -INFINITY;
        for (int64_t row = 0; row < pooled_height; row++) {
            int64_t first = most(0, row * stride_height - pad_height);
            int64_t end = least(height, row * stride_height - pad_height + kernel_height);
            const float *restrict top = x + (plane * height + first) * width;
            int64_t below = end - first > 1 ? width : 0, last = end - first > 2 ? 2 * width : below;
            ANY_ORDER
            for (int64_t i = 0; i < width; i++)
                column[i] = greater(top[i + last], greater(top[i + below], top[i]));
            for (int64_t v = 3; v < end - first; v++) {
                ANY_ORDER
                for (int64_t i = 0; i < width; i++)
                    column[i] = greater(top[i + v * width], column[i]);
            }
            float *out = y + (plane * pooled_height + row) * pooled_width;
            if (kernel_width == 3 && stride_width == 2)
                greatest(out, padded, pooled_width, 3, 2);
            else if (kernel_width == 2 && stride_width == 2)
                greatest(out, padded, pooled_width, 2, 2);
            else if (stride_width == 1)
                greatest(out, padded, pooled_width, kernel_width, 1);
            else
                greatest(out, padded, pooled_width, kernel_width, stride_width);
        }
    }
}

void max_pool_gradient(float *dx, const float *dy, const int32_t *index, int64_t planes, int64_t size, int64_t pooled)
{
#pragma omp parallel for
    for (int64_t plane = 0; plane < planes; plane++) {
        float *out = dx + plane * size;
        memset(out, 0, size * sizeof *out);
        for (int64_t i = plane * pooled; i < (plane + 1) * pooled; i++)
            out[index[i]] += dy[i];
    }
}
