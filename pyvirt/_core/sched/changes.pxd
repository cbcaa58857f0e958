# What a caller changes between events: worlds come, go, block, wake; weights, affinities, limits.

from libc.stdint cimport uint8_t, uint32_t

from pyvirt._core.sched.state cimport load_t, sched_t, vm_t, world_state_t
from pyvirt._core.types cimport ns_t

cdef void new_world(
    sched_t *s, uint32_t id, uint32_t queue, uint32_t vm, uint32_t weight, uint32_t slice,
    const load_t *load, bint has_jobs
) noexcept nogil
cdef void start_world(sched_t *s, uint32_t id, ns_t first) noexcept nogil
cdef void halt(sched_t *s, uint32_t id, world_state_t state) noexcept nogil
cdef void remove_world(sched_t *s, uint32_t id) noexcept nogil
cdef void block_world(sched_t *s, uint32_t id) noexcept nogil
cdef void wake_world(sched_t *s, uint32_t id) noexcept nogil
cdef void submit_work(sched_t *s, uint32_t id, ns_t work) noexcept nogil
cdef void pause_world(sched_t *s, uint32_t id, ns_t time, uint8_t pause) noexcept nogil
cdef void halt_world(sched_t *s, uint32_t id) noexcept nogil
cdef void interrupt_world(sched_t *s, uint32_t id, ns_t work) noexcept nogil
cdef void set_world_weight(sched_t *s, uint32_t id, uint32_t weight) noexcept nogil
cdef void set_world_queue(sched_t *s, uint32_t id, uint32_t queue) noexcept nogil
cdef void set_world_limit(sched_t *s, uint32_t id, ns_t quota, ns_t period) noexcept nogil
cdef void set_vm_values(sched_t *s, uint32_t vm, const vm_t *values, bint weights) noexcept nogil
cdef void hold(sched_t *s, uint32_t id, uint8_t mark) noexcept nogil
cdef void release(sched_t *s, uint32_t id, uint8_t mark) noexcept nogil
