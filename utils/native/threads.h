/* A barrier for the threads of an OpenMP region whose parts are short.
 *
 * The scripts let idle OpenMP threads sleep at once, for the sake of busy machines (OMP_WAIT_POLICY=passive). To
 * wake one takes 30 microseconds on a virtual machine, as long as a part on a small map.
 */
#pragma once

#include <time.h>

#ifdef _OPENMP
int omp_get_num_threads(void); /* the header is not always installed */
int omp_get_num_procs(void);
static inline int threads_here(void) { return omp_get_num_threads(); }
static inline int cores_here(void) {
    static int cores; /* asking the system takes a while, and threads that have other cores may get another answer */
    int none = 0;
    if (!__atomic_load_n(&cores, __ATOMIC_RELAXED))
        __atomic_compare_exchange_n(&cores, &none, omp_get_num_procs(), 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return __atomic_load_n(&cores, __ATOMIC_RELAXED);
}
#else
static inline int threads_here(void) { return 1; }
static inline int cores_here(void) { return 1; }
#endif

#define SPINS 2000   /* some 50 microseconds, with the pauses */
#define NAP_NS 20000 /* then another program may have the core */

/* Wait until `all` arrivals have been counted: at the n-th barrier, n times the threads. A thread that has no core of
 * its own does not spin. None yields, as it would not get the core back soon on a busy machine. */
static inline void meet(int *arrived, int all) {
    if (threads_here() > cores_here()) {
#pragma omp barrier
        return;
    }
    __atomic_fetch_add(arrived, 1, __ATOMIC_ACQ_REL);
    for (int spins = 0; __atomic_load_n(arrived, __ATOMIC_ACQUIRE) < all; spins++) {
        if (spins >= SPINS) nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("isb"); /* "yield" takes no time on most processors */
#endif
    }
}
