# The worlds and virtual machines of one host, as callers add and change them.

from pyvirt._core.sched.counters cimport Counted

cdef class SchedCore(Counted):
    cdef object _queue(self, object cpus)
    cdef object _describe(self, list loads, bint wakes)
    cdef object _vm(self, object vm)
