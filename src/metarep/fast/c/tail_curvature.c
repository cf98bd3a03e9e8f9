/* The derivatives (tangents) of block_tail.c along a direction, for Hessian-vector products of few images in float32.
 *
 * y is the map and y_t its derivative, in bfloat16 if half, as is d_y_t. Maps are n x h x w x out, channels last. A name
 * that ends in _t is a derivative; block_curvature.py has the formulas.
 */
#include "vectors.h"

#include <math.h>

/* z_t = live (start + slope y + factor y_t) at the maxima. found: 4 x out, of each channel: mean_t, shrink (-r_t / r),
 * start, slope. norm: as block_tail.c leaves it. */
INLINE void along(const float *y, const void *y_t, const uint8_t *which, const float *norm, const float *scale,
                  const float *scale_t, const float *shift_t, float *found, float *z_t, int64_t n, int h, int w, int out,
                  int half, float eps)
{
    const float *mean = norm, *variance = norm + out, *factor = norm + 2 * out;
    float *mean_t = found, *shrink = found + out, *start = found + 2 * out, *slope = found + 3 * out;
    const size_t places = (size_t)n * h * w;
    for (int c = 0; c < out; c += LANES) {
        numbers sum = {0}, product = {0};
        const numbers middle = at(mean + c);
        for (size_t p = 0; p < places; p++) {
            const numbers one = load(y_t, p * out + c, half);
            sum += one;
            product += one * (at(y + p * out + c) - middle);
        }
        for (int l = 0; l < LANES; l++) {
            const int i = c + l;
            const float r = 1 / sqrtf(variance[i] + eps);
            mean_t[i] = sum[l] / places;
            shrink[i] = product[l] / places * r * r;
            slope[i] = r * (scale_t[i] - scale[i] * shrink[i]);
            start[i] = shift_t[i] - factor[i] * mean_t[i] - slope[i] * mean[i];
        }
    }
    size_t done = 0;
    for (int64_t i = 0; i < n; i++)
        for (int row = 0; row + 1 < h; row += 2)
            for (int column = 0; column + 1 < w; column += 2)
                for (int c = 0; c < out; c += LANES, done += LANES) {
                    const whole k = marks(which + done);
                    numbers own = {0}, own_t = {0};
                    for (int other = 0; other < 4; other++) {
                        const size_t place = ((i * h + row + other / 2) * w + column + other % 2) * out + c;
                        own += keep(k == other, at(y + place));
                        own_t += keep(k == other, load(y_t, place, half));
                    }
                    *(numbers *)(z_t + done) =
                        keep(k != DEAD, at(start + c) + at(slope + c) * own + at(factor + c) * own_t);
                }
}

int metarep_tail_along(const float *y, const void *y_t, const uint8_t *which, const float *norm,
                              const float *scale, const float *scale_t, const float *shift_t, float *found, float *z_t,
                              int64_t n, int h, int w, int out, int half, float eps)
{
    if (half)
        along(y, y_t, which, norm, scale, scale_t, shift_t, found, z_t, n, h, w, out, 1, eps);
    else
        along(y, y_t, which, norm, scale, scale_t, shift_t, found, z_t, n, h, w, out, 0, eps);
    return 0;
}

/* d_y_t = (p g + factor g_t at the maxima) - (of_1 + of_c y + of_y y_t), and the derivatives of d_scale and d_shift, which
 * are the first two rows of back_t (2 x out). back: as block_tail.c leaves it, d_scale and d_shift first. */
INLINE void back_along(const float *above, const float *above_t, const uint8_t *which, const float *y, const void *y_t,
                       const float *norm, const float *scale_t, const float *found, const float *back, float *back_t,
                       void *d_y_t, int64_t n, int h, int w, int out, int half, float eps)
{
    const float *mean = norm, *variance = norm + out, *factor = norm + 2 * out;
    const float *mean_t = found, *shrink = found + out, *sum_gu = back, *sum_g = back + out;
    const float places = (float)n * h * w;
    const int rows = h / 2, columns = w / 2;
    for (int c = 0; c < out; c += LANES) {
        numbers sum = {0}, first = {0}, second = {0};
        for (int64_t i = 0; i < n; i++)
            for (int row = 0; row < rows; row++)
                for (int column = 0; column < columns; column++) {
                    const size_t done = ((i * rows + row) * columns + column) * out + c;
                    const whole k = marks(which + done);
                    const numbers g = at(above + done), g_t = at(above_t + done);
                    sum += keep(k != DEAD, g_t);
                    for (int other = 0; other < 4; other++) {
                        const size_t place = ((i * h + 2 * row + other / 2) * w + 2 * column + other % 2) * out + c;
                        first += keep(k == other, g_t) * at(y + place);
                        second += keep(k == other, g) * load(y_t, place, half);
                    }
                }
        float p[LANES], of_1[LANES], of_c[LANES], of_y[LANES];
        for (int l = 0; l < LANES; l++) {
            const int j = c + l;
            const float r = 1 / sqrtf(variance[j] + eps), s = factor[j] / places;
            const float s_t = scale_t[j] * r / places - s * shrink[j];
            const float sum_gu_t =
                r * (first[l] - mean[j] * sum[l] + second[l] - mean_t[j] * sum_g[j]) - shrink[j] * sum_gu[j];
            back_t[j] = sum_gu_t;
            back_t[out + j] = sum[l];
            p[l] = s_t * places;
            of_y[l] = s * sum_gu[j] * r;
            of_c[l] = (s_t * sum_gu[j] + s * sum_gu_t) * r - shrink[j] * of_y[l];
            of_1[l] = s_t * sum_g[j] + s * sum[l] - of_y[l] * mean_t[j] - of_c[l] * mean[j];
        }
        for (int64_t i = 0; i < n; i++)
            for (int row = 0; row < h; row++)
                for (int column = 0; column < w; column++) {
                    const size_t place = ((i * h + row) * w + column) * out + c;
                    numbers d = -at(of_1) - at(of_c) * at(y + place) - at(of_y) * load(y_t, place, half);
                    if (row / 2 < rows && column / 2 < columns) {
                        const size_t done = ((i * rows + row / 2) * columns + column / 2) * out + c;
                        const numbers due = at(p) * at(above + done) + at(factor + c) * at(above_t + done);
                        d += keep(marks(which + done) == row % 2 * 2 + column % 2, due);
                    }
                    store(d_y_t, place, d, half);
                }
    }
}

int metarep_tail_back_along(const float *above, const float *above_t, const uint8_t *which, const float *y,
                                   const void *y_t, const float *norm, const float *scale_t, const float *found,
                                   const float *back, float *back_t, void *d_y_t, int64_t n, int h, int w, int out,
                                   int half, float eps)
{
    if (half)
        back_along(above, above_t, which, y, y_t, norm, scale_t, found, back, back_t, d_y_t, n, h, w, out, 1, eps);
    else
        back_along(above, above_t, which, y, y_t, norm, scale_t, found, back, back_t, d_y_t, n, h, w, out, 0, eps);
    return 0;
}
