"""Accesses of user code, and what the kernel does about their page faults.

Whether an access faults is decided by the tables as the system knows them, so that the stream is
the same wherever it runs. After Linux 6.1, mm/memory.c: do_anonymous_page, do_wp_page,
wp_page_copy, do_read_fault with do_fault_around, do_cow_fault, do_swap_page.
"""

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.events cimport EVENT_FETCH, EVENT_IO, EVENT_LOAD
from pyvirt._core.guestos.emit cimport (
    clear_entry,
    copy_frame,
    device_wrote,
    emit,
    entry_at,
    load_entry,
    or_entry,
    put_entry,
    set_entry,
    zero_frame,
)
from pyvirt._core.guestos.huge cimport map_huge, split, wants_huge
from pyvirt._core.guestos.memory cimport add_mapping, ensure_nodes, remove_mapping, take_frames
from pyvirt._core.guestos.state cimport (
    AREA_W,
    AREA_X,
    BAD_ADDRESS,
    BAD_RIGHTS,
    ENTRY_A,
    ENTRY_D,
    ENTRY_P,
    ENTRY_PS,
    ENTRY_W,
    FRAME_CACHE,
    FRAME_PAGE,
    HUGE_FRAMES,
    NOTHING,
    NO_FRAMES,
    NO_MEMORY,
    OK,
    OWNER_FILE,
    area_t,
    file_t,
    frame_of,
    guest_t,
    proc_t,
    status_t,
)
from pyvirt._core.guestos.tables cimport (
    ENTRY_ADDRESS,
    ENTRY_NX,
    area_of,
    find,
    frames_left,
    leaf_flags,
    make_entry,
)
from pyvirt._core.guestos.vcpus cimport (
    CAUSE_FAULT,
    enter_kernel,
    flush,
    kernel_work,
    leave_kernel,
)
from pyvirt._core.shadow.cpu cimport ARG_HANDLER, ARG_USER, ARG_VALUE_SHIFT, VALUE_GIVEN

cdef enum:
    DISK_PORT = 0x1F0               # the first ATA controller


# --- kinds of faults --------------------------------------------------------------------------

cdef void anonymous(
    guest_t *g, proc_t *p, uint32_t pid, const area_t *area, uint64_t va, bint write
) noexcept nogil:
    """A page that was never touched."""
    cdef uint64_t pa, page, flags = leaf_flags(area)
    cdef uint32_t frame
    if wants_huge(g, p, area, va):
        map_huge(g, p, pid, area, va)
        return
    pa = make_entry(g, p, va, 1)
    if pa == 0:
        return
    p.pages += 1
    if not write and g.rules.zero_page:
        g.counters.zero_page += 1
        set_entry(g, pa, g.zero_frame | flags)
        return
    g.counters.anonymous += 1
    frame = take_frames(g, 0, FRAME_PAGE)
    page = <uint64_t>frame << 12
    zero_frame(g, page)
    add_mapping(g, frame, pid, va)
    if area.rights & AREA_W:
        flags |= ENTRY_W | ENTRY_D
    set_entry(g, pa, page | flags)


cdef void swapped(
    guest_t *g, proc_t *p, uint32_t pid, const area_t *area, uint64_t va, uint64_t pa, bint write
) noexcept nogil:
    """A page that reclaim took."""
    cdef uint32_t frame = take_frames(g, 0, FRAME_PAGE)
    g.counters.swapped_in += 1
    emit(g, EVENT_IO, 0, 0, 0, DISK_PORT)
    device_wrote(g, <uint64_t>frame << 12)
    add_mapping(g, frame, pid, va)
    p.pages += 1
    load_entry(g, pa)
    set_entry(g, pa, <uint64_t>frame << 12 | leaf_flags(area)
              | (ENTRY_W | ENTRY_D if write else 0))


cdef uint32_t cached(guest_t *g, uint32_t id, uint64_t index) noexcept nogil:
    """The frame of a page of a file, read from the disk if need be."""
    cdef file_t *file = &g.files[id]
    cdef uint32_t frame = file.frames[index]
    if frame != NOTHING:
        g.counters.file_cached += 1
        return frame
    g.counters.file_read += 1
    frame = take_frames(g, 0, FRAME_CACHE)
    emit(g, EVENT_IO, 0, 0, 0, DISK_PORT)
    device_wrote(g, <uint64_t>frame << 12)
    add_mapping(g, frame, OWNER_FILE | id, index)
    file.frames[index] = frame
    return frame


cdef void of_file(
    guest_t *g, proc_t *p, uint32_t pid, const area_t *area, uint64_t va, bint write
) noexcept nogil:
    """A page of a file: a copy if it is written, else the page cache's, and those around it."""
    cdef file_t *file = &g.files[area.file]
    cdef uint64_t index = area.offset + ((va - area.start) >> 12), around, pa, last
    cdef uint32_t source = cached(g, area.file, index), frame
    pa = make_entry(g, p, va, 1)
    if pa == 0:
        return
    p.pages += 1
    if write:
        frame = take_frames(g, 0, FRAME_PAGE)
        copy_frame(g, <uint64_t>frame << 12, <uint64_t>source << 12)
        add_mapping(g, frame, pid, va)
        set_entry(g, pa, <uint64_t>frame << 12 | leaf_flags(area) | ENTRY_W | ENTRY_D)
        return
    add_mapping(g, source, pid, va)
    set_entry(g, pa, <uint64_t>source << 12 | leaf_flags(area))
    around = va & ~(<uint64_t>g.rules.fault_around * 4096 - 1)
    last = min(around + <uint64_t>g.rules.fault_around * 4096, area.end)
    around = max(around, area.start)
    pa -= (va - around) >> 12 << 3
    while around < last:
        frame = file.frames[area.offset + ((around - area.start) >> 12)]
        if frame != NOTHING and entry_at(g, pa) == 0:
            p.pages += 1
            add_mapping(g, frame, pid, around)
            set_entry(g, pa, <uint64_t>frame << 12 | leaf_flags(area))
        around += 4096
        pa += 8


cdef bint exclusive(const guest_t *g, uint64_t page, uint64_t frames) noexcept nogil:
    """Whether nobody else maps any of these frames, nor a file has them."""
    cdef uint64_t i
    for i in range(page >> 12, (page >> 12) + frames):
        if g.frames[i].kind != FRAME_PAGE or g.frames[i].refs != 1:
            return False
    return True


cdef void protected_write(guest_t *g, proc_t *p, uint32_t pid, uint64_t va) noexcept nogil:
    """A write to a page that is mapped read-only: its last owner gets W back, others a copy."""
    cdef int level
    cdef uint64_t pa = find(g, p.root, va, &level), e = entry_at(g, pa), old
    cdef uint64_t frames = HUGE_FRAMES if level > 1 else 1
    cdef uint32_t frame
    load_entry(g, pa)
    if exclusive(g, e & ENTRY_ADDRESS, frames):
        g.counters.reused += 1
        or_entry(g, pa, ENTRY_W | ENTRY_D | ENTRY_A)
        return                      # no flush: a fault drops the entry by itself
    if level > 1:
        split(g, p, pid, va)
        pa = find(g, p.root, va, &level)
        e = entry_at(g, pa)
        load_entry(g, pa)
        if exclusive(g, e & ENTRY_ADDRESS, 1):
            g.counters.reused += 1
            or_entry(g, pa, ENTRY_W | ENTRY_D | ENTRY_A)
            return
    old = e & ENTRY_ADDRESS
    g.counters.copied += 1
    frame = take_frames(g, 0, FRAME_PAGE)
    if old == g.zero_frame:
        zero_frame(g, <uint64_t>frame << 12)
    else:
        copy_frame(g, <uint64_t>frame << 12, old)
    clear_entry(g, pa)
    flush(g, pid, va, va + 4096, False)
    if old != g.zero_frame:
        remove_mapping(g, <uint32_t>(old >> 12), pid, va)
    add_mapping(g, frame, pid, va)
    set_entry(g, pa, <uint64_t>frame << 12 | ENTRY_W | ENTRY_D | ENTRY_A
              | e & ~(ENTRY_ADDRESS | ENTRY_D))


# --- accesses ---------------------------------------------------------------------------------

cdef inline bint allowed(uint64_t e, int op) noexcept nogil:
    if op == EVENT_LOAD:
        return e & ENTRY_P
    if op == EVENT_FETCH:
        return e & ENTRY_P and not e & ENTRY_NX
    return e & (ENTRY_P | ENTRY_W) == (ENTRY_P | ENTRY_W)


cdef inline void used(
    guest_t *g, uint64_t pa, uint64_t va, int op, bint given
) noexcept nogil:
    """What a processor without TLB would leave in the leaf; and data, if the stream has some."""
    cdef uint64_t e = entry_at(g, pa), page = e & ENTRY_ADDRESS
    cdef uint64_t bits = ENTRY_A if op == EVENT_LOAD or op == EVENT_FETCH else ENTRY_A | ENTRY_D
    if e & bits != bits:
        put_entry(g, pa, e | bits)
    if given:
        if e & ENTRY_PS:
            page |= va & 0x1FF000
        frame_of(g, page).data = 1


cdef status_t touch(
    guest_t *g, uint32_t pid, uint64_t va, int op, uint32_t size, bint given, uint64_t value
) noexcept nogil:
    """One access at CPL 3 on the vCPU that acts, where the process is current."""
    cdef proc_t *p = &g.procs[pid]
    cdef uint32_t arg = ARG_USER | (<uint32_t>VALUE_GIVEN << ARG_VALUE_SHIFT if given else 0)
    cdef bint write = op != EVENT_LOAD and op != EVENT_FETCH
    cdef const area_t *area
    cdef uint64_t pa, e, page = va & ~<uint64_t>4095
    cdef int level
    if va >> (47 if g.levels == 4 else 56):
        return BAD_ADDRESS
    pa = find(g, p.root, va, &level)
    e = entry_at(g, pa)
    if not allowed(e, op):
        area = area_of(p, va)
        if area == NULL:
            return BAD_ADDRESS
        if (write and not area.rights & AREA_W) or (op == EVENT_FETCH
                                                    and not area.rights & AREA_X):
            return BAD_RIGHTS
        # tables, a page, a page of a file, and a table for a split
        if not frames_left(g, g.levels + 3):
            return NO_FRAMES
        if not ensure_nodes(g, HUGE_FRAMES + 8 + g.rules.fault_around):
            return NO_MEMORY
        emit(g, op, size, arg, va, value)
        g.counters.faults += 1
        g.handler = ARG_HANDLER
        enter_kernel(g, CAUSE_FAULT)
        kernel_work(g, g.rules.handler_loads)
        if e & ENTRY_P:
            protected_write(g, p, pid, page)
        elif e:
            swapped(g, p, pid, area, page, pa, write)
        elif area.file != NOTHING:
            of_file(g, p, pid, area, page, write)
        else:
            anonymous(g, p, pid, area, page, write)
        leave_kernel(g, CAUSE_FAULT)
        if g.failed:
            g.handler = 0
            return NO_MEMORY
        pa = find(g, p.root, va, &level)
    g.counters.accesses += 1
    emit(g, op, size, arg, va, value)
    g.handler = 0
    used(g, pa, va, op, given)
    return OK
