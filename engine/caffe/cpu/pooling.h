/* Max pooling: the first maximum of each window, and its index y * width + x; a NaN counts as greater than all */

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

EACH_PROCESSOR
void max_pool(float *y, int32_t *index, const float *x, int64_t planes, int64_t height, int64_t width,
              int64_t pooled_height, int64_t pooled_width, int64_t kernel_height, int64_t kernel_width,
              int64_t stride_height, int64_t stride_width, int64_t pad_height, int64_t pad_width)
{
    int64_t reached = (pooled_width - 1) * stride_width + kernel_width;
#pragma omp parallel for
    for (int64_t plane = 0; plane < planes; plane++) {
        float padded[WIDEST], *column = padded + pad_width;
        int32_t padded_at[WIDEST], *at = padded_at + pad_width;
        for (int64_t i = 0; i < reached; i++)
            padded[i] = -INFINITY, padded_at[i] = INT32_MAX;
        for (int64_t row = 0; row < pooled_height; row++) {
            int64_t first = most(0, row * stride_height - pad_height);
            int64_t end = least(height, row * stride_height - pad_height + kernel_height);
            for (int64_t v = first; v < end; v++) {
                const float *values = x + (plane * height + v) * width;
                int32_t base = (int32_t)(v * width);
                if (v == first) {
                    for (int64_t i = 0; i < width; i++)
                        column[i] = values[i], at[i] = base + (int32_t)i;
                    continue;
                }
                ANY_ORDER
                for (int64_t i = 0; i < width; i++) {
                    int take = (values[i] > column[i]) | (values[i] != values[i]);
                    column[i] = take ? values[i] : column[i];
                    at[i] = take ? base + (int32_t)i : at[i];
                }
            }
            int64_t out = (plane * pooled_height + row) * pooled_width;
            if (stride_width == 1)
                across(y + out, index + out, padded, padded_at, pooled_width, kernel_width, 1);
            else if (stride_width == 2)
                across(y + out, index + out, padded, padded_at, pooled_width, kernel_width, 2);
            else
                across(y + out, index + out, padded, padded_at, pooled_width, kernel_width, stride_width);
        }
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
