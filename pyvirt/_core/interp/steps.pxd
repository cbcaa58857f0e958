# One micro-operation, for the loops that run them in a row.

from libc.stdint cimport uint8_t, uint32_t

from pyvirt._core.interp.alu cimport A_CMP, add, alu, sub, unary
from pyvirt._core.interp.arith cimport signed_product
from pyvirt._core.interp.control cimport inside_code, jump, peek, push, set_esp
from pyvirt._core.interp.cpu cimport R_EBP, R_ECX, R_ESP, S_SS, cpu_t, uop_t
from pyvirt._core.interp.flags cimport condition, set_logic, widen
from pyvirt._core.interp.kinds cimport *
from pyvirt._core.interp.memory cimport address, load, load_for_write, store, store_back
from pyvirt._core.interp.operands cimport (
    reg4,
    reg_get,
    reg_put,
    rm_close,
    rm_get,
    rm_open,
    rm_put,
)
from pyvirt._core.interp.rare cimport other
from pyvirt._core.interp.shifts cimport shift
from pyvirt._core.interp.strings cimport string_op


cdef inline void leave(cpu_t *c, uint32_t n) noexcept nogil:
    cdef uint32_t v, sp = c.gpr[R_EBP] & c.stack_mask
    if not load(c, S_SS, sp, n, &v):
        return
    set_esp(c, sp + n)
    reg_put(c, R_EBP * 4, n, v)


cdef inline bint step(cpu_t *c, const uop_t *u, uint32_t start) noexcept nogil:
    """Run one that begins at EIP `start`, with EIP after it; False: it is none of these."""
    cdef uint32_t k = u.kind, n = u.size, v, w
    cdef uint8_t *host
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
    elif k == K_SHL_RI:
        reg4(c, u.rm)[0] = shift(c, 4, reg4(c, u.rm)[0], u.imm, 4)
    elif k == K_SHR_RI:
        reg4(c, u.rm)[0] = shift(c, 5, reg4(c, u.rm)[0], u.imm, 4)
    elif k == K_SAR_RI:
        reg4(c, u.rm)[0] = shift(c, 7, reg4(c, u.rm)[0], u.imm, 4)
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
    else:                           # no further condition: so the compiler makes a table of jumps
        if k >= K_SYSTEM:
            return False
        other(c, u)
    return True
