/* What the processor under us takes for a few things that need no privilege, in cycles of its time
 * stamp counter. Without x86-64 and Linux nothing is measured: PROBE_HERE is 0. */
#ifndef PYVIRT_PROBE_H
#define PYVIRT_PROBE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
#define PROBE_HERE 1

#include <cpuid.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

/* Fences on both sides, so that nothing moves across the reading of the counter. */
static inline uint64_t probe_now(void)
{
    _mm_lfence();
    uint64_t now = __rdtsc();
    _mm_lfence();
    return now;
}

static inline void probe_leaf(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    __cpuid_count(leaf, subleaf, out[0], out[1], out[2], out[3]);
}

static void probe_nothing(int64_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t start = probe_now();
        out[i] = (int64_t)(probe_now() - start);
    }
}

static void probe_cpuid(int64_t *out, size_t n)
{
    uint32_t leaf[4];
    for (size_t i = 0; i < n; i++) {
        uint64_t start = probe_now();
        probe_leaf(0, 0, leaf);
        out[i] = (int64_t)(probe_now() - start);
    }
}

/* The number itself, since the C library may answer some calls from what it remembers. */
static void probe_syscall(int64_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t start = probe_now();
        (void)syscall(SYS_getppid);
        out[i] = (int64_t)(probe_now() - start);
    }
}

/* First writes to pages of fresh anonymous memory, small ones: minor faults. -1: no memory. */
static int probe_fault(int64_t *out, size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *memory = mmap(NULL, n * page, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return -1;
    (void)madvise(memory, n * page, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < n; i++) {
        uint64_t start = probe_now();
        *(volatile char *)(memory + i * page) = 1;
        out[i] = (int64_t)(probe_now() - start);
    }
    munmap(memory, n * page);
    return 0;
}

/* Counter and clock at one moment: of a few readings the one that took least time, since the
 * thread may be taken off its processor between the two. */
static uint64_t probe_moment(int64_t *clock)
{
    uint64_t best = UINT64_MAX, at = 0;
    for (int i = 0; i < 16; i++) {
        struct timespec t;
        uint64_t before = probe_now();
        clock_gettime(CLOCK_MONOTONIC, &t);
        uint64_t took = probe_now() - before;
        if (took < best) {
            best = took;
            at = before + took / 2;
            *clock = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
        }
    }
    return at;
}

/* Cycles of the counter a second, over at least `span` nanoseconds of the monotonic clock. */
static double probe_hertz(int64_t span)
{
    int64_t first = 0, last = 0;
    uint64_t start = probe_moment(&first), end;
    do {
        end = probe_moment(&last);
    } while (last - first < span);
    return (double)(end - start) * 1e9 / (double)(last - first);
}

#else
#define PROBE_HERE 0

static void probe_leaf(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    (void)leaf, (void)subleaf;
    out[0] = out[1] = out[2] = out[3] = 0;
}
static void probe_nothing(int64_t *out, size_t n) { (void)out, (void)n; }
static void probe_cpuid(int64_t *out, size_t n) { (void)out, (void)n; }
static void probe_syscall(int64_t *out, size_t n) { (void)out, (void)n; }
static int probe_fault(int64_t *out, size_t n) { (void)out, (void)n; return -1; }
static double probe_hertz(int64_t span) { (void)span; return 0.0; }
#endif

#endif
