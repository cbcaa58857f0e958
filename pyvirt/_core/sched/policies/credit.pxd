# Xen's credit scheduler: the policy.

from pyvirt._core.sched.plug cimport Plug

cdef class Credit(Plug):
    pass
