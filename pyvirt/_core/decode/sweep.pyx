"""A linear sweep: where the instructions of a stretch of code begin, and of what kind each is.

A kind is one number, (class * 18 + flow) * 2 + relative. What does not decode (undefined, too long or
cut off by the end) is one byte of class CLASS_NOTHING, and the sweep goes on with the next byte.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset

import numpy as np

from pyvirt._core.arrays cimport as_int
from pyvirt._core.decode.classes cimport CLASS_NOTHING, FLOWS
from pyvirt._core.decode.decoder cimport decode
from pyvirt._core.decode.insn cimport *
from pyvirt.errors import InvalidTypeError, InvalidValueError

FIELDS = (
    *("length", "mode", "prefixes", "operand_size", "address_size", "segment", "rex", "map"),
    *("opcode", "has_modrm", "modrm", "has_sib", "sib", "disp_size", "disp", "imm_size", "imm"),
    *("selector", "relative", "klass", "flow"),
)


cdef size_t step(
    const uint8_t *bytes, size_t available, int mode, uint8_t *kind
) noexcept nogil:
    """Length and kind of what stands at `bytes`, of which `available` (at least 1) may be read."""
    cdef insn_t o
    if decode(bytes, available, mode, &o) != DECODED:
        kind[0] = CLASS_NOTHING * FLOWS * 2
        return 1
    kind[0] = (o.klass * FLOWS + o.flow) * 2 + o.relative
    return o.length


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
