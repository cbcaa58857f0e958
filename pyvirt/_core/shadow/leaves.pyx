"""Leaf entries: what they allow, how they change, and taking writability back by frame."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyvirt._core.shadow.pages cimport drop_entry, set_leaf
from pyvirt._core.shadow.state cimport (
    ENTRY_A,
    ENTRY_D,
    ENTRY_LARGE,
    ENTRY_LOGGED,
    ENTRY_P,
    ENTRY_SWITCH,
    ENTRY_U,
    ENTRY_W,
    FRAME_SHIFT,
    NO_SLOT,
    RIGHT_CLEAN,
    RIGHT_U,
    RIGHT_W,
    RIGHT_X,
    frame_of,
    hyper_t,
    is_leaf,
    level_of,
    mark_dirty,
    request_flush,
)
from pyvirt._core.shadow.unsync cimport may_write

cdef uint64_t NX = <uint64_t>1 << 63


cdef uint64_t leaf_entry(
    hyper_t *s, uint64_t gfn, uint32_t level, uint8_t rights, uint64_t old, bint prefetch,
    bint can_unsync, bint write, bint *refused
) noexcept nogil:
    """The entry that maps a frame with these rights, where `old` is there now.

    A is set unless the entry is made ahead of its use. D is set where the entry becomes writable,
    and left to the processor where it was so already, or with RIGHT_CLEAN. `refused` becomes True where the frame
    holds a shadowed table that must stay write-protected. A frame that becomes writable is logged,
    written or not, unless the rules say that only writes make it so.
    """
    cdef uint64_t entry = gfn << FRAME_SHIFT | ENTRY_P
    if level > 1:
        entry |= ENTRY_LARGE
    if not prefetch:
        entry |= ENTRY_A
    if rights & RIGHT_U:
        entry |= ENTRY_U
    if not rights & RIGHT_X:
        entry |= NX
    if rights & RIGHT_W:
        if old & ENTRY_P and old & ENTRY_W:
            entry |= ENTRY_W
        elif s.rules.log_writes_only and not write and s.log[gfn >> 9]:
            entry |= ENTRY_LOGGED
        elif may_write(s, gfn, can_unsync, prefetch):
            entry |= ENTRY_W if rights & RIGHT_CLEAN else ENTRY_W | ENTRY_D
            mark_dirty(s, gfn)
        else:
            refused[0] = True
    return entry


cdef bint change_leaf(hyper_t *s, uint32_t slot, uint64_t entry) noexcept nogil:
    """Replace a leaf by one of the same frame; whether that takes W, A or D from it.

    One that the log made read-only could have become writable at any time, so it counts as if it
    had W.
    """
    cdef uint64_t old = s.entries[slot], lost
    if old & ENTRY_LOGGED and not entry & ENTRY_LOGGED:
        old |= ENTRY_W
    lost = old & ~entry & (ENTRY_W | ENTRY_A | ENTRY_D)
    s.entries[slot] = entry
    return lost != 0


cdef put_t put_leaf(
    hyper_t *s, uint32_t slot, uint64_t gfn, uint8_t rights, bint prefetch, bint write
) noexcept nogil:
    """Map a frame by an entry, whatever was there, ahead of its use or for a read or a write."""
    cdef uint32_t level = level_of(&s.pages[slot >> 9])
    cdef uint64_t old = s.entries[slot], entry
    cdef bint refused = False, flush = False
    cdef put_t result = PUT_FIXED
    if old & ENTRY_P and (not is_leaf(old, level) or frame_of(old) != gfn
                          or (level > 1 and old & ENTRY_SWITCH)):
        drop_entry(s, slot)
        flush = True
        old = 0
    entry = leaf_entry(s, gfn, level, rights, old, prefetch, True, write, &refused)
    if old == entry:
        result = PUT_SPURIOUS
    elif old & ENTRY_P:
        flush = change_leaf(s, slot, entry)
    else:
        set_leaf(s, slot, entry, level)
    if flush:
        request_flush(s)
    return PUT_EMULATE if refused and write else result


cdef bint protect_list(hyper_t *s, uint32_t slot) noexcept nogil:
    cdef uint64_t walked = 0
    cdef bint any = False
    while slot != NO_SLOT:
        walked += 1
        if s.entries[slot] & (ENTRY_W | ENTRY_LOGGED):
            s.entries[slot] &= ~<uint64_t>(ENTRY_W | ENTRY_LOGGED)
            s.counters.write_protected += 1
            any = True
        slot = s.links[slot].next
    s.counters.reverse_map_walked += walked
    if walked > s.counters.reverse_map_longest:
        s.counters.reverse_map_longest = walked
    return any


cdef bint write_protect(hyper_t *s, uint64_t gfn) noexcept nogil:
    """Take W from every entry that maps this frame; whether any had it."""
    cdef bint any = protect_list(s, s.reverse[gfn])
    if s.reverse_large[gfn >> 9] != NO_SLOT and protect_list(s, s.reverse_large[gfn >> 9]):
        any = True
    return any
