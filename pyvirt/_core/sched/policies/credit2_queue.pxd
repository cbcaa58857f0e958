# Run queues of credit2: their loads, who belongs to them, who waits, and whom to ask.

from libc.stdint cimport uint32_t

from pyvirt._core.sched.policies.credit2_state cimport credit2_queue_t, credit2_world_t
from pyvirt._core.sched.state cimport sched_t

cdef void update(sched_t *s, credit2_queue_t *q) noexcept nogil
cdef void update_world(sched_t *s, credit2_world_t *w) noexcept nogil
cdef void compete(sched_t *s, uint32_t id, bint competes) noexcept nogil
cdef bint meets(const sched_t *s, uint32_t id, uint32_t queue) noexcept nogil
cdef uint32_t least_loaded(sched_t *s, uint32_t id) noexcept nogil
cdef void find_most(sched_t *s, credit2_queue_t *q) noexcept nogil
cdef void assign(sched_t *s, uint32_t id, uint32_t queue) noexcept nogil
cdef void put(sched_t *s, uint32_t id) noexcept nogil
cdef void take(sched_t *s, uint32_t id) noexcept nogil
cdef bint serves(const sched_t *s, uint32_t id, uint32_t cpu) noexcept nogil
cdef uint32_t idle_cpu(const sched_t *s, uint32_t id) noexcept nogil
cdef void tickle(sched_t *s, uint32_t id) noexcept nogil
