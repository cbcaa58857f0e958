# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Taking pages from a VM: by its balloon, by compression, by swapping; and giving them back.

The host knows nothing of the guest: what it compresses or swaps it picks at random among the pages
that it has not found equal to others, so active ones are hit by chance. The guest gives its balloon
free pages first, then pages it has never used, then pages that it writes to its own swap space. A
page that the host had swapped must then be read back first: double paging.
"""

from __future__ import annotations

from numba import njit

from pyvirt.hostmem.kernels.state import cached
from pyvirt.hostmem.layout import (
    BALLOON_IN,
    BALLOONED,
    BROKEN,
    CACHE_PART,
    CACHED_PER_PAGE,
    COMPRESSIBLE,
    DOUBLE_PAGED,
    LARGE,
    LARGE_SIZE,
    LAST_ACTIVE,
    MAPPED,
    MEMORY,
    SCANNED,
    SWAP_IN,
    SWAP_OUT,
    SWAPPED,
    SWAPPED_ACTIVE,
    UNTOUCHED,
    USED,
    ZIP,
    ZIPPED,
    ZIPPED_ACTIVE,
)

__all__ = ["follow_active", "inflate", "push_out"]


@njit(cache=True, nogil=True)
def part_of(whole, part, of):
    """Give `whole * part // of` of large numbers, at most `whole`."""
    return min(int(float(whole) * part / of), whole) if of > 0 else 0


@njit(cache=True, nogil=True)
def follow_active(v, i, active):
    """Let the active part of what is compressed and swapped follow a working set that changed."""
    before = v[LAST_ACTIVE, i]
    zipped, swapped = v[ZIPPED_ACTIVE, i], v[SWAPPED_ACTIVE, i]
    if active > before:
        idle = v[MEMORY, i] - v[UNTOUCHED, i] - v[BALLOONED, i] - before
        more = active - before
        v[ZIPPED_ACTIVE, i] += part_of(v[ZIPPED, i] - zipped, more, idle)
        v[SWAPPED_ACTIVE, i] += part_of(v[SWAPPED, i] - swapped, more, idle)
    elif active < before:
        v[ZIPPED_ACTIVE, i] = part_of(zipped, active, before)
        v[SWAPPED_ACTIVE, i] = part_of(swapped, active, before)
    v[LAST_ACTIVE, i] = active


@njit(cache=True, nogil=True)
def unmap(v, i, pages):
    """Take machine pages that hold no known contents; large ones are broken where it must be."""
    small = v[MAPPED, i] - v[SCANNED, i] - v[LARGE, i]
    if pages > small:
        torn = (pages - small + LARGE_SIZE - 1) // LARGE_SIZE * LARGE_SIZE
        torn = min(torn, v[LARGE, i])
        v[LARGE, i] -= torn
        v[BROKEN, i] += torn
    v[MAPPED, i] -= pages


@njit(cache=True, nogil=True)
def push_out(v, i, wanted, k, quota):
    """Free `wanted` machine pages by compression, then by swapping at most `quota`; give those."""
    available = v[MAPPED, i] - v[SCANNED, i]
    wanted = min(wanted, available)
    if wanted <= 0:
        return 0
    resident = max(v[LAST_ACTIVE, i] - v[ZIPPED_ACTIVE, i] - v[SWAPPED_ACTIVE, i], 0)
    mapped = v[MAPPED, i]
    room = int(k[CACHE_PART] * v[MEMORY, i]) * CACHED_PER_PAGE - v[ZIPPED, i]
    squeezed = max(min(wanted * v[COMPRESSIBLE, i] // 1000, room), 0)
    cost = cached(v[ZIPPED, i] + squeezed) - cached(v[ZIPPED, i])
    # what the cache takes must be swapped on top
    written = min(wanted - squeezed + cost, available - squeezed, quota)
    active = min(part_of(resident, squeezed, mapped), squeezed)
    v[ZIPPED, i] += squeezed
    v[ZIPPED_ACTIVE, i] += active
    v[ZIP, i] += squeezed
    active = min(part_of(resident, written, mapped), written)
    v[SWAPPED, i] += written
    v[SWAPPED_ACTIVE, i] += active
    v[SWAP_OUT, i] += written
    unmap(v, i, squeezed + written)
    return written


@njit(cache=True, nogil=True)
def hand_over(v, i, pages, paging):
    """Take touched pages from wherever the host has them, idle ones first; give how many."""
    mapped = v[MAPPED, i] - v[SCANNED, i]
    idle_zipped = v[ZIPPED, i] - v[ZIPPED_ACTIVE, i]
    idle_swapped = v[SWAPPED, i] - v[SWAPPED_ACTIVE, i]
    resident = max(v[LAST_ACTIVE, i] - v[ZIPPED_ACTIVE, i] - v[SWAPPED_ACTIVE, i], 0)
    idle_mapped = max(mapped - resident, 0)
    taken = 0
    for turn in range(2):
        if turn == 0:
            a, b, c = idle_mapped, idle_zipped, idle_swapped
        else:
            a, b, c = mapped, v[ZIPPED, i], v[SWAPPED, i]
        want = min(pages - taken, a + b + c)
        if want <= 0:
            continue
        squeezed = part_of(b, want, a + b + c)
        written = part_of(c, want, a + b + c)
        held = want - squeezed - written
        if held > a:  # what rounding left over
            more = min(held - a, b - squeezed)
            squeezed += more
            written += held - a - more
            held = a
        unmap(v, i, held)
        mapped -= held
        v[ZIPPED, i] -= squeezed
        v[SWAPPED, i] -= written
        v[ZIPPED_ACTIVE, i] = min(v[ZIPPED_ACTIVE, i], v[ZIPPED, i])
        v[SWAPPED_ACTIVE, i] = min(v[SWAPPED_ACTIVE, i], v[SWAPPED, i])
        if paging:
            v[DOUBLE_PAGED, i] += written
            v[SWAP_IN, i] += written
        taken += want
    return taken


@njit(cache=True, nogil=True)
def inflate(v, i, pages):
    """Let the balloon grow: free pages, untouched ones, then pages that the guest writes out."""
    touched = v[MEMORY, i] - v[UNTOUCHED, i] - v[BALLOONED, i]
    held = min(v[USED, i], v[MEMORY, i] - v[BALLOONED, i])
    got = hand_over(v, i, min(pages, max(touched - held, 0)), False)
    fresh = min(pages - got, v[UNTOUCHED, i])
    v[UNTOUCHED, i] -= fresh
    got += fresh
    got += hand_over(v, i, pages - got, True)
    v[BALLOONED, i] += got
    v[BALLOON_IN, i] += got
    left = v[MEMORY, i] - v[UNTOUCHED, i] - v[BALLOONED, i]
    if v[LAST_ACTIVE, i] > left:
        follow_active(v, i, left)
