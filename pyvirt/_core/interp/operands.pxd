# The operands of micro-operations: registers, and memory behind addressing bytes.

from libc.stdint cimport uint8_t, uint32_t

from pyvirt._core.interp.cpu cimport cpu_t, uop_t
from pyvirt._core.interp.memory cimport (
    address,
    fetch,
    load,
    load_for_write,
    put,
    store,
    store_back,
)


cdef inline uint32_t reg_get(const cpu_t *c, uint32_t at, uint32_t n) noexcept nogil:
    return fetch(<const uint8_t *>c.gpr + at, n)


cdef inline void reg_put(cpu_t *c, uint32_t at, uint32_t n, uint32_t v) noexcept nogil:
    put(<uint8_t *>c.gpr + at, n, v)


cdef inline uint32_t *reg4(cpu_t *c, uint32_t at) noexcept nogil:
    return <uint32_t *>(<uint8_t *>c.gpr + at)


cdef inline bint rm_get(cpu_t *c, const uop_t *u, uint32_t n, uint32_t *v) noexcept nogil:
    if u.mem:
        return load(c, u.segment, address(c, u), n, v)
    v[0] = reg_get(c, u.rm, n)
    return True


cdef inline bint rm_put(cpu_t *c, const uop_t *u, uint32_t n, uint32_t v) noexcept nogil:
    if u.mem:
        return store(c, u.segment, address(c, u), n, v)
    reg_put(c, u.rm, n, v)
    return True


cdef inline bint rm_open(
    cpu_t *c, const uop_t *u, uint32_t n, uint32_t *v, uint8_t **host
) noexcept nogil:
    """The first half of a read-modify-write."""
    if u.mem:
        return load_for_write(c, u.segment, address(c, u), n, v, host)
    host[0] = <uint8_t *>c.gpr + u.rm
    v[0] = reg_get(c, u.rm, n)
    return True


cdef inline void rm_close(
    cpu_t *c, const uop_t *u, uint32_t n, uint32_t v, uint8_t *host
) noexcept nogil:
    if host != NULL:
        put(host, n, v)
    else:
        store_back(c, u.segment, address(c, u), n, v, NULL)
