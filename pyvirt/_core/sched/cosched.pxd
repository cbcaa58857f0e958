# Co-scheduling: keeping the vCPUs of a VM together in time.
#
# The progress of a vCPU grows with time while it runs or is halted; a halted one is not carried
# beyond the furthest of its siblings that would run. A vCPU's skew is what it is ahead of the slowest.

from libc.stdint cimport int64_t, uint32_t

from pyvirt._core.sched.state cimport sched_t
from pyvirt._core.types cimport ns_t

cdef void sync_progress(sched_t *s, uint32_t vm) noexcept nogil
cdef ns_t skew_of(sched_t *s, uint32_t id) noexcept nogil
cdef bint has_stopped(sched_t *s, uint32_t vm) noexcept nogil
cdef void keep_together(sched_t *s, uint32_t vm) noexcept nogil
cdef void look_later(sched_t *s, uint32_t vm) noexcept nogil
cdef void look_now(sched_t *s, uint32_t vm) noexcept nogil
cdef bint fits_host(sched_t *s, uint32_t vm) noexcept nogil
cdef uint32_t start_gang(sched_t *s, uint32_t cpu, int64_t below) noexcept nogil
cdef void ask_idle(sched_t *s) noexcept nogil
