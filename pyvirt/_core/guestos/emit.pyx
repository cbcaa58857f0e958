"""What the kernel does to memory, as events, together with what the system then knows of it.

The kernel reaches all memory through its direct map, so that a store to a table is a store like
any other, at the entry's address there. An exchange or a locked operation is one access that
loads and stores.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport realloc

from pyvirt._core.events cimport (
    EVENT_FETCH,
    EVENT_LOAD,
    EVENT_MODIFY,
    EVENT_STORE,
    EVENT_STORE_TABLE,
    event_t,
)
from pyvirt._core.frames cimport pm_owned
from pyvirt._core.guestos.state cimport (
    STORES_BOTH,
    STORES_DIRECT,
    STORES_TABLE,
    frame_of,
    guest_t,
)
from pyvirt._core.shadow.cpu cimport (
    ARG_KEEP,
    ARG_VALUE_SHIFT,
    VALUE_AND,
    VALUE_GIVEN,
    VALUE_LOADED,
    VALUE_NONE,
    VALUE_OR,
    value_t,
)


cdef bint grow_events(guest_t *g, uint64_t count) noexcept nogil:
    """Make room; without it the stream is broken, which `failed` remembers."""
    cdef uint64_t room = max(<uint64_t>65536, 2 * g.event_room, g.event_count + count)
    cdef event_t *events = <event_t *>realloc(g.events, room * sizeof(event_t))
    if events == NULL:
        g.failed = True
        return False
    g.events = events
    g.event_room = room
    return True


# --- kernel data: their content does not matter -----------------------------------------------

cdef void kernel_load(guest_t *g, uint64_t va) noexcept nogil:
    emit(g, EVENT_LOAD, 8, ARG_KEEP, va, 0)


cdef void kernel_store(guest_t *g, uint64_t va) noexcept nogil:
    emit(g, EVENT_STORE, 8, 0, va, 0)


cdef void kernel_fetch(guest_t *g, uint64_t va) noexcept nogil:
    emit(g, EVENT_FETCH, 16, 0, va, 0)


# --- entries of tables ------------------------------------------------------------------------

cdef inline void write_entry(
    guest_t *g, int op, uint64_t pa, value_t kind, uint64_t operand, uint64_t value
) noexcept nogil:
    """Write `value`, which the events make of what is there by `kind` and `operand`."""
    put_entry(g, pa, value)
    g.counters.entries_written += 1
    if g.rules.stores != STORES_TABLE:
        if g.rules.stores == STORES_BOTH:
            kind = VALUE_NONE
            operand = 0
        emit(g, op, 8, <uint32_t>kind << ARG_VALUE_SHIFT, g.direct_map + pa, operand)
    if g.rules.stores != STORES_DIRECT:
        emit(g, EVENT_STORE_TABLE, 8, 0, pa, value)


cdef void set_entry(guest_t *g, uint64_t pa, uint64_t value) noexcept nogil:
    """Store (set_pte)."""
    write_entry(g, EVENT_STORE, pa, VALUE_GIVEN, value, value)


cdef void clear_entry(guest_t *g, uint64_t pa) noexcept nogil:
    """Exchange with 0 (ptep_get_and_clear)."""
    write_entry(g, EVENT_MODIFY, pa, VALUE_GIVEN, 0, 0)


cdef void edit_entry(guest_t *g, uint64_t pa, uint64_t clear, uint64_t put) noexcept nogil:
    """Clear bits and set others, locked: one access for each of both that there is to do."""
    cdef uint64_t value = entry_at(g, pa)
    if clear:
        value &= ~clear
        write_entry(g, EVENT_MODIFY, pa, VALUE_AND, ~clear, value)
    if put:
        value |= put
        write_entry(g, EVENT_MODIFY, pa, VALUE_OR, put, value)


cdef void load_entry(guest_t *g, uint64_t pa) noexcept nogil:
    """Load; what follows may write what was loaded."""
    if g.rules.stores != STORES_TABLE:
        emit(g, EVENT_LOAD, 8, 0, g.direct_map + pa, 0)


cdef void or_entry(guest_t *g, uint64_t pa, uint64_t put) noexcept nogil:
    """Store the entry that was loaded last, with more bits (ptep_set_access_flags)."""
    write_entry(g, EVENT_STORE, pa, VALUE_OR, put, entry_at(g, pa) | put)


cdef void mask_entry(guest_t *g, uint64_t pa, uint64_t value, uint64_t mask) noexcept nogil:
    """Store to another place the entry that was loaded last, with fewer bits."""
    write_entry(g, EVENT_STORE, pa, VALUE_AND, mask, value & mask)


# --- whole frames -----------------------------------------------------------------------------

cdef void zero_frame(guest_t *g, uint64_t pa) noexcept nogil:
    """Zero a frame: the accesses that the rules ask for, and each word that is not 0.

    Frames without data of a stream hold nothing but entries that the system knows, so that the
    frame is 0 afterwards wherever the stream runs.
    """
    cdef uint64_t i, stride = 512 // g.rules.page_accesses if g.rules.page_accesses else 512
    cdef uint64_t *words = <uint64_t *>pm_owned(g.mem, pa)
    cdef bint data = frame_of(g, pa).data
    frame_of(g, pa).data = 0
    for i in range(512):
        if words != NULL and words[i]:
            words[i] = 0
            emit(g, EVENT_STORE, 8, VALUE_GIVEN << ARG_VALUE_SHIFT, g.direct_map + pa + 8 * i, 0)
            if g.rules.stores != STORES_DIRECT:
                emit(g, EVENT_STORE_TABLE, 8, 0, pa + 8 * i, 0)
        elif data or (g.rules.page_accesses and i % stride == 0):
            emit(g, EVENT_STORE, 8, VALUE_GIVEN << ARG_VALUE_SHIFT, g.direct_map + pa + 8 * i, 0)


cdef bint has_words(const guest_t *g, uint64_t pa) noexcept nogil:
    """Whether entries that were not cleared are left in a frame: those of roots are."""
    cdef const uint64_t *words = <const uint64_t *>pm_owned(g.mem, pa)
    cdef uint64_t i
    if words != NULL:
        for i in range(512):
            if words[i]:
                return True
    return False


cdef void copy_frame(guest_t *g, uint64_t to, uint64_t source) noexcept nogil:
    """Copy a frame: as many words as the rules ask for; with 512 of them, all data."""
    cdef uint64_t i, stride
    if frame_of(g, source).data or has_words(g, source):
        frame_of(g, to).data = 1
    if g.rules.page_accesses == 0:
        return
    stride = 4096 // g.rules.page_accesses
    for i in range(g.rules.page_accesses):
        emit(g, EVENT_LOAD, 8, 0, g.direct_map + source + stride * i, 0)
        emit(g, EVENT_STORE, 8, VALUE_LOADED << ARG_VALUE_SHIFT, g.direct_map + to + stride * i, 0)


cdef void device_wrote(guest_t *g, uint64_t pa) noexcept nogil:
    """A device fills a frame. Streams have no data of devices: the words stay what they are."""
    if has_words(g, pa):
        frame_of(g, pa).data = 1
