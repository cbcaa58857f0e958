"""Reclaim: a hand goes over the frames, ages what was used and takes what was not.

A second-chance clock in place of Linux's two lists; what it does to entries is Linux's: A is read
and cleared without a flush (ptep_clear_flush_young on x86), a page that is taken is unmapped from
all who map it, with one flush for a batch. What A is at that time, the system estimates: set by
any access since it was cleared, as on a processor without TLB. A real TLB may keep A clear for
longer; the stream does not depend on it.
"""

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.events cimport EVENT_IO
from pyvirt._core.guestos.emit cimport clear_entry, edit_entry, emit, entry_at, load_entry, set_entry
from pyvirt._core.guestos.huge cimport split
from pyvirt._core.guestos.memory cimport gather, release_gathered, remove_mapping
from pyvirt._core.guestos.state cimport (
    ENTRY_A,
    ENTRY_SWAPPED,
    FRAME_CACHE,
    FRAME_PAGE,
    NOTHING,
    OWNER_FILE,
    node_t,
)
from pyvirt._core.guestos.tables cimport find, frames_left
from pyvirt._core.guestos.vcpus cimport (
    CAUSE_INTERRUPT,
    enter_kernel,
    flush,
    kernel_work,
    leave_kernel,
)

cdef enum:
    DISK_PORT = 0x1F0
    MOST_SPACES = 64                # with a flush to come

cdef struct batch_t:
    uint32_t spaces[MOST_SPACES]
    uint32_t count
    uint64_t pages


cdef void end_batch(guest_t *g, batch_t *b) noexcept nogil:
    cdef uint32_t i
    for i in range(b.count):
        flush(g, b.spaces[i], 0, 0, True)
    b.count = 0
    b.pages = 0
    release_gathered(g)


cdef void add_space(guest_t *g, batch_t *b, uint32_t pid) noexcept nogil:
    cdef uint32_t i
    for i in range(b.count):
        if b.spaces[i] == pid:
            return
    if b.count == MOST_SPACES:
        end_batch(g, b)
    b.spaces[b.count] = pid
    b.count += 1


cdef bint age(guest_t *g, uint32_t frame, bint *skip) noexcept nogil:
    """Clear A wherever a frame is mapped; whether any was set. The frames of a huge page are
    judged with its first one: the others are skipped."""
    cdef uint32_t i = g.frames[frame].list
    cdef const node_t *n
    cdef uint64_t pa
    cdef int level
    cdef bint young = False
    skip[0] = False
    while i != NOTHING:
        n = &g.nodes[i]
        i = n.next
        if n.owner & OWNER_FILE:
            continue
        pa = find(g, g.procs[n.owner].root, n.va, &level)
        if level > 1 and n.va & 0x1FFFFF:
            skip[0] = True
            return False
        load_entry(g, pa)
        if entry_at(g, pa) & ENTRY_A:
            edit_entry(g, pa, ENTRY_A, 0)
            young = True
    return young


cdef void take(guest_t *g, batch_t *b, uint32_t frame) noexcept nogil:
    """Unmap a frame from all, leave word of where it went, and free it."""
    cdef node_t n
    cdef uint64_t pa
    cdef int level
    cdef bint anonymous = g.frames[frame].kind == FRAME_PAGE
    if anonymous:
        emit(g, EVENT_IO, 0, 0, 0, DISK_PORT)
        g.swap_slots += 1
    while g.frames[frame].list != NOTHING:
        n = g.nodes[g.frames[frame].list]
        if n.owner & OWNER_FILE:
            g.files[n.owner & ~<uint32_t>OWNER_FILE].frames[n.va] = NOTHING
        else:
            pa = find(g, g.procs[n.owner].root, n.va, &level)
            if level > 1:
                split(g, &g.procs[n.owner], n.owner, n.va)
                pa = find(g, g.procs[n.owner].root, n.va, &level)
            clear_entry(g, pa)
            if anonymous:
                set_entry(g, pa, (g.swap_slots & <uint64_t>0xFFFFFFFF) << 12 | ENTRY_SWAPPED)
            g.procs[n.owner].pages -= 1
            add_space(g, b, n.owner)
        remove_mapping(g, frame, n.owner, n.va)
    gather(g, frame)
    b.pages += 1
    g.counters.reclaimed += 1


cdef uint64_t reclaim(guest_t *g, uint64_t pages) noexcept nogil:
    """Take up to so many pages; the hand goes round twice at most. Returns how many."""
    cdef uint64_t visited = 0, taken = 0, span = g.frame_count - g.first
    cdef uint32_t frame
    cdef bint skip
    cdef batch_t b
    b.count = 0
    b.pages = 0
    enter_kernel(g, CAUSE_INTERRUPT)
    kernel_work(g, g.rules.handler_loads)
    while taken < pages and visited < 2 * span:
        frame = <uint32_t>(g.first + g.hand)
        g.hand = (g.hand + 1) % span
        visited += 1
        if ((g.frames[frame].kind != FRAME_PAGE and g.frames[frame].kind != FRAME_CACHE)
                or g.frames[frame].refs == 0):
            continue
        if age(g, frame, &skip):
            g.counters.aged += 1
            continue
        # a huge page is split first, in each process that maps it
        if skip or not frames_left(g, g.frames[frame].refs):
            continue
        take(g, &b, frame)
        taken += 1
        if b.pages >= g.rules.reclaim_batch:
            end_batch(g, &b)
    end_batch(g, &b)
    leave_kernel(g, CAUSE_INTERRUPT)
    return taken


cdef void drop_caches(guest_t *g) noexcept nogil:
    """Free the frames of files that no process maps."""
    cdef uint64_t i
    cdef uint32_t f, frame
    for f in range(g.file_count):
        for i in range(g.files[f].pages):
            frame = g.files[f].frames[i]
            if frame != NOTHING and g.frames[frame].refs == 1:
                g.files[f].frames[i] = NOTHING
                remove_mapping(g, frame, OWNER_FILE | f, i)
                gather(g, frame)
    release_gathered(g)
