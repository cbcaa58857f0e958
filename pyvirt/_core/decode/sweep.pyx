"""A linear sweep: where the instructions of a stretch of code begin, and of what kind each is.

A kind is one number, (class * 18 + flow) * 2 + relative. What does not decode (undefined, too long or
cut off by the end) is one byte of class CLASS_NOTHING, and the sweep goes on with the next byte.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset

import numpy as np

from pyvirt._core.arrays cimport as_int
from pyvirt._core.decode.classes cimport (
    CLASS_NOTHING, FLOW_CALL_INDIRECT, FLOW_JUMP_INDIRECT, FLOWS)
from pyvirt._core.decode.decoder cimport decode
from pyvirt._core.decode.insn cimport *
from pyvirt._core.decode.opcodes cimport *
from pyvirt.errors import InvalidTypeError, InvalidValueError

FIELDS = (
    *("length", "mode", "prefixes", "operand_size", "address_size", "segment", "rex", "map"),
    *("opcode", "has_modrm", "modrm", "has_sib", "sib", "disp_size", "disp", "imm_size", "imm"),
    *("selector", "relative", "klass", "flow"),
)


cdef enum:
    ROOM = 16                   # bytes that the quick way may read

cdef struct quick_t:
    uint8_t modrm               # 1: a ModRM byte follows
    uint8_t mem_ok              # by ModRM.reg: the quick way may be taken with a memory operand
    uint8_t reg_ok              # the same with a register
    uint8_t kind
    uint8_t[2] rest             # opcode and immediate bytes, without and with REX.W
    uint8_t group5              # 1: FF, whose kind is in FF_KIND
    uint8_t spare

cdef quick_t QUICK[3][2][2][256]    # by mode, prefix 66, escape 0F
cdef uint8_t FORM[2][256]       # ModRM, SIB and displacement bytes, with 16-bit and wider addresses
cdef uint8_t FF_KIND[8]


cdef void set_quick() noexcept:
    """Fill the tables of the quick way from the opcode maps."""
    cdef int mode, p66, escape, i, size, m
    cdef op_t op
    cdef quick_t q
    for m in range(256):
        i = m & 0xC7
        FORM[0][m] = FORM[1][m] = 1
        if m < 0xC0:
            FORM[0][m] = 2 if m >> 6 == 1 else 3 if m >> 6 == 2 or i == 6 else 1
            FORM[1][m] = 2 if m >> 6 == 1 else 5 if m >> 6 == 2 or i == 5 else 1
            FORM[1][m] += m & 7 == 4
    for i in range(8):
        FF_KIND[i] = 0
    FF_KIND[2] = FLOW_CALL_INDIRECT * 2
    FF_KIND[4] = FLOW_JUMP_INDIRECT * 2
    for mode in range(3):
        for p66 in range(2):
            for escape in range(2):
                for i in range(256):
                    op = TWO[p66][i] if escape else ONE[mode][i]
                    memset(&q, 0, sizeof(q))
                    QUICK[mode][p66][escape][i] = q
                    q.group5 = not escape and i == 0xFF
                    if op.flags & OP_ASK and not q.group5 and (escape or i & 0xFE != 0xC6):
                        continue                    # masks of 0: not the quick way
                    if op.flags & (OP_UNDEFINED | OP_SPECIAL | OP_REGISTERS):
                        continue
                    q.modrm = op.flags & OP_MODRM
                    q.mem_ok = op.mem_ok
                    q.reg_ok = 0 if op.mask else op.reg_ok
                    if q.group5:
                        q.mem_ok = q.reg_ok = 0x57
                    if op.imm == IMM_GROUP3:
                        q.mem_ok = q.reg_ok = 0xFC
                    q.kind = (op.klass * FLOWS + op.flow) * 2
                    if op.imm == IMM_REL8 or op.imm == IMM_RELZ:
                        q.kind += 1
                    size = 2 if p66 == (mode != 0) else 4
                    if mode == 2 and op.flags & OP_ONLY64:
                        size = 8
                    q.rest[0] = 1 + IMM_BYTES[op.imm][size]
                    q.rest[1] = 1 + IMM_BYTES[op.imm][8]
                    if op.imm == IMM_MOFFS:
                        q.rest[0] = q.rest[1] = 1 + (2 << mode)
                    QUICK[mode][p66][escape][i] = q


cdef size_t careful(
    const uint8_t *bytes, size_t available, int mode, uint8_t *kind
) noexcept nogil:
    """What `step` does, by decoding all of the instruction."""
    cdef insn_t o
    if decode(bytes, available, mode, &o) != DECODED:
        kind[0] = CLASS_NOTHING * FLOWS * 2
        return 1
    kind[0] = (o.klass * FLOWS + o.flow) * 2 + o.relative
    return o.length


cdef inline size_t quick(
    const uint8_t *bytes, size_t available, int mode, uint8_t *kind
) noexcept nogil:
    """What `step` does. Most instructions have no prefix but 66 and REX: tables give their length."""
    cdef const uint8_t *p = bytes
    cdef const quick_t *q
    cdef size_t more, p66, rex, escape
    cdef uint8_t b, m, w
    if available < ROOM:
        return careful(bytes, available, mode, kind)
    b = p[0]
    p66 = b == 0x66
    p += p66
    b = p[0]
    rex = (b & 0xF0 == 0x40) & (mode == 64)
    w = b >> 3 & rex
    p += rex
    b = p[0]
    escape = b == 0x0F
    p += escape
    q = &QUICK[mode >> 5][p66][escape][p[0]]
    m = p[1]
    if not (q.reg_ok if m >= 0xC0 else q.mem_ok) >> (m >> 3 & 7) & 1:
        return careful(bytes, available, mode, kind)
    kind[0] = FF_KIND[m >> 3 & 7] if q.group5 else q.kind
    more = 0
    if q.modrm:
        more = FORM[mode != 16][m]
        if mode != 16:
            if m & 0xC7 == 4:
                more += (p[2] & 7 == 5) << 2
            elif mode == 64 and m & 0xC7 == 5:
                kind[0] += 1
    return p - bytes + more + q.rest[w]


cdef size_t step(
    const uint8_t *bytes, size_t available, int mode, uint8_t *kind
) noexcept nogil:
    """Length and kind of what stands at `bytes`, of which `available` (at least 1) may be read."""
    if mode == 64:
        return quick(bytes, available, 64, kind)
    if mode == 32:
        return quick(bytes, available, 32, kind)
    return quick(bytes, available, 16, kind)


cdef int check_mode(object mode) except -1:
    """16, 32 or 64."""
    number = as_int(mode, "mode", 16, 64)
    if number not in (16, 32, 64):
        raise InvalidValueError(f"mode must be 16, 32 or 64, got {mode!r}")
    return number


cdef const uint8_t[::1] as_code(object code) except *:
    """Bytes of anything that is a contiguous buffer of them."""
    try:
        view = memoryview(code)
    except TypeError as error:
        raise InvalidTypeError(f"code must be bytes, not {type(code).__name__}") from error
    if view.itemsize != 1 or not view.c_contiguous:
        raise InvalidTypeError(
            f"code must be a contiguous buffer of bytes, not of items of {view.itemsize} bytes")
    return np.frombuffer(view, dtype=np.uint8) if view.nbytes else np.zeros(0, dtype=np.uint8)


def decode_one(code, mode, offset=0):
    """Decode what stands at `offset`: the result code, and the fields named in `FIELDS`."""
    cdef const uint8_t[::1] view = as_code(code)
    cdef size_t at = as_int(offset, "offset", 0, view.shape[0])
    cdef insn_t o
    cdef int result
    cdef int bits = check_mode(mode)
    if at == <size_t>view.shape[0]:
        return TRUNCATED, None
    result = decode(&view[at], view.shape[0] - at, bits, &o)
    return result, (
        o.length, o.mode, o.prefixes, o.operand_size, o.address_size, o.segment, o.rex, o.map,
        o.opcode, o.has_modrm, o.modrm, o.has_sib, o.sib, o.disp_size, o.disp, o.imm_size, o.imm,
        o.selector, o.relative, o.klass, o.flow,
    )


def sweep_arrays(code, mode, start, stop):
    """Lengths and kinds of what begins in [start, stop), and where the next one begins."""
    cdef const uint8_t[::1] view = as_code(code)
    cdef size_t size = view.shape[0]
    cdef size_t last = as_int(stop, "stop", 0, size), at = as_int(start, "start", 0, last), n = 0, k
    cdef int bits = check_mode(mode)
    lengths = np.empty(last - at, dtype=np.uint8)
    kinds = np.empty(last - at, dtype=np.uint8)
    cdef uint8_t[::1] to_length = lengths, to_kind = kinds
    with nogil:
        while at < last:
            k = step(&view[at], size - at, bits, &to_kind[n])
            to_length[n] = k
            at += k
            n += 1
    return lengths[:n], kinds[:n], at


def count(code, mode, start, stop):
    """Instructions and bytes by kind, INT3s, and where the next instruction begins."""
    cdef const uint8_t[::1] view = as_code(code)
    cdef size_t size = view.shape[0]
    cdef size_t last = as_int(stop, "stop", 0, size), at = as_int(start, "start", 0, last), k
    cdef int bits = check_mode(mode), i
    cdef uint8_t kind
    cdef tally_t t
    memset(&t, 0, sizeof(t))
    with nogil:
        while at < last:
            k = step(&view[at], size - at, bits, &kind)
            t.instructions[kind] += 1
            t.bytes[kind] += k
            t.int3 += view[at] == 0xCC
            at += k
    instructions = np.empty(KINDS, dtype=np.uint64)
    sizes = np.empty(KINDS, dtype=np.uint64)
    cdef uint64_t[::1] a = instructions, b = sizes
    for i in range(KINDS):
        a[i] = t.instructions[i]
        b[i] = t.bytes[i]
    return instructions, sizes, t.int3, at


set_quick()
