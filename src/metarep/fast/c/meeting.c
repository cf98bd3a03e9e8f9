/* A meeting of processes in shared memory: each says how far it has come, and waits for the others. */
#include <sched.h>
#include <stdint.h>
#include <time.h>

#define LINE 16 /* numbers from the place of one process to that of the next: two cache lines, which are loaded in pairs */
#define LOOKS 64 /* before the clock is read, and the processor is offered to others */

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static inline void rest(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Says that process `rank` has come to meeting n, and waits until all have, at most `limit` microseconds. What a process
 * wrote before is seen by the others after. Returns 0 when all have come, else 1; then it is called again. */
int metarep_meet(int64_t *arrived, int64_t n, int rank, int ranks, int limit)
{
    const double end = seconds() + 1e-6 * limit;
    __atomic_store_n(arrived + (int64_t)rank * LINE, n, __ATOMIC_RELEASE);
    for (int other = 0, looks = 0; other < ranks; other++)
        while (__atomic_load_n(arrived + (int64_t)other * LINE, __ATOMIC_ACQUIRE) < n) {
            rest();
            if (++looks % LOOKS)
                continue;
            if (seconds() > end)
                return 1;
            sched_yield();
        }
    return 0;
}
