"""Processes: made, copied, given another program, ended.

After Linux 6.1: kernel/fork.c, mm/memory.c (copy_page_range), fs/exec.c, mm/mmap.c (exit_mmap).
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from pyvirt._core.guestos.areas cimport range_t, room_for_areas, unmap_range
from pyvirt._core.guestos.emit cimport edit_entry, entry_at, load_entry, mask_entry
from pyvirt._core.guestos.memory cimport (
    add_mapping,
    ensure_nodes,
    gather,
    has_block,
    release_gathered,
    take_frames,
)
from pyvirt._core.guestos.state cimport (
    AREA_W,
    ENTRY_A,
    ENTRY_P,
    ENTRY_W,
    FRAME_KERNEL,
    NOTHING,
    NO_FRAMES,
    NO_MEMORY,
    OK,
    area_t,
    guest_t,
    proc_t,
    status_t,
)
from pyvirt._core.guestos.tables cimport (
    ENTRY_ADDRESS,
    drop_root,
    find,
    frames_left,
    free_tables,
    make_entry,
    new_root,
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


cdef status_t new_process(guest_t *g, uint64_t shift, uint32_t *pid) noexcept nogil:
    """A process without areas, made by a kernel thread."""
    cdef status_t status = new_slot(g, pid)
    if status != OK:
        return status
    enter_kernel(g, CAUSE_INTERRUPT)
    kernel_work(g, g.rules.handler_loads)
    status = begin_space(g, pid[0], 0)
    leave_kernel(g, CAUSE_INTERRUPT)
    g.procs[pid[0]].top = user_top(g) - (shift << 12)
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


cdef status_t exec_space(guest_t *g, uint32_t pid, uint64_t shift) noexcept nogil:
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
        p.top = user_top(g) - (shift << 12)
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
