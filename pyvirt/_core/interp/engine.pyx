"""The loop: blocks of micro-operations, what interrupts them, and why it returns.

Exits follow Intel's VMX controls (SDM vol. 3, 25.6): classes of instructions, exceptions by vector,
external interrupts, HLT, triple fault; and a budget in instructions. A REP string counts as one
instruction for each CHUNK of its repetitions. Between instructions the processor can be stopped,
looked at and changed.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from pyvirt._core.interp.alu cimport (
    A_CMP,
    add,
    alu,
    sub,
    unary,
)
from pyvirt._core.interp.arith cimport decimal, multiply_divide, signed_product
from pyvirt._core.interp.blocks cimport find_block
from pyvirt._core.interp.bus cimport NO_VECTOR
from pyvirt._core.interp.control cimport inside_code, jump, peek, push, set_esp
from pyvirt._core.interp.cpu cimport *
from pyvirt._core.interp.flags cimport (
    condition,
    get_cf,
    get_eflags,
    get_zf,
    set_arithmetic,
    set_cf,
    set_logic,
    widen,
)
from pyvirt._core.interp.interrupts cimport BY_DEVICE, BY_TRAP, deliver, deliver_fault
from pyvirt._core.interp.kinds cimport *
from pyvirt._core.interp.memory cimport (
    address,
    fetch,
    flush,
    forget_code,
    load,
    load_for_write,
    put,
    raise_fault,
    store,
    store_back,
)
from pyvirt._core.interp.shifts cimport double_shift, shift
from pyvirt._core.interp.strings cimport string_op
from pyvirt._core.interp.system cimport system_op

cdef uint64_t NEVER = 0xFFFFFFFFFFFFFFFF


# --- operands ---------------------------------------------------------------------------------

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


# --- less frequent instructions ---------------------------------------------------------------

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


cdef void leave(cpu_t *c, uint32_t n) noexcept nogil:
    cdef uint32_t v, sp = c.gpr[R_EBP] & c.stack_mask
    if not load(c, S_SS, sp, n, &v):
        return
    set_esp(c, sp + n)
    reg_put(c, R_EBP * 4, n, v)


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
        # no FPU: WAIT and ESC wait for one that an operating system may emulate (SDM vol. 3, 2.5)
        if u.op:
            if c.cr0 & (CR0_MP | CR0_TS) == CR0_MP | CR0_TS:
                raise_fault(c, X_NM, 0, 0)
        elif c.cr0 & (CR0_EM | CR0_TS):
            raise_fault(c, X_NM, 0, 0)
        else:
            raise_fault(c, X_UD, 0, 0)
    else:
        raise_fault(c, X_UD, 0, 0)


# --- the loop ---------------------------------------------------------------------------------

cdef uint32_t execute(cpu_t *c, const uop_t *u, uint32_t count) noexcept nogil:
    """Run up to `count` micro-operations; returns how many were completed."""
    cdef const uop_t *first = u
    cdef const uop_t *end = u + count
    cdef uint32_t k, n, v, w, start
    cdef uint8_t *host
    c.running = <uop_t *>u
    while True:
        start = c.eip
        c.eip = start + u.length
        k = u.kind
        n = u.size
        if k == K_NOP:
            pass
        elif k == K_ADD_RR:
            reg4(c, u.rm)[0] = add(c, reg4(c, u.rm)[0], reg4(c, u.reg)[0], 4)
        elif k == K_ADD_RI:
            reg4(c, u.rm)[0] = add(c, reg4(c, u.rm)[0], u.imm, 4)
        elif k == K_SUB_RR:
            reg4(c, u.rm)[0] = sub(c, reg4(c, u.rm)[0], reg4(c, u.reg)[0], 4)
        elif k == K_SUB_RI:
            reg4(c, u.rm)[0] = sub(c, reg4(c, u.rm)[0], u.imm, 4)
        elif k == K_CMP_RR:
            sub(c, reg4(c, u.rm)[0], reg4(c, u.reg)[0], 4)
        elif k == K_CMP_RI:
            sub(c, reg4(c, u.rm)[0], u.imm, 4)
        elif k == K_AND_RR:
            reg4(c, u.rm)[0] &= reg4(c, u.reg)[0]
            set_logic(c, reg4(c, u.rm)[0], 4)
        elif k == K_AND_RI:
            reg4(c, u.rm)[0] &= u.imm
            set_logic(c, reg4(c, u.rm)[0], 4)
        elif k == K_XOR_RR:
            reg4(c, u.rm)[0] ^= reg4(c, u.reg)[0]
            set_logic(c, reg4(c, u.rm)[0], 4)
        elif k == K_XOR_RI:
            reg4(c, u.rm)[0] ^= u.imm
            set_logic(c, reg4(c, u.rm)[0], 4)
        elif k == K_OR_RR:
            reg4(c, u.rm)[0] |= reg4(c, u.reg)[0]
            set_logic(c, reg4(c, u.rm)[0], 4)
        elif k == K_OR_RI:
            reg4(c, u.rm)[0] |= u.imm
            set_logic(c, reg4(c, u.rm)[0], 4)
        elif k == K_TEST_RR:
            set_logic(c, reg4(c, u.rm)[0] & reg4(c, u.reg)[0], 4)
        elif k == K_INC_R:
            reg4(c, u.rm)[0] = unary(c, 0, reg4(c, u.rm)[0], 4)
        elif k == K_DEC_R:
            reg4(c, u.rm)[0] = unary(c, 1, reg4(c, u.rm)[0], 4)
        elif k == K_MOV4_RR:
            reg4(c, u.rm)[0] = reg4(c, u.reg)[0]
        elif k == K_MOV4_RI:
            reg4(c, u.rm)[0] = u.imm
        elif k == K_MOV4_RM:
            load(c, u.segment, address(c, u), 4, reg4(c, u.reg))
        elif k == K_MOV4_MR:
            store(c, u.segment, address(c, u), 4, reg4(c, u.reg)[0])
        elif k == K_JCC:
            if condition(c, u.op):
                v = c.eip + u.imm
                if n == 2:
                    v &= 0xFFFF
                if inside_code(c, v):
                    c.eip = v
        elif k == K_JMP:
            jump(c, c.eip + u.imm, n)
        elif k == K_LEA:
            reg_put(c, u.reg, n, address(c, u))
        elif k == K_ALU_RR or k == K_ALU_RI:
            v = u.imm if k == K_ALU_RI else reg_get(c, u.reg, n)
            v = alu(c, u.op, reg_get(c, u.rm, n), v, n)
            if u.op < A_CMP:
                reg_put(c, u.rm, n, v)
        elif k == K_ALU_RM:
            if load(c, u.segment, address(c, u), n, &w):
                v = alu(c, u.op, reg_get(c, u.reg, n), w, n)
                if u.op < A_CMP:
                    reg_put(c, u.reg, n, v)
        elif k == K_ALU_MR or k == K_ALU_MI:
            v = u.imm if k == K_ALU_MI else reg_get(c, u.reg, n)
            if u.op >= A_CMP:
                if load(c, u.segment, address(c, u), n, &w):
                    alu(c, u.op, w, v, n)
            elif load_for_write(c, u.segment, address(c, u), n, &w, &host):
                store_back(c, u.segment, address(c, u), n, alu(c, u.op, w, v, n), host)
        elif k == K_MOV_RR:
            reg_put(c, u.rm, n, reg_get(c, u.reg, n))
        elif k == K_MOV_RI:
            reg_put(c, u.rm, n, u.imm)
        elif k == K_MOV_RM:
            if load(c, u.segment, address(c, u), n, &v):
                reg_put(c, u.reg, n, v)
        elif k == K_MOV_MR:
            store(c, u.segment, address(c, u), n, reg_get(c, u.reg, n))
        elif k == K_MOV_MI:
            store(c, u.segment, address(c, u), n, u.imm)
        elif k == K_UNARY:
            if rm_open(c, u, n, &v, &host):
                rm_close(c, u, n, unary(c, u.op, v, n), host)
        elif k == K_SHIFT_I or k == K_SHIFT_CL:
            w = u.imm if k == K_SHIFT_I else c.gpr[R_ECX] & 31
            if rm_open(c, u, n, &v, &host) and w:
                rm_close(c, u, n, shift(c, u.op, v, w, n), host)
        elif k == K_IMUL or k == K_IMUL_I:
            if rm_get(c, u, n, &v):
                w = u.imm if k == K_IMUL_I else reg_get(c, u.reg, n)
                reg_put(c, u.reg, n, signed_product(c, v, w, n))
        elif k == K_MOVZX:
            if rm_get(c, u, u.op, &v):
                reg_put(c, u.reg, n, v)
        elif k == K_MOVSX:
            if rm_get(c, u, u.op, &v):
                reg_put(c, u.reg, n, widen(v, u.op))
        elif k == K_SETCC:
            rm_put(c, u, 1, condition(c, u.op))
        elif k == K_CMOVCC:
            # the source is read in any case
            if rm_get(c, u, n, &v) and condition(c, u.op):
                reg_put(c, u.reg, n, v)
        elif k == K_PUSH_R:
            push(c, reg_get(c, u.rm, n), n)
        elif k == K_PUSH_I:
            push(c, u.imm, n)
        elif k == K_PUSH_M:
            if load(c, u.segment, address(c, u), n, &v):
                push(c, v, n)
        elif k == K_POP_R:
            if peek(c, 0, n, &v):
                set_esp(c, c.gpr[R_ESP] + n)
                reg_put(c, u.rm, n, v)
        elif k == K_POP_M:
            # an address with ESP is that after the pop
            if peek(c, 0, n, &v):
                w = c.gpr[R_ESP]
                set_esp(c, w + n)
                if not rm_put(c, u, n, v):
                    c.gpr[R_ESP] = w
        elif k == K_LEAVE:
            leave(c, n)
        elif k == K_CALL:
            v = c.eip + u.imm
            if n == 2:
                v &= 0xFFFF
            if inside_code(c, v) and push(c, c.eip, n):
                c.eip = v
        elif k == K_JMP_RM:
            if rm_get(c, u, n, &v):
                jump(c, v, n)
        elif k == K_CALL_RM:
            if rm_get(c, u, n, &v) and inside_code(c, v) and push(c, c.eip, n):
                c.eip = v
        elif k == K_RET:
            if peek(c, 0, n, &v) and inside_code(c, v):
                set_esp(c, c.gpr[R_ESP] + n + u.imm)
                c.eip = v
        elif k == K_STRING:
            c.start = start
            string_op(c, u)
        elif k >= K_SYSTEM:
            c.start = start
            system_op(c, u)
        else:
            other(c, u)
        u += 1
        if c.event:
            if c.event & (EVENT_FAULT | EVENT_EXIT):
                c.eip = start
                return <uint32_t>(u - first) - 1
            return <uint32_t>(u - first)
        if u == end:
            return <uint32_t>(u - first)


cdef bint single_step(cpu_t *c) noexcept nogil:
    """#DB after an instruction that began with TF (SDM vol. 3, 17.3.1.4); False: the run ends."""
    c.dr[6] |= 0x4000
    if c.exception_bitmap >> X_DB & 1:
        c.exit_reason = EXIT_EXCEPTION
        c.exit_vector = X_DB
        c.exit_error = 0
        return False
    if deliver(c, X_DB, BY_TRAP, 0, 0):
        c.counters[COUNT_EXCEPTIONS] += 1
        return True
    return deliver_fault(c)


cdef void devices(cpu_t *c) noexcept nogil:
    """Let devices do what is due."""
    cdef uint64_t version = c.memory.version
    c.bus.now = c.tsc
    c.bus.advance(c.bus.board, c.tsc)
    if c.memory.version != version:
        flush(c)
        forget_code(c)


cdef bint pass_through(cpu_t *c, const uop_t *u, uint32_t count) noexcept nogil:
    """Run up to `count` micro-operations, and deliver what they end in; False: the run ends."""
    cdef uint32_t done, trap = c.eflags & F_TF
    if c.shadow or trap:
        count = 1
        if c.shadow:
            c.shadow = 1
    done = execute(c, u, count)
    c.tsc += done
    c.counters[COUNT_RETIRED] += done
    c.counters[COUNT_BLOCKS] += 1
    if c.event:
        if c.event & EVENT_EXIT:
            return False
        if c.event & EVENT_FAULT:
            # a fault uses up time too: one that never ends must not stop the clock
            c.tsc += 1
            trap = 0
            c.shadow = 0
            if not deliver_fault(c):
                return False
            # an interrupt that waits comes before the handler, as it may go through a trap gate
            c.event |= EVENT_LEAVE
    if c.shadow == 1:
        c.shadow = 0
        c.event |= EVENT_LEAVE
    # MOV SS holds this off too, STI does not (SDM vol. 3, 6.8.3)
    return not (trap and done and c.shadow != 3) or single_step(c)


cdef uint32_t loop(cpu_t *c, uint64_t end) noexcept nogil:
    """Until `end`, or something that ends the run: EXIT_."""
    cdef uint32_t n
    cdef uint64_t horizon
    cdef block_t *b
    cdef int vector
    while True:
        c.event = 0
        if c.bus != NULL and c.bus.stop:
            return EXIT_STOP
        if c.tsc >= end:
            return EXIT_BUDGET
        horizon = end
        if c.bus != NULL:
            if c.bus.next_event <= c.tsc:
                devices(c)
                if c.bus.next_event <= c.tsc:
                    # a device that sets no time does not stop the loop
                    c.bus.next_event = c.tsc + 1
            if c.bus.line and c.eflags & F_IF and c.shadow == 0:
                if c.interrupt_exit:
                    return EXIT_INTERRUPT
                vector = c.bus.acknowledge(c.bus.board)
                if vector != NO_VECTOR:
                    c.halted = 0
                    if deliver(c, <uint32_t>vector & 0xFF, BY_DEVICE, 0, 0):
                        c.counters[COUNT_INTERRUPTS] += 1
                    elif c.event & EVENT_EXIT or not deliver_fault(c):
                        return c.exit_reason
                    c.event = 0
            horizon = min(end, c.bus.next_event)
        if c.halted:
            if c.bus == NULL or c.bus.next_event == NEVER:
                return EXIT_HALT
            c.tsc = horizon
            continue
        while c.event == 0 and c.tsc < horizon:
            b = find_block(c)
            if b == NULL:
                if c.event & EVENT_EXIT or not deliver_fault(c):
                    return c.exit_reason
                c.event |= EVENT_LEAVE
                continue
            n = b.count
            if n > horizon - c.tsc:
                n = <uint32_t>(horizon - c.tsc)
            if not pass_through(c, b.first, n):
                return c.exit_reason


cdef bint emulate(cpu_t *c) noexcept nogil:
    """Execute the instruction at EIP as if no monitor asked for its class, for one that does.

    Neither time nor devices are looked at before it. False: `exit_reason` says why.
    """
    cdef uint32_t asked = c.intercept
    cdef block_t *b
    cdef bint goes_on
    c.event = 0
    b = find_block(c)
    if b == NULL:
        return not c.event & EVENT_EXIT and deliver_fault(c)
    if asked >> b.first.klass & 1:
        c.counters[b.first.klass] -= 1      # it was counted when it was attempted
    c.intercept = 0
    goes_on = pass_through(c, b.first, 1)
    c.intercept = asked
    return goes_on


cdef uint32_t run(cpu_t *c, uint64_t budget) noexcept nogil:
    """Run for at most `budget` instructions; returns EXIT_."""
    cdef uint64_t end = c.tsc + budget
    if end < c.tsc:
        end = NEVER
    if c.memory.version != c.version:
        flush(c)
        forget_code(c)
    c.exit_reason = EXIT_BUDGET
    c.exit_class = 0
    c.exit_reason = loop(c, end)
    c.event = 0
    # others that remember what memory held must look again, and so must we if they wrote
    c.memory.version += 1
    c.version = c.memory.version
    return c.exit_reason
