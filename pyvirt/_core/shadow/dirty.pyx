"""The dirty log: which guest frames were written since they were fetched last.

Two ways, as in KVM (https://docs.kernel.org/virt/kvm/api.html, KVM_GET_DIRTY_LOG and
KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2). By write protection an entry of a clean frame is read-only: the
first write faults. By page-modification logging (SDM vol. 3, 30.3.6) it keeps W and loses D: the
processor notes the frame when it sets D again. Either is by 4 KiB, so a large entry is split, at
the start or at the first write to it, and comes back after the end at some later fault.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._core.shadow.fill cimport large_refusal
from pyvirt._core.shadow.lookup cimport get_page, link_page
from pyvirt._core.shadow.pages cimport drop_entry, free_page, hide_page, set_leaf
from pyvirt._core.shadow.roots cimport enter
from pyvirt._core.shadow.state cimport (
    ENTRY_D,
    ENTRY_LARGE,
    ENTRY_LOGGED,
    ENTRY_P,
    ENTRY_W,
    FRAME_SHIFT,
    LARGE_REFUSALS,
    LOG_OFF,
    LOG_PML,
    MODE_TDP,
    NO_PAGE,
    NO_SLOT,
    PML_ENTRIES,
    RIGHT_ALL,
    ROLE_DIRECT,
    ROLE_RIGHTS_SHIFT,
    cpu_t,
    frame_of,
    hyper_t,
    is_direct,
    level_of,
    log_t,
    mark_dirty,
    request_flush,
)

cdef uint32_t LEAVES_ROLE = ROLE_DIRECT | RIGHT_ALL << ROLE_RIGHTS_SHIFT | 1


# --- entries ----------------------------------------------------------------------------------

cdef void protect(hyper_t *s, uint32_t slot) noexcept nogil:
    """Take W from the entries of a list, so that the next write faults."""
    while slot != NO_SLOT:
        if s.entries[slot] & ENTRY_W:
            s.entries[slot] = s.entries[slot] & ~<uint64_t>ENTRY_W | ENTRY_LOGGED
            s.counters.log_protected += 1
        slot = s.links[slot].next


cdef void clean(hyper_t *s, uint32_t slot) noexcept nogil:
    """Take D from the entries of a list, so that the next write is noted."""
    while slot != NO_SLOT:
        if s.entries[slot] & ENTRY_D:
            s.entries[slot] &= ~<uint64_t>ENTRY_D
            s.counters.log_protected += 1
        slot = s.links[slot].next


cdef bint split_large(hyper_t *s, uint32_t slot) noexcept nogil:
    """Replace a large nested entry by a table of 512 with the same rights; False: no page."""
    cdef uint64_t entry = s.entries[slot]
    cdef uint32_t child = get_page(s, &s.cpus[0], frame_of(entry), LEAVES_ROLE), i
    if child == NO_PAGE:
        return False
    drop_entry(s, slot)
    link_page(s, &s.cpus[0], slot, child)
    entry &= ~<uint64_t>ENTRY_LARGE
    for i in range(512):
        if not s.entries[child << 9 | i] & ENTRY_P:
            set_leaf(s, child << 9 | i, entry + (<uint64_t>i << FRAME_SHIFT), 1)
    s.counters.large_split += 1
    return True


cdef void prepare_large(hyper_t *s, uint64_t region) noexcept nogil:
    """Split or write-protect the large entries of 2 MiB before frames of it can be clean.

    KVM splits ahead of writes in its TDP MMU only (module parameter `eager_page_split`).
    """
    if s.mode == MODE_TDP and s.rules.split_eagerly:
        while s.reverse_large[region] != NO_SLOT and split_large(s, s.reverse_large[region]):
            pass
    protect(s, s.reverse_large[region])


cdef inline void protect_frame(hyper_t *s, uint64_t gfn) noexcept nogil:
    if s.log[gfn >> 9] == LOG_PML:
        clean(s, s.reverse[gfn])
    else:
        protect(s, s.reverse[gfn])


# --- the log ----------------------------------------------------------------------------------

cdef void fetch_log(hyper_t *s) noexcept nogil:
    """Bring the log up to date, as if every vCPU ran and left the guest.

    What is to be done before a vCPU runs is done: a sync can make frames writable. Its leaving
    empties what its processor noted.
    """
    cdef uint32_t i
    for i in range(s.cpu_count):
        if s.cpus[i].requests:
            enter(s, &s.cpus[i])
        empty_pml(s, &s.cpus[i])


cdef void start_log(
    hyper_t *s, uint64_t first, uint64_t end, log_t method, bint all_set
) noexcept nogil:
    """Log writes to frames [first, end), whole 2 MiB that are not logged yet.

    All frames are clean and their entries protected, with one flush; or with `all_set` all are
    dirty, and nothing else is done before they are cleared.
    """
    cdef uint64_t gfn, region
    fetch_log(s)
    if method == LOG_PML:
        s.pml = True
    for region in range(first >> 9, (end + 511) >> 9):
        s.log[region] = <unsigned char>method
    if all_set:
        for gfn in range(first, end):
            mark_dirty(s, gfn)
        return
    for region in range(first >> 9, (end + 511) >> 9):
        prepare_large(s, region)
    for gfn in range(first, end):
        protect_frame(s, gfn)
    request_flush(s)


cdef bint clear_frame(hyper_t *s, uint64_t gfn) noexcept nogil:
    """Make a frame clean; False if it was. The caller asks for one flush for all frames.

    Beside the frame's own entries a large one around it is split or protected: with a log that
    began with all set it may still be writable.
    """
    cdef uint64_t bit = <uint64_t>1 << (gfn & 63)
    if not s.dirty[gfn >> 6] & bit:
        return False
    s.dirty[gfn >> 6] &= ~bit
    if s.reverse_large[gfn >> 9] != NO_SLOT:
        prepare_large(s, gfn >> 9)
    protect_frame(s, gfn)
    return True


cdef void stop_log(hyper_t *s, uint64_t first, uint64_t end) noexcept nogil:
    """End the log of frames [first, end), and drop small entries where large ones may come back.

    Entries that stay read-only get W back at a fault.
    """
    cdef uint64_t region
    cdef bint dropped = False
    fetch_log(s)
    for region in range(first >> 9, (end + 511) >> 9):
        s.log[region] = LOG_OFF
    memset(&s.dirty[first >> 6], 0, (((end + 511) >> 9 << 3) - (first >> 6)) << 3)
    s.pml = False
    for region in range((s.frames + 511) >> 9):
        if s.log[region] == LOG_PML:
            s.pml = True
    for region in range(first >> 9, (end + 511) >> 9):
        if large_refusal(s, region << 9) == LARGE_REFUSALS:
            if s.mode == MODE_TDP:
                drop_table(s, region << 9)
            elif drop_pieces(s, region << 9):
                dropped = True
    if dropped:
        request_flush(s)


cdef void drop_table(hyper_t *s, uint64_t first) noexcept nogil:
    """Unlink and free the nested table of leaves of 2 MiB, as KVM's TDP MMU does; one flush."""
    cdef uint32_t page = s.same[first], slot
    while page != NO_PAGE and s.pages[page].role != LEAVES_ROLE:
        page = s.pages[page].same_next
    if page == NO_PAGE or s.pages[page].parents == NO_SLOT:
        return
    s.counters.collapsed += s.pages[page].present
    slot = page << 9
    while s.pages[page].present:
        if s.entries[slot] & ENTRY_P:
            drop_entry(s, slot)
        slot += 1
    drop_entry(s, s.pages[page].parents)
    hide_page(s, page)
    free_page(s, page)
    request_flush(s)


cdef bint drop_pieces(hyper_t *s, uint64_t first) noexcept nogil:
    """Drop entries of 2 MiB that are pieces of a large page; whether there were any.

    An entry that shadows one of a guest's table of leaves can be no larger than that.
    """
    cdef uint64_t gfn
    cdef uint32_t slot, next
    cdef bint any = False
    for gfn in range(first, first + 512):
        slot = s.reverse[gfn]
        while slot != NO_SLOT:
            next = s.links[slot].next
            if is_direct(&s.pages[slot >> 9]) and level_of(&s.pages[slot >> 9]) == 1:
                drop_entry(s, slot)
                s.counters.collapsed += 1
                any = True
            slot = next
    return any


# --- page-modification logging ----------------------------------------------------------------

cdef void empty_pml(hyper_t *s, cpu_t *v) noexcept nogil:
    """Take over what a vCPU noted; a hypervisor does so at every exit."""
    cdef uint32_t i
    for i in range(v.pml_count):
        mark_dirty(s, v.pml[i])
    v.pml_count = 0


cdef bint note_write(hyper_t *s, cpu_t *v, uint32_t slot, uint64_t gfn) noexcept nogil:
    """Set D in a writable nested entry, and note its frame; False: the log is full, an exit.

    The processor looks for room before it makes the access, which runs again after the exit.
    """
    if s.pml:
        if v.pml_count == PML_ENTRIES:
            s.counters.x_pml_full += 1
            empty_pml(s, v)
            return False
        v.pml[v.pml_count] = gfn
        v.pml_count += 1
    s.entries[slot] |= ENTRY_D
    return True
