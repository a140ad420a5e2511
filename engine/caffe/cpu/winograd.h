/* Winograd's F(2x2, 3x3): tiles of 4x4 bottom values, 2 apart, for 2x2 top values.
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
