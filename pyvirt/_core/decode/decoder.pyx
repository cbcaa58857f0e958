"""Decode one x86 instruction (Intel SDM vol. 2, chapter 2 and appendix A; AMD APM vol. 3, chapter 1).

`decode` reads no byte beyond `available`, nor beyond 15. What is undefined (#UD) is decided by map,
opcode, mandatory prefix, ModRM and LOCK; of VEX, EVEX and XOP the vvvv, W and L fields are not looked
at, nor whether a processor has the extension.
"""

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset

from pyvirt._core.decode.classes cimport *
from pyvirt._core.decode.insn cimport *
from pyvirt._core.decode.opcodes cimport *

cdef enum:
    LIMIT = 15                  # bytes of an instruction (SDM vol. 2, 2.3.11)


cdef inline int short_of(size_t need, size_t available) noexcept nogil:
    """The result for an instruction that needs more bytes than there are."""
    return TOO_LONG if need > LIMIT and available >= LIMIT else TRUNCATED


cdef uint64_t load(const uint8_t *p, int size) noexcept nogil:
    """A little-endian number of `size` bytes."""
    cdef uint64_t value = 0
    memcpy(&value, p, size)
    return value


cdef int64_t extend(uint64_t value, int size) noexcept nogil:
    """The same, with its sign."""
    if size == 1:
        return <int8_t>value
    if size == 2:
        return <int16_t>value
    if size == 4:
        return <int32_t>value
    return <int64_t>value


# Suffixes of 3DNow! that are defined (AMD APM vol. 3, A.1.2): bit suffix & 63, by suffix >> 6.
cdef uint64_t[4] NOW = [0x30003000, 0, 0x88D144D144D14400ULL, 0]


cdef bint only_64(const insn_t *o, int prefix) noexcept nogil:
    """Whether a form of a group is undefined in 32-bit and 16-bit code, where the others are not."""
    cdef int form = o.modrm & 63
    if o.opcode == 0xAE:
        return o.modrm >= 0xC0 and form < 0o40              # RDFSBASE, ..., WRGSBASE
    if o.opcode == 0x00:
        return form >= 0o60                                 # LKGS
    if o.opcode != 0x01 or o.modrm < 0xC0:
        return False
    if form == 0o70:                                        # SWAPGS
        return True
    if prefix == 0:
        return form == 0o07                                 # PBNDKB
    if prefix == 1:
        return 0o15 <= form <= 0o17                         # SEAMRET, SEAMOPS, SEAMCALL
    if form == 0o06 or form == 0o12 or form == 0o76:        # RDMSRLIST, ERETU, RMPADJUST, ...
        return True
    return prefix == 2 and (form == 0o75 or form == 0o77 or 0o54 <= form <= 0o57)


cdef void classify_group(insn_t *o, int prefix) noexcept nogil:
    """Class and flow where ModRM decides them (SDM vol. 2, A.4; AMD APM vol. 3, A.2)."""
    cdef int reg = o.modrm >> 3 & 7, rm = o.modrm & 7
    cdef bint register = o.modrm >= 0xC0
    if o.map == MAP_ONE:
        if o.opcode == 0xFF:
            if reg == 2:
                o.flow = FLOW_CALL_INDIRECT
            elif reg == 3:
                o.flow, o.klass = FLOW_CALL_FAR, CLASS_SENSITIVE
            elif reg == 4:
                o.flow = FLOW_JUMP_INDIRECT
            elif reg == 5:
                o.flow, o.klass = FLOW_JUMP_FAR, CLASS_SENSITIVE
        elif reg == 7:                          # C6, C7: XABORT, XBEGIN
            o.flow = FLOW_TRANSACTION
            o.relative = o.opcode == 0xC7
    elif o.map == MAP_0F38:                     # F3 DC: LOADIWKEY; with memory AESENC128KL
        if register:
            o.klass = CLASS_PRIVILEGED
    elif o.opcode == 0x00:                      # LLDT, LTR, LKGS
        o.klass = CLASS_PRIVILEGED if reg == 2 or reg == 3 or reg == 6 else CLASS_SENSITIVE
    elif o.opcode == 0xAE:
        if reg == 6 and not register:           # CLRSSBSY
            o.klass = CLASS_PRIVILEGED
    elif o.opcode == 0xC7:
        # XRSTORS, XSAVES; VMPTRLD, VMCLEAR, VMXON, VMPTRST
        if not register and (reg == 3 or reg == 5 or reg == 6 or reg == 7):
            o.klass = CLASS_PRIVILEGED
    elif o.opcode != 0x01:
        pass
    elif not register:
        if reg == 4 or reg < 2:
            o.klass = CLASS_SENSITIVE           # SMSW, SGDT, SIDT
        elif reg != 5:
            o.klass = CLASS_PRIVILEGED          # LGDT, LIDT, LMSW, INVLPG
    elif reg == 4:
        o.klass = CLASS_SENSITIVE
    elif reg == 6:
        o.klass = CLASS_PRIVILEGED
    elif reg == 0:
        if rm == 1:
            o.flow = FLOW_MONITOR               # VMCALL
        elif rm:
            o.klass = CLASS_PRIVILEGED          # VMXOFF, PCONFIG, RDMSRLIST, WRMSRLIST, PBNDKB
            if rm == 2 or rm == 3:
                o.flow = FLOW_MONITOR           # VMLAUNCH, VMRESUME
        else:
            o.klass = CLASS_PRIVILEGED          # ENCLV
    elif reg == 1:
        if prefix == 1:
            if rm >= 4:
                o.klass = CLASS_PRIVILEGED      # TDCALL, SEAMRET, SEAMOPS, SEAMCALL
                if rm != 6:
                    o.flow = FLOW_MONITOR
        elif prefix >= 2:
            if rm == 2:
                o.klass, o.flow = CLASS_PRIVILEGED, FLOW_SYSRET     # ERETU, ERETS
        elif rm <= 3 or rm == 7:
            o.klass = CLASS_PRIVILEGED          # MONITOR, MWAIT, CLAC, STAC, ENCLS
    elif reg == 2:
        if rm == 1:
            o.klass = CLASS_PRIVILEGED          # XSETBV
    elif reg == 3:
        if rm == 0:
            o.klass, o.flow = CLASS_PRIVILEGED, FLOW_MONITOR        # VMRUN
        elif rm == 1:
            o.flow = FLOW_MONITOR               # VMMCALL, VMGEXIT
        else:
            o.klass = CLASS_PRIVILEGED          # VMLOAD, VMSAVE, STGI, CLGI, INVLPGA
            if rm == 6:
                o.flow = FLOW_MONITOR           # SKINIT
    elif reg == 5:
        if prefix == 2 and rm == 4:
            o.flow = FLOW_SYSRET                # UIRET
        elif prefix == 2 and rm == 0:
            o.klass = CLASS_PRIVILEGED          # SETSSBSY
    elif reg == 7 and (rm == 0 or rm >= 6 or rm == 5 and prefix == 2):
        o.klass = CLASS_PRIVILEGED              # SWAPGS, INVLPGB, RMPADJUST, TLBSYNC, PSMASH, RMPQUERY


cdef int decode(
    const uint8_t *bytes, size_t available, int mode, insn_t *out
) noexcept nogil:
    """Decode the instruction at `bytes`, of which `available` may be read.

    Returns DECODED, TRUNCATED, UNDEFINED or TOO_LONG. Fields of `out` are all set if it is DECODED;
    if UNDEFINED those up to where that became clear, and `length`.
    """
    cdef size_t end = available if available < LIMIT else LIMIT, at = 0
    cdef const op_t *op
    cdef const op_t *table
    cdef int prefix = 0, size, wide = -1, kind, reg, base
    cdef uint8_t b = 0, p0, p1
    cdef bint bad = False, lock
    memset(out, 0, sizeof(insn_t))
    out.mode = mode
    out.segment = NO_SEGMENT
    table = ONE[mode >> 5]

    # prefixes: the last of F2 and F3 counts, REX only right before the opcode
    while True:
        if at >= end:
            return short_of(at + 1, available)
        b = bytes[at]
        op = &table[b]
        if not op.flags & OP_SPECIAL:
            break
        if mode == 64 and b & 0xF0 == 0x40:
            out.rex = b
            at += 1
            continue
        if b == 0x66:
            out.prefixes |= PREFIX_OPSIZE
        elif b == 0x67:
            out.prefixes |= PREFIX_ADSIZE
        elif b == 0xF0:
            out.prefixes |= PREFIX_LOCK
        elif b == 0xF2:
            out.prefixes = out.prefixes & ~PREFIX_REP | PREFIX_REPNE
        elif b == 0xF3:
            out.prefixes = out.prefixes & ~PREFIX_REPNE | PREFIX_REP
        elif b == 0x64 or b == 0x65:
            out.segment = b - 0x60
        elif b & 0xE7 == 0x26:
            if mode != 64:                      # 64 bit: no meaning
                out.segment = b >> 3 & 3
        else:
            break
        out.rex = 0
        at += 1
    at += 1

    # the opcode, and what VEX, EVEX and XOP say in its stead
    if out.prefixes & PREFIX_REPNE:
        prefix = 3
    elif out.prefixes & PREFIX_REP:
        prefix = 2
    elif out.prefixes & PREFIX_OPSIZE:
        prefix = 1
    if op.flags & OP_SPECIAL:
        if b == 0x0F:
            if at >= end:
                return short_of(at + 1, available)
            b = bytes[at]
            at += 1
            if b == 0x38 or b == 0x3A:
                if at >= end:
                    return short_of(at + 1, available)
                if b == 0x38:
                    out.map = MAP_0F38
                    op = &T38[prefix][bytes[at]]
                else:
                    out.map = MAP_0F3A
                    op = &T3A[prefix][bytes[at]]
                b = bytes[at]
                at += 1
            else:
                out.map = MAP_0F
                op = &TWO[prefix][b]
        else:
            # LES, LDS, BOUND and POP share their opcodes: there the next byte is a ModRM
            if at >= end:
                return short_of(at + 1, available)
            p0 = bytes[at]
            if b == 0x8F:
                if p0 & 0x1F >= 8:
                    wide = PREFIX_XOP
            elif mode == 64 or p0 >= 0xC0:
                wide = PREFIX_EVEX if b == 0x62 else PREFIX_VEX
            if wide >= 0:
                bad = out.rex != 0 or out.prefixes & (
                    PREFIX_LOCK | PREFIX_REP | PREFIX_REPNE | PREFIX_OPSIZE) != 0
                out.prefixes |= wide
                size = 1 if b == 0xC5 else 3 if b == 0x62 else 2
                if at + size >= end:
                    return short_of(at + size + 1, available)
                out.rex = 0x40 | (p0 >> 5 ^ 7)
                if b == 0xC5:
                    out.rex = 0x40 | (p0 >> 7 ^ 1) << 2
                    out.map = 1
                    p1 = p0 & 0x7F
                else:
                    out.map = p0 & (7 if b == 0x62 else 0x1F)
                    p1 = bytes[at + 1]
                    if b == 0x62 and (p0 & 8 or not p1 & 4):
                        bad = True
                out.rex |= p1 >> 7 << 3
                if mode != 64:
                    out.rex = 0
                prefix = p1 & 3
                base = -1
                if wide == PREFIX_VEX:
                    if 1 <= out.map <= 3:
                        base = out.map - 1
                elif wide == PREFIX_EVEX:
                    if 1 <= out.map <= 3:
                        base = out.map + 2
                    elif out.map == 5 or out.map == 6:
                        base = out.map + 1
                elif out.map <= 10:
                    base = out.map
                at += size
                b = bytes[at]
                at += 1
                if base < 0:
                    out.opcode = b
                    out.length = at
                    return UNDEFINED
                op = &WIDE[base][prefix][b]
    out.opcode = b
    if op.flags & OP_UNDEFINED:
        out.length = at
        return UNDEFINED

    # sizes
    if mode == 64:
        out.address_size = 4 if out.prefixes & PREFIX_ADSIZE else 8
        if out.rex & 8 or op.flags & OP_ONLY64:
            out.operand_size = 8
        elif out.prefixes & PREFIX_OPSIZE:
            out.operand_size = 2
        else:
            out.operand_size = 8 if op.flags & OP_STACK64 else 4
    else:
        out.operand_size = 2 if (mode == 16) != (out.prefixes & PREFIX_OPSIZE != 0) else 4
        out.address_size = 2 if (mode == 16) != (out.prefixes & PREFIX_ADSIZE != 0) else 4
    out.klass = op.klass
    out.flow = op.flow
    kind = op.imm

    # addressing
    lock = False
    if op.flags & OP_MODRM:
        if at >= end:
            return short_of(at + 1, available)
        out.has_modrm = 1
        out.modrm = b = bytes[at]
        at += 1
        reg = b >> 3 & 7
        if b >= 0xC0 or op.flags & OP_REGISTERS:
            if op.mask:
                bad |= not REGISTER_FORMS[op.mask] >> (b & 63) & 1
            else:
                bad |= not op.reg_ok >> reg & 1
        else:
            bad |= not op.mem_ok >> reg & 1
            lock = op.lock_ok >> reg & 1
            if out.address_size == 2:
                if b >> 6 == 1:
                    out.disp_size = 1
                elif b >> 6 == 2 or b & 7 == 6:
                    out.disp_size = 2
            else:
                base = b & 7
                if base == 4:
                    if at >= end:
                        return short_of(at + 1, available)
                    out.has_sib = 1
                    out.sib = bytes[at]
                    base = out.sib & 7
                    at += 1
                if b >> 6 == 1:
                    out.disp_size = 1
                elif b >> 6 == 2 or base == 5:
                    out.disp_size = 4
                    out.relative = b & 0xC7 == 5 and mode == 64
            if out.disp_size:
                if at + out.disp_size > end:
                    return short_of(at + out.disp_size, available)
                out.disp = extend(load(&bytes[at], out.disp_size), out.disp_size)
                at += out.disp_size
        if kind == IMM_GROUP3:
            kind = IMM_NONE if reg > 1 else IMM_8 if out.opcode == 0xF6 else IMM_Z
        if op.flags & OP_ASK:
            if out.map == MAP_ONE and out.opcode == 0xFF and mode == 64:
                if reg == 2 or reg == 4:
                    out.operand_size = 8
                elif reg == 6 and out.operand_size == 4:
                    out.operand_size = 8
            if out.map == MAP_0F:
                if mode != 64 and only_64(out, prefix):
                    bad = True
                elif out.opcode & 0xFC == 0x20 and out.rex & 4:
                    # CR8 alone is beyond 7, and no debug register
                    bad = out.opcode & 1 or reg != 0
            classify_group(out, prefix)

    # immediates
    if kind != IMM_NONE:
        size = out.address_size if kind == IMM_MOFFS else IMM_BYTES[kind][out.operand_size]
        if at + size > end:
            return short_of(at + size, available)
        if kind == IMM_MOFFS:
            out.disp = <int64_t>load(&bytes[at], size)
            out.disp_size = size
        elif kind == IMM_FAR:
            out.imm_size = size - 2
            out.imm = load(&bytes[at], size - 2)
            out.selector = load(&bytes[at + size - 2], 2)
        elif kind == IMM_16_8:
            out.imm_size = 2
            out.imm = load(&bytes[at], 2)
            out.selector = bytes[at + 2]
        elif kind == IMM_8_8:
            out.imm_size = 1
            out.imm = bytes[at]
            out.selector = bytes[at + 1]
        else:
            out.imm_size = size
            out.imm = load(&bytes[at], size)
            if kind == IMM_REL8 or kind == IMM_RELZ:
                out.relative = 1
            elif out.opcode == 0x0F and out.map == MAP_0F and not NOW[out.imm >> 6] >> (out.imm & 63) & 1:
                bad = True
        at += size
    out.length = at
    if bad or out.prefixes & PREFIX_LOCK and not lock:
        return UNDEFINED
    return DECODED
