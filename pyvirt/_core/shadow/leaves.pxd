# Leaf entries: what they allow, how they change, and taking writability back by frame.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyvirt._core.shadow.state cimport hyper_t

cdef enum put_t:
    PUT_FIXED = 0
    PUT_SPURIOUS = 1                # the entry was as it should be
    PUT_EMULATE = 2                 # a write, and the frame holds a table that must stay in step

cdef uint64_t leaf_entry(hyper_t *s, uint64_t gfn, uint32_t level, uint8_t rights, uint64_t old,
                         bint prefetch, bint can_unsync, bint write, bint *refused) noexcept nogil
cdef bint change_leaf(hyper_t *s, uint32_t slot, uint64_t entry) noexcept nogil
cdef put_t put_leaf(hyper_t *s, uint32_t slot, uint64_t gfn, uint8_t rights,
                    bint prefetch, bint write) noexcept nogil
cdef bint write_protect(hyper_t *s, uint64_t gfn) noexcept nogil
