# Stack and near control flow.

from libc.stdint cimport uint32_t

from pyvirt._core.interp.cpu cimport R_ESP, S_CS, S_SS, X_GP, cpu_t
from pyvirt._core.interp.memory cimport load, raise_fault, store


cdef inline void set_esp(cpu_t *c, uint32_t v) noexcept nogil:
    """ESP or SP, by the size of the stack segment."""
    c.gpr[R_ESP] = (c.gpr[R_ESP] & ~c.stack_mask) | (v & c.stack_mask)


cdef inline bint push(cpu_t *c, uint32_t v, uint32_t n) noexcept nogil:
    cdef uint32_t sp = (c.gpr[R_ESP] - n) & c.stack_mask
    if not store(c, S_SS, sp, n, v):
        return False
    set_esp(c, sp)
    return True


cdef inline bint peek(cpu_t *c, uint32_t place, uint32_t n, uint32_t *v) noexcept nogil:
    """What lies `place` bytes above the top."""
    return load(c, S_SS, (c.gpr[R_ESP] + place) & c.stack_mask, n, v)


cdef inline bint inside_code(cpu_t *c, uint32_t target) noexcept nogil:
    """Near transfers to beyond the limit fault before anything changes (SDM vol. 2, JMP)."""
    if target > c.seg[S_CS].limit:
        raise_fault(c, X_GP, 1, 0)
        return False
    return True


cdef inline void jump(cpu_t *c, uint32_t target, uint32_t n) noexcept nogil:
    if n == 2:
        target &= 0xFFFF
    if inside_code(c, target):
        c.eip = target
