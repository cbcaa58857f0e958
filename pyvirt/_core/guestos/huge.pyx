"""Huge pages of 2 MiB: made at a fault, promoted from small ones, split into them.

After Linux 6.1: mm/huge_memory.c and mm/khugepaged.c. Each frame of a huge page counts its own
references, so that a split changes tables alone. Linux keeps a table in store for each huge page;
here a split takes a new one, and promotion gives the old one back.
"""

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.guestos.emit cimport (
    clear_entry,
    copy_frame,
    edit_entry,
    entry_at,
    kernel_load,
    set_entry,
    zero_frame,
)
from pyvirt._core.guestos.memory cimport (
    add_mapping,
    ensure_nodes,
    gather,
    has_block,
    release_gathered,
    remove_mapping,
    take_frames,
)
from pyvirt._core.guestos.state cimport (
    AREA_HUGE,
    AREA_W,
    ENTRY_D,
    ENTRY_P,
    ENTRY_PS,
    ENTRY_TABLE,
    ENTRY_W,
    FRAME_PAGE,
    FRAME_TABLE,
    HUGE_ALWAYS,
    HUGE_FRAMES,
    HUGE_MADVISE,
    HUGE_ORDER,
    NOTHING,
    NO_FRAMES,
    NO_MEMORY,
    OK,
)
from pyvirt._core.guestos.tables cimport (
    ENTRY_ADDRESS,
    find,
    frames_left,
    leaf_flags,
    make_entry,
    own_frame,
    parent,
    span,
)
from pyvirt._core.guestos.vcpus cimport (
    CAUSE_INTERRUPT,
    enter_kernel,
    flush,
    kernel_work,
    leave_kernel,
)

cdef enum:
    HUGE_BYTES = 1 << 21


cdef inline bint whole_inside(const area_t *area, uint64_t va) noexcept nogil:
    return area.start <= va and va + HUGE_BYTES <= area.end


cdef bint wants_huge(
    const guest_t *g, const proc_t *p, const area_t *area, uint64_t va
) noexcept nogil:
    """Whether a fault maps 2 MiB: the rules say so, the area has room, and memory does."""
    cdef int level
    va &= ~<uint64_t>(HUGE_BYTES - 1)
    if g.rules.huge != HUGE_ALWAYS and not (g.rules.huge == HUGE_MADVISE
                                            and area.rights & AREA_HUGE):
        return False
    if not whole_inside(area, va):
        return False
    find(g, p.root, va, &level)
    return (level >= 2 and has_block(g, HUGE_ORDER)
            and frames_left(g, HUGE_FRAMES + g.levels + 3))


cdef void map_huge(
    guest_t *g, proc_t *p, uint32_t pid, const area_t *area, uint64_t va
) noexcept nogil:
    """Map a huge page of zeros (do_huge_pmd_anonymous_page; no shared zero page of 2 MiB)."""
    cdef uint64_t pa, i, flags = leaf_flags(area) | ENTRY_PS
    cdef uint32_t frame = take_frames(g, HUGE_ORDER, FRAME_PAGE)
    va &= ~<uint64_t>(HUGE_BYTES - 1)
    g.counters.huge += 1
    for i in range(HUGE_FRAMES):
        zero_frame(g, <uint64_t>(frame + i) << 12)
        add_mapping(g, <uint32_t>(frame + i), pid, va + 4096 * i)
    pa = make_entry(g, p, va, 2)
    if pa == 0:
        return
    p.pages += HUGE_FRAMES
    if area.rights & AREA_W:
        flags |= ENTRY_W | ENTRY_D
    set_entry(g, pa, <uint64_t>frame << 12 | flags)


cdef void split(guest_t *g, proc_t *p, uint32_t pid, uint64_t va) noexcept nogil:
    """Map a huge page by a table of small ones (__split_huge_pmd).

    The caller made sure that there is a frame for the table.
    """
    cdef int level
    cdef uint64_t pa, e, table, i, value
    cdef uint32_t frame = take_frames(g, 0, FRAME_TABLE)
    va &= ~<uint64_t>(HUGE_BYTES - 1)
    pa = find(g, p.root, va, &level)
    e = entry_at(g, pa)
    table = <uint64_t>frame << 12
    if not own_frame(g, table):
        return
    g.counters.split += 1
    g.counters.tables_made += 1
    g.frames[frame].refs = 1
    p.tables += 1
    zero_frame(g, table)
    edit_entry(g, pa, ENTRY_P, 0)
    flush(g, pid, va, va + HUGE_BYTES, False)
    value = e & ~<uint64_t>ENTRY_PS
    for i in range(HUGE_FRAMES):
        set_entry(g, table + 8 * i, value + 4096 * i)
    set_entry(g, pa, table | ENTRY_TABLE)


cdef status_t split_edges(
    guest_t *g, proc_t *p, uint32_t pid, uint64_t start, uint64_t end
) noexcept nogil:
    """Split the huge pages that begin before a range or end after it."""
    cdef uint64_t edge[2]
    cdef uint64_t pa
    cdef int level, i
    edge[0] = start
    edge[1] = end
    for i in range(2):
        if edge[i] & (HUGE_BYTES - 1) == 0:
            continue
        pa = find(g, p.root, edge[i], &level)
        if level > 1 and entry_at(g, pa) & ENTRY_P:
            if not frames_left(g, 1):
                return NO_FRAMES
            split(g, p, pid, edge[i])
    return OK


# --- promotion --------------------------------------------------------------------------------

cdef bint may_promote(
    guest_t *g, const proc_t *p, uint64_t table, uint64_t most_absent
) noexcept nogil:
    """Look at all small pages: each absent or of this process alone (hpage_collapse_scan_pmd)."""
    cdef uint64_t i, e, absent = 0
    cdef uint32_t frame
    for i in range(HUGE_FRAMES):
        kernel_load(g, g.direct_map + table + 8 * i)
        e = entry_at(g, table + 8 * i)
        if e == 0 or e & ENTRY_ADDRESS == g.zero_frame:
            absent += 1
        elif not e & ENTRY_P:
            return False                    # swapped out
        else:
            frame = <uint32_t>((e & ENTRY_ADDRESS) >> 12)
            if g.frames[frame].kind != FRAME_PAGE or g.frames[frame].refs != 1:
                return False
    return absent <= most_absent and absent < HUGE_FRAMES


cdef void collapse(
    guest_t *g, proc_t *p, uint32_t pid, const area_t *area, uint64_t va, uint64_t pa
) noexcept nogil:
    """Copy small pages into a huge one (collapse_huge_page)."""
    cdef uint64_t table = entry_at(g, pa) & ENTRY_ADDRESS, i, e, old, new
    cdef uint32_t frame = take_frames(g, HUGE_ORDER, FRAME_PAGE)
    cdef uint64_t flags = leaf_flags(area) | ENTRY_D | ENTRY_PS
    if area.rights & AREA_W:
        flags |= ENTRY_W
    g.counters.promoted += 1
    clear_entry(g, pa)
    flush(g, pid, va, va + HUGE_BYTES, False)
    for i in range(HUGE_FRAMES):
        e = entry_at(g, table + 8 * i)
        old = e & ENTRY_ADDRESS
        new = <uint64_t>(frame + i) << 12
        p.pages += e & ENTRY_P == 0
        if not e & ENTRY_P or old == g.zero_frame:
            zero_frame(g, new)
        else:
            copy_frame(g, new, old)
            remove_mapping(g, <uint32_t>(old >> 12), pid, va + 4096 * i)
            gather(g, <uint32_t>(old >> 12))
        if e:
            set_entry(g, table + 8 * i, 0)
        add_mapping(g, <uint32_t>(frame + i), pid, va + 4096 * i)
    set_entry(g, pa, <uint64_t>frame << 12 | flags)
    g.frames[table >> 12].refs = 0
    gather(g, <uint32_t>(table >> 12))
    p.tables -= 1
    release_gathered(g)


cdef status_t promote(
    guest_t *g, uint32_t pid, uint64_t limit, uint64_t most_absent, uint64_t *count
) noexcept nogil:
    """Promote up to `limit` regions of a process, lowest first, as khugepaged does."""
    cdef proc_t *p = &g.procs[pid]
    cdef const area_t *area
    cdef uint64_t a, va, pa
    cdef int level
    cdef status_t status = OK
    count[0] = 0
    enter_kernel(g, CAUSE_INTERRUPT)
    kernel_work(g, g.rules.handler_loads)
    for a in range(p.area_count):
        area = &p.areas[a]
        if area.file != NOTHING:
            continue
        va = (area.start + HUGE_BYTES - 1) & ~<uint64_t>(HUGE_BYTES - 1)
        while va + HUGE_BYTES <= area.end and count[0] < limit and status == OK:
            pa = find(g, p.root, va, &level)
            if level == 1 and may_promote(g, p, (pa & ~<uint64_t>0xFFF), most_absent):
                if not has_block(g, HUGE_ORDER):
                    status = NO_FRAMES
                elif not ensure_nodes(g, HUGE_FRAMES):
                    status = NO_MEMORY
                else:
                    collapse(g, p, pid, area, va, parent(g, p.root, va, 2))
                    count[0] += 1
            va += span(2)
    leave_kernel(g, CAUSE_INTERRUPT)
    return status
