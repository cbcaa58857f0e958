"""Translate addresses that a compiled loop makes, a block at a time, without the GIL."""

from libc.stdint cimport uint8_t, uint16_t, uint64_t

from pyvirt.capi cimport ACCESS_READ, Walker, batch_t

cdef enum:
    BLOCK = 256


def mapped(Walker walker not None, uint64_t start, uint64_t stride, uint64_t n):
    """Count which of n addresses, from `start` on in steps of `stride`, can be read.

    Returns
    -------
    (int, int)
        How many are mapped, and how many lie in pages of more than 4 KiB.
    """
    cdef uint64_t[BLOCK] vas
    cdef uint64_t[BLOCK] pa
    cdef uint16_t[BLOCK] code
    cdef uint8_t[BLOCK] shift
    cdef uint16_t[BLOCK] flags
    cdef batch_t out
    cdef uint64_t done = 0, count, i, found = 0, large = 0
    if walker.dimensions == 0:
        raise ValueError("walker was not initialised")
    out.pa = pa
    out.code = code
    out.shift = shift
    out.flags = flags
    out.detail = NULL
    with nogil:
        while done < n:
            count = min(n - done, <uint64_t>BLOCK)
            for i in range(count):
                vas[i] = start + (done + i) * stride
            walker.translate_c(vas, count, ACCESS_READ, &out, False, False)
            for i in range(count):
                found += code[i] == 0
                large += shift[i] > 12
            done += count
    return found, large
