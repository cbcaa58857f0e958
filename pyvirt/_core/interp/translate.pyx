"""From a decoded instruction to a micro-operation (opcode maps: SDM vol. 2, appendix A).

What the 386 to the Pentium Pro do not have (SSE, 64-bit forms, ...) becomes #UD; the FPU's
instructions become #NM or #UD when they run.
"""

from libc.stdint cimport int8_t, int16_t, int32_t, uint8_t, uint32_t
from libc.string cimport memset

from pyvirt._core.decode.insn cimport (
    MAP_0F,
    MAP_ONE,
    NO_SEGMENT,
    PREFIX_EVEX,
    PREFIX_LOCK,
    PREFIX_REP,
    PREFIX_REPNE,
    PREFIX_VEX,
    PREFIX_XOP,
    insn_t,
)
from pyvirt._core.interp.cpu cimport *
from pyvirt._core.interp.kinds cimport *


cdef inline uint8_t slot(uint32_t number, uint32_t size) noexcept nogil:
    """Where the register file keeps a register, in bytes: AH to BH are the second bytes."""
    if size == 1:
        return <uint8_t>((number & 3) * 4 + (number >> 2))
    return <uint8_t>(number * 4)


cdef void addressing(const insn_t *i, uop_t *u) noexcept nogil:
    """The r/m operand of ModRM (SDM vol. 2, tables 2-1 to 2-3)."""
    cdef uint32_t mod = i.modrm >> 6, rm = i.modrm & 7
    u.segment = S_DS
    if mod == 3:
        u.rm = slot(rm, u.size)
        return
    u.mem = 1
    u.disp = <uint32_t>i.disp
    if i.address_size == 2:
        u.amask = 0xFFFF
        if rm == 0 or rm == 1 or rm == 7:
            u.base = R_EBX
        elif rm == 2 or rm == 3:
            u.base = R_EBP
            u.segment = S_SS
        elif rm == 6 and mod != 0:
            u.base = R_EBP
            u.segment = S_SS
        if rm == 0 or rm == 2:
            u.index = R_ESI
        elif rm == 1 or rm == 3:
            u.index = R_EDI
        elif rm == 4:
            u.base = R_ESI
        elif rm == 5:
            u.base = R_EDI
    elif rm == 4:
        u.base = i.sib & 7
        if u.base == R_EBP and mod == 0:
            u.base = R_NONE
        if i.sib >> 3 & 7 != 4:
            u.index = i.sib >> 3 & 7
            u.scale = i.sib >> 6
        if u.base == R_ESP or u.base == R_EBP:
            u.segment = S_SS
    elif rm == 5 and mod == 0:
        pass
    else:
        u.base = rm
        if rm == R_EBP:
            u.segment = S_SS
    if i.segment != NO_SEGMENT:
        u.segment = i.segment


cdef uint32_t immediate(const insn_t *i) noexcept nogil:
    """Sign-extended from its own size."""
    if i.imm_size == 1:
        return <uint32_t><int32_t><int8_t>i.imm
    if i.imm_size == 2:
        return <uint32_t><int32_t><int16_t>i.imm
    return <uint32_t>i.imm


cdef void simple(uop_t *u, int kind, int klass) noexcept nogil:
    u.kind = kind
    u.klass = klass


cdef void alu_forms(const insn_t *i, uop_t *u, uint32_t op, uint32_t form) noexcept nogil:
    """The six encodings of an ALU operation: `form` is the low three bits of the opcode."""
    cdef uint8_t swap
    u.op = op
    if form >= 4:
        u.kind = K_ALU_RI
        u.rm = 0
    elif u.mem:
        u.kind = K_ALU_RM if form & 2 else K_ALU_MR
    else:
        u.kind = K_ALU_RR
        if form & 2:
            swap = u.rm
            u.rm = u.reg
            u.reg = swap


cdef void quicken(uop_t *u) noexcept nogil:
    """Frequent 32-bit forms have kinds of their own."""
    cdef uint32_t base = 0
    if u.size != 4:
        if u.kind == K_ALU_RI or u.kind == K_ALU_MI:
            u.imm &= 0xFF if u.size == 1 else 0xFFFF
        return
    if u.kind == K_ALU_RR or u.kind == K_ALU_RI:
        if u.op == 0:
            base = K_ADD_RR
        elif u.op == 5:
            base = K_SUB_RR
        elif u.op == 7:
            base = K_CMP_RR
        elif u.op == 4:
            base = K_AND_RR
        elif u.op == 6:
            base = K_XOR_RR
        elif u.op == 1:
            base = K_OR_RR
        elif u.op == 8 and u.kind == K_ALU_RR:
            base = K_TEST_RR
        if base:
            u.kind = base + (u.kind == K_ALU_RI)
    elif u.kind == K_UNARY and not u.mem and u.op < 2:
        u.kind = K_INC_R if u.op == 0 else K_DEC_R
    elif u.kind == K_SHIFT_I and not u.mem and u.imm and u.op >= 4:
        u.kind = K_SHR_RI if u.op == 5 else K_SAR_RI if u.op == 7 else K_SHL_RI
    elif u.kind == K_MOV_RR:
        u.kind = K_MOV4_RR
    elif u.kind == K_MOV_RI:
        u.kind = K_MOV4_RI
    elif u.kind == K_MOV_RM:
        u.kind = K_MOV4_RM
    elif u.kind == K_MOV_MR:
        u.kind = K_MOV4_MR


cdef void one_byte(const insn_t *i, uop_t *u) noexcept nogil:
    cdef uint32_t o = i.opcode, reg = i.modrm >> 3 & 7
    if o < 0x40 and o & 7 < 6:
        if o & 7 >= 4:
            u.segment = S_DS
        alu_forms(i, u, o >> 3, o & 7)
    elif o == 0x06 or o == 0x0E or o == 0x16 or o == 0x1E:
        simple(u, K_PUSH_SEG, C_SEGMENT_READ)
        u.op = o >> 3
    elif o == 0x07 or o == 0x17 or o == 0x1F:
        simple(u, K_POP_SEG, C_SEGMENT)
        u.op = o >> 3
    elif o == 0x27 or o == 0x2F or o == 0x37 or o == 0x3F:
        u.kind = K_BCD
        u.op = (o - 0x27) >> 3
    elif o == 0xD4 or o == 0xD5:
        u.kind = K_BCD
        u.op = 4 + (o & 1)
    elif o < 0x50 and o >= 0x40:
        u.kind = K_UNARY
        u.op = o >> 3 & 1
        u.rm = slot(o & 7, u.size)
    elif o >= 0x50 and o < 0x58:
        u.kind = K_PUSH_R
        u.rm = slot(o & 7, u.size)
    elif o >= 0x58 and o < 0x60:
        u.kind = K_POP_R
        u.rm = slot(o & 7, u.size)
    elif o == 0x60:
        u.kind = K_PUSHA
    elif o == 0x61:
        u.kind = K_POPA
    elif o == 0x62:
        u.kind = K_BOUND if u.mem else K_UD
    elif o == 0x63:
        simple(u, K_ARPL, C_VERIFY)
        u.size = 2
    elif o == 0x68 or o == 0x6A:
        u.kind = K_PUSH_I
    elif o == 0x69 or o == 0x6B:
        u.kind = K_IMUL_I
    elif o >= 0x6C and o < 0x70:
        simple(u, K_OUTS if o & 2 else K_INS, C_OUT if o & 2 else C_IN)
        if u.size == 2 and o & 1 == 0:
            u.size = 1
    elif o >= 0x70 and o < 0x80:
        u.kind = K_JCC
        u.op = o & 15
    elif o >= 0x80 and o < 0x84:
        u.kind = K_ALU_MI if u.mem else K_ALU_RI
        u.op = reg
    elif o == 0x84 or o == 0x85:
        u.kind = K_ALU_MR if u.mem else K_ALU_RR
        u.op = 8
    elif o == 0x86 or o == 0x87:
        u.kind = K_XCHG
    elif o == 0x88 or o == 0x89:
        u.kind = K_MOV_MR if u.mem else K_MOV_RR
    elif o == 0x8A or o == 0x8B:
        u.kind = K_MOV_RM if u.mem else K_MOV_RR
        if not u.mem:
            u.rm, u.reg = u.reg, u.rm
    elif o == 0x8C:
        simple(u, K_MOV_FROM_SEG, C_SEGMENT_READ)
        u.op = reg
        if reg > 5:
            u.kind = K_UD
    elif o == 0x8D:
        u.kind = K_LEA if u.mem else K_UD
    elif o == 0x8E:
        simple(u, K_MOV_TO_SEG, C_SEGMENT)
        u.op = reg
        if reg > 5 or reg == S_CS:
            u.kind = K_UD
    elif o == 0x8F:
        u.kind = K_POP_M if reg == 0 else K_UD
    elif o == 0x90:
        u.kind = K_NOP
    elif o > 0x90 and o < 0x98:
        u.kind = K_XCHG
        u.reg = 0
        u.rm = slot(o & 7, u.size)
    elif o == 0x98:
        u.kind = K_CBW
    elif o == 0x99:
        u.kind = K_CWD
    elif o == 0x9A:
        simple(u, K_CALL_FAR, C_FAR)
    elif o == 0x9B or (o >= 0xD8 and o < 0xE0):
        u.kind = K_NM
        u.op = o == 0x9B
        u.imm = (o & 7) << 8 | i.modrm
    elif o == 0x9C:
        simple(u, K_PUSHF, C_PUSHF)
    elif o == 0x9D:
        simple(u, K_POPF, C_POPF)
    elif o == 0x9E:
        u.kind = K_SAHF
    elif o == 0x9F:
        u.kind = K_LAHF
    elif o >= 0xA0 and o < 0xA4:
        u.kind = K_MOV_MR if o & 2 else K_MOV_RM
        u.reg = 0
        u.mem = 1
        u.disp = <uint32_t>i.disp if i.disp_size else <uint32_t>i.imm
        if i.address_size == 2:
            u.amask = 0xFFFF
    elif (o >= 0xA4 and o < 0xA8) or (o >= 0xAA and o < 0xB0):
        u.kind = K_STRING
        if o < 0xA6:
            u.op = 0
        elif o < 0xA8:
            u.op = 1
        elif o < 0xAC:
            u.op = 2
        elif o < 0xAE:
            u.op = 3
        else:
            u.op = 4
    elif o == 0xA8 or o == 0xA9:
        u.kind = K_ALU_RI
        u.rm = 0
        u.op = 8
    elif o >= 0xB0 and o < 0xC0:
        u.size = 1 if o < 0xB8 else i.operand_size
        u.kind = K_MOV_RI
        u.rm = slot(o & 7, u.size)
    elif o == 0xC0 or o == 0xC1:
        u.kind = K_SHIFT_I
        u.op = reg
        u.imm &= 31
    elif o == 0xC2 or o == 0xC3:
        u.kind = K_RET
        u.imm = u.imm & 0xFFFF if o == 0xC2 else 0
    elif o == 0xC4 or o == 0xC5:
        simple(u, K_LOAD_FAR, C_SEGMENT)
        u.op = S_ES if o == 0xC4 else S_DS
        if not u.mem:
            u.kind = K_UD
    elif o == 0xC6 or o == 0xC7:
        u.kind = K_UD if reg else K_MOV_MI if u.mem else K_MOV_RI
    elif o == 0xC8:
        u.kind = K_ENTER
        u.imm = <uint32_t>i.imm & 0xFFFF
        u.op = i.selector & 31
    elif o == 0xC9:
        u.kind = K_LEAVE
    elif o == 0xCA or o == 0xCB:
        simple(u, K_RET_FAR, C_FAR)
        u.imm = u.imm & 0xFFFF if o == 0xCA else 0
    elif o == 0xCC or o == 0xCD or o == 0xCE or o == 0xF1:
        simple(u, K_INT, C_INT)
        u.op = 3 if o == 0xF1 else 1 if o == 0xCC else 2 if o == 0xCE else 0
        u.imm &= 0xFF
    elif o == 0xCF:
        simple(u, K_IRET, C_IRET)
    elif o == 0xD0 or o == 0xD1:
        u.kind = K_SHIFT_I
        u.op = reg
        u.imm = 1
    elif o == 0xD2 or o == 0xD3:
        u.kind = K_SHIFT_CL
        u.op = reg
    elif o == 0xD6:
        u.kind = K_SALC
    elif o == 0xD7:
        u.kind = K_XLAT
    elif o >= 0xE0 and o < 0xE4:
        u.kind = K_LOOP
        u.op = o & 3
    elif o == 0xE4 or o == 0xE5 or o == 0xEC or o == 0xED:
        simple(u, K_IN, C_IN)
        u.op = o >> 3 & 1
        u.imm &= 0xFF
    elif o == 0xE6 or o == 0xE7 or o == 0xEE or o == 0xEF:
        simple(u, K_OUT, C_OUT)
        u.op = o >> 3 & 1
        u.imm &= 0xFF
    elif o == 0xE8:
        u.kind = K_CALL
    elif o == 0xE9 or o == 0xEB:
        u.kind = K_JMP
    elif o == 0xEA:
        simple(u, K_JMP_FAR, C_FAR)
    elif o == 0xF4:
        simple(u, K_HLT, C_HLT)
    elif o == 0xF5:
        u.kind = K_CARRY
        u.op = 0
    elif o == 0xF8 or o == 0xF9:
        u.kind = K_CARRY
        u.op = 1 + (o & 1)
    elif o == 0xFC or o == 0xFD:
        u.kind = K_CARRY
        u.op = 3 + (o & 1)
    elif o == 0xFA or o == 0xFB:
        simple(u, K_STI if o & 1 else K_CLI, C_CLI_STI)
    elif o == 0xF6 or o == 0xF7:
        if reg < 2:
            u.kind = K_ALU_MI if u.mem else K_ALU_RI
            u.op = 8
        elif reg < 4:
            u.kind = K_UNARY
            u.op = reg
        else:
            u.kind = K_MULDIV
            u.op = reg
    elif o == 0xFE or o == 0xFF:
        if reg < 2:
            u.kind = K_UNARY
            u.op = reg
        elif o == 0xFE or reg == 7:
            u.kind = K_UD
        elif reg == 2:
            u.kind = K_CALL_RM
        elif reg == 4:
            u.kind = K_JMP_RM
        elif reg == 6:
            u.kind = K_PUSH_M if u.mem else K_PUSH_R
        elif not u.mem:
            u.kind = K_UD
        else:
            simple(u, K_CALL_FAR if reg == 3 else K_JMP_FAR, C_FAR)
    else:
        u.kind = K_UD


cdef void two_byte(const insn_t *i, uop_t *u) noexcept nogil:
    cdef uint32_t o = i.opcode, reg = i.modrm >> 3 & 7
    # a mandatory prefix makes most of these SSE
    if o >= 0x40 and o < 0x50:
        u.kind = K_CMOVCC
        u.op = o & 15
    elif o >= 0x80 and o < 0x90:
        u.kind = K_JCC
        u.op = o & 15
    elif o >= 0x90 and o < 0xA0:
        u.kind = K_SETCC
        u.op = o & 15
        u.size = 1
        u.rm = slot(i.modrm & 7, 1)
    elif o == 0x00:
        u.op = reg & 1
        if reg < 2:
            simple(u, K_SLDT, C_TABLE_STORE)
        elif reg < 4:
            simple(u, K_LLDT, C_TABLE_LOAD)
        elif reg < 6:
            simple(u, K_VERIFY, C_VERIFY)
        else:
            u.kind = K_UD
    elif o == 0x01:
        u.op = reg & 1
        if reg == 4:
            simple(u, K_SMSW, C_SMSW)
        elif reg == 6:
            simple(u, K_LMSW, C_CLTS_LMSW)
        elif not u.mem or reg == 5:
            u.kind = K_UD
        elif reg < 2:
            simple(u, K_SGDT, C_TABLE_STORE)
        elif reg < 4:
            simple(u, K_LGDT, C_TABLE_LOAD)
        else:
            simple(u, K_INVLPG, C_INVLPG)
    elif o == 0x02 or o == 0x03:
        simple(u, K_VERIFY, C_VERIFY)
        u.op = o
    elif o == 0x06:
        simple(u, K_CLTS, C_CLTS_LMSW)
    elif o == 0x08 or o == 0x09:
        simple(u, K_CACHE, C_CACHE)
        u.op = o & 1
    elif o == 0x1F or o == 0x18 or o == 0x0D:
        u.kind = K_NOP              # hints: the Pentium Pro takes 0F 18 to 0F 1F for NOPs
    elif o == 0x20 or o == 0x22:
        simple(u, K_MOV_FROM_CR if o == 0x20 else K_MOV_TO_CR,
               C_CR_READ if o == 0x20 else C_CR_WRITE)
        u.op = reg
        u.mem = 0
        u.rm = slot(i.modrm & 7, 4)
    elif o == 0x21 or o == 0x23:
        simple(u, K_MOV_FROM_DR if o == 0x21 else K_MOV_TO_DR, C_DR)
        u.op = reg
        u.mem = 0
        u.rm = slot(i.modrm & 7, 4)
    elif o == 0x30:
        simple(u, K_WRMSR, C_WRMSR)
    elif o == 0x31:
        simple(u, K_RDTSC, C_RDTSC)
    elif o == 0x32:
        simple(u, K_RDMSR, C_RDMSR)
    elif o == 0xA0 or o == 0xA8:
        simple(u, K_PUSH_SEG, C_SEGMENT_READ)
        u.op = S_FS if o == 0xA0 else S_GS
    elif o == 0xA1 or o == 0xA9:
        simple(u, K_POP_SEG, C_SEGMENT)
        u.op = S_FS if o == 0xA1 else S_GS
    elif o == 0xA2:
        simple(u, K_CPUID, C_CPUID)
    elif o == 0xA3 or o == 0xAB or o == 0xB3 or o == 0xBB:
        u.kind = K_BT_R
        u.op = o >> 3 & 3
    elif o == 0xBA:
        u.kind = K_BT_I if reg >= 4 else K_UD
        u.op = reg & 3
    elif o == 0xA4 or o == 0xAC:
        u.kind = K_SHXD_I
        u.op = o >> 3 & 1
        u.imm &= 31
    elif o == 0xA5 or o == 0xAD:
        u.kind = K_SHXD_CL
        u.op = o >> 3 & 1
    elif o == 0xAF:
        u.kind = K_IMUL
    elif o == 0xB0 or o == 0xB1:
        u.kind = K_CMPXCHG
    elif o == 0xB2 or o == 0xB4 or o == 0xB5:
        simple(u, K_LOAD_FAR, C_SEGMENT)
        u.op = o & 7
        if not u.mem:
            u.kind = K_UD
    elif o == 0xB6 or o == 0xB7 or o == 0xBE or o == 0xBF:
        u.kind = K_MOVSX if o & 8 else K_MOVZX
        u.op = 2 if o & 1 else 1
        u.size = i.operand_size
        u.reg = slot(reg, 4)
        u.rm = slot(i.modrm & 7, u.op)
    elif o == 0xBC or o == 0xBD:
        u.kind = K_BSR if o & 1 else K_BSF
    elif o == 0xC0 or o == 0xC1:
        u.kind = K_XADD
    elif o == 0xC7:
        u.kind = K_CMPXCHG8B if reg == 1 and u.mem else K_UD
    elif o >= 0xC8 and o < 0xD0:
        u.kind = K_BSWAP
        u.size = 4
        u.rm = slot(o & 7, 4)
    else:
        u.kind = K_UD


cdef bint byte_form(const insn_t *i) noexcept nogil:
    """Whether bit 0 of the opcode says byte (clear) or word."""
    cdef uint32_t o = i.opcode
    if o & 1:
        return False
    if i.map == MAP_ONE:
        return ((o < 0x40 and o & 7 < 6) or (o >= 0x80 and o < 0x8C)
                or (o >= 0xA0 and o < 0xB0) or o == 0xC0 or o == 0xC6 or o == 0xD0 or o == 0xD2
                or o == 0xE4 or o == 0xE6 or o == 0xEC or o == 0xEE or o == 0xF6 or o == 0xFE
                or o == 0x6C or o == 0x6E)
    return o == 0xB0 or o == 0xC0


cdef void translate(const insn_t *i, uop_t *u) noexcept nogil:
    """Fill `u` from `i`, which decoded without error in 16- or 32-bit mode."""
    memset(u, 0, sizeof(uop_t))
    u.length = i.length
    u.size = 1 if byte_form(i) else i.operand_size
    u.base = R_NONE
    u.index = R_NONE
    u.segment = i.segment if i.segment != NO_SEGMENT else S_DS
    u.amask = <uint32_t>0xFFFFFFFF if i.address_size == 4 else 0xFFFF
    u.imm = immediate(i)
    u.selector = i.selector
    u.rep = i.prefixes & (PREFIX_REP | PREFIX_REPNE)
    if i.prefixes & (PREFIX_VEX | PREFIX_EVEX | PREFIX_XOP):
        u.kind = K_UD
        return
    if i.has_modrm:
        addressing(i, u)
        u.reg = slot(i.modrm >> 3 & 7, u.size)
    if i.map == MAP_ONE:
        one_byte(i, u)
    elif i.map == MAP_0F:
        two_byte(i, u)
    else:
        u.kind = K_UD
    if i.prefixes & PREFIX_LOCK and not u.mem:
        u.kind = K_UD               # the decoder knows the other places where LOCK is reserved
    if u.kind == K_UD:
        u.klass = C_NONE
    quicken(u)


cdef bint ends_block(const uop_t *u) noexcept nogil:
    """Whether control may go elsewhere after it, or the loop must look at the processor."""
    cdef uint32_t k = u.kind
    return (k >= K_SYSTEM and k < K_SGDT and k != K_MOV_FROM_SEG and k != K_PUSH_SEG
            and k != K_PUSHF and k != K_CLI) or (
        k == K_JMP or k == K_JCC or k == K_CALL or k == K_JMP_RM or k == K_CALL_RM or k == K_RET
        or k == K_LOOP or k == K_UD or k == K_NM or k == K_STRING or k == K_LMSW or k == K_CLTS
        or k == K_INVLPG or k == K_MOV_TO_CR or k == K_MOV_TO_DR or k == K_WRMSR)
