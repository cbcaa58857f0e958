# The ESX policy.

from pyvirt._core.sched.plug cimport Plug

cdef class Esx(Plug):
    pass
