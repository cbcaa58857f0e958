/* Chunks of host memory for the frame pool: aligned, and on huge pages where the system offers them. */
#ifndef PYVIRT_CHUNK_H
#define PYVIRT_CHUNK_H

#include <stddef.h>
#include <stdlib.h>

#if defined(_WIN32)
#include <malloc.h>
static inline void *pv_chunk_alloc(size_t bytes, int huge) {
    (void)huge;
    return _aligned_malloc(bytes, bytes);
}
static inline void pv_chunk_free(void *p) { _aligned_free(p); }
static inline int pv_huge_pages_offered(void) { return 0; }
#else
#include <sys/mman.h>
/* `bytes` is a power of two and the alignment. Without `huge`, a system that hands out huge pages
   unasked is told not to, so that what is held is what was touched. */
static inline void *pv_chunk_alloc(size_t bytes, int huge) {
    void *p = NULL;
    if (posix_memalign(&p, bytes, bytes)) return NULL;
#if defined(MADV_HUGEPAGE) && defined(MADV_NOHUGEPAGE)
    (void)madvise(p, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
#else
    (void)huge;
#endif
    return p;
}
static inline void pv_chunk_free(void *p) { free(p); }
static inline int pv_huge_pages_offered(void) {
#if defined(MADV_HUGEPAGE)
    return 1;
#else
    return 0;
#endif
}
#endif

#endif
