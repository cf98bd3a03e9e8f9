/* Rows of vectors, put on the unit sphere. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>

/* unit: rows of length 1, those of zeros as they are. Returns 1 if the squares of a row have no finite sum, else 0. */
int metarep_unit_rows(const float *rows, float *unit, int64_t n, int dim)
{
    for (int64_t i = 0; i < n; i++, rows += dim, unit += dim) {
        float sums[16] = {0}, sum = 0;
        int j = 0;
        for (; j + 16 <= dim; j += 16)
            for (int l = 0; l < 16; l++)
                sums[l] += rows[j + l] * rows[j + l];
        for (; j < dim; j++)
            sum += rows[j] * rows[j];
        for (int l = 0; l < 16; l++)
            sum += sums[l];
        if (!isfinite(sum))
            return 1;
        const float scale = sum > 0 ? 1 / sqrtf(sum) : 0;
        for (j = 0; j < dim; j++)
            unit[j] = rows[j] * scale;
    }
    return 0;
}
