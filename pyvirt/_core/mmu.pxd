# The MMU as Python calls it.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.events cimport event_op_t
from pyvirt._core.owner cimport MmuOwner


cdef class MmuCore(MmuOwner):
    cdef object _one(self, object va, int kind)
    cdef object _operate(self, int vcpu, event_op_t op, uint32_t arg, uint64_t addr,
                         uint64_t value)
    cdef object _mov_control(self, bint is_cr0, int cpu, uint64_t value)
