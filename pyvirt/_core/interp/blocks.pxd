# Blocks of decoded code.

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.interp.cpu cimport (
    JUMP_BITS,
    S_CS,
    block_t,
    cpu_t,
    jump_t,
    uop_t,
)

cdef block_t *build_block(cpu_t *c, jump_t *j) noexcept nogil
cdef void undefined(uop_t *u, uint32_t length) noexcept nogil


cdef inline uint32_t jump_tag(const cpu_t *c) noexcept nogil:
    """What, beside its linear address, a jump target stands for."""
    return c.epoch << 2 | c.user << 1 | (c.seg[S_CS].attributes >> 14 & 1)


cdef inline block_t *find_block(cpu_t *c) noexcept nogil:
    """The block at EIP, decoded if need be; NULL after a fault."""
    cdef uint32_t linear = c.seg[S_CS].base + c.eip
    cdef jump_t *j = &c.jumps[(linear ^ linear >> 12) & ((1 << JUMP_BITS) - 1)]
    cdef block_t *b = j.block
    if (j.linear == linear and b != NULL and j.epoch == jump_tag(c) and b.key == j.key
            and b.generation == c.pages[b.frame].generation
            and <uint64_t>c.eip + b.bytes <= <uint64_t>c.seg[S_CS].limit + 1):
        return b
    return build_block(c, j)
