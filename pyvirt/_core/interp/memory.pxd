# Guest memory: segment checks, the look-aside of host pointers, and the accesses that miss it.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from pyvirt._core.interp.cpu cimport (
    EVENT_FAULT,
    LOOK_BITS,
    LOOK_MASK,
    S_SS,
    X_GP,
    X_SS,
    cpu_t,
    look_t,
    segment_t,
    uop_t,
)


cdef inline void raise_fault(
    cpu_t *c, uint32_t vector, uint32_t has_code, uint32_t error
) noexcept nogil:
    """Leave the running instruction with an exception."""
    c.event |= EVENT_FAULT
    c.fault_vector = vector
    c.fault_code = has_code
    c.fault_error = error


cdef inline uint32_t fetch(const uint8_t *p, uint32_t n) noexcept nogil:
    cdef uint32_t v = 0
    cdef uint16_t w
    if n == 4:
        memcpy(&v, p, 4)
    elif n == 2:
        memcpy(&w, p, 2)
        v = w
    else:
        v = p[0]
    return v


cdef inline void put(uint8_t *p, uint32_t n, uint32_t v) noexcept nogil:
    cdef uint16_t w
    if n == 4:
        memcpy(p, &v, 4)
    elif n == 2:
        w = <uint16_t>v
        memcpy(p, &w, 2)
    else:
        p[0] = <uint8_t>v


cdef inline uint32_t address(const cpu_t *c, const uop_t *u) noexcept nogil:
    """The offset that the addressing bytes of an instruction say."""
    return (c.gpr[u.base] + (c.gpr[u.index] << u.scale) + u.disp) & u.amask


cdef inline void segment_fault(cpu_t *c, uint32_t segment) noexcept nogil:
    raise_fault(c, X_SS if segment == S_SS else X_GP, 1, 0)


cdef inline bint may_read(const segment_t *s, uint32_t offset, uint32_t n) noexcept nogil:
    return <uint64_t>(offset - s.low) + n <= s.rsize


cdef inline bint may_write(const segment_t *s, uint32_t offset, uint32_t n) noexcept nogil:
    return <uint64_t>(offset - s.low) + n <= s.wsize


cdef bint read_slow(
    cpu_t *c, uint32_t linear, uint32_t n, uint32_t user, uint32_t *v
) noexcept nogil
cdef bint write_slow(
    cpu_t *c, uint32_t linear, uint32_t n, uint32_t user, uint32_t v
) noexcept nogil
cdef bint window(cpu_t *c, uint32_t linear, uint32_t n, uint32_t *v, bint write) noexcept nogil
cdef bint check_write(cpu_t *c, uint32_t linear, uint32_t n, uint32_t user) noexcept nogil
cdef bint code_page(cpu_t *c, uint32_t linear, uint64_t *pa, const uint8_t **host) noexcept nogil
cdef void flush(cpu_t *c) noexcept nogil
cdef void flush_page(cpu_t *c, uint32_t linear) noexcept nogil
cdef void forget_code(cpu_t *c) noexcept nogil
cdef void mark_code(cpu_t *c, uint32_t frame, uint64_t granules) noexcept nogil
cdef void settle_tables(cpu_t *c) noexcept nogil


cdef inline bint read_linear(
    cpu_t *c, uint32_t linear, uint32_t n, uint32_t user, uint32_t *v
) noexcept nogil:
    cdef const look_t *e = &c.look[(user << LOOK_BITS) + (linear >> 12 & LOOK_MASK)]
    if e.read == (c.tag | linear >> 12) and (linear & 4095) <= 4096 - n:
        v[0] = fetch(e.host + (linear & 4095), n)
        return True
    return read_slow(c, linear, n, user, v)


cdef inline bint write_linear(
    cpu_t *c, uint32_t linear, uint32_t n, uint32_t user, uint32_t v
) noexcept nogil:
    cdef const look_t *e = &c.look[(user << LOOK_BITS) + (linear >> 12 & LOOK_MASK)]
    if e.write == (c.tag | linear >> 12) and (linear & 4095) <= 4096 - n:
        put(e.host + (linear & 4095), n, v)
        return True
    return write_slow(c, linear, n, user, v)


cdef inline bint load(
    cpu_t *c, uint32_t segment, uint32_t offset, uint32_t n, uint32_t *v
) noexcept nogil:
    """n bytes (1, 2 or 4) of a segment; False after a fault."""
    cdef const segment_t *s = &c.seg[segment]
    if not may_read(s, offset, n):
        segment_fault(c, segment)
        return False
    return read_linear(c, s.base + offset, n, c.user, v)


cdef inline bint store(
    cpu_t *c, uint32_t segment, uint32_t offset, uint32_t n, uint32_t v
) noexcept nogil:
    cdef const segment_t *s = &c.seg[segment]
    if not may_write(s, offset, n):
        segment_fault(c, segment)
        return False
    return write_linear(c, s.base + offset, n, c.user, v)


cdef inline bint load_for_write(
    cpu_t *c, uint32_t segment, uint32_t offset, uint32_t n, uint32_t *v, uint8_t **host
) noexcept nogil:
    """The first half of a read-modify-write: its faults are those of the write.

    `host` is where the second half stores, or NULL: then it is `store`, which cannot fault now.
    """
    cdef const segment_t *s = &c.seg[segment]
    cdef uint32_t linear = s.base + offset
    cdef const look_t *e = &c.look[(c.user << LOOK_BITS) + (linear >> 12 & LOOK_MASK)]
    if not may_write(s, offset, n) or not may_read(s, offset, n):
        segment_fault(c, segment)
        return False
    if e.write == (c.tag | linear >> 12) and (linear & 4095) <= 4096 - n:
        host[0] = e.host + (linear & 4095)
        v[0] = fetch(host[0], n)
        return True
    host[0] = NULL
    return check_write(c, linear, n, c.user) and read_slow(c, linear, n, c.user, v)


cdef inline void store_back(
    cpu_t *c, uint32_t segment, uint32_t offset, uint32_t n, uint32_t v, uint8_t *host
) noexcept nogil:
    if host != NULL:
        put(host, n, v)
    else:
        write_slow(c, c.seg[segment].base + offset, n, c.user, v)


cdef inline bint system_read(cpu_t *c, uint32_t linear, uint32_t n, uint32_t *v) noexcept nogil:
    """As the processor itself reads its tables: with supervisor rights."""
    if linear >= c.window:
        return window(c, linear, n, v, False)
    return read_linear(c, linear, n, 0, v)


cdef inline bint system_write(cpu_t *c, uint32_t linear, uint32_t n, uint32_t v) noexcept nogil:
    if linear >= c.window:
        return window(c, linear, n, &v, True)
    return write_linear(c, linear, n, 0, v)
