# Fixed priorities, as POSIX's SCHED_RR.

from libc.stdint cimport int64_t, uint32_t

from pyvirt._core.sched.ordered cimport node_t
from pyvirt._core.sched.plug cimport Plug

ctypedef struct fixed_t:                # the policy's own
    uint32_t root                       # ready worlds: highest priority first, then in line
    int64_t last                        # place in line, of the last one at the end of its list
    int64_t first                       # and at the head
    int64_t slice                       # ns, or 0: each world's own

ctypedef struct fixed_world_t:
    node_t node

cdef class FixedPriority(Plug):
    pass
