"""Process-context identifiers: what a load of CR3 and INVPCID flush (SDM vol. 3, 5.10.4).

A cached root is known by the whole of CR3, so the same tables under two PCIDs have two. One whose
PCID is flushed is synced if it is the current one, and forgotten else: it would need a sync before
it is used. Nothing is kept of global pages, so a flush that spares them spares none.
"""

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.paging cimport in_range
from pyvirt._core.shadow.access cimport DONE, DONE_BAD_PCID, done_t
from pyvirt._core.shadow.faults cimport invalidate_pcid
from pyvirt._core.shadow.front cimport front_invlpga, front_invpcid
from pyvirt._core.shadow.roots cimport forget_pcid
from pyvirt._core.shadow.state cimport (
    MODE_AGILE,
    REQUEST_FLUSH,
    REQUEST_GUEST_FLUSH,
    REQUEST_SYNC,
    cpu_t,
    hyper_t,
    shadows,
)

cdef enum type_t:                   # of an INVPCID
    ONE_ADDRESS = 0
    ONE_CONTEXT = 1
    ALL_CONTEXTS = 2
    ALL_BUT_GLOBAL = 3


cdef void flush_pcid(hyper_t *s, cpu_t *v, uint64_t pcid) noexcept nogil:
    """The guest flushes a PCID, or without CR4.PCIDE everything but global pages."""
    if v.cr3 & v.pcid_mask == pcid:
        v.requests |= REQUEST_FLUSH
        if s.rules.sync_at_cr3:
            v.requests |= REQUEST_SYNC
    if v.pcid_mask:
        forget_pcid(s, v, pcid)


cdef done_t invpcid(
    hyper_t *s, cpu_t *v, uint32_t type, uint64_t pcid, uint64_t va
) noexcept nogil:
    """INVPCID, which exits with shadow tables only.

    Agile, the processor holds entries of the guest's own tables, too, which the hypervisor drops.
    """
    if type > ALL_BUT_GLOBAL or pcid > PCID_MASK:
        return DONE_BAD_PCID
    if type <= ONE_CONTEXT and pcid & ~v.pcid_mask:
        return DONE_BAD_PCID
    if type == ONE_ADDRESS and not in_range(&v.guest, va):
        return DONE_BAD_PCID
    if not shadows(s):
        if s.front != NULL:
            front_invpcid(s, v, type, pcid, va)
        return DONE
    s.counters.x_invpcid += 1
    if type == ONE_ADDRESS:
        s.counters.invlpg += 1
        if invalidate_pcid(s, v, va, pcid) and s.front != NULL:
            front_invlpga(s, v, va)
    elif type == ONE_CONTEXT:
        flush_pcid(s, v, pcid)
    else:
        v.requests |= REQUEST_GUEST_FLUSH
    if s.mode == MODE_AGILE:
        front_invpcid(s, v, type, pcid, va)
    return DONE
