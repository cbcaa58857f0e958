# From a selector to its descriptor (SDM vol. 3, 3.4.2, 3.5.1).

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef struct tables_t:
    const uint8_t *gdt      # `gdt_limit` + 1 bytes
    const uint8_t *ldt      # `ldt_limit` + 1 bytes; NULL: LDTR is null
    uint32_t gdt_limit
    uint32_t ldt_limit


cdef inline bint selector_inside(uint16_t selector, uint32_t limit, int size) noexcept nogil:
    """Whether `size` bytes (8, or 16 for system descriptors of long mode) lie in the table."""
    return <uint32_t>(selector & 0xFFF8) + size - 1 <= limit


cdef inline bint find_descriptor(
    const tables_t *tables, uint16_t selector, uint64_t *raw
) noexcept nogil:
    """Read the eight bytes; False where the table does not reach, or there is none.

    A null selector of the GDT reads its first entry: who may not have that asks `is_null` first.
    """
    cdef const uint8_t *table = tables.ldt if selector & 4 else tables.gdt
    cdef uint32_t limit = tables.ldt_limit if selector & 4 else tables.gdt_limit
    if table == NULL or not selector_inside(selector, limit, 8):
        return False
    memcpy(raw, table + (selector & 0xFFF8), 8)
    return True
