/* Conv4's first block on images: 3x3 convolution, norm, 2x2 maximum and ReLU in one pass forward and one back.
 *
 * The convolution's map is never stored. A window of 2x2 outputs is computed, and its maximum and the position of the
 * maximum are kept. The backward pass needs no more: the gradient of the map is zero except at the maxima, apart from
 * the part through mean and variance, which follows from the moments of 3x3 patches (formulas in first_block.py).
 */
#include "vectors.h"

#include <stdlib.h>
#include <string.h>

#define WIDE 2 /* vectors of channels at a time: as many as the registers hold */
#define TAPS 9

/* Copies the channels of an image into a buffer with a border of zeros. */
static void pad(const float *image, int channels, int h, int w, float *padded)
{
    for (int c = 0; c < channels; c++)
        for (int row = 0; row < h; row++)
            memcpy(padded + ((size_t)c * (h + 2) + row + 1) * (w + 2) + 1, image + ((size_t)c * h + row) * w,
                   sizeof(float) * w);
}

/* Computes the convolution at the four pixels of a window, for WIDE vectors of channels. */
INLINE void window_sums(const float *window, const float *filters, int channels, int plane, int across, int out,
                        numbers sum[4][WIDE])
{
    for (int k = 0; k < 4; k++)
        for (int v = 0; v < WIDE; v++)
            sum[k][v] = (numbers){0};
    for (int c = 0; c < channels; c++, window += plane, filters += (size_t)TAPS * out)
        for (int t = 0; t < TAPS; t++) {
            const float *x = window + t / 3 * across + t % 3;
            for (int v = 0; v < WIDE; v++) {
                const numbers f = at(filters + (size_t)t * out + v * LANES);
                sum[0][v] += f * x[0];
                sum[1][v] += f * x[1];
                sum[2][v] += f * x[across];
                sum[3][v] += f * x[across + 1];
            }
        }
}

static void forward_image(const float *padded, const float *filters, const float *factor, const float *offset,
                                 int channels, int h, int w, int out, int half, void *z, uint8_t *which)
{
    const int across = w + 2, plane = (h + 2) * across;
    for (int first = 0; first < out; first += LANES * WIDE)
        for (int row = 0; row < h; row += 2)
            for (int column = 0; column < w; column += 2) {
                const size_t place = ((size_t)(row / 2) * (w / 2) + column / 2) * out + first;
                numbers sum[4][WIDE];
                window_sums(padded + (size_t)row * across + column, filters + first, channels, plane, across, out, sum);
                for (int v = 0; v < WIDE; v++) {
                    numbers best = sum[0][v];
                    whole k = {0};
                    for (int other = 1; other < 4; other++) {
                        const whole more = sum[other][v] > best;
                        best = (numbers)choose(more, (whole)sum[other][v], (whole)best);
                        k = choose(more, (whole){0} + other, k);
                    }
                    best = best * at(factor + first + v * LANES) + at(offset + first + v * LANES);
                    const whole live = ~(best <= 0);
                    store(z, place + v * LANES, keep(live, best), half);
                    k = choose(live, k, (whole){0} + DEAD);
                    *(bytes *)(which + place + v * LANES) = __builtin_convertvector(k, bytes);
                }
            }
}

static void visit_image(const float *padded, const float *filters, const uint8_t *which, int channels, int h,
                               int w, int out, float *values)
{
    const int across = w + 2, plane = (h + 2) * across;
    for (int first = 0; first < out; first += LANES * WIDE)
        for (int row = 0; row < h; row += 2)
            for (int column = 0; column < w; column += 2) {
                const size_t place = ((size_t)(row / 2) * (w / 2) + column / 2) * out + first;
                numbers sum[4][WIDE];
                window_sums(padded + (size_t)row * across + column, filters + first, channels, plane, across, out, sum);
                for (int v = 0; v < WIDE; v++) {
                    const whole k = marks(which + place + v * LANES);
                    numbers chosen = {0};
                    for (int other = 0; other < 4; other++)
                        chosen += keep(k == other, sum[other][v]);
                    *(numbers *)(values + place + v * LANES) = chosen;
                }
            }
}

static void backward_image(const float *padded, const void *above, const uint8_t *which, int channels, int h,
                                  int w, int out, int half, float *d_filters, float *d_shift)
{
    const int across = w + 2;
    for (int first = 0; first < out; first += LANES * WIDE)
        for (int c = 0; c < channels; c++) {
            numbers sum[TAPS][WIDE], total[WIDE];
            for (int v = 0; v < WIDE; v++) {
                total[v] = (numbers){0};
                for (int t = 0; t < TAPS; t++)
                    sum[t][v] = (numbers){0};
            }
            for (int row = 0; row < h; row += 2)
                for (int column = 0; column < w; column += 2) {
                    const float *window = padded + ((size_t)c * (h + 2) + row) * across + column;
                    const size_t place = ((size_t)(row / 2) * (w / 2) + column / 2) * out + first;
                    numbers g[WIDE];
                    whole k[WIDE];
                    for (int v = 0; v < WIDE; v++) {
                        k[v] = marks(which + place + v * LANES);
                        g[v] = load(above, place + v * LANES, half);
                        total[v] += keep(k[v] != DEAD, g[v]);
                    }
                    for (int corner = 0; corner < 4; corner++) {
                        const float *x = window + corner / 2 * across + corner % 2;
                        numbers own[WIDE];
                        for (int v = 0; v < WIDE; v++)
                            own[v] = keep(k[v] == corner, g[v]);
                        for (int t = 0; t < TAPS; t++)
                            for (int v = 0; v < WIDE; v++)
                                sum[t][v] += own[v] * x[t / 3 * across + t % 3];
                    }
                }
            for (int v = 0; v < WIDE; v++) {
                if (c == 0)
                    *(numbers *)(d_shift + first + v * LANES) += total[v];
                for (int t = 0; t < TAPS; t++)
                    *(numbers *)(d_filters + ((size_t)c * TAPS + t) * out + first + v * LANES) += sum[t][v];
            }
        }
}

/* Sums of the patches' numbers, and of the products of each two of them. Rows are taken LANES at a time; the last group
 * overlaps the one before (or the row's end), and a mask takes out what was counted (or does not belong). */
static void moments_image(const float *padded, int channels, int h, int w, double *sums, double *products)
{
    const int across = w + 2, n = channels * TAPS, groups = (w + LANES - 1) / LANES;
    const int last = w < LANES ? 0 : w - LANES;
    float mask[2][LANES]; /* of the last group, and of the others */
    for (int l = 0; l < LANES; l++) {
        mask[0][l] = last + l >= (groups - 1) * LANES && last + l < w;
        mask[1][l] = 1;
    }
    for (int i = 0; i < n; i++) {
        const float *one = padded + (size_t)(i / TAPS) * (h + 2) * across + i % TAPS / 3 * across + i % 3;
        for (int c = i / TAPS; c < channels; c++) {
            const float *other = padded + (size_t)c * (h + 2) * across;
            numbers found[TAPS], sum = {0};
            for (int t = 0; t < TAPS; t++)
                found[t] = (numbers){0};
            for (int row = 0; row < h; row++)
                for (int g = 0; g < groups; g++) {
                    const int more = g < groups - 1;
                    const size_t x = (size_t)row * across + (more ? g * LANES : last);
                    const numbers a = at(one + x) * at(mask[more]);
                    sum += a;
                    for (int t = 0; t < TAPS; t++)
                        found[t] += a * at(other + x + t / 3 * across + t % 3);
                }
            for (int t = 0; t < TAPS; t++)
                for (int l = 0; l < LANES; l++)
                    products[i * n + c * TAPS + t] += found[t][l];
            for (int l = 0; l < LANES && c == i / TAPS; l++)
                sums[i] += sum[l];
        }
    }
}

static float *padding(int channels, int h, int w)
{
    return calloc((size_t)channels * (h + 2) * (w + 2) + LANES, sizeof(float)); /* LANES: read, and masked out */
}

/* All return 1 if memory cannot be allocated, else 0. images: n x channels x h x w, of even sides; filters: channels x 9 x
 * out, out a multiple of 32; factor, offset: what the norm does to a maximum; z, which, above: n x h / 2 x w / 2 x out,
 * z and above in bfloat16 if half, else in float32. */
int metarep_first_block(const float *images, const float *filters, const float *factor, const float *offset, void *z,
                        uint8_t *which, int64_t n, int channels, int h, int w, int out, int half)
{
    const size_t image = (size_t)channels * h * w, places = (size_t)(h / 2) * (w / 2) * out;
    float *padded = padding(channels, h, w);
    for (int64_t i = 0; padded && i < n; i++) {
        pad(images + i * image, channels, h, w, padded);
        forward_image(padded, filters, factor, offset, channels, h, w, out, half, (char *)z + i * places * (half ? 2 : 4),
                      which + i * places);
    }
    free(padded);
    return !padded;
}

/* values, in the shape of z and in float32: the convolution at the positions in which, 0 where there is no position. */
int metarep_first_block_at(const float *images, const float *filters, const uint8_t *which, float *values, int64_t n,
                           int channels, int h, int w, int out)
{
    const size_t image = (size_t)channels * h * w, places = (size_t)(h / 2) * (w / 2) * out;
    float *padded = padding(channels, h, w);
    for (int64_t i = 0; padded && i < n; i++) {
        pad(images + i * image, channels, h, w, padded);
        visit_image(padded, filters, which + i * places, channels, h, w, out, values + i * places);
    }
    free(padded);
    return !padded;
}

/* Adds to d_filters and d_shift, which have the shapes of filters and offset: the sums over pixels of the gradient times
 * the patch, and of the gradient, where the maximum was positive. */
int metarep_first_block_back(const float *images, const void *above, const uint8_t *which, float *d_filters,
                             float *d_shift, int64_t n, int channels, int h, int w, int out, int half)
{
    const size_t image = (size_t)channels * h * w, places = (size_t)(h / 2) * (w / 2) * out;
    float *padded = padding(channels, h, w);
    for (int64_t i = 0; padded && i < n; i++) {
        pad(images + i * image, channels, h, w, padded);
        backward_image(padded, (const char *)above + i * places * (half ? 2 : 4), which + i * places, channels, h, w, out,
                       half, d_filters, d_shift);
    }
    free(padded);
    return !padded;
}

/* Adds to sums (channels * 9) and products (square of that); of products of two channels, only the upper triangle. */
int metarep_patch_moments(const float *images, double *sums, double *products, int64_t n, int channels, int h, int w)
{
    float *padded = padding(channels, h, w);
    for (int64_t i = 0; padded && i < n; i++) {
        pad(images + i * channels * h * w, channels, h, w, padded);
        moments_image(padded, channels, h, w, sums, products);
    }
    free(padded);
    return !padded;
}
