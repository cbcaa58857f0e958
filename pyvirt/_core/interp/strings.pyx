"""MOVS CMPS STOS LODS SCAS, with their prefixes (SDM vol. 2, REP).

A fault leaves the registers as they are between two elements, so that the instruction goes on
where it stopped. After CHUNK repetitions the engine is asked to look at time and interrupts, with
EIP still at the instruction.
"""

from libc.stdint cimport uint32_t

from pyvirt._core.interp.alu cimport sub
from pyvirt._core.interp.cpu cimport (
    EVENT_EXIT,
    EVENT_LEAVE,
    F_DF,
    R_EAX,
    R_ECX,
    R_EDI,
    R_ESI,
    S_ES,
    cpu_t,
    uop_t,
)
from pyvirt._core.interp.flags cimport get_zf
from pyvirt._core.interp.memory cimport load, store


cdef void step_register(cpu_t *c, uint32_t r, uint32_t step, uint32_t amask) noexcept nogil:
    c.gpr[r] = (c.gpr[r] & ~amask) | ((c.gpr[r] + step) & amask)


cdef uint32_t counted(cpu_t *c, uint32_t amask) noexcept nogil:
    return c.gpr[R_ECX] & amask


cdef bint one(cpu_t *c, const uop_t *u, uint32_t step) noexcept nogil:
    """One element; False after a fault, with nothing changed."""
    cdef uint32_t n = u.size, a = 0, b = 0, mask = <uint32_t>0xFFFFFFFF >> (32 - 8 * n)
    cdef uint32_t si = c.gpr[R_ESI] & u.amask, di = c.gpr[R_EDI] & u.amask
    if u.op == 0:                   # MOVS
        if not load(c, u.segment, si, n, &a) or not store(c, S_ES, di, n, a):
            return False
        step_register(c, R_ESI, step, u.amask)
        step_register(c, R_EDI, step, u.amask)
    elif u.op == 1:                 # CMPS
        if not load(c, u.segment, si, n, &a) or not load(c, S_ES, di, n, &b):
            return False
        sub(c, a, b, n)
        step_register(c, R_ESI, step, u.amask)
        step_register(c, R_EDI, step, u.amask)
    elif u.op == 2:                 # STOS
        if not store(c, S_ES, di, n, c.gpr[R_EAX] & mask):
            return False
        step_register(c, R_EDI, step, u.amask)
    elif u.op == 3:                 # LODS
        if not load(c, u.segment, si, n, &a):
            return False
        c.gpr[R_EAX] = (c.gpr[R_EAX] & ~mask) | a
        step_register(c, R_ESI, step, u.amask)
    else:                           # SCAS
        if not load(c, S_ES, di, n, &b):
            return False
        sub(c, c.gpr[R_EAX] & mask, b, n)
        step_register(c, R_EDI, step, u.amask)
    return True


cdef void string_op(cpu_t *c, const uop_t *u) noexcept nogil:
    cdef uint32_t step = 0 - <uint32_t>u.size if c.eflags & F_DF else u.size
    cdef uint32_t done = 0, compares = u.op == 1 or u.op == 4
    if u.rep == 0:
        one(c, u, step)
        return
    while counted(c, u.amask):
        # a write to decoded code does not end it: its time must not hang on what was decoded
        if done == CHUNK or c.event & EVENT_EXIT:
            c.eip = c.start
            c.event |= EVENT_LEAVE
            return
        if not one(c, u, step):
            return
        step_register(c, R_ECX, <uint32_t>0xFFFFFFFF, u.amask)
        done += 1
        if compares and get_zf(c) != (u.rep == 4):
            return
