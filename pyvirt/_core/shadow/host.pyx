"""What the host does to a machine's memory, as its entries see it."""

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.shadow.pages cimport drop_entry
from pyvirt._core.shadow.roots cimport forget_all
from pyvirt._core.shadow.state cimport (
    ENTRY_P,
    FRAME_SHIFT,
    GENERATIONS,
    NO_PAGE,
    NO_SLOT,
    REQUEST_ROOT,
    cpu_t,
    hyper_t,
    request_flush,
    shadows,
)
from pyvirt._core.shadow.zap cimport zap_all


cdef void new_generation(hyper_t *s) noexcept nogil:
    """The memory slots changed: entries that remember MMIO count no more.

    When the numbers are used up all pages go, so that none of the first can come back.
    """
    cdef uint32_t i
    s.generation += 1
    if s.generation < GENERATIONS:
        return
    s.generation = 0
    for i in range(s.cpu_count):
        if shadows(s):
            forget_all(s, &s.cpus[i])
    zap_all(s)
    if s.nested_root != NO_PAGE:
        empty_root(s)


cdef void empty_root(hyper_t *s) noexcept nogil:
    """Nested tables keep their root."""
    cdef uint32_t slot = s.nested_root << 9
    while s.pages[s.nested_root].present:
        if s.entries[slot] & ENTRY_P:
            drop_entry(s, slot)
        slot += 1


cdef uint64_t drop_switches(hyper_t *s, uint64_t gfn) noexcept nogil:
    """Drop entries and roots that hold where the host keeps a guest's table; they are made anew."""
    cdef uint64_t dropped = 0
    cdef uint32_t i
    cdef cpu_t *v
    while s.tables[gfn].switches != NO_SLOT:
        drop_entry(s, s.tables[gfn].switches)
        dropped += 1
    for i in range(s.cpu_count):
        v = &s.cpus[i]
        if v.root.nested and v.guest.root >> FRAME_SHIFT == gfn:
            v.root.nested = False
            v.requests |= REQUEST_ROOT
            dropped += 1
    return dropped


cdef uint64_t drop_frames(hyper_t *s, uint64_t first, uint64_t end) noexcept nogil:
    """Drop every entry that maps one of the guest frames [first, end), by the reverse map."""
    cdef uint64_t gfn, dropped = 0
    for gfn in range(first, end):
        while s.reverse[gfn] != NO_SLOT:
            drop_entry(s, s.reverse[gfn])
            dropped += 1
        if s.tables != NULL:
            dropped += drop_switches(s, gfn)
        if gfn == first or gfn & 511 == 0:
            while s.reverse_large[gfn >> 9] != NO_SLOT:
                drop_entry(s, s.reverse_large[gfn >> 9])
                dropped += 1
    s.counters.host_invalidated += dropped
    if dropped:
        request_flush(s)
    return dropped
