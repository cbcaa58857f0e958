"""Accesses that miss the look-aside: the walk through the guest's tables, pages, code that is hit.

Linear addresses go through `pyvirt._core.paging`; the look-aside keeps what it found until MOV to
CR0, CR3 or CR4, INVLPG, or a frame that moved in the host (its first write). Physical addresses
outside RAM read as ones, and writes there are lost: there is no memory-mapped device.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._core.frames cimport (
    PM_OK,
    pm_frame,
    pm_lock,
    pm_owned,
    pm_status,
    pm_unlock,
    pm_writable,
)
from pyvirt._core.interp.cpu cimport (
    COUNT_CODE_WRITES,
    COUNT_FILLS,
    COUNT_FLUSHES,
    CR0_PG,
    CR4_PAE,
    CR4_PSE,
    EVENT_EXIT,
    EVENT_LEAVE,
    EXIT_NO_MEMORY,
    JUMP_BITS,
    LAST_TAG,
    LOOK_BITS,
    LOOK_MASK,
    LOOK_TAG,
    NO_PAGE,
    SLOT_BITS,
    X_GP,
    X_PF,
    block_t,
    cpu_t,
    jump_t,
    look_t,
)
from pyvirt._core.paging cimport (
    ACCESS_EXEC,
    ACCESS_READ,
    ACCESS_USER,
    ACCESS_WRITE,
    FAULT_NO_MEMORY,
    FAULT_OUTSIDE_TABLE,
    dimension_t,
    walk,
    walk_t,
)

cdef uint8_t[4096] ONES         # what nobody answers
memset(ONES, 0xFF, 4096)
cdef uint8_t[4096] NOWHERE      # where lost writes go


cdef void settle_tables(cpu_t *c) noexcept nogil:
    """Choose the format of the page tables by CR4, and give it CR3 and CR0.WP."""
    cdef int which = 2 if c.cr4 & CR4_PAE else 1 if c.cr4 & CR4_PSE else 0
    cdef dimension_t *d = &c.tables[which]
    d.wp = c.cr0 >> 16 & 1
    d.root = c.cr3 & ~<uint32_t>(31 if which == 2 else 4095)
    flush(c)


cdef dimension_t *current(cpu_t *c) noexcept nogil:
    return &c.tables[2 if c.cr4 & CR4_PAE else 1 if c.cr4 & CR4_PSE else 0]


cdef void flush(cpu_t *c) noexcept nogil:
    """Empty the look-aside: entries with another tag are dead."""
    cdef uint32_t i
    c.tag += LOOK_TAG
    if c.tag == LAST_TAG:           # NO_PAGE has that one
        for i in range(2 << LOOK_BITS):
            c.look[i].read = NO_PAGE
            c.look[i].write = NO_PAGE
        c.tag = 0
    c.epoch += 1
    if c.epoch >> 30:               # came round: old targets would match again
        memset(c.jumps, 0, sizeof(jump_t) << JUMP_BITS)
        c.epoch = 1
    c.counters[COUNT_FLUSHES] += 1


cdef void flush_page(cpu_t *c, uint32_t linear) noexcept nogil:
    """What INVLPG does; a larger page is in there by 4 KiB pieces, so all go where one may be."""
    cdef uint32_t i, page = c.tag | linear >> 12
    cdef look_t *e
    if c.cr4 & (CR4_PSE | CR4_PAE):
        flush(c)
        return
    for i in range(2):
        e = &c.look[(i << LOOK_BITS) + (linear >> 12 & LOOK_MASK)]
        if e.read == page:
            e.read = NO_PAGE
        if e.write == page:
            e.write = NO_PAGE
    c.epoch += 1
    if c.epoch >> 30:
        flush(c)


cdef void forget_code(cpu_t *c) noexcept nogil:
    """Drop all decoded blocks."""
    cdef uint64_t i
    memset(c.slots, 0, sizeof(block_t) << SLOT_BITS)
    memset(c.jumps, 0, sizeof(jump_t) << JUMP_BITS)
    for i in range(c.page_count):
        c.pages[i].granules = 0
    c.arena_used = 0
    if c.code_written != NULL:
        c.code_written(c.monitor, c, NO_PAGE)


cdef void mark_code(cpu_t *c, uint32_t frame, uint64_t granules) noexcept nogil:
    """These 64-byte pieces of a frame hold decoded code from now on: writes there are watched."""
    cdef uint32_t i
    cdef uint8_t *host
    if c.pages[frame].granules == 0:
        host = pm_owned(c.memory, <uint64_t>frame << 12)
        if host != NULL:
            for i in range(2 << LOOK_BITS):
                if c.look[i].host == host:
                    c.look[i].write = NO_PAGE
    c.pages[frame].granules |= granules


cdef void written(cpu_t *c, uint64_t pa, uint32_t n, uint32_t watched) noexcept nogil:
    """A write within one page, which may hold code, or be watched by a monitor."""
    cdef uint32_t first = (pa & 4095) >> 6, last = ((pa & 4095) + n - 1) >> 6
    cdef uint64_t frame = pa >> 12, touched
    if watched:
        c.after_write(c.monitor, c, pa, n)
    if frame >= c.page_count:
        return
    touched = (<uint64_t>1 << first) | (<uint64_t>1 << last)
    if c.pages[frame].granules & touched:
        c.pages[frame].granules = 0
        c.pages[frame].generation += 1
        c.counters[COUNT_CODE_WRITES] += 1
        c.event |= EVENT_LEAVE
        if c.code_written != NULL:
            c.code_written(c.monitor, c, <uint32_t>frame)


cdef uint8_t *page_of(
    cpu_t *c, uint32_t linear, uint32_t access, uint32_t user, uint64_t *pa
) noexcept nogil:
    """The host's byte of a linear address, after all checks; fills the look-aside.

    NULL after a page fault, or when the host has no memory.
    """
    cdef walk_t w
    cdef uint8_t *host
    cdef look_t *e
    cdef pm_status status
    cdef uint64_t frame
    cdef uint32_t watched = 0
    cdef uint16_t code
    pa[0] = linear
    if c.translate != NULL:
        if not c.translate(c.monitor, c, linear, access, user, pa, &watched):
            return NULL
    elif c.cr0 & CR0_PG:
        if user:
            access |= ACCESS_USER
        pm_lock(c.memory)
        code = walk(current(c), linear, access, &w, NULL)
        pm_unlock(c.memory)
        if code:
            if code & 15 == FAULT_NO_MEMORY:
                c.event |= EVENT_EXIT
                c.exit_reason = EXIT_NO_MEMORY
                return NULL
            if code & 15 == FAULT_OUTSIDE_TABLE:
                # such a table reads as ones: present, with reserved bits, or a page nobody answers
                w.error = 9 | (2 if access & ACCESS_WRITE else 0) | (4 if user else 0)
            c.cr2 = linear
            c.event |= 1
            c.fault_vector = X_PF
            c.fault_code = 1
            c.fault_error = <uint32_t>w.error
            return NULL
        pa[0] = w.pa
    c.counters[COUNT_FILLS] += 1
    if access & ACCESS_WRITE:
        host = pm_owned(c.memory, pa[0])
        if host == NULL:
            pm_lock(c.memory)
            host = pm_writable(c.memory, pa[0], &status)
            pm_unlock(c.memory)
            if host == NULL:
                if status == PM_OK or pa[0] >= c.memory.limit or pm_frame(c.memory, pa[0]) == NULL:
                    return &NOWHERE[linear & 4095]
                c.event |= EVENT_EXIT
                c.exit_reason = EXIT_NO_MEMORY
                return NULL
            flush(c)                # the frame has moved: old pointers are to its former content
        if watched:
            c.watched = 1
            return host + (linear & 4095)
    else:
        host = <uint8_t *>pm_frame(c.memory, pa[0])
        if host == NULL:
            return &ONES[linear & 4095]
    frame = pa[0] >> 12
    e = &c.look[(user << LOOK_BITS) + (linear >> 12 & LOOK_MASK)]
    if e.read != (c.tag | linear >> 12) or e.host != host:
        e.write = NO_PAGE
    e.read = c.tag | linear >> 12
    e.host = host
    if access & ACCESS_WRITE and frame < c.page_count and c.pages[frame].granules == 0:
        e.write = c.tag | linear >> 12
    return host + (linear & 4095)


cdef bint window(cpu_t *c, uint32_t linear, uint32_t n, uint32_t *v, bint write) noexcept nogil:
    """An access of the processor itself to the monitor's own tables; beyond them there are ones.

    They are read-only: the monitor is told when an accessed or busy bit would be set.
    """
    cdef uint32_t at = linear - <uint32_t>c.window
    if write:
        raise_fault(c, X_GP, 1, 0)
        return False
    if at + n > c.window_size or at + n < n:
        v[0] = <uint32_t>0xFFFFFFFF >> (32 - 8 * n)
    else:
        v[0] = fetch(c.window_host + at, n)
    return True


cdef bint read_slow(
    cpu_t *c, uint32_t linear, uint32_t n, uint32_t user, uint32_t *v
) noexcept nogil:
    cdef uint64_t pa
    cdef uint32_t here = 4096 - (linear & 4095), i, value = 0
    cdef uint8_t *p = page_of(c, linear, ACCESS_READ, user, &pa)
    cdef uint8_t *q
    if p == NULL:
        return False
    if n <= here:
        for i in range(n):
            value |= <uint32_t>p[i] << 8 * i
    else:
        q = page_of(c, linear + here, ACCESS_READ, user, &pa)
        if q == NULL:
            return False
        for i in range(n):
            value |= <uint32_t>(p[i] if i < here else q[i - here]) << 8 * i
    v[0] = value
    return True


cdef bint check_write(cpu_t *c, uint32_t linear, uint32_t n, uint32_t user) noexcept nogil:
    """Whether a write would go through; sets A and D, and makes the frames."""
    cdef uint64_t pa
    cdef uint32_t here = 4096 - (linear & 4095)
    cdef bint allowed = page_of(c, linear, ACCESS_WRITE, user, &pa) != NULL
    if allowed and n > here:
        allowed = page_of(c, linear + here, ACCESS_WRITE, user, &pa) != NULL
    c.watched = 0
    return allowed


cdef bint write_slow(
    cpu_t *c, uint32_t linear, uint32_t n, uint32_t user, uint32_t v
) noexcept nogil:
    cdef uint64_t pa, pb
    cdef uint32_t here = 4096 - (linear & 4095), i
    cdef uint8_t *p = page_of(c, linear, ACCESS_WRITE, user, &pa)
    cdef uint8_t *q
    cdef uint32_t watched = c.watched, other
    c.watched = 0
    if p == NULL:
        return False
    if n <= here:
        for i in range(n):
            p[i] = <uint8_t>(v >> 8 * i)
        written(c, pa, n, watched)
        return True
    q = page_of(c, linear + here, ACCESS_WRITE, user, &pb)
    other = c.watched
    c.watched = 0
    if q == NULL:
        return False
    for i in range(n):
        if i < here:
            p[i] = <uint8_t>(v >> 8 * i)
        else:
            q[i - here] = <uint8_t>(v >> 8 * i)
    written(c, pa, here, watched)
    written(c, pb, n - here, other)
    return True


cdef bint code_page(cpu_t *c, uint32_t linear, uint64_t *pa, const uint8_t **host) noexcept nogil:
    """Where the code at a linear address lies; False after a page fault."""
    cdef uint8_t *p = page_of(c, linear, ACCESS_EXEC, c.user, pa)
    if p == NULL:
        return False
    host[0] = p
    return True
