# The owner of an MMU.

from cpython.pythread cimport PyThread_type_lock
from libc.stdint cimport uint64_t

from pyvirt._core.operations cimport done_t
from pyvirt._core.paging cimport dimension_t
from pyvirt._core.physmem cimport PhysMem
from pyvirt._core.state cimport mmu_t


cdef class MmuOwner:
    cdef mmu_t m
    cdef readonly PhysMem mem
    cdef readonly object geometry
    cdef readonly object counters
    cdef object _counters
    cdef object ring
    cdef readonly object frames_of  # FrameMapping of tlb-only mode, or None
    cdef list guest_options         # of each vCPU, as `configure` takes them
    cdef dict host_options
    cdef tuple made                 # arguments of __init__, to build another
    cdef int prefetch
    cdef bint busy                  # some call is at work, perhaps without the GIL
    cdef bint begun                 # __init__ was called
    cdef bint marks                 # memory is written: its lock is needed
    cdef PyThread_type_lock lock
    cdef object __weakref__

    cdef object _check(self)
    cdef int _vcpu(self, object vcpu) except -1
    cdef void enter(self) noexcept
    cdef void leave(self) noexcept
    cdef object _done(self, done_t done)
    cdef object _build(self, object seeds, object data_cache)
    cdef object _set_vcpu(self, int vcpu, object cr3, object root, int vpid)
    cdef object _dimension(self, dimension_t *d, dict options, uint64_t cr3)
    cdef tuple _copy(self)
