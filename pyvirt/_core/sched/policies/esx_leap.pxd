# Leaping over what repeats itself, under the ESX policy.

from libc.stdint cimport INT64_MIN

from pyvirt._core.sched.policies.esx_state cimport esx_t
from pyvirt._core.sched.state cimport leaps_t

cdef leaps_t leaps                      # the functions of esx_leap.pyx


cdef inline void note_wake(esx_t *e) noexcept nogil:
    """A wake-up brought the host's virtual time up to now."""
    if e.v < e.peak:
        e.calm = False
    e.peak = INT64_MIN
    if e.first_v < 0:
        e.first_v = e.v
