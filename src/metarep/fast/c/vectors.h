/* Vectors of LANES float32 numbers, each of which the compiler keeps in a register; memory may hold bfloat16. */
#ifndef METAREP_VECTORS_H
#define METAREP_VECTORS_H

#include <stddef.h>
#include <stdint.h>

#ifndef LANES
#define LANES 4 /* numbers in a vector: as many as a register holds; a wider vector lives in memory, which is slow */
#endif
#define DEAD 4 /* position of a maximum that is not positive; else 0 to 3 */

#define INLINE static inline __attribute__((always_inline))

typedef float numbers __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t whole __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint32_t words __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint16_t halves __attribute__((vector_size(LANES * 2), aligned(2), may_alias));
typedef uint8_t bytes __attribute__((vector_size(LANES), aligned(1), may_alias));

INLINE whole choose(whole where, whole yes, whole no)
{
    return (where & yes) | (~where & no);
}

INLINE numbers keep(whole where, numbers v)
{
    return (numbers)((whole)v & where);
}

INLINE numbers at(const float *place)
{
    return *(const numbers *)place;
}

INLINE whole marks(const uint8_t *place)
{
    return __builtin_convertvector(*(const bytes *)place, whole);
}

/* Loads the vector that starts at the i-th number of an array; half: bfloat16. */
INLINE numbers load(const void *array, size_t i, int half)
{
    if (half)
        return (numbers)(__builtin_convertvector(*(const halves *)((const uint16_t *)array + i), words) << 16);
    return at((const float *)array + i);
}

INLINE void store(void *array, size_t i, numbers v, int half)
{
    if (half) { /* rounded to even */
        words bits = (words)v;
        bits += 0x7fff + (bits >> 16 & 1);
        *(halves *)((uint16_t *)array + i) = __builtin_convertvector(bits >> 16, halves);
    } else
        *(numbers *)((float *)array + i) = v;
}

#endif
