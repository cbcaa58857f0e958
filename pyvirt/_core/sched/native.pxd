# Policies whose hooks are addresses of machine code: from Numba, C, or any other language.

from pyvirt._core.sched.plug cimport Plug

cdef class NativePolicy(Plug):
    cdef readonly object hooks           # as given; they own the code

    cdef object set_hook(self, str name, object hook)
