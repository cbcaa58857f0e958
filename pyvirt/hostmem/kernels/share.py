# Numba infers the types of kernels, and its decorators hide them.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""Page sharing by classes of contents: scanning, copies, copies on write, large pages.

Class 0 are pages of zeros, all equal. In every other class the contents are numbered, and a VM that
holds n pages of it holds the first n, each once: so two VMs with n and m of them have the smaller
number in common. A content that one VM alone has scanned is a hint, not a copy.
"""

from __future__ import annotations

from numba import njit

from pyvirt.hostmem.layout import (
    BREAK_BELOW,
    BROKEN,
    COPIES,
    CURSOR,
    DT_NS,
    FREE,
    GROUP,
    LARGE,
    LARGE_SIZE,
    MAPPED,
    MEMORY,
    SCAN_HOST,
    SCAN_NS,
    SCAN_RATE,
    SCAN_REST,
    SCANNED,
    SHARED,
    SHARING,
    UNSHARED,
)

__all__ = ["break_large", "count_copies", "scan", "write"]


@njit(cache=True, nogil=True)
def count_copies(v, scanned, h, host, first, last, top, second):
    """Find what is shared of each VM, and the machine pages that all of it takes."""
    copies = 0
    for i in range(first, last):
        v[SHARED, i] = 0
    for kind in range(scanned.shape[0]):
        for i in range(first, last):
            top[v[GROUP, i]] = 0
            second[v[GROUP, i]] = 0
        for i in range(first, last):
            g, pages = v[GROUP, i], scanned[kind, i]
            if kind == 0:
                top[g] += pages
            elif pages > top[g]:
                second[g] = top[g]
                top[g] = pages
            elif pages > second[g]:
                second[g] = pages
        for i in range(first, last):
            g, pages = v[GROUP, i], scanned[kind, i]
            if kind == 0:
                v[SHARED, i] += pages if top[g] > 1 else 0
            else:
                v[SHARED, i] += min(pages, second[g])
        for i in range(first, last):
            g = v[GROUP, i]
            if kind == 0:
                copies += top[g] > 1
            else:
                copies += second[g]
            top[g] = 0
            second[g] = 0
    h[COPIES, host] = copies


@njit(cache=True, nogil=True)
def write(v, content, scanned, base, h, host, first, last):
    """Let go of contents that VMs no longer have; each may need a machine page of its own."""
    free = h[FREE, host]
    changed = False
    for i in range(first, last):
        for kind in range(scanned.shape[0]):
            held = content[kind, i]
            if scanned[kind, i] > held:
                lost = min(scanned[kind, i] - held, free)
                scanned[kind, i] -= lost
                v[SCANNED, i] -= lost
                v[UNSHARED, i] += lost
                free -= lost
                changed = True
            base[kind, i] = min(base[kind, i], scanned[kind, i])
    return changed


@njit(cache=True, nogil=True)
def scan(v, r, content, scanned, base, i, k, together, forced):
    """Scan on; `forced`: all small pages at once, else at the rate of the scanner.

    `together`: pages of all VMs of the host that are scanned.
    """
    if not v[SHARING, i]:
        return
    memory = v[MEMORY, i]
    if k[SCAN_HOST]:
        r[SCAN_REST, i] += memory / together * (k[SCAN_HOST] * 1e-9) * k[DT_NS]
    else:
        r[SCAN_REST, i] += min(memory / k[SCAN_NS], k[SCAN_RATE] * 1e-9) * k[DT_NS]
    steps = int(r[SCAN_REST, i])
    r[SCAN_REST, i] -= steps
    cursor = v[CURSOR, i] + steps
    passed = forced or cursor >= memory
    v[CURSOR, i] = 0 if forced else cursor % memory
    room = v[MAPPED, i] - v[LARGE, i] - v[SCANNED, i]
    for kind in range(scanned.shape[0]):
        fresh = content[kind, i] - base[kind, i]
        upto = base[kind, i] + (fresh if passed else int(fresh * (cursor / memory)))
        found = min(max(upto - scanned[kind, i], 0), room)
        scanned[kind, i] += found
        v[SCANNED, i] += found
        room -= found
        if passed:
            base[kind, i] = scanned[kind, i]


@njit(cache=True, nogil=True)
def break_large(v, content, scanned, h, host, first, last):
    """Break 2 MiB pages that hold contents to share, as far as the host lacks memory."""
    lacking = h[BREAK_BELOW, host] - h[FREE, host]
    if lacking <= 0:
        return
    whole = 0
    for i in range(first, last):
        whole += v[LARGE, i] if v[SHARING, i] else 0
    if whole == 0:
        return
    part = min(1.0, lacking / whole)
    for i in range(first, last):
        if not v[SHARING, i] or v[LARGE, i] == 0:
            continue
        hidden = 0
        for kind in range(scanned.shape[0]):
            hidden += max(content[kind, i] - scanned[kind, i], 0)
        hidden -= v[MAPPED, i] - v[LARGE, i] - v[SCANNED, i]  # these may be found in small pages
        hidden = min(max(hidden, 0), int(part * v[LARGE, i]) + 1)
        pages = min((hidden + LARGE_SIZE - 1) // LARGE_SIZE * LARGE_SIZE, v[LARGE, i])
        v[LARGE, i] -= pages
        v[BROKEN, i] += pages
