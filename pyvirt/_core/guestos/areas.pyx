"""Areas of address spaces: mapped, unmapped, and given other rights.

After Linux 6.1: mm/mmap.c, mm/mprotect.c, mm/memory.c (unmap_page_range). An action first sees
that it can be done, so that a refused one changes nothing.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memmove, memset

from pyvirt._core.guestos.emit cimport (
    clear_entry,
    edit_entry,
    entry_at,
    kernel_store,
    load_entry,
    mask_entry,
)
from pyvirt._core.guestos.huge cimport split_edges
from pyvirt._core.guestos.memory cimport gather, release_gathered, remove_mapping
from pyvirt._core.guestos.state cimport (
    AREA_W,
    AREA_X,
    BAD_ADDRESS,
    ENTRY_D,
    ENTRY_P,
    ENTRY_W,
    FRAME_KERNEL,
    FRAME_PAGE,
    NO_FRAMES,
    NO_MEMORY,
    NO_ROOM,
    OK,
    TAKEN,
)
from pyvirt._core.guestos.tables cimport (
    ENTRY_ADDRESS,
    ENTRY_NX,
    find,
    frames_left,
    free_tables,
    next_area,
    span,
)
from pyvirt._core.guestos.vcpus cimport (
    CAUSE_SYSCALL,
    enter_kernel,
    flush,
    kernel_work,
    leave_kernel,
)


# --- areas ------------------------------------------------------------------------------------

cdef bint room_for_areas(proc_t *p, uint64_t count) noexcept nogil:
    cdef uint64_t room = p.area_count + count
    cdef area_t *areas
    if room <= p.area_room:
        return True
    room = max(<uint64_t>16, 2 * room)
    areas = <area_t *>realloc(p.areas, room * sizeof(area_t))
    if areas == NULL:
        return False
    p.areas = areas
    p.area_room = room
    return True


cdef void insert_area(proc_t *p, uint64_t i, const area_t *area) noexcept nogil:
    """Insert before area `i`; there is room."""
    memmove(&p.areas[i + 1], &p.areas[i], (p.area_count - i) * sizeof(area_t))
    p.areas[i] = area[0]
    p.area_count += 1


cdef void cut_area(proc_t *p, uint64_t va) noexcept nogil:
    """Make two areas of the one that `va` lies inside; there is room."""
    cdef uint64_t i = next_area(p, va)
    cdef area_t area
    if i == p.area_count or p.areas[i].start >= va:
        return
    area = p.areas[i]
    p.areas[i].end = va
    area.offset += (va - area.start) >> 12
    area.start = va
    insert_area(p, i + 1, &area)


cdef uint64_t find_gap(const proc_t *p, uint64_t size) noexcept nogil:
    """The highest free range below `top`, as Linux searches; 0 if there is none."""
    cdef uint64_t end = p.top, i = p.area_count
    while i > 0:
        i -= 1
        if p.areas[i].start >= end:
            continue
        if p.areas[i].end <= end and end - p.areas[i].end >= size:
            return end - size
        end = min(end, p.areas[i].start)
    return end - size if end >= size + 0x10000 else 0


cdef status_t map_area(
    guest_t *g, uint32_t pid, uint64_t size, const area_t *wanted, uint64_t *va
) noexcept nogil:
    """Make an area at ``wanted.start``, or where there is room if that is 0 (mmap)."""
    cdef proc_t *p = &g.procs[pid]
    cdef area_t area = wanted[0]
    cdef uint64_t i
    if not room_for_areas(p, 1):
        return NO_MEMORY
    if area.start == 0:
        area.start = find_gap(p, size)
        if area.start == 0:
            return NO_ROOM
    area.end = area.start + size
    i = next_area(p, area.start)
    if i < p.area_count and p.areas[i].start < area.end:
        return TAKEN
    enter_kernel(g, CAUSE_SYSCALL)
    kernel_work(g, g.rules.handler_loads)
    kernel_store(g, p.object + 128)
    kernel_store(g, p.object + 192)
    insert_area(p, i, &area)
    leave_kernel(g, CAUSE_SYSCALL)
    va[0] = area.start
    return OK


# --- unmapping --------------------------------------------------------------------------------

cdef inline void widen(range_t *r, uint64_t va, uint64_t size) noexcept nogil:
    if not r.any:
        r.start = va
    r.any = True
    r.end = va + size


cdef void drop_page(guest_t *g, uint32_t pid, uint64_t e, uint64_t va) noexcept nogil:
    """One mapping of a frame less; the last one gathers it."""
    cdef uint32_t frame = <uint32_t>((e & ENTRY_ADDRESS) >> 12)
    if g.frames[frame].kind == FRAME_KERNEL:
        return                      # the shared page of zeros
    remove_mapping(g, frame, pid, va)
    if g.frames[frame].refs == 0:
        gather(g, frame)


cdef void unmap_range(
    guest_t *g, proc_t *p, uint32_t pid, uint64_t start, uint64_t end, range_t *changed
) noexcept nogil:
    """Clear all leaves of a range; huge pages lie wholly in it (zap_pte_range)."""
    cdef uint64_t va = start, pa, e, size, i
    cdef int level
    while va < end:
        pa = find(g, p.root, va, &level)
        e = entry_at(g, pa)
        size = span(level)
        va &= ~(size - 1)
        if e:
            clear_entry(g, pa)
        if e & ENTRY_P:
            widen(changed, va, size)
            p.pages -= size >> 12
            for i in range(size >> 12):
                drop_page(g, pid, e + 4096 * i, va + 4096 * i)
        va += size


cdef status_t unmap(guest_t *g, uint32_t pid, uint64_t start, uint64_t end) noexcept nogil:
    """Munmap: holes in the range are no error, a range of nothing but holes is."""
    cdef proc_t *p = &g.procs[pid]
    cdef uint64_t i = next_area(p, start), tables = p.tables
    cdef range_t changed
    cdef status_t status
    memset(&changed, 0, sizeof(range_t))
    if i == p.area_count or p.areas[i].start >= end:
        return BAD_ADDRESS
    if not room_for_areas(p, 2):
        return NO_MEMORY
    if not frames_left(g, 2):       # tables of the huge pages at both ends
        return NO_FRAMES
    enter_kernel(g, CAUSE_SYSCALL)
    kernel_work(g, g.rules.handler_loads)
    status = split_edges(g, p, pid, start, end)
    cut_area(p, start)
    cut_area(p, end)
    i = next_area(p, start)
    while i < p.area_count and p.areas[i].start < end:
        unmap_range(g, p, pid, p.areas[i].start, p.areas[i].end, &changed)
        memmove(&p.areas[i], &p.areas[i + 1], (p.area_count - i - 1) * sizeof(area_t))
        p.area_count -= 1
    free_tables(g, p, start, end)
    if changed.any or p.tables != tables:
        if not changed.any:
            changed.start = start
            changed.end = end
        flush(g, pid, changed.start, changed.end, False)
    release_gathered(g)
    leave_kernel(g, CAUSE_SYSCALL)
    return status


# --- rights -----------------------------------------------------------------------------------

cdef void change_rights(
    guest_t *g, uint32_t pid, const area_t *area, uint64_t start, uint64_t end, range_t *changed
) noexcept nogil:
    """Exchange each leaf with 0, and store it with other rights (change_pte_range).

    A page gets W at once if it is the process's alone and was written (can_change_pte_writable).
    """
    cdef proc_t *p = &g.procs[pid]
    cdef uint64_t va = start, pa, e, size, clear, put
    cdef uint32_t frame
    cdef int level
    while va < end:
        pa = find(g, p.root, va, &level)
        e = entry_at(g, pa)
        size = span(level)
        va = (va & ~(size - 1)) + size
        if not e & ENTRY_P:
            continue
        frame = <uint32_t>((e & ENTRY_ADDRESS) >> 12)
        clear = put = 0
        if area.rights & AREA_X:
            clear |= ENTRY_NX
        else:
            put |= ENTRY_NX
        if not area.rights & AREA_W:
            clear |= ENTRY_W
        elif (level == 1 and e & ENTRY_D and g.frames[frame].kind == FRAME_PAGE
                and g.frames[frame].refs == 1):
            put |= ENTRY_W
        put &= ~e
        clear &= e
        widen(changed, va - size, size)
        load_entry(g, pa)
        clear_entry(g, pa)
        mask_entry(g, pa, e, ~clear)
        if put:
            edit_entry(g, pa, 0, put)


cdef status_t protect(
    guest_t *g, uint32_t pid, uint64_t start, uint64_t end, uint32_t rights
) noexcept nogil:
    """Mprotect: areas must cover all of the range."""
    cdef proc_t *p = &g.procs[pid]
    cdef uint64_t i = next_area(p, start), va = start
    cdef range_t changed
    cdef status_t status
    memset(&changed, 0, sizeof(range_t))
    while va < end:
        if i == p.area_count or p.areas[i].start > va:
            return BAD_ADDRESS
        va = p.areas[i].end
        i += 1
    if not room_for_areas(p, 2):
        return NO_MEMORY
    if not frames_left(g, 2):
        return NO_FRAMES
    enter_kernel(g, CAUSE_SYSCALL)
    kernel_work(g, g.rules.handler_loads)
    status = split_edges(g, p, pid, start, end)
    cut_area(p, start)
    cut_area(p, end)
    i = next_area(p, start)
    while i < p.area_count and p.areas[i].start < end:
        rights |= p.areas[i].rights & ~<uint32_t>7
        if p.areas[i].rights != rights:
            p.areas[i].rights = rights
            change_rights(g, pid, &p.areas[i], p.areas[i].start, p.areas[i].end, &changed)
        rights &= 7
        i += 1
    if changed.any:
        flush(g, pid, changed.start, changed.end, False)
    leave_kernel(g, CAUSE_SYSCALL)
    return status
