"""Less frequent instructions: what is not worth a case of its own in `step`."""

from libc.stdint cimport int32_t, uint8_t, uint32_t

from pyvirt._core.interp.alu cimport add, sub
from pyvirt._core.interp.arith cimport decimal, multiply_divide
from pyvirt._core.interp.control cimport jump, peek, set_esp
from pyvirt._core.interp.cpu cimport *
from pyvirt._core.interp.flags cimport (
    get_cf,
    get_eflags,
    get_zf,
    set_arithmetic,
    set_cf,
    set_logic,
    widen,
)
from pyvirt._core.interp.fpu cimport fpu_op
from pyvirt._core.interp.kinds cimport *
from pyvirt._core.interp.memory cimport (
    address,
    load,
    load_for_write,
    raise_fault,
    store,
    store_back,
)
from pyvirt._core.interp.operands cimport (
    reg4,
    reg_get,
    reg_put,
    rm_close,
    rm_get,
    rm_open,
)
from pyvirt._core.interp.shifts cimport double_shift


cdef void bit_op(cpu_t *c, const uop_t *u) noexcept nogil:
    """BT BTS BTR BTC; with a bit offset in a register memory is addressed beyond the operand."""
    cdef uint32_t n = u.size, width = 8 * n, v, bit, at, r
    cdef int32_t offset
    cdef uint8_t *host = NULL
    if u.kind == K_BT_I:
        bit = u.imm & (width - 1)
        at = address(c, u)
    else:
        r = reg_get(c, u.reg, n)
        bit = r & (width - 1)
        offset = <int32_t>widen(r, n) >> (5 if n == 4 else 4)
        at = (address(c, u) + <uint32_t>offset * n) & u.amask
    if not u.mem:
        v = reg_get(c, u.rm, n)
    elif u.op == 0:
        if not load(c, u.segment, at, n, &v):
            return
    elif not load_for_write(c, u.segment, at, n, &v, &host):
        return
    set_cf(c, v >> bit & 1)
    if u.op == 0:
        return
    if u.op == 1:
        v |= <uint32_t>1 << bit
    elif u.op == 2:
        v &= ~(<uint32_t>1 << bit)
    else:
        v ^= <uint32_t>1 << bit
    if u.mem:
        store_back(c, u.segment, at, n, v, host)
    else:
        reg_put(c, u.rm, n, v)


cdef void bit_scan(cpu_t *c, const uop_t *u) noexcept nogil:
    """BSF BSR: of zero the destination stays; the other flags are those of the source."""
    cdef uint32_t v, i = 0
    if not rm_get(c, u, u.size, &v):
        return
    set_logic(c, v, u.size)
    if v == 0:
        return
    if u.kind == K_BSF:
        while not v >> i & 1:
            i += 1
    else:
        i = 31
        while not v >> i & 1:
            i -= 1
    reg_put(c, u.reg, u.size, i)


cdef void exchange(cpu_t *c, const uop_t *u) noexcept nogil:
    """XCHG, XADD, CMPXCHG."""
    cdef uint32_t v, r, sum, n = u.size
    cdef uint8_t *host
    if not rm_open(c, u, n, &v, &host):
        return
    r = reg_get(c, u.reg, n)
    if u.kind == K_XCHG:
        rm_close(c, u, n, r, host)
        reg_put(c, u.reg, n, v)
    elif u.kind == K_XADD:
        sum = add(c, v, r, n)
        if u.mem:
            rm_close(c, u, n, sum, host)
            reg_put(c, u.reg, n, v)
        else:
            reg_put(c, u.reg, n, v)
            reg_put(c, u.rm, n, sum)
    else:
        sub(c, reg_get(c, 0, n), v, n)
        if get_zf(c):
            rm_close(c, u, n, r, host)
        else:
            rm_close(c, u, n, v, host)      # the bus sees a write in any case
            reg_put(c, 0, n, v)


cdef void compare_eight(cpu_t *c, const uop_t *u) noexcept nogil:
    """CMPXCHG8B: only ZF."""
    cdef uint32_t low, high, at = address(c, u), zf
    cdef uint8_t *first
    cdef uint8_t *second
    # the upper half first, so that a fault in it leaves the lower one alone
    if (not load_for_write(c, u.segment, (at + 4) & u.amask, 4, &high, &second)
            or not load_for_write(c, u.segment, at, 4, &low, &first)):
        return
    zf = low == c.gpr[R_EAX] and high == c.gpr[R_EDX]
    if zf:
        store(c, u.segment, at, 4, c.gpr[R_EBX])
        store(c, u.segment, (at + 4) & u.amask, 4, c.gpr[R_ECX])
    else:
        c.gpr[R_EAX] = low
        c.gpr[R_EDX] = high
    set_arithmetic(c, (get_eflags(c) & ~<uint32_t>F_ZF) | zf << 6)


cdef void push_all(cpu_t *c, uint32_t n) noexcept nogil:
    """PUSHA: eight registers; the value of ESP is that from before."""
    cdef uint32_t i, sp = c.gpr[R_ESP], v
    cdef uint8_t *host
    # the lowest first: a page fault there must come before anything is written
    if not load_for_write(c, S_SS, (sp - 8 * n) & c.stack_mask, n, &v, &host):
        return
    for i in range(1, 9):
        if not store(c, S_SS, (sp - i * n) & c.stack_mask, n, c.gpr[i - 1]):
            return
    set_esp(c, sp - 8 * n)


cdef void pop_all(cpu_t *c, uint32_t n) noexcept nogil:
    """POPA: ESP on the stack is skipped."""
    cdef uint32_t i
    cdef uint32_t[8] v
    for i in range(8):
        if not peek(c, i * n, n, &v[i]):
            return
    for i in range(8):
        if i != 3:
            reg_put(c, (7 - i) * 4, n, v[i])
    set_esp(c, c.gpr[R_ESP] + 8 * n)


cdef void enter(cpu_t *c, const uop_t *u) noexcept nogil:
    """ENTER (SDM vol. 2): `imm` bytes, nesting level `op`."""
    cdef uint32_t n = u.size, v, frame, level = u.op, mask = c.stack_mask
    cdef uint32_t sp = c.gpr[R_ESP], bp = c.gpr[R_EBP]
    cdef uint8_t *host
    sp -= n
    if not store(c, S_SS, sp & mask, n, bp):
        return
    frame = sp
    if level:
        for _ in range(1, level):
            bp -= n
            if not load(c, S_SS, bp & mask, n, &v):
                return
            sp -= n
            if not store(c, S_SS, sp & mask, n, v):
                return
        sp -= n
        if not store(c, S_SS, sp & mask, n, (c.gpr[R_ESP] & ~mask) | (frame & mask)):
            return
    sp -= u.imm
    # the new top must be writable, though nothing is written there
    if not load_for_write(c, S_SS, sp & mask, n, &v, &host):
        return
    if n == 4:
        c.gpr[R_EBP] = (c.gpr[R_ESP] & ~mask) | (frame & mask)
    else:
        c.gpr[R_EBP] = (c.gpr[R_EBP] & <uint32_t>0xFFFF0000) | (frame & 0xFFFF)
    set_esp(c, sp)


cdef void bound(cpu_t *c, const uop_t *u) noexcept nogil:
    cdef uint32_t low, high, at = address(c, u), n = u.size
    cdef int32_t v
    if not load(c, u.segment, at, n, &low) or not load(c, u.segment, (at + n) & u.amask, n, &high):
        return
    v = <int32_t>widen(reg_get(c, u.reg, n), n)
    if v < <int32_t>widen(low, n) or v > <int32_t>widen(high, n):
        raise_fault(c, X_BR, 0, 0)


cdef void loop_op(cpu_t *c, const uop_t *u) noexcept nogil:
    """LOOPNE LOOPE LOOP JCXZ: the count is of the address size."""
    cdef uint32_t count = c.gpr[R_ECX], taken
    if u.op == 3:
        taken = count & u.amask == 0
    else:
        count = (count & ~u.amask) | ((count - 1) & u.amask)
        taken = count & u.amask != 0
        if u.op == 0:
            taken = taken and not get_zf(c)
        elif u.op == 1:
            taken = taken and get_zf(c)
    if taken:
        jump(c, c.eip + u.imm, u.size)
        if c.event:
            return
    c.gpr[R_ECX] = count


cdef void other(cpu_t *c, const uop_t *u) noexcept nogil:
    """What is not worth a case in the loop."""
    cdef uint32_t k = u.kind, n = u.size, v = 0, w, f
    cdef uint8_t *host
    if k == K_SHXD_I or k == K_SHXD_CL:
        w = u.imm if k == K_SHXD_I else c.gpr[R_ECX] & 31
        if not rm_open(c, u, n, &v, &host):
            return
        if w:
            rm_close(c, u, n, double_shift(c, u.op, v, reg_get(c, u.reg, n), w, n), host)
    elif k == K_MULDIV:
        if rm_get(c, u, n, &v):
            multiply_divide(c, u.op, v, n)
    elif k == K_XCHG or k == K_XADD or k == K_CMPXCHG:
        exchange(c, u)
    elif k == K_CMPXCHG8B:
        compare_eight(c, u)
    elif k == K_BT_R or k == K_BT_I:
        bit_op(c, u)
    elif k == K_BSF or k == K_BSR:
        bit_scan(c, u)
    elif k == K_BSWAP:
        v = reg4(c, u.rm)[0]
        reg4(c, u.rm)[0] = v << 24 | (v & 0xFF00) << 8 | (v >> 8 & 0xFF00) | v >> 24
    elif k == K_PUSHA:
        push_all(c, n)
    elif k == K_POPA:
        pop_all(c, n)
    elif k == K_ENTER:
        enter(c, u)
    elif k == K_LOOP:
        loop_op(c, u)
    elif k == K_CBW:
        if n == 4:
            c.gpr[R_EAX] = widen(c.gpr[R_EAX] & 0xFFFF, 2)
        else:
            reg_put(c, 0, 2, widen(c.gpr[R_EAX] & 0xFF, 1))
    elif k == K_CWD:
        reg_put(c, R_EDX * 4, n, 0 - (widen(reg_get(c, 0, n), n) >> 31))
    elif k == K_SAHF:
        f = c.gpr[R_EAX] >> 8
        set_arithmetic(c, (get_eflags(c) & F_OF) | (f & 0xD5))
    elif k == K_LAHF:
        c.gpr[R_EAX] = (c.gpr[R_EAX] & ~<uint32_t>0xFF00) | (get_eflags(c) & 0xD7) << 8
    elif k == K_CARRY:
        if u.op < 3:
            set_cf(c, get_cf(c) ^ 1 if u.op == 0 else u.op - 1)
        elif u.op == 3:
            c.eflags &= ~<uint32_t>F_DF
        else:
            c.eflags |= F_DF
    elif k == K_SALC:
        reg_put(c, 0, 1, 0 - get_cf(c))
    elif k == K_XLAT:
        if load(c, u.segment, (c.gpr[R_EBX] + (c.gpr[R_EAX] & 0xFF)) & u.amask, 1, &v):
            reg_put(c, 0, 1, v)
    elif k == K_BCD:
        decimal(c, u.op, u.imm)
    elif k == K_BOUND:
        bound(c, u)
    elif k == K_NM:
        # WAIT and ESC wait for an FPU that an operating system may emulate (SDM vol. 3, 2.5)
        if u.op:
            if c.cr0 & (CR0_MP | CR0_TS) == CR0_MP | CR0_TS:
                raise_fault(c, X_NM, 0, 0)
            elif c.fpu.present and c.fpu.status & 0x80:
                raise_fault(c, X_MF, 0, 0)
        elif c.cr0 & (CR0_EM | CR0_TS):
            raise_fault(c, X_NM, 0, 0)
        elif c.fpu.present:
            fpu_op(c, u)
        else:
            raise_fault(c, X_UD, 0, 0)
    else:
        raise_fault(c, X_UD, 0, 0)
