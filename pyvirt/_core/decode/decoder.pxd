# One instruction from bytes: prefixes, opcode, addressing, immediates; then its class and flow.

from libc.stdint cimport uint8_t

from pyvirt._core.decode.insn cimport insn_t

cdef int decode(
    const uint8_t *bytes, size_t available, int mode, insn_t *out
) noexcept nogil
