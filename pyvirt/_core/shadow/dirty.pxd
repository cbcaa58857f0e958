# The dirty log: which guest frames were written since they were fetched last.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.shadow.state cimport cpu_t, hyper_t, log_t

cdef void start_log(hyper_t *s, uint64_t first, uint64_t end, log_t method,
                    bint all_set) noexcept nogil
cdef void stop_log(hyper_t *s, uint64_t first, uint64_t end) noexcept nogil
cdef void fetch_log(hyper_t *s) noexcept nogil
cdef bint clear_frame(hyper_t *s, uint64_t gfn) noexcept nogil
cdef bint note_write(hyper_t *s, cpu_t *v, uint32_t slot, uint64_t gfn) noexcept nogil
cdef void empty_pml(hyper_t *s, cpu_t *v) noexcept nogil
