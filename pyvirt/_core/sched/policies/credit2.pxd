# Xen's credit2 scheduler: the policy.

from pyvirt._core.sched.plug cimport Plug

cdef class Credit2(Plug):
    pass
