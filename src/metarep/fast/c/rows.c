/* Steps before and after a search among vectors: scaling queries, and replacing rows by ids. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>

static float squares(const float *row, int dim)
{
    float sums[16] = {0}, sum = 0;
    int j = 0;
    for (; j + 16 <= dim; j += 16)
        for (int l = 0; l < 16; l++)
            sums[l] += row[j + l] * row[j + l];
    for (; j < dim; j++)
        sum += row[j] * row[j];
    for (int l = 0; l < 16; l++)
        sum += sums[l];
    return sum;
}

/* Writes rows of length 1 to unit; rows of zeros stay. Returns 1 if the squares of a row have no finite sum, else 0. */
int metarep_unit_rows(const float *rows, float *unit, int64_t n, int dim)
{
    for (int64_t i = 0; i < n; i++, rows += dim, unit += dim) {
        const float sum = squares(rows, dim);
        if (!isfinite(sum))
            return 1;
        const float scale = sum > 0 ? 1 / sqrtf(sum) : 0;
        for (int j = 0; j < dim; j++)
            unit[j] = rows[j] * scale;
    }
    return 0;
}

/* Returns whether every row has length 1, to the precision of float32. */
int metarep_are_unit_rows(const float *rows, int64_t n, int dim)
{
    for (int64_t i = 0; i < n; i++, rows += dim)
        if (!(fabsf(squares(rows, dim) - 1) <= 1e-6f))
            return 0;
    return 1;
}

/* Replaces rows by their ids, in place. Where faiss gives -1 (no result), the id is -1 and the score becomes -inf. */
int metarep_rows_to_ids(const int64_t *ids, int64_t *rows, float *scores, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (rows[i] < 0)
            scores[i] = -INFINITY;
        else
            rows[i] = ids[rows[i]];
    }
    return 0;
}
