# Leaping over what repeats itself, under Xen's credit2.

from pyvirt._core.sched.state cimport leaps_t

cdef leaps_t leaps                      # the functions of credit2_leap.pyx
