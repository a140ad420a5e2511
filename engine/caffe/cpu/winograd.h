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
 * so value (r, c) of the transformed tile is combination r of the rows, then combination c of the columns.
 *
 * Channels are worked on in panels of 16, the values of a panel's channels next to each other, so that the transforms
 * and the products are vector operations whatever the map's width:
 *
 *     a row of a map        (columns, 16)                  a panel's row, from NCHW by transposing 8x8 values
 *     transformed tiles     (16, panels, tiles, 16)        value of a tile, panel, tile, channel of the panel
 *     transformed filters   (16, panels of outputs, channels, 16)
 *
 * Rows of tiles are counted through the whole batch: row g is row g % rows of image g / rows. `between`: from image to
 * image, in values (a group has not all channels of an image). */

#define PANEL 16
#define TAPS 9
#define VALUES 16 /* of a transformed tile or filter */
#define SUMMED 64 /* channels at a time in a product: a multiple of 16 */
#define MOST_ROWS 6 /* tiles at a time in a product: 12 of the 16 vector registers hold sums */

typedef float Vector __attribute__((vector_size(32), aligned(4)));

INLINE int64_t panels_of(int64_t channels) { return (channels + PANEL - 1) / PANEL; }

#ifdef __clang__
#define SHUFFLE(A, B, ...) __builtin_shufflevector(A, B, __VA_ARGS__)
#else
typedef int Indices __attribute__((vector_size(32)));
#define SHUFFLE(A, B, ...) __builtin_shuffle(A, B, (Indices){__VA_ARGS__})
#endif

/* out (8, 8) = in (8, 8) transposed; rows lie `to` and `from` values apart */
INLINE void transpose(float *restrict out, int64_t to, const float *restrict in, int64_t from)
{
    Vector pairs[8], fours[8];
    for (int r = 0; r < 8; r += 2) {
        Vector a = *(const Vector *)(in + r * from), b = *(const Vector *)(in + (r + 1) * from);
        pairs[r] = SHUFFLE(a, b, 0, 8, 1, 9, 4, 12, 5, 13);
        pairs[r + 1] = SHUFFLE(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int r = 0; r < 8; r += 4)
        for (int half = 0; half < 2; half++) {
            Vector a = pairs[r + half], b = pairs[r + 2 + half];
            fours[r + 2 * half] = SHUFFLE(a, b, 0, 1, 8, 9, 4, 5, 12, 13);
            fours[r + 2 * half + 1] = SHUFFLE(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int column = 0; column < 4; column++) {
        Vector a = fours[column], b = fours[4 + column];
        *(Vector *)(out + column * to) = SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11);
        *(Vector *)(out + (4 + column) * to) = SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

/* A row of a panel: out (count, 16), from column -pad on, zeros beyond the image and its channels. */
INLINE void read_row(float *restrict out, const float *plane, int64_t channels, int64_t row, int64_t height,
                     int64_t width, int64_t pad, int64_t count)
{
    if (row < 0 || row >= height || channels < PANEL)
        memset(out, 0, count * PANEL * sizeof *out);
    if (row < 0 || row >= height)
        return;
    int64_t inside = least(width, count - pad), area = height * width;
    const float *in = plane + row * width;
    memset(out, 0, pad * PANEL * sizeof *out);
    out += pad * PANEL;
    if (channels < PANEL || inside < 8) {
        for (int64_t j = 0; j < inside; j++)
            for (int64_t c = 0; c < channels; c++)
                out[j * PANEL + c] = in[c * area + j];
    } else
        for (int64_t j = 0; j < inside; j += 8) {
            j = least(j, inside - 8); /* the last ones once more */
            transpose(out + j * PANEL, PANEL, in + j, area);
            transpose(out + j * PANEL + 8, PANEL, in + 8 * area + j, area);
        }
    if (count - pad > inside)
        memset(out + inside * PANEL, 0, (count - pad - inside) * PANEL * sizeof *out);
}

/* The reverse: a row of a top from (width, 16). */
INLINE void write_row(float *plane, const float *restrict in, int64_t channels, int64_t row, int64_t height,
                      int64_t width)
{
    int64_t area = height * width;
    float *out = plane + row * width;
    if (channels < PANEL || width < 8) {
        for (int64_t c = 0; c < channels; c++)
            for (int64_t j = 0; j < width; j++)
                out[c * area + j] = in[j * PANEL + c];
    } else
        for (int64_t j = 0; j < width; j += 8) {
            j = least(j, width - 8);
            transpose(out + j, area, in + j * PANEL, PANEL);
            transpose(out + 8 * area + j, area, in + j * PANEL + 8, PANEL);
        }
}

typedef struct {
    int64_t images, channels, height, width, between; /* of a bottom or a top, or of a group's share of it */
} Maps;

#define LINES(COLUMNS) (8 * PANEL * (2 * (COLUMNS) + 2)) /* values that the transforms below need room for */
#define LINE(R) (lines + ((2 * i + (R)) & 3) * line_size)

/* tiles = B^T x B, tile rows [first, last) of a panel of the bottom `x`; tile values lie `matrix` floats apart */
INLINE void bottom_tiles(float *tiles, int64_t matrix, const float *x, const Maps *maps, int64_t panel, int64_t first,
                         int64_t last, int64_t rows, int64_t columns, int64_t pad, float *lines)
{
    int64_t channels = least(PANEL, maps->channels - panel * PANEL), count = 2 * columns + 2, line_size = count * PANEL;
    float *restrict combined = lines + 4 * line_size; /* `lines` has the last four rows: row r is in r & 3 */
    for (int64_t g = first; g < last; g++, tiles += columns * PANEL) {
        int64_t i = g % rows;
        const float *plane = x + g / rows * maps->between + panel * PANEL * maps->height * maps->width;
        for (int64_t line = i && g > first ? 2 : 0; line < 4; line++)
            read_row(LINE(line), plane, channels, 2 * i + line - pad, maps->height, maps->width, pad, count);
        const float *a = LINE(0), *b = LINE(1), *c = LINE(2), *d = LINE(3);
        ANY_ORDER
        for (int64_t k = 0; k < line_size; k++) {
            combined[k] = a[k] - c[k];
            combined[line_size + k] = b[k] + c[k];
            combined[2 * line_size + k] = c[k] - b[k];
            combined[3 * line_size + k] = b[k] - d[k];
        }
        for (int64_t j = 0; j < columns; j++)
            for (int row = 0; row < 4; row++)
                for (int half = 0; half < PANEL; half += 8) {
                    const Vector *in = (const Vector *)(combined + row * line_size + 2 * j * PANEL + half);
                    Vector first_ = in[0], second = in[2], third = in[4], fourth = in[6];
                    float *out = tiles + 4 * row * matrix + j * PANEL + half;
                    *(Vector *)(out + 0 * matrix) = first_ - third;
                    *(Vector *)(out + 1 * matrix) = second + third;
                    *(Vector *)(out + 2 * matrix) = third - second;
                    *(Vector *)(out + 3 * matrix) = second - fourth;
                }
    }
}

/* tiles = A dy A^T of a top's diff, the same way */
INLINE void diff_tiles(float *tiles, int64_t matrix, const float *dy, const Maps *maps, int64_t panel, int64_t first,
                       int64_t last, int64_t rows, int64_t columns, float *lines)
{
    int64_t channels = least(PANEL, maps->channels - panel * PANEL);
    float *upper = lines, *lower = lines + 2 * columns * PANEL;
    for (int64_t g = first; g < last; g++, tiles += columns * PANEL) {
        int64_t i = g % rows;
        const float *plane = dy + g / rows * maps->between + panel * PANEL * maps->height * maps->width;
        read_row(upper, plane, channels, 2 * i, maps->height, maps->width, 0, 2 * columns);
        read_row(lower, plane, channels, 2 * i + 1, maps->height, maps->width, 0, 2 * columns);
        for (int64_t j = 0; j < columns; j++)
            for (int half = 0; half < PANEL; half += 8) {
                const Vector *up = (const Vector *)(upper + 2 * j * PANEL + half);
                const Vector *low = (const Vector *)(lower + 2 * j * PANEL + half);
                Vector left[4] = {up[0], up[0] + low[0], up[0] - low[0], -low[0]};
                Vector right[4] = {up[2], up[2] + low[2], up[2] - low[2], -low[2]};
                for (int row = 0; row < 4; row++) {
                    float *out = tiles + 4 * row * matrix + j * PANEL + half;
                    *(Vector *)(out + 0 * matrix) = left[row];
                    *(Vector *)(out + 1 * matrix) = left[row] + right[row];
                    *(Vector *)(out + 2 * matrix) = left[row] - right[row];
                    *(Vector *)(out + 3 * matrix) = -right[row];
                }
            }
    }
}

/* y = A^T tiles A, and the bias (or NULL): tile rows [first, last) of a panel of the top */
INLINE void top_rows(float *y, const float *tiles, int64_t matrix, const float *bias, const Maps *maps, int64_t panel,
                     int64_t first, int64_t last, int64_t rows, int64_t columns, float *lines)
{
    int64_t channels = least(PANEL, maps->channels - panel * PANEL);
    float *upper = lines, *lower = lines + 2 * columns * PANEL, plus[PANEL] = {0};
    if (bias)
        memcpy(plus, bias + panel * PANEL, channels * sizeof *plus);
    for (int64_t g = first; g < last; g++) {
        for (int64_t j = 0; j < columns; j++, tiles += PANEL)
            for (int half = 0; half < PANEL; half += 8) {
                Vector up[4], low[4], more = *(const Vector *)(plus + half);
                for (int column = 0; column < 4; column++) {
                    const float *in = tiles + column * matrix + half;
                    Vector a = *(const Vector *)in, b = *(const Vector *)(in + 4 * matrix),
                           c = *(const Vector *)(in + 8 * matrix), d = *(const Vector *)(in + 12 * matrix);
                    up[column] = a + b + c;
                    low[column] = b - c - d;
                }
                Vector *above = (Vector *)(upper + 2 * j * PANEL + half);
                Vector *below = (Vector *)(lower + 2 * j * PANEL + half);
                above[0] = up[0] + up[1] + up[2] + more;
                above[2] = up[1] - up[2] - up[3] + more;
                below[0] = low[0] + low[1] + low[2] + more;
                below[2] = low[1] - low[2] - low[3] + more;
            }
        int64_t i = g % rows;
        float *plane = y + g / rows * maps->between + panel * PANEL * maps->height * maps->width;
        write_row(plane, upper, channels, 2 * i, maps->height, maps->width);
        if (2 * i + 1 < maps->height)
            write_row(plane, lower, channels, 2 * i + 1, maps->height, maps->width);
    }
}

/* OUT (16) += LEFT and RIGHT; = at the start. A sum of some products is added to the sum of all of them: the error is
 * smaller than where each product is added to the sum of all, and both operands stay in the nearest cache. */
#define ADD_SUMS(OUT, LEFT, RIGHT, START)                                                                             \
    do {                                                                                                              \
        Vector *sums_ = (Vector *)(OUT);                                                                              \
        sums_[0] = START ? LEFT : sums_[0] + LEFT;                                                                    \
        sums_[1] = START ? RIGHT : sums_[1] + RIGHT;                                                                  \
    } while (0)

/* Products of ROWS tiles with a panel of filters: out (ROWS, 16) += v (ROWS, channels) u (channels, 16), or = at the
 * start. `panel`: from panel to panel of v, in values. */
INLINE void multiply_tiles(const int ROWS, float *restrict out, const float *restrict v, int64_t panel,
                           const float *restrict u, int64_t channels, int start)
{
    Vector left[MOST_ROWS], right[MOST_ROWS];
    for (int r = 0; r < ROWS; r++)
        left[r] = right[r] = (Vector){0};
    for (int64_t from = 0; from < channels; from += PANEL, v += panel)
        for (int64_t c = 0, count = least(PANEL, channels - from); c < count; c++, u += PANEL) {
            Vector one = *(const Vector *)u, other = *(const Vector *)(u + 8);
            for (int r = 0; r < ROWS; r++) {
                left[r] += v[r * PANEL + c] * one;
                right[r] += v[r * PANEL + c] * other;
            }
        }
    for (int r = 0; r < ROWS; r++)
        ADD_SUMS(out + r * PANEL, left[r], right[r], start);
}

/* The same of all `count` tiles, in steps of nearly the same length. */
INLINE void multiply_panel(float *restrict out, const float *restrict v, int64_t count, int64_t panel,
                           const float *restrict u, int64_t channels, int start)
{
    for (int64_t left = count; left > 0;) {
        int64_t steps = (left + MOST_ROWS - 1) / MOST_ROWS, now = (left + steps - 1) / steps;
        switch (now) {
        case 6: multiply_tiles(6, out, v, panel, u, channels, start); break;
        case 5: multiply_tiles(5, out, v, panel, u, channels, start); break;
        case 4: multiply_tiles(4, out, v, panel, u, channels, start); break;
        case 3: multiply_tiles(3, out, v, panel, u, channels, start); break;
        case 2: multiply_tiles(2, out, v, panel, u, channels, start); break;
        default: multiply_tiles(1, out, v, panel, u, channels, start);
        }
        out += now * PANEL, v += now * PANEL, left -= now;
    }
}

/* G of three values of a column */
INLINE void filter_values(Vector *out, const Vector *in, int64_t step)
{
    Vector a = in[0], b = in[step], c = in[2 * step];
    out[0] = a;
    out[1] = 0.5f * (a + b + c);
    out[2] = 0.5f * (a - b + c);
    out[3] = c;
}

/* u (16, panels of outputs, channels, 16) = G w G^T of filters whose value (k, c, tap) is at `of_output` k +
 * `of_channel` c + tap, or if `turned` 8 - tap. */
EACH_PROCESSOR
void winograd_filters(float *u, const float *weight, int64_t outputs, int64_t channels, int64_t of_output,
                      int64_t of_channel, int64_t turned)
{
    int64_t panels = panels_of(outputs), matrix = panels * channels * PANEL;
#pragma omp parallel for collapse(2)
    for (int64_t panel = 0; panel < panels; panel++)
        for (int64_t c = 0; c < channels; c++) {
            float taps[TAPS][PANEL] = {{0}};
            for (int64_t k = 0; k < least(PANEL, outputs - panel * PANEL); k++)
                for (int tap = 0; tap < TAPS; tap++)
                    taps[tap][k] =
                        weight[(panel * PANEL + k) * of_output + c * of_channel + (turned ? TAPS - 1 - tap : tap)];
            float *out = u + (panel * channels + c) * PANEL;
            Vector lines[2][3][4], line[4];
            for (int half = 0; half < 2; half++)
                for (int column = 0; column < 3; column++)
                    filter_values(lines[half][column], (const Vector *)taps[column] + half, 3 * PANEL / 8);
            for (int row = 0; row < 4; row++)
                for (int half = 0; half < 2; half++) {
                    filter_values(line, &lines[half][0][row], 4);
                    for (int column = 0; column < 4; column++)
                        *(Vector *)(out + (4 * row + column) * matrix + 8 * half) = line[column];
                }
        }
}

/* y = x convolved by the transformed filters u, and the bias (or NULL). Each thread transforms `step` rows of tiles,
 * multiplies and transforms `group` panels of outputs at a time; its share of `workspace` has
 * 256 (panels of channels + group) (step columns) + LINES values. */
EACH_PROCESSOR
void winograd_convolve(float *y, const float *x, const float *u, const float *bias, float *workspace, int64_t images,
                       int64_t channels, int64_t height, int64_t width, int64_t x_between, int64_t outputs,
                       int64_t top_height, int64_t top_width, int64_t y_between, int64_t pad, int64_t step,
                       int64_t group, int64_t threads)
{
    Maps bottom = {images, channels, height, width, x_between};
    Maps top = {images, outputs, top_height, top_width, y_between};
    int64_t rows = (top_height + 1) / 2, columns = (top_width + 1) / 2, all = images * rows;
    int64_t in = panels_of(channels), out = panels_of(outputs), tiles = step * columns;
#pragma omp parallel num_threads(threads)
    {
        float *lines = workspace + omp_get_thread_num() * (VALUES * PANEL * (in + group) * tiles + LINES(columns));
        float *v = lines + LINES(columns), *products = v + VALUES * PANEL * in * tiles;
#pragma omp for schedule(dynamic)
        for (int64_t first = 0; first < all; first += step) {
            int64_t last = least(all, first + step), count = (last - first) * columns;
            for (int64_t p = 0; p < in; p++)
                bottom_tiles(v + p * tiles * PANEL, in * tiles * PANEL, x, &bottom, p, first, last, rows, columns,
                             pad, lines);
            for (int64_t from = 0; from < out; from += group) {
                int64_t to = least(out, from + group);
                for (int64_t value = 0; value < VALUES; value++)
                    for (int64_t p = from; p < to; p++)
                        for (int64_t c = 0; c < channels; c += SUMMED)
                            multiply_panel(products + ((p - from) * VALUES + value) * tiles * PANEL,
                                           v + (value * in * PANEL + c) * tiles, count, tiles * PANEL,
                                           u + ((value * out + p) * channels + c) * PANEL, least(SUMMED, channels - c),
                                           c == 0);
                for (int64_t p = from; p < to; p++)
                    top_rows(y, products + (p - from) * VALUES * tiles * PANEL, tiles * PANEL, bias, &top, p, first,
                             last, rows, columns, lines);
            }
        }
    }
}

/* Sums over `count` tiles: total (ROWS, 16) += d (count, ROWS of 16)^T v (count, 16). */
INLINE void add_products(const int ROWS, float *restrict total, const float *restrict d, const float *restrict v,
                         int64_t count, int start)
{
    Vector left[MOST_ROWS], right[MOST_ROWS];
    for (int r = 0; r < ROWS; r++)
        left[r] = right[r] = (Vector){0};
    for (int64_t t = 0; t < count; t++, d += PANEL, v += PANEL) {
        Vector one = *(const Vector *)v, other = *(const Vector *)(v + 8);
        for (int r = 0; r < ROWS; r++) {
            left[r] += d[r] * one;
            right[r] += d[r] * other;
        }
    }
    for (int r = 0; r < ROWS; r++)
        ADD_SUMS(total + r * PANEL, left[r], right[r], start);
}

/* G^T of four values of a column, `step` apart */
INLINE void filter_combinations(Vector *out, const Vector *in, int step)
{
    Vector a = in[0], b = in[step], c = in[2 * step], d = in[3 * step];
    out[0] = a + 0.5f * (b + c);
    out[1] = 0.5f * (b - c);
    out[2] = 0.5f * (b + c) + d;
}

/* dweight (outputs, channels, 3, 3), the gradient of the filters: the transforms' transposes, in the other order.
 *
 * The sums (16, panels of outputs, panels of channels, 16, 16) are shared out in `slices` of the rows of tiles, each
 * with sums of its own, and `parts` of the outputs, so that nobody waits for another before the end. Each of these
 * transforms `step` rows of tiles at a time: in `workspace` it has LINES + 256 (panels of channels + panels of outputs)
 * (step columns) values, behind the sums. */
EACH_PROCESSOR
void winograd_weight_gradient(float *dweight, const float *dy, const float *x, float *workspace, int64_t images,
                              int64_t channels, int64_t height, int64_t width, int64_t x_between, int64_t outputs,
                              int64_t top_height, int64_t top_width, int64_t y_between, int64_t pad, int64_t step,
                              int64_t slices, int64_t parts)
{
    Maps bottom = {images, channels, height, width, x_between};
    Maps top = {images, outputs, top_height, top_width, y_between};
    int64_t rows = (top_height + 1) / 2, columns = (top_width + 1) / 2, all = images * rows;
    int64_t in = panels_of(channels), out = panels_of(outputs), tiles = step * columns, square = PANEL * PANEL;
    int64_t matrix = in * out * square, room = LINES(columns) + VALUES * PANEL * (in + out) * tiles;
#pragma omp parallel num_threads(slices * parts)
    {
#pragma omp for collapse(2) schedule(static)
        for (int64_t slice = 0; slice < slices; slice++)
            for (int64_t part = 0; part < parts; part++) {
                float *lines = workspace + slices * VALUES * matrix + (slice * parts + part) * room;
                float *v = lines + LINES(columns), *d = v + VALUES * PANEL * in * tiles;
                int64_t begin = all * slice / slices, end = all * (slice + 1) / slices;
                int64_t from = out * part / parts, to = out * (part + 1) / parts;
                for (int64_t first = begin; first < end; first += step) {
                    int64_t last = least(end, first + step), count = (last - first) * columns;
                    for (int64_t p = 0; p < in; p++)
                        bottom_tiles(v + p * tiles * PANEL, in * tiles * PANEL, x, &bottom, p, first, last, rows,
                                     columns, pad, lines);
                    for (int64_t k = from; k < to; k++)
                        diff_tiles(d + k * tiles * PANEL, out * tiles * PANEL, dy, &top, k, first, last, rows, columns,
                                   lines);
                    for (int64_t value = 0; value < VALUES; value++)
                        for (int64_t k = from; k < to; k++)
                            for (int64_t p = 0; p < in; p++) {
                                float *sums = workspace + (slice * VALUES + value) * matrix + (k * in + p) * square;
                                const float *diffs = d + (value * out + k) * tiles * PANEL;
                                const float *bottoms = v + (value * in + p) * tiles * PANEL;
                                int start = first == begin;
                                add_products(6, sums, diffs, bottoms, count, start);
                                add_products(6, sums + 6 * PANEL, diffs + 6, bottoms, count, start);
                                add_products(4, sums + 12 * PANEL, diffs + 12, bottoms, count, start);
                            }
                }
            }
#pragma omp for collapse(2) schedule(static)
        for (int64_t k = 0; k < outputs; k++)
            for (int64_t p = 0; p < in; p++) {
                float taps[TAPS][PANEL], *to = dweight + (k * channels + p * PANEL) * TAPS;
                for (int half = 0; half < PANEL; half += 8) {
                    Vector lines[4][3], column_taps[3];
                    const float *from = workspace + (k / PANEL * in + p) * square + k % PANEL * PANEL + half;
                    for (int row = 0; row < 4; row++) {
                        Vector sums[4] = {{0}};
                        for (int column = 0; column < 4; column++, from += matrix)
                            for (int64_t slice = 0; slice < slices; slice++)
                                sums[column] += *(const Vector *)(from + slice * VALUES * matrix);
                        filter_combinations(lines[row], sums, 1);
                    }
                    for (int column = 0; column < 3; column++) {
                        filter_combinations(column_taps, &lines[0][column], 3);
                        for (int row = 0; row < 3; row++)
                            *(Vector *)(taps[3 * row + column] + half) = column_taps[row];
                    }
                }
                for (int64_t c = 0; c < least(PANEL, channels - p * PANEL); c++)
                    for (int tap = 0; tap < TAPS; tap++)
                        to[c * TAPS + tap] = taps[tap][c];
            }
    }
}
