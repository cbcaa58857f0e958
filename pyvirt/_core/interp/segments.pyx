"""Descriptors in guest memory, and segment registers (SDM vol. 3, 3.4, 3.5; rules: protection)."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._core.interp.cpu cimport (
    CR0_PE,
    S_CS,
    S_SS,
    cpu_t,
    segment_t,
)
from pyvirt._core.interp.memory cimport raise_fault, system_read, system_write
from pyvirt._core.protection.descriptors cimport (
    PROTECTED,
    descriptor_t,
    unpack_descriptor,
)
from pyvirt._core.protection.segments cimport load_data_segment, load_stack_segment
from pyvirt._core.protection.verdict cimport GP, NP, SS, TS, is_null, verdict_t


cdef int find(cpu_t *c, uint16_t selector, uint64_t *raw) noexcept nogil:
    """Read the eight bytes of a descriptor; of a null selector nothing is OUTSIDE either."""
    cdef uint32_t base = c.gdt_base, limit = c.gdt_limit, low, high
    if selector & 4:
        if not c.ldtr.selector & 0xFFFC:
            return OUTSIDE
        base = c.ldtr.base
        limit = c.ldtr.limit
    if <uint32_t>(selector & 0xFFF8) + 7 > limit:
        return OUTSIDE
    base += selector & 0xFFF8
    if not system_read(c, base, 4, &low) or not system_read(c, base + 4, 4, &high):
        return FAULTED
    raw[0] = <uint64_t>high << 32 | low
    return FOUND


cdef bint descriptor_for(
    cpu_t *c, uint16_t selector, int vector, int ext, uint64_t *raw
) noexcept nogil:
    """As find, with the exception raised where there is none. Null selectors yield zeros, which
    the rules do not read."""
    cdef int found
    raw[0] = 0
    if is_null(selector):
        return True
    found = find(c, selector, raw)
    if found == OUTSIDE:
        raise_fault(c, vector, 1, (selector & 0xFFFC) | ext)
    return found == FOUND


cdef bint refuse(cpu_t *c, verdict_t v) noexcept nogil:
    """Raise what a rule says; False where it allows."""
    if v.vector < 0:
        return False
    raise_fault(c, v.vector,
                v.vector == GP or v.vector == NP or v.vector == SS or v.vector == TS, v.error)
    return True


cdef void settle_segment(segment_t *s) noexcept nogil:
    """The sizes that accesses are checked against, from limit and attributes."""
    cdef uint32_t kind = s.attributes & 15, present = s.attributes & 0x80
    cdef uint64_t size
    s.low = 0
    s.rsize = 0
    s.wsize = 0
    if not present or not s.attributes & 0x10:
        return
    if kind & 12 == 4:              # data that expands down
        s.low = s.limit + 1
        size = <uint64_t>0xFFFFFFFF if s.attributes & 0x4000 else <uint64_t>0xFFFF
        size = size - s.limit if size >= s.limit else 0
        if s.limit == <uint32_t>0xFFFFFFFF:
            size = 0
    else:
        size = <uint64_t>s.limit + 1
    if kind & 8 == 0 or kind & 2:
        s.rsize = size
    if kind & 10 == 2:
        s.wsize = size


cdef void make_segment(uint16_t selector, uint64_t raw, segment_t *s) noexcept nogil:
    cdef descriptor_t d
    unpack_descriptor(raw, &d)
    s.selector = selector
    s.base = <uint32_t>d.base
    s.limit = d.limit
    s.attributes = <uint16_t>(raw >> 40 & 0xF0FF)
    settle_segment(s)


cdef void null_segment(uint16_t selector, segment_t *s) noexcept nogil:
    memset(s, 0, sizeof(segment_t))
    s.selector = selector


cdef void set_segment(cpu_t *c, uint32_t which, const segment_t *s) noexcept nogil:
    c.seg[which] = s[0]
    if which == S_SS:
        c.stack_mask = <uint32_t>0xFFFFFFFF if s.attributes & 0x4000 else 0xFFFF


cdef void set_cpl(cpu_t *c, uint32_t cpl) noexcept nogil:
    c.cpl = cpl
    c.user = cpl == 3


cdef void real_segment(cpu_t *c, uint32_t which, uint16_t selector) noexcept nogil:
    """Real mode: the base changes, limit and attributes stay, but for CS, which becomes data that
    may be written (SDM vol. 3, 10.1.4)."""
    cdef segment_t *s = &c.seg[which]
    s.selector = selector
    s.base = <uint32_t>selector << 4
    if which == S_CS:
        s.attributes = (s.attributes & 0xFF00) | 0x93
        settle_segment(s)


cdef bint mark_accessed(cpu_t *c, uint16_t selector, uint64_t *raw) noexcept nogil:
    """Set the A bit of a code or data descriptor that is loaded."""
    cdef uint32_t base
    if raw[0] >> 40 & 0x11 != 0x10:
        return True
    raw[0] |= <uint64_t>1 << 40
    base = (c.ldtr.base if selector & 4 else c.gdt_base) + (selector & 0xFFF8)
    return system_write(c, base + 5, 1, <uint32_t>(raw[0] >> 40 & 0xFF))


cdef bint load_segment(cpu_t *c, uint32_t which, uint16_t selector) noexcept nogil:
    """DS, ES, FS, GS or SS by an instruction; False after a fault, with nothing changed."""
    cdef uint64_t raw
    cdef descriptor_t d
    cdef segment_t s
    if not c.cr0 & CR0_PE:
        real_segment(c, which, selector)
        return True
    if not descriptor_for(c, selector, GP, 0, &raw):
        return False
    unpack_descriptor(raw, &d)
    if which == S_SS:
        if refuse(c, load_stack_segment(c.cpl, selector, &d, PROTECTED)):
            return False
    elif refuse(c, load_data_segment(c.cpl, selector, &d)):
        return False
    if is_null(selector):
        null_segment(selector, &s)
    else:
        if not mark_accessed(c, selector, &raw):
            return False
        make_segment(selector, raw, &s)
    set_segment(c, which, &s)
    return True
