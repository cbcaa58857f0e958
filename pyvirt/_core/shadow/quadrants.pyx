"""32-bit and PAE guests: a shadow root for each GiB, and shadow pages that are parts of a table.

A processor that runs such a guest on shadow tables walks PAE tables: four roots of level 2, which
its PDPTEs point to. A PAE guest has the same, and loads its PDPTEs with CR3 only (SDM vol. 3,
4.4.1). A 32-bit guest's tables have 1,024 entries, of 4 MiB or 4 KiB. A shadow page has 512, of 2
MiB or 4 KiB, so a guest's directory has four shadow pages and a table of leaves two, which the
*quadrant* in their role tells apart (Linux, Documentation/virt/kvm/x86/mmu.rst, "role.quadrant").
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyvirt._core.frames cimport load_u64, pm_frame
from pyvirt._core.shadow.state cimport (
    FRAME_SHIFT,
    ROLE_4_BYTE,
    cpu_t,
    hyper_t,
    in_slot,
    level_of,
    page_t,
)


cdef bint written_entries(
    const page_t *p, uint32_t offset, uint32_t *first, uint32_t *count
) noexcept nogil:
    """The shadow entries that a write at an offset of the guest's table changes; False: none."""
    cdef uint32_t entry
    count[0] = 1
    if not p.role & ROLE_4_BYTE:
        first[0] = offset >> 3
        return True
    entry = offset >> 2
    if level_of(p) > 1:
        count[0] = 2
        first[0] = entry << 1 & 511
        return entry >> 8 == quadrant_of(p)
    first[0] = entry & 511
    return entry >> 9 == quadrant_of(p)


cdef pdptes_t load_pdptes(hyper_t *s, cpu_t *v, uint64_t cr3) noexcept nogil:
    """Load the four PDPTEs of a PAE guest from where CR3 points; unless all are well, none is."""
    cdef uint64_t pdptes[4]
    cdef const uint8_t *frame = pm_frame(s.mem, cr3 & <uint64_t>0xFFFFFFE0)
    cdef pdptes_t result = PDPTES_SAME
    cdef uint32_t i
    if frame == NULL:
        return PDPTES_OUTSIDE
    for i in range(4):
        pdptes[i] = load_u64(frame + (cr3 & 0xFE0) + 8 * i)
        if pdptes[i] & 1:
            if pdptes[i] & v.guest.level[3].table_reserved:
                return PDPTES_RESERVED
            if not in_slot(s, (pdptes[i] & v.guest.table_address) >> FRAME_SHIFT):
                return PDPTES_OUTSIDE
        if pdptes[i] != v.pdptes[i]:
            result = PDPTES_CHANGED
    for i in range(4):
        v.pdptes[i] = pdptes[i]
    return result


cdef uint64_t top_frame(const cpu_t *v, uint32_t quarter) noexcept nogil:
    """Guest frame of the directory of a GiB; all bits set: there is none."""
    cdef uint64_t base
    if not top_table(v, <uint64_t>quarter << 30, &base):
        return ~<uint64_t>0
    return base >> FRAME_SHIFT
