# Descriptors as a processor reads them (SDM vol. 3, 3.4.5, 3.5, 5.8.3, 6.11, 6.14.1).

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:                  # descriptor_t.type where s == 0, and gate_t.type
    TSS16 = 1
    LDT = 2
    TSS16_BUSY = 3
    CALL16 = 4
    TASK_GATE = 5
    INT16 = 6
    TRAP16 = 7
    TSS32 = 9               # of 64 bits in long mode, as all that follow
    TSS32_BUSY = 11
    CALL32 = 12
    INT32 = 14
    TRAP32 = 15

cdef enum:                  # bits of descriptor_t.type where s == 1
    ACCESSED = 1
    WRITABLE = 2            # of data
    READABLE = 2            # of code
    EXPAND_DOWN = 4         # of data
    CONFORMING = 4          # of code
    CODE = 8

cdef enum:                  # the processor's mode, as far as these rules differ by it
    PROTECTED = 0           # IA32_EFER.LMA = 0
    COMPATIBILITY = 1       # LMA = 1, CS.L = 0
    LONG = 2                # LMA = 1, CS.L = 1

cdef struct descriptor_t:
    uint64_t base
    uint32_t limit          # last offset inside (expand-down: last offset outside), in bytes
    uint8_t type
    uint8_t s               # 1: code or data; 0: system
    uint8_t dpl
    uint8_t p
    uint8_t avl
    uint8_t l               # 64-bit code
    uint8_t db
    uint8_t g

cdef struct gate_t:
    uint64_t offset
    uint16_t selector
    uint8_t type
    uint8_t s               # 1: these eight bytes are no gate but a segment
    uint8_t dpl
    uint8_t p
    uint8_t count           # words or doublewords that a call gate copies, 0 to 31
    uint8_t ist             # interrupt stack table, 0 to 7, in long mode


cdef inline void unpack_descriptor(uint64_t raw, descriptor_t *out) noexcept nogil:
    """The fields of eight bytes, read as a little-endian number."""
    out.base = (raw >> 16 & 0xFFFFFF) | (raw >> 32 & <uint64_t>0xFF000000)
    out.limit = <uint32_t>((raw & 0xFFFF) | (raw >> 32 & 0xF0000))
    out.type = raw >> 40 & 15
    out.s = raw >> 44 & 1
    out.dpl = raw >> 45 & 3
    out.p = raw >> 47 & 1
    out.avl = raw >> 52 & 1
    out.l = raw >> 53 & 1
    out.db = raw >> 54 & 1
    out.g = raw >> 55 & 1
    if out.g:
        out.limit = out.limit << 12 | 0xFFF


cdef inline void unpack_system64(uint64_t low, uint64_t high, descriptor_t *out) noexcept nogil:
    """The fields of the 16 bytes of an LDT or a TSS in long mode."""
    unpack_descriptor(low, out)
    out.base |= high << 32


cdef inline uint64_t pack_descriptor(const descriptor_t *d) noexcept nogil:
    """The eight bytes; bits of the limit and base that do not fit are lost."""
    cdef uint64_t limit = d.limit >> 12 if d.g else d.limit
    return (
        (limit & 0xFFFF)
        | (d.base & 0xFFFFFF) << 16
        | <uint64_t>d.type << 40
        | <uint64_t>d.s << 44
        | <uint64_t>d.dpl << 45
        | <uint64_t>d.p << 47
        | (limit >> 16 & 15) << 48
        | <uint64_t>d.avl << 52
        | <uint64_t>d.l << 53
        | <uint64_t>d.db << 54
        | <uint64_t>d.g << 55
        | (d.base >> 24 & 0xFF) << 56
    )


cdef inline void unpack_gate(uint64_t raw, gate_t *out) noexcept nogil:
    """The fields of a gate of eight bytes; `unpack_gate64` for those of long mode."""
    out.selector = raw >> 16 & 0xFFFF
    out.type = raw >> 40 & 15
    out.s = raw >> 44 & 1
    out.dpl = raw >> 45 & 3
    out.p = raw >> 47 & 1
    out.count = raw >> 32 & 31
    out.ist = 0
    out.offset = raw & 0xFFFF
    if out.type & 8:                # 16-bit gates leave the upper half unused
        out.offset |= raw >> 32 & <uint64_t>0xFFFF0000


cdef inline void unpack_gate64(uint64_t low, uint64_t high, gate_t *out) noexcept nogil:
    """The fields of a call, interrupt or trap gate of long mode."""
    unpack_gate(low, out)
    out.offset |= high << 32
    out.count = 0
    out.ist = low >> 32 & 7


cdef inline bint is_code(const descriptor_t *d) noexcept nogil:
    return d.s and d.type & CODE


cdef inline bint is_data(const descriptor_t *d) noexcept nogil:
    return d.s and not d.type & CODE


cdef inline bint is_conforming(const descriptor_t *d) noexcept nogil:
    return d.s and (d.type & (CODE | CONFORMING)) == (CODE | CONFORMING)


cdef inline bint is_readable(const descriptor_t *d) noexcept nogil:
    """Data always are, code if its bit is set."""
    return d.s and (not d.type & CODE or d.type & READABLE)


cdef inline bint is_writable(const descriptor_t *d) noexcept nogil:
    return d.s and (d.type & (CODE | WRITABLE)) == WRITABLE


cdef inline bint is_expand_down(const descriptor_t *d) noexcept nogil:
    return d.s and (d.type & (CODE | EXPAND_DOWN)) == EXPAND_DOWN


cdef inline bint is_available_tss(const descriptor_t *d, int mode) noexcept nogil:
    return not d.s and (d.type == TSS32 or (d.type == TSS16 and mode == PROTECTED))


cdef inline bint is_busy_tss(const descriptor_t *d, int mode) noexcept nogil:
    return not d.s and (d.type == TSS32_BUSY or (d.type == TSS16_BUSY and mode == PROTECTED))


cdef inline bint is_call_gate(const descriptor_t *d, int mode) noexcept nogil:
    return not d.s and (d.type == CALL32 or (d.type == CALL16 and mode == PROTECTED))


cdef inline bint offset_inside(const descriptor_t *d, uint64_t offset, uint32_t size) noexcept nogil:
    """Whether `size` bytes (1 or more) from `offset` lie in a segment that is not of 64 bits.

    SDM vol. 3, 5.3: an expand-down segment reaches from the limit + 1 to 0xFFFF, or 0xFFFFFFFF with
    the B flag.
    """
    cdef uint64_t last = offset + size - 1
    if last < offset:
        return False
    if is_expand_down(d):
        return offset > d.limit and last <= (<uint64_t>0xFFFFFFFF if d.db else <uint64_t>0xFFFF)
    return last <= d.limit
