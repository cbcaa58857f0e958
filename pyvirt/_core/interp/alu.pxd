# Arithmetic and logic on 1, 2 or 4 bytes, with flags (SDM vol. 2, each instruction's page).

from libc.stdint cimport uint32_t

from pyvirt._core.interp.cpu cimport cpu_t
from pyvirt._core.interp.flags cimport get_cf, set_carries, set_logic

cdef enum:                      # as opcodes number them
    A_ADD = 0
    A_OR = 1
    A_ADC = 2
    A_SBB = 3
    A_AND = 4
    A_SUB = 5
    A_XOR = 6
    A_CMP = 7
    A_TEST = 8


cdef inline uint32_t add(cpu_t *c, uint32_t a, uint32_t b, uint32_t n) noexcept nogil:
    cdef uint32_t r = a + b
    set_carries(c, r, (a & b) | ((a | b) & ~r), n)
    return r


cdef inline uint32_t sub(cpu_t *c, uint32_t a, uint32_t b, uint32_t n) noexcept nogil:
    cdef uint32_t r = a - b
    set_carries(c, r, (~a & b) | ((~a | b) & r), n)
    return r


cdef inline uint32_t alu(cpu_t *c, uint32_t op, uint32_t a, uint32_t b, uint32_t n) noexcept nogil:
    """One of the nine; bits of the result beyond n bytes mean nothing."""
    cdef uint32_t r
    if op == A_ADD:
        return add(c, a, b, n)
    elif op == A_OR:
        r = a | b
        set_logic(c, r, n)
    elif op == A_ADC:
        r = a + b + get_cf(c)
        set_carries(c, r, (a & b) | ((a | b) & ~r), n)
    elif op == A_SBB:
        r = a - b - get_cf(c)
        set_carries(c, r, (~a & b) | ((~a | b) & r), n)
    elif op == A_AND or op == A_TEST:
        r = a & b
        set_logic(c, r, n)
    elif op == A_XOR:
        r = a ^ b
        set_logic(c, r, n)
    else:
        return sub(c, a, b, n)
    return r


cdef inline uint32_t unary(cpu_t *c, uint32_t op, uint32_t a, uint32_t n) noexcept nogil:
    """INC DEC NOT NEG: `op` 0 to 3. INC and DEC leave CF, NOT leaves all flags."""
    cdef uint32_t r, cf
    if op == 2:
        return ~a
    if op == 3:
        return sub(c, 0, a, n)
    cf = get_cf(c)
    r = add(c, a, 1, n) if op == 0 else sub(c, a, 1, n)
    # bit 30 is CF xor OF: it turns with CF
    c.fl_aux ^= <uint32_t>0xC0000000 if (c.fl_aux >> 31) != cf else 0
    return r
