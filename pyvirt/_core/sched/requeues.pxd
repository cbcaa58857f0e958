# Long stretches in which nothing but ends of slices happens, under a plug-in policy that has the hook
# `requeue`.

from libc.stdint cimport uint64_t

from pyvirt._core.sched.state cimport sched_t
from pyvirt._core.types cimport ns_t

cdef bint only_requeues(const sched_t *s, ns_t until, uint64_t most) noexcept nogil
cdef uint64_t requeue_slices(sched_t *s, ns_t until, uint64_t most) noexcept nogil
