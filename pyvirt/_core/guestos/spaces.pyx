"""Address spaces: areas mapped, unmapped and protected; fork, exec and exit.

After Linux 6.1: mm/mmap.c, mm/mprotect.c, mm/memory.c (copy_page_range, unmap_page_range),
fs/exec.c. An action first sees that it can be done, so that a refused one changes nothing.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove, memset

from pyvirt._core.guestos.emit cimport (
    clear_entry,
    edit_entry,
    entry_at,
    kernel_store,
    load_entry,
    mask_entry,
)
from pyvirt._core.guestos.huge cimport split_edges
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
    AREA_W,
    AREA_X,
    BAD_ADDRESS,
    ENTRY_A,
    ENTRY_D,
    ENTRY_P,
    ENTRY_W,
    FRAME_KERNEL,
    FRAME_PAGE,
    NOTHING,
    NO_FRAMES,
    NO_MEMORY,
    NO_ROOM,
    OK,
    TAKEN,
)
from pyvirt._core.guestos.tables cimport (
    ENTRY_ADDRESS,
    ENTRY_NX,
    drop_root,
    find,
    frames_left,
    free_tables,
    make_entry,
    new_root,
    next_area,
    span,
)
from pyvirt._core.guestos.vcpus cimport (
    CAUSE_INTERRUPT,
    CAUSE_SYSCALL,
    enter_kernel,
    flush,
    kernel_work,
    leave_kernel,
    load_space,
    switch_to,
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

cdef struct range_t:                # what was changed
    uint64_t start
    uint64_t end
    bint any


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


# --- processes --------------------------------------------------------------------------------

cdef status_t new_slot(guest_t *g, uint32_t *pid) noexcept nogil:
    """A process of nothing; not alive yet."""
    cdef uint32_t i = 0, room
    cdef proc_t *procs
    while i < g.proc_count and g.procs[i].alive:
        i += 1
    if i == g.proc_room:
        room = max(<uint32_t>16, 2 * g.proc_room)
        procs = <proc_t *>realloc(g.procs, room * sizeof(proc_t))
        if procs == NULL:
            return NO_MEMORY
        g.procs = procs
        g.proc_room = room
    if i == g.proc_count:
        g.proc_count += 1
    memset(&g.procs[i], 0, sizeof(proc_t))
    pid[0] = i
    return OK


cdef status_t begin_space(guest_t *g, uint32_t pid, uint64_t reserve) noexcept nogil:
    """Root and records of a process, if so many frames more are left."""
    cdef proc_t *p = &g.procs[pid]
    cdef uint32_t frame
    cdef status_t status
    if (not frames_left(g, reserve + 3 + g.levels)
            or not has_block(g, 1 if g.rules.isolation else 0)):
        return NO_FRAMES
    status = new_root(g, p)
    if status != OK:
        return status
    if p.object == 0:
        frame = take_frames(g, 0, FRAME_KERNEL)
        if frame == NOTHING:
            return NO_FRAMES
        p.object = g.direct_map + (<uint64_t>frame << 12)
    g.contexts += 1
    p.context = g.contexts
    p.generation = 1
    p.alive = True
    return OK


cdef status_t new_process(guest_t *g, uint32_t *pid) noexcept nogil:
    """A process without areas, made by a kernel thread."""
    cdef status_t status = new_slot(g, pid)
    if status != OK:
        return status
    enter_kernel(g, CAUSE_INTERRUPT)
    kernel_work(g, g.rules.handler_loads)
    status = begin_space(g, pid[0], 0)
    leave_kernel(g, CAUSE_INTERRUPT)
    g.procs[pid[0]].top = user_top(g)
    return status


cdef uint64_t user_top(const guest_t *g) noexcept nogil:
    """Where Linux begins to map without randomisation: below the stack and its gap."""
    return 0x7FFFF7FFF000 if g.levels == 4 else 0xFFFFFFF7FFF000


cdef void copy_areas(
    guest_t *g, uint32_t parent_id, uint32_t child_id, const area_t *area
) noexcept nogil:
    """Copy the leaves of an area; those that let the parent write no longer do."""
    cdef proc_t *p = &g.procs[parent_id]
    cdef proc_t *c = &g.procs[child_id]
    cdef uint64_t va = area.start, pa, to, e, size, i
    cdef uint64_t table = 0, table_va = 1       # of the child, for this 2 MiB
    cdef uint32_t frame
    cdef int level
    while va < area.end:
        pa = find(g, p.root, va, &level)
        e = entry_at(g, pa)
        size = span(level)
        va &= ~(size - 1)
        if e:
            if level == 1 and va >> 21 == table_va:
                to = table + 8 * (va >> 12 & 511)
            else:
                to = make_entry(g, c, va, level)
                if to == 0:
                    return
                table = to & ~<uint64_t>0xFFF
                table_va = va >> 21 if level == 1 else 1
            load_entry(g, pa)
            if e & ENTRY_P and e & ENTRY_W:
                edit_entry(g, pa, ENTRY_W, 0)
                if not g.rules.fork_flush:
                    flush(g, parent_id, va, va + size, False)
                    load_entry(g, pa)
            if e & ENTRY_P:
                mask_entry(g, to, e, ~<uint64_t>(ENTRY_W | ENTRY_A))
                c.pages += size >> 12
                for i in range(size >> 12):
                    frame = <uint32_t>(((e & ENTRY_ADDRESS) >> 12) + i)
                    if g.frames[frame].kind != FRAME_KERNEL:
                        add_mapping(g, frame, child_id, va + 4096 * i)
            else:
                mask_entry(g, to, e, ~<uint64_t>0)
        va += size


cdef status_t fork(guest_t *g, uint32_t pid, uint32_t *child) noexcept nogil:
    """A copy of a process that shares its pages until one of both writes them."""
    cdef proc_t *p
    cdef proc_t *c
    cdef uint64_t i
    cdef status_t status
    # before anything is said: tables as many as the parent's, and a node for each page
    if not frames_left(g, g.procs[pid].tables + g.levels + 4):
        return NO_FRAMES
    if not has_block(g, 1 if g.rules.isolation else 0):
        return NO_FRAMES
    if not ensure_nodes(g, g.procs[pid].pages + 1):
        return NO_MEMORY
    status = new_slot(g, child)
    if status != OK:
        return status
    p = &g.procs[pid]
    c = &g.procs[child[0]]
    if not room_for_areas(c, p.area_count):
        return NO_MEMORY
    enter_kernel(g, CAUSE_SYSCALL)
    kernel_work(g, g.rules.handler_loads)
    status = begin_space(g, child[0], p.tables)
    if status == OK:
        g.counters.forks += 1
        if p.area_count:
            memcpy(c.areas, p.areas, p.area_count * sizeof(area_t))
        c.area_count = p.area_count
        c.top = p.top
        for i in range(p.area_count):
            # what only reads a file is found in its cache again
            if p.areas[i].file == NOTHING or p.areas[i].rights & AREA_W:
                copy_areas(g, pid, child[0], &p.areas[i])
        if g.rules.fork_flush:
            flush(g, pid, 0, 0, True)
    leave_kernel(g, CAUSE_SYSCALL)
    return status


cdef void tear_down(guest_t *g, proc_t *p, uint32_t pid) noexcept nogil:
    """Unmap all, and give all tables back but the root; frames wait for the flush."""
    cdef range_t changed
    cdef uint64_t i, count = p.area_count
    memset(&changed, 0, sizeof(range_t))
    for i in range(count):
        unmap_range(g, p, pid, p.areas[i].start, p.areas[i].end, &changed)
    while p.area_count:             # from the last: a table serves those that are still there
        p.area_count -= 1
        free_tables(g, p, p.areas[p.area_count].start, p.areas[p.area_count].end)
    free(p.areas)
    p.areas = NULL
    p.area_room = 0


cdef void stop_others(guest_t *g, uint32_t pid) noexcept nogil:
    """Take a process from the vCPUs beside the one that acts."""
    cdef uint32_t own = g.cpu, i
    for i in range(g.cpu_count):
        if i != own and g.cpus[i].current == pid:
            switch_to(g, i, NOTHING, CAUSE_INTERRUPT)
    g.cpu = own


cdef status_t exec_space(guest_t *g, uint32_t pid) noexcept nogil:
    """A new space without areas takes the place of the old one, which is torn down."""
    cdef proc_t *p = &g.procs[pid]
    cdef proc_t old
    cdef status_t status
    if not frames_left(g, g.levels + 4) or not has_block(g, 1 if g.rules.isolation else 0):
        return NO_FRAMES
    stop_others(g, pid)
    enter_kernel(g, CAUSE_SYSCALL)
    kernel_work(g, g.rules.handler_loads)
    old = p[0]
    p.areas = NULL
    p.area_count = p.area_room = 0
    p.tables = p.pages = 0
    status = begin_space(g, pid, 0)
    if status == OK:
        g.counters.execs += 1
        p.top = user_top(g)
        load_space(g, pid)
        tear_down(g, &old, pid)
        drop_root(g, &old)
        release_gathered(g)
    else:
        p[0] = old
    leave_kernel(g, CAUSE_SYSCALL)
    return status


cdef void exit_process(guest_t *g, uint32_t pid) noexcept nogil:
    """The end of a process: all its pages and tables are given back; no process is current then."""
    cdef proc_t *p = &g.procs[pid]
    cdef uint32_t object = <uint32_t>((p.object - g.direct_map) >> 12)
    stop_others(g, pid)
    g.counters.exits += 1
    enter_kernel(g, CAUSE_SYSCALL)
    kernel_work(g, g.rules.handler_loads)
    tear_down(g, p, pid)
    flush(g, pid, 0, 0, True)
    if g.cpus[g.cpu].current == pid:
        load_space(g, NOTHING)
    drop_root(g, p)
    gather(g, object)
    g.frames[object].refs = 0
    release_gathered(g)
    p.alive = False
    if g.cpus[g.cpu].current != NOTHING:
        leave_kernel(g, CAUSE_SYSCALL)
