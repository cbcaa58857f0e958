# Which cached translations an operation drops.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyvirt._core.paging cimport dimension_t
from pyvirt._core.state cimport mmu_t, core_t, run_t

cdef enum:
    DROP_TLB = 1
    DROP_GUEST_CACHE = 2
    DROP_NESTED_TLB = 4
    DROP_HOST_CACHE = 8

cdef struct selector_t:
    uint32_t what                   # DROP_ bits
    bint any_vpid
    bint but_vpid_0
    bint any_pcid
    bint globals                    # global entries too
    bint any_ep4ta
    bint combined_only
    bint by_address
    uint16_t vpid
    uint16_t pcid
    uint64_t ep4ta
    uint64_t address


cdef void drop(mmu_t *m, core_t *core, const dimension_t *guest, const dimension_t *host,
               const selector_t *s) noexcept nogil
cdef void drop_for_page_fault(run_t *x, uint64_t va) noexcept nogil
cdef void drop_for_violation(run_t *x, uint64_t va, uint64_t gpa) noexcept nogil
