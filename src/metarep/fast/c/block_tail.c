/* The tail of a block of Conv4 (norm, 2x2 maximum and ReLU) in one pass forward and one back.
 *
 * Maps are n x h x w x out, channels last, out a multiple of 32, in bfloat16 if half, else in float32. block_tail.py has
 * the formulas.
 */
#include "vectors.h"

#include <math.h>

#define WIDE 2 /* vectors of channels at a time: a line of the cache in bfloat16 */
#define BLOCKS(out) for (int first = 0; first < (out); first += LANES * WIDE)
#define EACH for (int v = 0; v < WIDE; v++)

/* Adds to sums (2 x out) the sum of each channel over all pixels, and the sum of the squares. */
INLINE void map_moments(const void *y, double *sums, int64_t n, int h, int w, int out, int half)
{
    const size_t places = (size_t)h * w;
    for (int64_t i = 0; i < n; i++)
        BLOCKS(out)
        {
            numbers sum[WIDE] = {{0}}, square[WIDE] = {{0}};
            size_t place = i * places * out + first;
            for (size_t p = 0; p < places; p++, place += out)
                EACH
                {
                    const numbers one = load(y, place + v * LANES, half);
                    sum[v] += one;
                    square[v] += one * one;
                }
            EACH for (int l = 0; l < LANES; l++)
            {
                sums[first + v * LANES + l] += sum[v][l];
                sums[out + first + v * LANES + l] += square[v][l];
            }
        }
}

int metarep_map_moments(const void *y, double *sums, int64_t n, int h, int w, int out, int half)
{
    if (half)
        map_moments(y, sums, n, h, w, out, 1);
    else
        map_moments(y, sums, n, h, w, out, 0);
    return 0;
}

/* Computes for each channel, from the sums of several parts over all pixels: mean and variance (kept if there are no
 * parts), and factor and offset of the norm. norm: 4 x out, in this order. */
int metarep_norm(const double *sums, const float *scale, const float *shift, float *norm, int64_t parts, int out,
                 int places, float eps)
{
    float *mean = norm, *variance = norm + out, *factor = norm + 2 * out, *offset = norm + 3 * out;
    for (int c = 0; c < out; c++) {
        if (parts) {
            double sum = 0, square = 0;
            for (int64_t p = 0; p < parts; p++) {
                sum += sums[2 * p * out + c];
                square += sums[(2 * p + 1) * out + c];
            }
            sum /= places;
            square = square / places - sum * sum;
            mean[c] = (float)sum;
            variance[c] = square < 0 ? 0 : (float)square; /* NaN stays NaN */
        }
        factor[c] = scale[c] / sqrtf(variance[c] + eps);
        offset[c] = shift[c] - factor[c] * mean[c];
    }
    return 0;
}

/* z = relu(max(factor y + offset)), and the position (0 to 3) of the maximum in its window. */
INLINE void block_tail(const void *y, const float *norm, void *z, uint8_t *which,
                              int64_t n, int h, int w, int out, int half)
{
    const float *factor = norm + 2 * out, *offset = norm + 3 * out;
    size_t done = 0;
    for (int64_t i = 0; i < n; i++)
        for (int row = 0; row + 1 < h; row += 2)
            for (int column = 0; column + 1 < w; column += 2)
                for (int c = 0; c < out; c += LANES, done += LANES) {
                    const size_t corner = ((i * h + row) * w + column) * out + c;
                    const numbers gain = at(factor + c), shift = at(offset + c);
                    numbers best = load(y, corner, half) * gain + shift;
                    whole k = {0};
                    for (int other = 1; other < 4; other++) {
                        const size_t place = corner + ((size_t)(other / 2) * w + other % 2) * out;
                        const numbers v = load(y, place, half) * gain + shift;
                        const whole more = v > best;
                        best = (numbers)choose(more, (whole)v, (whole)best);
                        k = choose(more, (whole){0} + other, k);
                    }
                    const whole live = ~(best <= 0); /* NaN passes, so that it is noticed later */
                    store(z, done, keep(live, best), half);
                    *(bytes *)(which + done) = __builtin_convertvector(choose(live, k, (whole){0} + DEAD), bytes);
                }
}

int metarep_block_tail(const void *y, const float *norm, void *z, uint8_t *which,
                              int64_t n, int h, int w, int out, int half)
{
    if (half)
        block_tail(y, norm, z, which, n, h, w, out, 1);
    else
        block_tail(y, norm, z, which, n, h, w, out, 0);
    return 0;
}

/* Adds to sums (2 x out) the gradient where z is positive, and that gradient times y at the maximum. */
INLINE void block_tail_sums(const void *above, const uint8_t *which, const void *y, float *sums,
                                   int64_t n, int h, int w, int out, int half)
{
    for (int64_t i = 0; i < n; i++)
        BLOCKS(out)
        {
            numbers sum[WIDE] = {{0}}, product[WIDE] = {{0}};
            size_t done = i * (h / 2) * (w / 2) * out + first;
            for (int row = 0; row + 1 < h; row += 2)
                for (int column = 0; column + 1 < w; column += 2, done += out)
                    EACH
                    {
                        const size_t corner = ((i * h + row) * w + column) * out + first + v * LANES;
                        const whole k = marks(which + done + v * LANES);
                        const numbers g = load(above, done + v * LANES, half);
                        sum[v] += keep(k != DEAD, g);
                        for (int other = 0; other < 4; other++)
                            product[v] += keep(k == other, g) *
                                          load(y, corner + ((size_t)(other / 2) * w + other % 2) * out, half);
                    }
            EACH for (int l = 0; l < LANES; l++)
            {
                sums[first + v * LANES + l] += sum[v][l];
                sums[out + first + v * LANES + l] += product[v][l];
            }
        }
}

int metarep_block_tail_sums(const void *above, const uint8_t *which, const void *y, float *sums,
                                   int64_t n, int h, int w, int out, int half)
{
    if (half)
        block_tail_sums(above, which, y, sums, n, h, w, out, 1);
    else
        block_tail_sums(above, which, y, sums, n, h, w, out, 0);
    return 0;
}

/* Computes for each channel, from the sums of several parts: the gradients of scale and shift, and the gradient of each
 * pixel through mean and variance, which is constant + slope y. found: 4 x out, in this order. */
int metarep_norm_back(const float *sums, const float *norm, float *found, int64_t parts, int out, int places, float eps)
{
    const float *mean = norm, *variance = norm + out, *factor = norm + 2 * out;
    float *d_scale = found, *d_shift = found + out, *constant = found + 2 * out, *slope = found + 3 * out;
    for (int c = 0; c < out; c++) {
        float sum = 0, product = 0;
        for (int64_t p = 0; p < parts; p++) {
            sum += sums[2 * p * out + c];
            product += sums[(2 * p + 1) * out + c];
        }
        const float inverse = 1 / sqrtf(variance[c] + eps), share = factor[c] / places;
        d_shift[c] = sum;
        d_scale[c] = inverse * (product - mean[c] * sum);
        slope[c] = share * d_scale[c] * inverse;
        constant[c] = share * sum - slope[c] * mean[c];
    }
    return 0;
}

/* d_y = factor (gradient at the maximum) - (constant + slope y); the second term only if the images are counted. */
INLINE void block_tail_back(const void *above, const uint8_t *which, const void *y, const float *norm,
                            const float *found, void *d_y, int64_t n, int h, int w, int out, int half, int counted)
{
    const float *factor = norm + 2 * out, *constant = found + 2 * out, *slope = found + 3 * out;
    for (int64_t i = 0; i < n; i++)
        for (int row = 0; row < h; row += 2)
            for (int column = 0; column < w; column += 2) {
                const int pooled = row + 1 < h && column + 1 < w; /* an odd side's last row and column are not pooled */
                const size_t from = ((i * (h / 2) + row / 2) * (w / 2) + column / 2) * out;
                const size_t corner = ((i * h + row) * w + column) * out;
                for (int c = 0; c < out; c += LANES) {
                    whole k = {0};
                    numbers g = {0};
                    if (pooled) {
                        k = marks(which + from + c);
                        g = load(above, from + c, half) * at(factor + c);
                    }
                    const numbers one = at(constant + c), two = at(slope + c);
                    for (int other = 0; other < 4; other++) {
                        if (row + other / 2 >= h || column + other % 2 >= w)
                            continue;
                        const size_t place = corner + ((size_t)(other / 2) * w + other % 2) * out + c;
                        numbers d = keep(k == other, g);
                        if (counted)
                            d -= one + two * load(y, place, half);
                        store(d_y, place, d, half);
                    }
                }
            }
}

int metarep_block_tail_back(const void *above, const uint8_t *which, const void *y, const float *norm,
                                   const float *found, void *d_y, int64_t n, int h, int w, int out,
                                   int half, int counted)
{
    if (half && counted)
        block_tail_back(above, which, y, norm, found, d_y, n, h, w, out, 1, 1);
    else
        block_tail_back(above, which, y, norm, found, d_y, n, h, w, out, half, counted);
    return 0;
}
