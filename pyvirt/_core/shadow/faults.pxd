# A fault that a shadow entry caused, in the order in which KVM handles it, and INVLPG.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.shadow.state cimport cpu_t, hyper_t

cdef enum handled_t:
    HANDLED_FIXED = 0               # the instruction runs again
    HANDLED_EMULATED = 1            # the hypervisor does what the access would have done
    HANDLED_MMIO = 2                # likewise, where no memory is
    HANDLED_REFUSED = 3             # the guest's own tables forbid it: its page fault
    HANDLED_OUTSIDE_TABLE = 4       # a table of the guest is not in memory
    HANDLED_NO_ROOM = 5             # no page is free, not even by recycling
    HANDLED_NO_MEMORY = 6           # of the host

cdef handled_t shadow_fault(hyper_t *s, cpu_t *v, uint64_t va, uint32_t access, uint64_t entry,
                            uint64_t *gpa) noexcept nogil
cdef handled_t nested_fault(hyper_t *s, cpu_t *v, uint64_t gpa, uint64_t entry, uint32_t slot,
                            bint write) noexcept nogil
cdef void invalidate(hyper_t *s, cpu_t *v, uint64_t va, bint all_roots) noexcept nogil
cdef bint invalidate_pcid(hyper_t *s, cpu_t *v, uint64_t va, uint64_t pcid) noexcept nogil
cdef bint write_traps(hyper_t *s, uint64_t gfn) noexcept nogil
