/* Winograd's F(4x4, 5x5): tiles of 8x8 bottom values, 4 apart, for 4x4 top values.
 *
 * A tile is transformed along its columns, then along its rows, by one of three matrices (winograd_5x5.py), for
 * LANES channels at a time: maps are read and written a channel after the other, worked on with the channels innermost.
 * What is transformed is of shape (64, TILES_OF(images), CHANNELS_OF(channels)), each axis filled up: a matrix for each
 * of the 64 values of a tile. `between`: from image to image, in values (a group has not all channels of an image). */

#define LANES 8 /* of a Vector: see winograd.h */
#define DEEP 64 /* terms that are summed before they join others: longer sums lose precision */
#define WIDEST_5X5 256 /* of a map, the padding to complete tiles included: see winograd_5x5.py */

/* An odd number of tiles keeps the 64 matrices from competing for the same few lines of a cache. */
#define TILES_OF(images) ((images) * rows * columns | 1)
#define CHANNELS_OF(channels) (((channels) + LANES - 1) / LANES * LANES)

/* A row of `channels` (at most LANES) maps, from column -pad on, with the channels innermost; zeros beyond the map. */
INLINE void read_lanes(float line[][LANES], const float *maps, int64_t channels, int64_t row, int64_t height,
                       int64_t width, int64_t pad, int64_t extent)
{
    int64_t given = least(width, extent - pad), plane = height * width;
    memset(line, 0, extent * sizeof *line);
    if (row < 0 || row >= height)
        return;
    const float *values = maps + row * width;
    if (channels == LANES)
        for (int64_t i = 0; i < given; i++)
            for (int c = 0; c < LANES; c++)
                line[pad + i][c] = values[c * plane + i];
    else
        for (int64_t c = 0; c < channels; c++)
            for (int64_t i = 0; i < given; i++)
                line[pad + i][c] = values[c * plane + i];
}

INLINE Vector load(const float *from) { return *(const Vector *)from; }

/* out (high, wide * LANES) = a (high, deep) by b (deep, wide * LANES), plus what out held if `added`. A row of b is
 * b_row floats after the one before, of out out_row; a row of a is a_row, a column a_column. */
INLINE void multiply_block(const int high, const int wide, float *out, const float *a, const float *b, int64_t deep,
                           int64_t out_row, int64_t a_row, int64_t a_column, int64_t b_row, int added)
{
    Vector sums[6][2];
    for (int i = 0; i < high; i++)
        for (int j = 0; j < wide; j++)
            sums[i][j] = (Vector){0};
    for (int64_t k = 0; k < deep; k++) {
        Vector values[2];
        for (int j = 0; j < wide; j++)
            values[j] = load(b + k * b_row + j * LANES);
        for (int i = 0; i < high; i++)
            for (int j = 0; j < wide; j++)
                sums[i][j] += a[i * a_row + k * a_column] * values[j];
    }
    for (int i = 0; i < high; i++)
        for (int j = 0; j < wide; j++) {
            float *to = out + i * out_row + j * LANES;
            if (added)
                sums[i][j] += load(to);
            *(Vector *)to = sums[i][j];
        }
}

/* As multiply_block, for `height` rows of any number and sums of any length: of DEEP terms first, then of those. */
INLINE void multiply_rows(const int wide, float *out, const float *a, const float *b, int64_t height, int64_t deep,
                          int64_t out_row, int64_t a_row, int64_t a_column, int64_t b_row, int added)
{
#define ROWS(HIGH)                                                                                                    \
    for (; i + HIGH <= height; i += HIGH)                                                                             \
        multiply_block(HIGH, wide, out + i * out_row, a + i * a_row + k * a_column, b + k * b_row,                    \
                       least(DEEP, deep - k), out_row, a_row, a_column, b_row, added || k);
    for (int64_t k = 0; k < deep; k += DEEP) {
        int64_t i = 0;
        ROWS(6)
        ROWS(2)
        ROWS(1)
    }
}

/* The 64 products of matrices, as multiply_block; `width`, of b and out, is a multiple of LANES. A library's product has
 * costs that do not pay for so few channels. */
EACH_PROCESSOR
void winograd_5x5_multiply(float *out, const float *a, const float *b, int64_t height, int64_t width, int64_t deep,
                           int64_t out_matrix, int64_t a_matrix, int64_t b_matrix, int64_t a_row, int64_t a_column,
                           int64_t added)
{
#pragma omp parallel for
    for (int64_t m = 0; m < 64; m++) {
        float *product = out + m * out_matrix;
        const float *left = a + m * a_matrix, *right = b + m * b_matrix;
        int64_t j = 0;
        for (; j + 2 * LANES <= width; j += 2 * LANES)
            multiply_rows(2, product + j, left, right + j, height, deep, width, a_row, a_column, width, added);
        for (; j < width; j += LANES)
            multiply_rows(1, product + j, left, right + j, height, deep, width, a_row, a_column, width, added);
    }
}

/* B^T of a bottom's 8 values */
INLINE void bottom_5x5(Vector out[8], const Vector in[8])
{
    Vector even = in[2] - 4.25f * in[4] + in[6], odd = in[1] - 4.25f * in[3] + in[5];
    out[0] = in[6] - in[0] + 5.25f * (in[2] - in[4]);
    out[1] = even + odd;
    out[2] = even - odd;
    even = 0.25f * in[2] - 1.25f * in[4] + in[6], odd = 0.5f * in[1] - 2.5f * in[3] + 2 * in[5];
    out[3] = even + odd;
    out[4] = even - odd;
    even = 4 * in[2] - 5 * in[4] + in[6], odd = 2 * in[1] - 2.5f * in[3] + 0.5f * in[5];
    out[5] = even + odd;
    out[6] = even - odd;
    out[7] = in[7] - in[1] + 5.25f * (in[3] - in[5]);
}

/* A of a top diff's 4 values */
INLINE void diff_5x5(Vector out[8], const Vector in[4])
{
    Vector even = in[0] + in[2], odd = in[1] + in[3];
    out[0] = in[0];
    out[1] = even + odd;
    out[2] = even - odd;
    even = in[0] + 4 * in[2], odd = 2 * in[1] + 8 * in[3];
    out[3] = even + odd;
    out[4] = even - odd;
    even = in[0] + 0.25f * in[2], odd = 0.5f * in[1] + 0.125f * in[3];
    out[5] = even + odd;
    out[6] = even - odd;
    out[7] = in[3];
}

/* A^T of 8 products */
INLINE void top_5x5(Vector out[4], const Vector in[8])
{
    Vector sum = in[1] + in[2], sum2 = in[3] + in[4], half = in[5] + in[6];
    out[0] = in[0] + sum + sum2 + half;
    out[2] = sum + 4 * sum2 + 0.25f * half;
    sum = in[1] - in[2], sum2 = in[3] - in[4], half = in[5] - in[6];
    out[1] = sum + 2 * sum2 + 0.5f * half;
    out[3] = sum + 8 * sum2 + 0.125f * half + in[7];
}

/* Write the tiles of one row of tiles and LANES channels: TRANSFORM takes SIZE values, in LINE(0), LINE(1), ..., to 8. */
#define TILES_5X5(TRANSFORM, SIZE, LINE)                                                                              \
    for (int64_t k = 0; k < extent; k++) {                                                                            \
        Vector column[SIZE], out[8];                                                                                   \
        for (int l = 0; l < SIZE; l++)                                                                                \
            column[l] = load(LINE(l)[k]);                                                                             \
        TRANSFORM(out, column);                                                                                       \
        for (int u = 0; u < 8; u++)                                                                                   \
            combined[u][k] = out[u];                                                                                  \
    }                                                                                                                 \
    for (int64_t j = 0; j < columns; j++)                                                                             \
        for (int u = 0; u < 8; u++) {                                                                                 \
            Vector out[8];                                                                                             \
            float *to = tiles + 8 * u * matrix + ((n * rows + i) * columns + j) * filled + c;                         \
            TRANSFORM(out, combined[u] + 4 * j);                                                                      \
            for (int v = 0; v < 8; v++)                                                                               \
                *(Vector *)(to + v * matrix) = out[v];                                                                 \
        }

/* tiles = B^T x B of a bottom, `rows` x `columns` tiles an image */
EACH_PROCESSOR
void winograd_5x5_bottom(float *tiles, const float *x, int64_t images, int64_t channels, int64_t height, int64_t width,
                         int64_t rows, int64_t columns, int64_t pad, int64_t between)
{
    int64_t filled = CHANNELS_OF(channels), matrix = TILES_OF(images) * filled, extent = 4 * columns + 4;
#pragma omp parallel for collapse(2)
    for (int64_t n = 0; n < images; n++)
        for (int64_t c = 0; c < channels; c += LANES) {
            float band[8][WIDEST_5X5][LANES]; /* the last eight rows: a ring, row r is in r & 7 */
            Vector combined[8][WIDEST_5X5];
            for (int64_t i = 0; i < rows; i++) {
                for (int64_t line = i ? 4 : 0; line < 8; line++)
                    read_lanes(band[(4 * i + line) & 7], x + n * between + c * height * width,
                               least(LANES, channels - c), 4 * i + line - pad, height, width, pad, extent);
#define BOTTOM_LINE(line) band[(4 * i + line) & 7]
                TILES_5X5(bottom_5x5, 8, BOTTOM_LINE)
            }
        }
}

/* tiles = A dy A^T of a top's diff */
EACH_PROCESSOR
void winograd_5x5_diff(float *tiles, const float *dy, int64_t images, int64_t channels, int64_t height, int64_t width,
                       int64_t rows, int64_t columns, int64_t between)
{
    int64_t filled = CHANNELS_OF(channels), matrix = TILES_OF(images) * filled, extent = 4 * columns;
#pragma omp parallel for collapse(2)
    for (int64_t n = 0; n < images; n++)
        for (int64_t c = 0; c < channels; c += LANES) {
            float band[4][WIDEST_5X5][LANES];
            Vector combined[8][WIDEST_5X5];
            for (int64_t i = 0; i < rows; i++) {
                for (int64_t line = 0; line < 4; line++)
                    read_lanes(band[line], dy + n * between + c * height * width, least(LANES, channels - c),
                               4 * i + line, height, width, 0, extent);
#define DIFF_LINE(line) band[line]
                TILES_5X5(diff_5x5, 4, DIFF_LINE)
            }
        }
}

/* y = A^T tiles A, and the bias (or NULL) */
EACH_PROCESSOR
void winograd_5x5_top(float *y, const float *tiles, const float *bias, int64_t images, int64_t channels,
                      int64_t height, int64_t width, int64_t rows, int64_t columns, int64_t between)
{
    int64_t filled = CHANNELS_OF(channels), matrix = TILES_OF(images) * filled;
#pragma omp parallel for collapse(2)
    for (int64_t n = 0; n < images; n++)
        for (int64_t i = 0; i < rows; i++)
            for (int64_t c = 0; c < channels; c += LANES) {
                Vector band[4][WIDEST_5X5];
                for (int64_t j = 0; j < columns; j++) {
                    const float *from = tiles + ((n * rows + i) * columns + j) * filled + c;
                    Vector combined[4][8];
                    for (int v = 0; v < 8; v++) {
                        Vector in[8], out[4];
                        for (int u = 0; u < 8; u++)
                            in[u] = load(from + (8 * u + v) * matrix);
                        top_5x5(out, in);
                        for (int line = 0; line < 4; line++)
                            combined[line][v] = out[line];
                    }
                    for (int line = 0; line < 4; line++)
                        top_5x5(band[line] + 4 * j, combined[line]);
                }
                for (int64_t line = 0; line < least(4, height - 4 * i); line++)
                    for (int64_t k = 0; k < least(LANES, channels - c); k++) {
                        float *to = y + n * between + ((c + k) * height + 4 * i + line) * width;
                        float plus = bias ? bias[c + k] : 0;
                        const float *values = (const float *)band[line] + k;
                        for (int64_t column = 0; column < width; column++)
                            to[column] = values[LANES * column] + plus;
                    }
            }
}
