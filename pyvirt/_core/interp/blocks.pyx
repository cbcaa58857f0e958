"""Blocks of decoded code, found by physical address and dropped when their page's code is written.

A block is a straight run of instructions within one page. What cannot be one (an instruction that
crosses a page or the segment's limit, code outside RAM) is decoded each time it runs.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._core.decode.decoder cimport decode
from pyvirt._core.decode.insn cimport DECODED, TOO_LONG, TRUNCATED, insn_t
from pyvirt._core.interp.cpu cimport (
    ARENA,
    BLOCK_LENGTH,
    COUNT_BUILT,
    S_CS,
    SLOT_BITS,
    X_GP,
    block_t,
    cpu_t,
    jump_t,
    uop_t,
)
from pyvirt._core.interp.kinds cimport K_UD
from pyvirt._core.interp.memory cimport code_page, forget_code, mark_code, raise_fault
from pyvirt._core.interp.translate cimport ends_block, translate


cdef void undefined(uop_t *u, uint32_t length) noexcept nogil:
    memset(u, 0, sizeof(uop_t))
    u.kind = K_UD
    u.length = length


cdef block_t *lone(
    cpu_t *c, const uint8_t *host, uint32_t here, uint32_t mode, uint32_t linear
) noexcept nogil:
    """One instruction that is not kept."""
    cdef uint8_t[16] bytes
    cdef insn_t insn
    cdef uint32_t i, available = min(here, <uint32_t>15)
    cdef uint64_t pa
    cdef const uint8_t *next = NULL
    cdef int status
    for i in range(available):
        bytes[i] = host[i]
    status = decode(bytes, available, mode, &insn)
    if status == TRUNCATED and available < 15:
        if not code_page(c, linear + here, &pa, &next):
            return NULL
        for i in range(available, 15):
            bytes[i] = next[i - available]
        available = 15
        status = decode(bytes, available, mode, &insn)
    if status == TOO_LONG or status == TRUNCATED:
        raise_fault(c, X_GP, 1, 0)
        return NULL
    if <uint64_t>c.eip + insn.length > <uint64_t>c.seg[S_CS].limit + 1:
        raise_fault(c, X_GP, 1, 0)
        return NULL
    if status == DECODED:
        translate(&insn, &c.single)
    else:
        undefined(&c.single, insn.length)
    c.alone.first = &c.single
    c.alone.count = 1
    c.alone.bytes = insn.length
    return &c.alone


cdef block_t *build_block(cpu_t *c, jump_t *j) noexcept nogil:
    """What find_block does when its cache misses."""
    cdef uint32_t linear = c.seg[S_CS].base + c.eip, here = 4096 - (linear & 4095), done = 0
    cdef uint32_t wide = c.seg[S_CS].attributes >> 14 & 1, mode = 32 if wide else 16
    cdef uint64_t pa, key, hashed
    cdef const uint8_t *host
    cdef block_t *b
    cdef uop_t *u
    cdef insn_t insn
    cdef int status
    cdef uint64_t granules = 0
    cdef uint32_t i
    c.start = c.eip
    if c.eip > c.seg[S_CS].limit:
        raise_fault(c, X_GP, 1, 0)
        return NULL
    if not code_page(c, linear, &pa, &host):
        return NULL
    if pa >> 12 >= c.page_count or pa >= c.memory.limit:
        return lone(c, host, here, mode, linear)
    key = pa << 2 | wide << 1 | 1
    hashed = key * <uint64_t>0x9E3779B97F4A7C15
    b = &c.slots[hashed >> (64 - SLOT_BITS)]
    if b.key != key or b.generation != c.pages[pa >> 12].generation:
        if c.arena_used + BLOCK_LENGTH > ARENA:
            forget_code(c)
        b.key = 0
        b.first = &c.arena[c.arena_used]
        b.count = 0
        u = b.first
        while b.count < BLOCK_LENGTH and done < here:
            status = decode(host + done, min(here - done, <uint32_t>16), mode, &insn)
            if status == TRUNCATED or status == TOO_LONG:
                break
            if status == DECODED:
                translate(&insn, u)
            else:
                undefined(u, insn.length)
            done += insn.length
            b.count += 1
            u += 1
            if ends_block(u - 1):
                break
        if b.count == 0:
            return lone(c, host, here, mode, linear)
        c.arena_used += b.count
        b.bytes = done
        b.frame = <uint32_t>(pa >> 12)
        b.generation = c.pages[b.frame].generation
        b.key = key
        for i in range((pa & 4095) >> 6, (((pa & 4095) + done - 1) >> 6) + 1):
            granules |= <uint64_t>1 << i
        mark_code(c, b.frame, granules)
        c.counters[COUNT_BUILT] += 1
    if <uint64_t>c.eip + b.bytes > <uint64_t>c.seg[S_CS].limit + 1:
        return lone(c, host, here, mode, linear)
    j.block = b
    j.key = key
    j.linear = linear
    j.epoch = c.epoch << 2 | c.user << 1 | wide
    return b
