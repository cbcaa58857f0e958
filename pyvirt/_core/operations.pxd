# What the system does to an MMU between accesses: register loads, invalidations, stores to tables.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyvirt._core.paging cimport dimension_t
from pyvirt._core.state cimport mmu_t, run_t, vcpu_t

cdef enum done_t:
    DONE = 0
    DONE_NO_MEMORY = 1              # the host has none
    DONE_BAD_TYPE = 2               # no such type of INVPCID, INVVPID, INVEPT, TLB_CONTROL
    DONE_BAD_ROOT = 3               # bits beyond the physical width
    DONE_OUTSIDE = 4                # a store to a table that is not in memory
    DONE_BAD_CORE = 5
    DONE_BAD_VCPU = 6
    DONE_BAD_SIZE = 7               # of a store
    DONE_BAD_OP = 8
    DONE_IN_PYTHON = 9              # a rare one, left to the caller


cdef void start(run_t *x, mmu_t *m, int vcpu) noexcept nogil
cdef done_t adopt(mmu_t *m, vcpu_t *v, const dimension_t *d, uint64_t cr3) noexcept nogil
cdef done_t mov_cr3(mmu_t *m, int vcpu, uint64_t value) noexcept nogil
cdef done_t mov_control(mmu_t *m, int vcpu, bint is_cr0, uint64_t value,
                        const dimension_t *d) noexcept nogil
cdef void invlpg(mmu_t *m, int vcpu, uint64_t va, bint shoot_down) noexcept nogil
cdef done_t invpcid(mmu_t *m, int vcpu, uint32_t type, uint64_t pcid, uint64_t va) noexcept nogil
cdef done_t invvpid(mmu_t *m, int vcpu, uint32_t type, uint64_t vpid, uint64_t va) noexcept nogil
cdef done_t invept(mmu_t *m, int vcpu, uint32_t type, uint64_t eptp) noexcept nogil
cdef done_t invlpga(mmu_t *m, int vcpu, uint64_t va, uint64_t asid) noexcept nogil
cdef done_t tlb_control(mmu_t *m, int vcpu, uint32_t control) noexcept nogil
cdef void vm_crossing(mmu_t *m, int vcpu, bint entry) noexcept nogil
cdef done_t store_table(mmu_t *m, int vcpu, uint64_t address, uint64_t value,
                        int size) noexcept nogil
cdef done_t vcpu_switch(mmu_t *m, int vcpu, uint32_t core) noexcept nogil
cdef done_t vm_switch(mmu_t *m, int vcpu, uint32_t vpid, uint64_t cr3, uint64_t root) noexcept nogil
