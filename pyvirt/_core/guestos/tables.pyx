"""Page tables of processes, and the kernel's own, which all of them share.

Addresses are Linux's (Documentation/arch/x86/x86_64/mm.rst, without randomisation): the direct
map, the kernel's image, and the processor entry area, which holds what a processor reads and
writes when it delivers a fault or an interrupt.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._core.frames cimport PM_OK, pm_owned, pm_status, pm_writable
from pyvirt._core.guestos.emit cimport put_entry, set_entry, zero_frame
from pyvirt._core.guestos.memory cimport gather, take_frames
from pyvirt._core.guestos.state cimport (
    ENTRY_A,
    ENTRY_D,
    ENTRY_G,
    ENTRY_TABLE,
    ENTRY_W,
    FRAME_KERNEL,
    FRAME_TABLE,
    NOTHING,
    NO_FRAMES,
    OK,
)

cdef enum:
    KERNEL_HALF = 256                   # first entry of a root that is the kernel's
    IMAGE_PAGES = 3                     # of 2 MiB: text, text of kernel entries, data


# --- frames of tables -------------------------------------------------------------------------

cdef bint own_frame(guest_t *g, uint64_t pa) noexcept nogil:
    """Have a frame in the system's memory, where it keeps what it knows of its tables."""
    cdef pm_status status = PM_OK
    if pm_owned(g.mem, pa) == NULL:
        pm_writable(g.mem, pa, &status)
        if status != PM_OK:
            g.failed = True
    return status == PM_OK


cdef bint frames_left(const guest_t *g, uint64_t count) noexcept nogil:
    return g.free_frames >= count


cdef uint64_t new_table(guest_t *g) noexcept nogil:
    """A table of zeros; the caller made sure that there is a frame. 0 if the host has none."""
    cdef uint32_t frame = take_frames(g, 0, FRAME_TABLE)
    cdef uint64_t pa = <uint64_t>frame << 12
    if frame == NOTHING or not own_frame(g, pa):
        g.failed = True
        return 0
    g.frames[frame].refs = 1
    g.counters.tables_made += 1
    zero_frame(g, pa)
    return pa


cdef status_t new_root(guest_t *g, proc_t *p) noexcept nogil:
    """A root with the kernel's half; with isolation a pair, of which the second is the user's."""
    cdef uint32_t pair = 1 if g.rules.isolation else 0, i
    cdef uint32_t frame = take_frames(g, pair, FRAME_TABLE)
    cdef uint64_t pa = <uint64_t>frame << 12, reference
    if frame == NOTHING:
        return NO_FRAMES
    for i in range(pair + 1):
        if not own_frame(g, pa + 4096 * i):
            return NO_FRAMES
        g.frames[frame + i].refs = 1
        g.counters.tables_made += 1
        p.tables += 1
        zero_frame(g, pa + 4096 * i)
        reference = g.boot_user if i else g.boot_root
        copy_kernel_half(g, reference, pa + 4096 * i)
    p.root = pa
    return OK


cdef void copy_kernel_half(guest_t *g, uint64_t reference, uint64_t root) noexcept nogil:
    """Linux copies all 256 entries; those that are 0 are 0 already."""
    cdef uint64_t i
    for i in range(KERNEL_HALF, 512):
        if entry_at(g, reference + 8 * i):
            set_entry(g, root + 8 * i, entry_at(g, reference + 8 * i))


cdef void drop_root(guest_t *g, proc_t *p) noexcept nogil:
    """Give the root back. The kernel's entries stay in it, as they do in Linux."""
    cdef uint32_t i
    for i in range(2 if g.rules.isolation else 1):
        g.frames[(p.root >> 12) + i].refs = 0
        gather(g, <uint32_t>(p.root >> 12) + i)
        p.tables -= 1
    p.root = 0


cdef void set_link(guest_t *g, proc_t *p, uint64_t pa, uint64_t value) noexcept nogil:
    """Write an entry that names a table. One of an isolated root goes into both roots: in the
    kernel's it does not let the kernel fetch (``__pti_set_user_pgtbl``)."""
    if g.rules.isolation and pa & ~<uint64_t>0xFFF == p.root:
        set_entry(g, pa + 4096, value)
        if value:
            value |= ENTRY_NX
    set_entry(g, pa, value)


cdef uint64_t make_entry(guest_t *g, proc_t *p, uint64_t va, int level) noexcept nogil:
    """Physical address of the entry of `va` at `level`, with tables down to it.

    The caller made sure that there are frames. 0 if the host has no memory.
    """
    cdef int l
    cdef uint64_t pa = find(g, p.root, va, &l), table
    while l > level:
        table = new_table(g)
        if table == 0:
            return 0
        p.tables += 1
        set_link(g, p, pa, table | ENTRY_TABLE)
        pa = find(g, p.root, va, &l)
    return pa


# --- tables that no area needs any more -------------------------------------------------------

cdef uint64_t next_area(const proc_t *p, uint64_t va) noexcept nogil:
    """Index of the first area that ends beyond `va`."""
    cdef uint64_t low = 0, high = p.area_count, middle
    while low < high:
        middle = (low + high) >> 1
        if p.areas[middle].end <= va:
            low = middle + 1
        else:
            high = middle
    return low


cdef area_t *area_of(const proc_t *p, uint64_t va) noexcept nogil:
    """The area that holds an address, or NULL."""
    cdef uint64_t i = next_area(p, va)
    if i == p.area_count or p.areas[i].start > va:
        return NULL
    return &p.areas[i]


cdef void free_tables(guest_t *g, proc_t *p, uint64_t start, uint64_t end) noexcept nogil:
    """Give back the tables that cover [start, end) and no area, the lowest first."""
    cdef int level, l
    cdef uint64_t va, size, i, pa, e
    for level in range(2, <int>g.levels + 1):
        size = span(level)
        va = start & ~(size - 1)
        while va < end:
            i = next_area(p, va)
            if i == p.area_count or p.areas[i].start >= va + size:
                pa = find(g, p.root, va, &l)
                if l < level:
                    pa = parent(g, p.root, va, level)
                    e = entry_at(g, pa)
                    set_link(g, p, pa, 0)
                    g.frames[(e & ENTRY_ADDRESS) >> 12].refs = 0
                    gather(g, <uint32_t>((e & ENTRY_ADDRESS) >> 12))
                    p.tables -= 1
            va += size


cdef uint64_t parent(const guest_t *g, uint64_t root, uint64_t va, int level) noexcept nogil:
    """Physical address of the entry of `va` at `level`, where all above it name tables."""
    cdef uint64_t table = root
    cdef int l = <int>g.levels
    while l > level:
        table = (entry_at(g, table + 8 * (va >> (PAGE_BITS + INDEX_BITS * (l - 1)) & 511))
                 & ENTRY_ADDRESS)
        l -= 1
    return table + 8 * (va >> (PAGE_BITS + INDEX_BITS * (level - 1)) & 511)


# --- the kernel's tables: written before anything runs, so without events ---------------------

cdef uint64_t boot_frame(guest_t *g) noexcept nogil:
    cdef uint32_t frame = take_frames(g, 0, FRAME_KERNEL)
    if frame == NOTHING or not own_frame(g, <uint64_t>frame << 12):
        g.failed = True
        return 0
    memset(pm_owned(g.mem, <uint64_t>frame << 12), 0, 4096)
    return <uint64_t>frame << 12


cdef void boot_map(
    guest_t *g, uint64_t root, uint64_t va, uint64_t pa, int level, uint64_t flags
) noexcept nogil:
    """Map one page of the kernel."""
    cdef int l
    cdef uint64_t at = find(g, root, va, &l), table
    while l > level:
        table = boot_frame(g)
        if table == 0:
            return
        put_entry(g, at, table | ENTRY_TABLE & ~4)
        at = find(g, root, va, &l)
    put_entry(g, at, pa | flags)


cdef bint boot_tables(guest_t *g) noexcept nogil:
    """The kernel's tables: direct map, image, and an entry area for each vCPU.

    With isolation the kernel's pages are not global, but those that user tables have, too, are.
    """
    cdef uint64_t rw = ENTRY_P | ENTRY_W | ENTRY_A | ENTRY_D | ENTRY_NX
    cdef uint64_t ro = ENTRY_P | ENTRY_A | ENTRY_D | ENTRY_NX, rx = ENTRY_P | ENTRY_A | ENTRY_D
    cdef uint64_t common = 0 if g.rules.isolation else ENTRY_G
    cdef uint64_t pa = 0, end = g.frame_count << 12, frame, idt
    cdef uint64_t roots[2]
    cdef uint32_t i, r
    g.boot_root = roots[0] = boot_frame(g)
    g.boot_user = roots[1] = boot_frame(g) if g.rules.isolation else 0
    g.zero_frame = boot_frame(g)
    if g.failed:
        return False
    while pa < end and not g.failed:
        boot_map(g, roots[0], g.direct_map + pa, pa, 2, rw | common | ENTRY_PS)
        pa += span(2)
    for i in range(IMAGE_PAGES):
        pa = IMAGE_AT + span(2) * i
        boot_map(g, roots[0], IMAGE_VA + span(2) * i, pa, 2,
                 (rx if i < 2 else rw) | common | ENTRY_PS)
    if g.rules.isolation and not g.failed:
        boot_map(g, roots[1], IMAGE_VA + span(2), IMAGE_AT + span(2), 2, rx | ENTRY_G | ENTRY_PS)
    idt = boot_frame(g)
    for r in range(2 if g.rules.isolation else 1):
        if not g.failed:
            boot_map(g, roots[r], ENTRY_AREA, idt, 1, ro | ENTRY_G)
    for i in range(g.cpu_count):
        g.cpus[i].entry = ENTRY_AREA + 4096 + 8192 * <uint64_t>i
        g.cpus[i].data = IMAGE_VA + 2 * span(2) + 4096 * <uint64_t>(i + 1)
        for pa in range(2):                 # descriptor tables; stack and task state
            frame = boot_frame(g)
            for r in range(2 if g.rules.isolation else 1):
                if not g.failed:
                    boot_map(g, roots[r], g.cpus[i].entry + 4096 * pa, frame, 1,
                             (rw if pa else ro) | ENTRY_G)
    return not g.failed
