# I/O ports (SDM vol. 1, 18.5).

from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef inline bint io_by_level(int cpl, int iopl, bint vm) noexcept nogil:
    """Whether IOPL alone admits; if not, the bitmap decides. In virtual-8086 mode it always does."""
    return not vm and cpl <= iopl


cdef inline bint io_permitted(
    const uint8_t *tss, uint32_t limit, uint16_t port, int size
) noexcept nogil:
    """Whether the bitmap of a 32- or 64-bit TSS has a 0 for each of the `size` ports; if not: #GP(0).

    `tss` holds `limit` + 1 bytes. The processor reads two bytes of the bitmap, whatever it needs:
    both must lie inside the limit.
    """
    cdef uint32_t at
    cdef uint32_t bits
    if limit < 103:
        return False            # too short to say where the bitmap begins
    at = tss[102] + (<uint32_t>tss[103] << 8) + (port >> 3)
    if at + 1 > limit:
        return False
    bits = tss[at] | <uint32_t>tss[at + 1] << 8
    return not bits >> (port & 7) & ((<uint32_t>1 << size) - 1)
