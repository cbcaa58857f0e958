"""Frames of the system: a buddy allocator, counts of references, and the reverse map.

Blocks of 2**order frames are aligned to their size; a free block knows its order at its first
frame, and the lists are last in, first out, as Linux keeps them. Nothing here makes events.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport realloc

from pyvirt._core.guestos.state cimport (
    FRAME_FREE,
    FRAME_TABLE,
    NOTHING,
    ORDERS,
    frame_t,
    guest_t,
    kind_t,
    node_t,
)

# --- blocks -----------------------------------------------------------------------------------

cdef void push(guest_t *g, uint32_t frame, uint32_t order) noexcept nogil:
    cdef frame_t *f = &g.frames[frame]
    f.head = 1
    f.order = <unsigned char>order
    f.before = NOTHING
    f.list = g.free[order]
    if f.list != NOTHING:
        g.frames[f.list].before = frame
    g.free[order] = frame


cdef void unlink(guest_t *g, uint32_t frame) noexcept nogil:
    cdef frame_t *f = &g.frames[frame]
    if f.before != NOTHING:
        g.frames[f.before].list = f.list
    else:
        g.free[f.order] = f.list
    if f.list != NOTHING:
        g.frames[f.list].before = f.before
    f.head = 0
    f.list = f.before = NOTHING


cdef void give_frames(guest_t *g, uint32_t frame, uint32_t order) noexcept nogil:
    """Free a block, and join it with its buddy for as long as that is free, too."""
    cdef uint32_t i, buddy
    for i in range(frame, frame + (<uint32_t>1 << order)):
        g.frames[i].kind = FRAME_FREE
        g.frames[i].refs = 0
        g.frames[i].list = g.frames[i].before = NOTHING
    g.free_frames += <uint64_t>1 << order
    while order < ORDERS - 1:
        buddy = frame ^ <uint32_t>1 << order
        if (buddy >= g.frame_count or g.frames[buddy].kind != FRAME_FREE
                or not g.frames[buddy].head or g.frames[buddy].order != order):
            break
        unlink(g, buddy)
        frame = min(frame, buddy)
        order += 1
    push(g, frame, order)


cdef void give_range(guest_t *g, uint64_t first, uint64_t end) noexcept nogil:
    """Free all of [first, end) in the largest blocks, so that low frames are taken first."""
    cdef uint32_t order
    cdef uint64_t last = end
    while last > first:
        order = 0
        while (order < ORDERS - 1 and last & ((<uint64_t>2 << order) - 1) == 0
               and last - first >= <uint64_t>2 << order):
            order += 1
        last -= <uint64_t>1 << order
        give_frames(g, <uint32_t>last, order)


cdef bint has_block(const guest_t *g, uint32_t order) noexcept nogil:
    cdef uint32_t o
    for o in range(order, ORDERS):
        if g.free[o] != NOTHING:
            return True
    return False


cdef uint32_t take_frames(guest_t *g, uint32_t order, kind_t kind) noexcept nogil:
    """A block from the smallest that is large enough; NOTHING if there is none."""
    cdef uint32_t o = order, frame, i
    while o < ORDERS and g.free[o] == NOTHING:
        o += 1
    if o == ORDERS:
        return NOTHING
    frame = g.free[o]
    unlink(g, frame)
    while o > order:
        o -= 1
        push(g, frame + (<uint32_t>1 << o), o)
    for i in range(frame, frame + (<uint32_t>1 << order)):
        g.frames[i].kind = <unsigned char>kind
        g.frames[i].refs = 0
        g.frames[i].list = NOTHING
    g.free_frames -= <uint64_t>1 << order
    return frame


# --- who maps a frame -------------------------------------------------------------------------

cdef bint ensure_nodes(guest_t *g, uint64_t count) noexcept nogil:
    """Have room for so many more mappings; false if the host has none."""
    cdef uint64_t room
    cdef node_t *nodes
    if g.nodes_idle + (g.node_room - g.node_count) >= count:
        return True
    room = max(<uint64_t>4096, <uint64_t>2 * g.node_room, g.node_count + count)
    if room >= NOTHING:
        return False
    nodes = <node_t *>realloc(g.nodes, room * sizeof(node_t))
    if nodes == NULL:
        return False
    g.nodes = nodes
    g.node_room = <uint32_t>room
    return True


cdef void add_mapping(guest_t *g, uint32_t frame, uint32_t owner, uint64_t va) noexcept nogil:
    """One reference more; there is room for its node (`ensure_nodes`)."""
    cdef uint32_t i = g.node_free
    if i != NOTHING:
        g.node_free = g.nodes[i].next
        g.nodes_idle -= 1
    else:
        i = g.node_count
        g.node_count += 1
    g.nodes[i].owner = owner
    g.nodes[i].va = va
    g.nodes[i].next = g.frames[frame].list
    g.frames[frame].list = i
    g.frames[frame].refs += 1


cdef void remove_mapping(guest_t *g, uint32_t frame, uint32_t owner, uint64_t va) noexcept nogil:
    """One reference less. A frame without any is not freed here: TLBs may still know it."""
    cdef uint32_t *link = &g.frames[frame].list
    cdef uint32_t i
    while g.nodes[link[0]].owner != owner or g.nodes[link[0]].va != va:
        link = &g.nodes[link[0]].next
    i = link[0]
    link[0] = g.nodes[i].next
    g.nodes[i].next = g.node_free
    g.node_free = i
    g.nodes_idle += 1
    g.frames[frame].refs -= 1


# --- frames that wait for a flush -------------------------------------------------------------

cdef void gather(guest_t *g, uint32_t frame) noexcept nogil:
    """Free a frame after the flush that is to come, unless it is still mapped then."""
    cdef uint64_t room
    cdef uint32_t *frames
    if g.gathered_count == g.gathered_room:
        room = max(<uint64_t>1024, 2 * g.gathered_room)
        frames = <uint32_t *>realloc(g.gathered, room * sizeof(uint32_t))
        if frames == NULL:
            g.failed = True
            return
        g.gathered = frames
        g.gathered_room = room
    g.gathered[g.gathered_count] = frame
    g.gathered_count += 1


cdef void release_gathered(guest_t *g) noexcept nogil:
    cdef uint64_t i
    cdef uint32_t frame
    for i in range(g.gathered_count):
        frame = g.gathered[i]
        if g.frames[frame].refs == 0 and g.frames[frame].kind != FRAME_FREE:
            if g.frames[frame].kind == FRAME_TABLE:
                g.counters.tables_freed += 1
            give_frames(g, frame, 0)
    g.gathered_count = 0
