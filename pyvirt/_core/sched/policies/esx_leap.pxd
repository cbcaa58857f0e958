# Leaping over what repeats itself, under the ESX policy.

from pyvirt._core.sched.state cimport leaps_t

cdef leaps_t leaps                      # the functions of esx_leap.pyx
