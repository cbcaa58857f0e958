# What may ask about a selector without a fault (SDM vol. 3, 5.10; vol. 2, LAR LSL VERR VERW ARPL).
# The caller has found the descriptor: a null selector, or one outside its table, is not visible.

from libc.stdint cimport uint16_t, uint32_t

from pyvirt._core.protection.descriptors cimport (
    CALL16,
    CALL32,
    LDT,
    PROTECTED,
    TASK_GATE,
    TSS16,
    TSS16_BUSY,
    TSS32,
    TSS32_BUSY,
    descriptor_t,
    is_conforming,
    is_readable,
    is_writable,
)
from pyvirt._core.protection.verdict cimport is_null, weaker


cdef inline bint reaches(int cpl, uint16_t selector, const descriptor_t *d) noexcept nogil:
    return is_conforming(d) or weaker(cpl, selector & 3) <= d.dpl


cdef inline bint lar(int cpl, uint16_t selector, const descriptor_t *d, int mode) noexcept nogil:
    """ZF: the access rights of this descriptor may be read."""
    if is_null(selector) or not reaches(cpl, selector, d):
        return False
    if d.s or d.type == LDT or d.type == TSS32 or d.type == TSS32_BUSY or d.type == CALL32:
        return True
    return mode == PROTECTED and (
        d.type == TSS16 or d.type == TSS16_BUSY or d.type == CALL16 or d.type == TASK_GATE
    )


cdef inline bint lsl(int cpl, uint16_t selector, const descriptor_t *d, int mode) noexcept nogil:
    """ZF: the limit may be read; gates have none."""
    if is_null(selector) or not reaches(cpl, selector, d):
        return False
    if d.s or d.type == LDT or d.type == TSS32 or d.type == TSS32_BUSY:
        return True
    return mode == PROTECTED and (d.type == TSS16 or d.type == TSS16_BUSY)


cdef inline bint verr(int cpl, uint16_t selector, const descriptor_t *d) noexcept nogil:
    return not is_null(selector) and is_readable(d) and reaches(cpl, selector, d)


cdef inline bint verw(int cpl, uint16_t selector, const descriptor_t *d) noexcept nogil:
    return not is_null(selector) and is_writable(d) and reaches(cpl, selector, d)


cdef inline bint arpl(uint16_t *selector, uint16_t asker) noexcept nogil:
    """Raise the RPL of a selector to that of who asks; ZF: it was below."""
    if selector[0] & 3 >= asker & 3:
        return False
    selector[0] = (selector[0] & 0xFFFC) | (asker & 3)
    return True


cdef inline uint32_t access_rights(uint32_t high) noexcept nogil:
    """What LAR loads, from the upper four bytes of the descriptor.

    Four bits that the manual leaves undefined are those of the limit, as processors do.
    """
    return high & 0x00FFFF00
