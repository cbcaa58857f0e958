# Many instructions: a linear sweep over a stretch of code.

from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    KINDS = 180                 # (klass * FLOWS + flow) * 2 + relative

cdef struct tally_t:
    uint64_t instructions[180]  # by kind
    uint64_t bytes[180]
    uint64_t int3               # one-byte INT3, which pads code

cdef size_t step(
    const uint8_t *bytes, size_t available, int mode, uint8_t *kind
) noexcept nogil
