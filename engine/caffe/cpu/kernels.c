/* The loops that torch has no fast operation for on a CPU: LRN across channels, max pooling, and the transforms of
 * Winograd's convolution. Built when the package is installed; kernels.py loads them and winograd.py says what the
 * transforms are for. All arrays are contiguous float32 in Caffe's order (N, C, H, W) unless said otherwise.
 *
 * OpenMP: the library that torch brings is already loaded by then, so these loops run in torch's own threads.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define BLOCK 512   /* positions of an image that are worked on together: rows that are long, and stay in the cache */
#define RATIOS 65536
#define WIDEST 1024 /* of a row, its padding included: nobody asks for a wider one, see kernels.py */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EACH_PROCESSOR
#endif
#define INLINE static inline __attribute__((always_inline))
#if defined(__GNUC__) && !defined(__clang__)
#define ANY_ORDER _Pragma("GCC ivdep")
#else
#define ANY_ORDER
#endif

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* ---- LRN across channels, beta 3/4: y = x s^-3/4, s = k + factor * the sum of x^2 over `size` channels */

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

/* ---- max pooling: the first maximum of each window, and its index y * width + x; a NaN counts as greater than all */

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

/* ---- Winograd's F(2x2, 3x3): tiles of 4x4 bottom values, 2 apart, for 2x2 top values.
 *
 *     bottom rows           one tile, x (4x4)      of its top, y (2x2)
 *     2i - pad    . . . . . .   x00 x01 x02 x03
 *     2i+1 - pad  . . . . . .   x10 x11 x12 x13         y00 y01    row 2i
 *     2i+2 - pad  . . . . . .   x20 x21 x22 x23         y10 y11    row 2i + 1
 *     2i+3 - pad  . . . . . .   x30 x31 x32 x33
 *                 |tile j |
 *                     |tile j+1|  shares two columns with tile j; tile row i + 1 shares two rows with tile row i
 *
 * B^T x combines the four rows, (B^T x) B the four columns, by the same four combinations:
 *
 *     combination  0: first - third   1: second + third   2: third - second   3: second - fourth
 *
 * so value (r, c) of the transformed tile is combination r of the rows, then combination c of the columns. A row is
 * kept as its even and its odd columns, for then the four columns of all tiles of a row of tiles are four contiguous
 * arrays: even[j], odd[j], even[j + 1], odd[j + 1].
 *
 * What is transformed is of shape (16, channels, images * rows * columns of tiles): a matrix for each of the 16 values
 * of a tile, which `matrix` floats lie between. `between`: from image to image, in values (a group has not all channels
 * of an image). */

/* A row as even and odd columns, from column -pad on; zeros beyond the image. */
INLINE void split(float *restrict even, float *restrict odd, const float *plane, int64_t row, int64_t height,
                  int64_t width, int64_t pad, int64_t count)
{
    float whole[WIDEST];
    memset(whole, 0, 2 * count * sizeof *whole);
    if (row >= 0 && row < height)
        memcpy(whole + pad, plane + row * width, least(width, 2 * count - pad) * sizeof *whole);
    for (int64_t i = 0; i < count; i++)
        even[i] = whole[2 * i], odd[i] = whole[2 * i + 1];
}

/* Row ROW of all transformed tiles of a row of tiles; OF(half, j) is combination ROW of the four bottom rows, there. */
#define TILE_ROW(ROW, OF)                                                                                             \
    ANY_ORDER                                                                                                         \
    for (int64_t j = 0; j < columns; j++) {                                                                           \
        float a = OF(even, j), b = OF(odd, j), c = OF(even, j + 1), d = OF(odd, j + 1);                               \
        out[(4 * ROW + 0) * matrix + j] = a - c;                                                                      \
        out[(4 * ROW + 1) * matrix + j] = b + c;                                                                      \
        out[(4 * ROW + 2) * matrix + j] = c - b;                                                                      \
        out[(4 * ROW + 3) * matrix + j] = b - d;                                                                      \
    }
/* The last four rows are in a ring of four, so that a row of tiles reads only two new ones: row r is in r & 3. */
#define LINE(HALF, LINE_, j) HALF[(2 * i + LINE_) & 3][j]
#define FIRST(HALF, j) (LINE(HALF, 0, j) - LINE(HALF, 2, j))
#define SECOND(HALF, j) (LINE(HALF, 1, j) + LINE(HALF, 2, j))
#define THIRD(HALF, j) (LINE(HALF, 2, j) - LINE(HALF, 1, j))
#define FOURTH(HALF, j) (LINE(HALF, 1, j) - LINE(HALF, 3, j))

/* tiles = B^T x B of a bottom, `rows` x `columns` tiles an image */
EACH_PROCESSOR
void winograd_bottom(float *tiles, const float *x, int64_t images, int64_t channels, int64_t height, int64_t width,
                     int64_t rows, int64_t columns, int64_t pad, int64_t between)
{
    int64_t all = images * rows * columns, matrix = channels * all;
#pragma omp parallel for collapse(2)
    for (int64_t c = 0; c < channels; c++)
        for (int64_t n = 0; n < images; n++) {
            float even[4][WIDEST / 2], odd[4][WIDEST / 2]; /* the last four rows: a ring */
            const float *plane = x + n * between + c * height * width;
            for (int64_t i = 0; i < rows; i++) {
                for (int64_t line = i ? 2 : 0; line < 4; line++)
                    split(even[(2 * i + line) & 3], odd[(2 * i + line) & 3], plane, 2 * i + line - pad, height, width,
                          pad, columns + 1);
                float *out = tiles + c * all + (n * rows + i) * columns;
                TILE_ROW(0, FIRST)
                TILE_ROW(1, SECOND)
                TILE_ROW(2, THIRD)
                TILE_ROW(3, FOURTH)
            }
        }
}

/* tiles = A dy A^T of a top's diff */
EACH_PROCESSOR
void winograd_diff(float *tiles, const float *dy, int64_t images, int64_t channels, int64_t height, int64_t width,
                   int64_t rows, int64_t columns, int64_t between)
{
    int64_t all = images * rows * columns, matrix = channels * all;
#pragma omp parallel for collapse(2)
    for (int64_t c = 0; c < channels; c++)
        for (int64_t n = 0; n < images; n++) {
            float even[2][WIDEST / 2], odd[2][WIDEST / 2];
            const float *plane = dy + n * between + c * height * width;
            for (int64_t i = 0; i < rows; i++) {
                for (int64_t line = 0; line < 2; line++)
                    split(even[line], odd[line], plane, 2 * i + line, height, width, 0, columns);
                float *out = tiles + c * all + (n * rows + i) * columns;
                for (int row = 0; row < 4; row++) {
                    float upper = row < 3, lower = row == 0 ? 0 : row == 1 ? 1 : -1;
                    ANY_ORDER
                    for (int64_t j = 0; j < columns; j++) {
                        float a = upper * even[0][j] + lower * even[1][j], b = upper * odd[0][j] + lower * odd[1][j];
                        out[(4 * row + 0) * matrix + j] = a;
                        out[(4 * row + 1) * matrix + j] = a + b;
                        out[(4 * row + 2) * matrix + j] = a - b;
                        out[(4 * row + 3) * matrix + j] = -b;
                    }
                }
            }
        }
}

/* y = A^T tiles A, and the bias (or NULL) */
EACH_PROCESSOR
void winograd_top(float *y, const float *tiles, const float *bias, int64_t images, int64_t channels, int64_t height,
                  int64_t width, int64_t rows, int64_t columns, int64_t between)
{
    int64_t all = images * rows * columns, matrix = channels * all;
#pragma omp parallel for collapse(2)
    for (int64_t c = 0; c < channels; c++)
        for (int64_t n = 0; n < images; n++) {
            float upper[WIDEST], lower[WIDEST], plus = bias ? bias[c] : 0;
            float *plane = y + n * between + c * height * width;
            for (int64_t i = 0; i < rows; i++) {
                const float *in = tiles + c * all + (n * rows + i) * columns;
                ANY_ORDER
                for (int64_t j = 0; j < columns; j++) {
                    float up[4], low[4];
                    for (int column = 0; column < 4; column++) {
                        float a = in[column * matrix + j], b = in[(4 + column) * matrix + j];
                        float c_ = in[(8 + column) * matrix + j], d = in[(12 + column) * matrix + j];
                        up[column] = a + b + c_;
                        low[column] = b - c_ - d;
                    }
                    upper[2 * j] = up[0] + up[1] + up[2] + plus;
                    upper[2 * j + 1] = up[1] - up[2] - up[3] + plus;
                    lower[2 * j] = low[0] + low[1] + low[2] + plus;
                    lower[2 * j + 1] = low[1] - low[2] - low[3] + plus;
                }
                memcpy(plane + 2 * i * width, upper, width * sizeof *upper);
                if (2 * i + 1 < height)
                    memcpy(plane + (2 * i + 1) * width, lower, width * sizeof *lower);
            }
        }
}
