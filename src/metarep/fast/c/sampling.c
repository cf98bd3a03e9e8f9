/* Samples every image of a batch under its own affine map: bilinear, with the edge repeated beyond the edge.
 *
 * It goes from bytes to floats in one pass. The four neighbours of a position are two pairs of adjacent bytes, so a
 * pixel costs two loads; all other steps process many pixels at a time. Rows of the view follow each other in the work
 * arrays. Each is computed a few pixels too long, and the next row overwrites them, so no row has a slow remainder.
 */
#include "vectors.h"

#include <string.h>

#define BLOCK 1024 /* pixels of the view at a time: the work arrays stay in the nearest cache; also the widest image */

static inline float clip(float v, float high)
{
    v = v > 0 ? v : 0; /* NaN becomes 0 too */
    return v < high ? v : high;
}

/* Computes for each position the offset of its upper left neighbour, and its distance from it to the right and down. In
 * units of -1 to 1 the centre of pixel j is (2 j + 1) / width - 1; here positions are in pixels. */
static void find(const float *map, int first, int rows, int height, int width, int32_t *restrict at,
                        float *restrict right, float *restrict down)
{
    const float w = (float)width, h = (float)height;
    const float across = map[0], fall = map[3] * h / w;
    const float corner_x = ((map[0] * (1 / w - 1) + map[1] * (1 / h - 1) + map[2] + 1) * w - 1) / 2;
    const float corner_y = ((map[3] * (1 / w - 1) + map[4] * (1 / h - 1) + map[5] + 1) * h - 1) / 2;
    const int padded = (width + LANES - 1) / LANES * LANES;
    for (int row = first; row < first + rows; row++, at += width, right += width, down += width) {
        const float x0 = corner_x + map[1] * w / h * (float)row, y0 = corner_y + map[4] * (float)row;
        for (int j = 0; j < padded; j++) {
            const float x = clip(x0 + across * (float)j, w - 1);
            const float y = clip(y0 + fall * (float)j, h - 1);
            int32_t left = (int32_t)x, top = (int32_t)y;
            left = left < width - 2 ? left : width - 2; /* the last pixel is the right neighbour of the one before */
            top = top < height - 2 ? top : height - 2;
            right[j] = x - (float)left;
            down[j] = y - (float)top;
            at[j] = top * width + left;
        }
    }
}

/* Packs the four neighbours of each position into the bytes of one number, for either byte order. */
static void fetch(const uint8_t *image, int width, int n, const int32_t *restrict at, uint32_t *restrict four)
{
    for (int j = 0; j < n; j++) {
        uint16_t above, below;
        memcpy(&above, image + at[j], 2);
        memcpy(&below, image + at[j] + width, 2);
        four[j] = (uint32_t)above | (uint32_t)below << 16;
    }
}

static void blend(const uint32_t *restrict four, const float *restrict right, const float *restrict down, int n,
                         float *restrict view)
{
    for (int j = 0; j < n; j++) {
        const int32_t above = four[j] & 0xffff, below = four[j] >> 16;
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        const float a = (float)(above >> 8), b = (float)(above & 255);
        const float c = (float)(below >> 8), d = (float)(below & 255);
#else
        const float a = (float)(above & 255), b = (float)(above >> 8);
        const float c = (float)(below & 255), d = (float)(below >> 8);
#endif
        const float upper = a + right[j] * (b - a), lower = c + right[j] * (d - c);
        const float v = upper + down[j] * (lower - upper);
        view[j] = (v < 255 ? v : 255) / 255; /* sums of weights may round to just above 1 */
    }
}

/* images: n x channels x height x width, at least 2 x 2 and at most BLOCK wide. maps: n x 2 x 3, from positions in the view
 * (across, down, 1) to positions in the image, in units of -1 to 1. views: as images, in 0 to 1. */
int metarep_sample(const uint8_t *images, const float *maps, float *views, int64_t n, int channels, int height,
                    int width)
{
    int32_t at[BLOCK + LANES];
    float right[BLOCK + LANES], down[BLOCK + LANES];
    uint32_t four[BLOCK];
    const int rows_at_once = BLOCK / width;
    const size_t plane = (size_t)height * width;
    for (int64_t i = 0; i < n; i++, maps += 6, images += channels * plane, views += channels * plane)
        for (int first = 0; first < height; first += rows_at_once) {
            const int rows = height - first < rows_at_once ? height - first : rows_at_once;
            find(maps, first, rows, height, width, at, right, down);
            for (int c = 0; c < channels; c++) {
                fetch(images + c * plane, width, rows * width, at, four);
                blend(four, right, down, rows * width, views + c * plane + (size_t)first * width);
            }
        }
    return 0;
}
