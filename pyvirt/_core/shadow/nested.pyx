"""Nested tables as hypervisors fill them, one violation at a time.

KVM has two ways. Its TDP MMU maps the page that was touched. The older one takes its tables from
the pool of shadow pages, and fills the aligned group of 8 around a 4 KiB page, too. Both map 2 MiB
at once where the host keeps them in one page.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyvirt._core.shadow.agile cimport shadow_page
from pyvirt._core.shadow.fill cimport FILL_MMIO, FILL_NO_ROOM, fill_group, large_allowed, slot_of
from pyvirt._core.shadow.leaves cimport PUT_SPURIOUS, put_leaf
from pyvirt._core.shadow.lookup cimport get_page, link_page
from pyvirt._core.shadow.pages cimport drop_entry
from pyvirt._core.shadow.state cimport (
    ENTRY_LARGE,
    ENTRY_P,
    FRAME_SHIFT,
    MODE_LEGACY,
    NO_PAGE,
    RIGHT_ALL,
    RIGHT_W,
    ROLE_DIRECT,
    ROLE_RIGHTS_SHIFT,
    cpu_t,
    hyper_t,
    in_slot,
    mmio_entry,
    page_of,
    request_flush,
    shadows,
)

cdef uint32_t NESTED_ROLE = ROLE_DIRECT | RIGHT_ALL << ROLE_RIGHTS_SHIFT


cdef bint make_nested_root(hyper_t *s) noexcept nogil:
    """The one root of a machine's nested tables; it is never recycled."""
    s.nested_root = get_page(s, &s.cpus[0], 0, NESTED_ROLE | s.levels)
    if s.nested_root == NO_PAGE:
        return False
    s.pages[s.nested_root].roots = 1
    return True


cdef int fill_nested(hyper_t *s, cpu_t *v, uint64_t gpa, bint write) noexcept nogil:
    """Map the page of a guest-physical address; a `put_t`, FILL_MMIO or FILL_NO_ROOM."""
    cdef uint32_t page = s.nested_root, level = s.levels, last = 1, slot, child
    cdef uint64_t gfn = gpa >> FRAME_SHIFT, first
    cdef uint8_t rights = RIGHT_ALL
    cdef bint mapped = in_slot(s, gfn)
    cdef int result
    if mapped and s.rules.large_pages and large_allowed(s, gfn):
        last = 2
    while True:
        slot = slot_of(page, gpa, level)
        if level == last:
            break
        level -= 1
        if s.entries[slot] & ENTRY_P and not s.entries[slot] & ENTRY_LARGE:
            page = page_of(s, s.entries[slot])
            continue
        first = gfn & ~((<uint64_t>1 << 9 * level) - 1)
        child = get_page(s, v, first, NESTED_ROLE | level)
        if child == NO_PAGE:
            # what cannot be remembered is emulated all the same
            return FILL_NO_ROOM if mapped else FILL_MMIO
        link_page(s, v, slot, child)
        page = child
    if not mapped:
        s.entries[slot] = mmio_entry(s, gfn)
        return FILL_MMIO
    if last == 2:
        gfn &= ~<uint64_t>511
        if s.entries[slot] & ENTRY_P and not s.entries[slot] & ENTRY_LARGE:
            drop_entry(s, slot)
            request_flush(s)
    if not write and shadows(s) and shadow_page(s, gfn) != NO_PAGE:
        rights &= ~RIGHT_W          # it holds a table; a write finds out what to do about that
    result = put_leaf(s, slot, gfn, rights, False, write)
    if result != PUT_SPURIOUS:
        s.counters.filled += 1
        if level == 1 and s.mode == MODE_LEGACY and s.rules.prefetch:
            fill_group(s, slot)
    return result
