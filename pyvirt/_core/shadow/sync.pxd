# Bringing shadow tables back in step with the guest's.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.shadow.state cimport cpu_t, hyper_t, page_t

cdef uint64_t guest_entry(const hyper_t *s, const page_t *p, uint32_t index) noexcept nogil
cdef bint prefetchable(const hyper_t *s, const cpu_t *v, uint64_t entry) noexcept nogil
cdef bint prefetch_leaf(hyper_t *s, cpu_t *v, uint32_t slot, uint64_t entry) noexcept nogil
cdef bint sync_page(hyper_t *s, cpu_t *v, uint32_t page) noexcept nogil
cdef void evict_unsync(hyper_t *s, cpu_t *v) noexcept nogil
cdef void sync_below(hyper_t *s, cpu_t *v, uint32_t page) noexcept nogil
