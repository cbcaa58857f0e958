"""A digest of memory: FNV-1a taken over 64-bit words."""

from libc.stdint cimport uint8_t, uint64_t

from pyvirt._core.arrays cimport as_int
from pyvirt._core.frames cimport load_u64, physmem_t, pm_frame, pm_in_ram
from pyvirt._core.physmem cimport PhysMem
from pyvirt.errors import InvalidTypeError, OutsideMemoryError

cdef uint64_t BASIS = 0xCBF29CE484222325ULL
cdef uint64_t PRIME = 0x100000001B3ULL


cdef uint64_t fnv_words(
    const physmem_t *m, uint64_t start, uint64_t end, uint64_t mask
) noexcept nogil:
    """The digest of the words of [start, end), each and-ed with `mask`; 8 zeros are one step."""
    cdef uint64_t h = BASIS, at = start, eighth = 1, i, _i, any
    cdef const uint8_t *p
    for _i in range(8):
        eighth *= PRIME
    while at < end:
        p = pm_frame(m, at) + (at & 0xFFF)
        if at & 63 == 0 and at + 64 <= end:
            any = 0
            for i in range(8):
                any |= load_u64(p + 8 * i)
            if any & mask == 0:
                h *= eighth
            else:
                for i in range(8):
                    h = (h ^ load_u64(p + 8 * i) & mask) * PRIME
            at += 64
        else:
            h = (h ^ load_u64(p) & mask) * PRIME
            at += 8
    return h


def hash_words(mem, start, end, mask=0xFFFFFFFFFFFFFFFF):
    """Hash a stretch of memory: ``h = (h ^ word) * 0x100000001b3`` for each 64-bit word.

    Parameters
    ----------
    mem : PhysicalMemory
        Where.
    start, end : int
        Physical addresses, multiples of 8; the end is not part of it.
    mask : int
        What to look at in each word.

    Returns
    -------
    int
        64 bits; 0xcbf29ce484222325 for nothing.
    """
    cdef uint64_t first = as_int(start, "start", 0, 0xFFFFFFFFFFFFF)
    cdef uint64_t last = as_int(end, "end", first, 0x10000000000000)
    cdef uint64_t bits = as_int(mask, "mask", 0, 0xFFFFFFFFFFFFFFFF), h
    cdef PhysMem memory
    if not isinstance(mem, PhysMem):
        raise InvalidTypeError(f"mem must be a PhysicalMemory, got {mem!r:.80}")
    memory = mem
    if first & 7 or last & 7 or not pm_in_ram(&memory.m, first, last - first):
        raise OutsideMemoryError(
            f"start and end must be multiples of 8 around RAM, got {first:#x} and {last:#x}")
    with nogil:
        h = fnv_words(&memory.m, first, last, bits)
    return h
