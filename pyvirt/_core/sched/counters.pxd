# What the worlds and CPUs of one host did.

from libc.stdint cimport uint32_t

from pyvirt._core.sched.owner cimport Owner

cdef class Counted(Owner):
    cdef uint32_t _world(self, object world) except? 0xFFFFFFFF
    cdef object _sum_of_hists(self, object worlds, bint wakes)
    cdef uint32_t _hist(self, uint32_t id, bint wakes) noexcept
