# Borrowed virtual time (Duda and Cheriton, SOSP 1999): the rules stand at `Bvt`.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from pyvirt._core.sched.ordered cimport node_t
from pyvirt._core.sched.plug cimport Plug
from pyvirt._core.types cimport ns_t

ctypedef struct bvt_t:
    ns_t allowance                  # C
    uint32_t plain                  # who waits and is not warped, by A, which is its E
    uint32_t early                  # who waits and is warped, by E
    uint32_t warped                 # the same, by A
    uint32_t competing              # worlds that wait or run
    int64_t svt                     # the scheduler's virtual time while nobody competes

ctypedef struct bvt_cpu_t:
    uint32_t last                   # put back here and not picked since: a number plus 1, or 0

ctypedef struct bvt_world_t:
    node_t by_effective             # in `plain` or `early`
    node_t by_actual                # in `warped`
    int64_t v                       # A, rounded down, in 2**-10 ns at weight 1
    uint32_t rem                    # A = v + rem / weight
    uint8_t is_warped
    uint8_t competes                # waits or runs
    ns_t woken                      # when it came to compete by itself, or NEVER
    ns_t warp_left                  # CPU time until L is over
    ns_t unwarped_until             # the end of U

cdef class Bvt(Plug):
    pass
