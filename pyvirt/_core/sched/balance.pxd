# Balancing between run queues of CPUs, for policies that have them.
#
# A policy says with callbacks what its queues hold: how loaded a CPU is, which world it would give
# away, and how a world moves. Nothing is kept here.

from libc.stdint cimport int64_t, uint32_t

from pyvirt._core.sched.state cimport sched_t

# The world that `source` would give to `cpu`, of a load of at most `most`; it stays where it is.
# NO_WORLD: none. It must be one that may run there.
ctypedef uint32_t (*waiter_t)(
    sched_t *s, uint32_t source, uint32_t cpu, int64_t most) noexcept nogil
# What a CPU has to do, of its running world and those that wait, in any unit.
ctypedef int64_t (*load_of_t)(sched_t *s, uint32_t cpu) noexcept nogil
# Take a waiting world from one queue into the other.
ctypedef void (*move_t)(sched_t *s, uint32_t id, uint32_t source, uint32_t cpu) noexcept nogil

cdef uint32_t pull_nearest(
    sched_t *s, uint32_t cpu, waiter_t waiter, uint32_t *source) noexcept nogil
cdef uint32_t push_apart(
    sched_t *s, load_of_t load, waiter_t waiter, move_t move, uint32_t percent) noexcept nogil
