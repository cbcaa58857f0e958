"""Translation units, and the bounded cache that they lie in (Adams and Agesen 2006, 3.1 and 3.2).

A unit is found by guest EIP, code segment and privilege, and is good as long as the guest's tables
lead its address to the bytes that it was made from. That is looked up again whenever the processor's
look-aside was emptied, once for each page. The oldest unit makes room when the cache is full.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from pyvirt._core.decode.decoder cimport decode
from pyvirt._core.decode.insn cimport DECODED, TOO_LONG, TRUNCATED, insn_t
from pyvirt._core.interp.blocks cimport undefined
from pyvirt._core.interp.cpu cimport S_CS, X_GP, cpu_t, uop_t
from pyvirt._core.interp.kinds cimport *
from pyvirt._core.interp.memory cimport code_page, mark_code, raise_fault
from pyvirt._core.interp.translate cimport translate


cdef translator_t *new_translator(uint32_t capacity, uint32_t threshold, bint user) noexcept nogil:
    """An empty cache for so many units; NULL: the host has no memory."""
    cdef translator_t *t = <translator_t *>calloc(1, sizeof(translator_t))
    cdef uint32_t size = 64, i
    if t == NULL:
        return NULL
    while size < capacity:
        size *= 2
    t.units = <unit_t *>calloc(capacity, sizeof(unit_t))
    t.buckets = <unit_t **>calloc(size, sizeof(unit_t *))
    if t.units == NULL or t.buckets == NULL:
        free_translator(t)
        return NULL
    t.capacity = capacity
    t.mask = size - 1
    t.threshold = threshold
    t.user = user
    for i in range(1 << INDIRECT_BITS):
        t.indirect[i] = &t.nowhere
    return t


cdef void free_translator(translator_t *t) noexcept nogil:
    if t != NULL:
        free(t.units)
        free(t.buckets)
        free(t)


cdef void forget_counts(translator_t *t) noexcept nogil:
    """Begin to count anew."""
    cdef uint32_t i
    memset(&t.counts, 0, sizeof(translations_t))
    for i in range(t.capacity):
        t.units[i].runs = 0


# --- chains -----------------------------------------------------------------------------------

cdef void cut(translator_t *t, exit_t *e) noexcept nogil:
    """Take an exit off the unit that it leads to."""
    if e.to == &t.nowhere:
        return
    if e.previous != NULL:
        e.previous.next = e.next
    else:
        e.to.incoming = e.next
    if e.next != NULL:
        e.next.previous = e.previous
    e.to = &t.nowhere
    e.next = NULL
    e.previous = NULL


cdef void chain(translator_t *t, unit_t *unit, unit_t *to) noexcept nogil:
    """Patch the exit of `unit` that leads to where `to` begins, if there is one."""
    cdef uint32_t i
    cdef exit_t *e
    if unit.context != to.context:
        return
    for i in range(2):
        e = &unit.exits[i]
        if e.used and e.eip == to.eip:
            if e.to == to:
                return
            cut(t, e)
            e.to = to
            e.next = to.incoming
            if e.next != NULL:
                e.next.previous = e
            to.incoming = e
            return


# --- units that go ----------------------------------------------------------------------------

cdef inline uint32_t bucket_of(const translator_t *t, uint32_t eip, uint32_t context) noexcept nogil:
    return (scatter(eip) ^ context * 0x55) & t.mask


cdef void drop(translator_t *t, cpu_t *c, unit_t *unit) noexcept nogil:
    """Take a unit out of the cache. What it holds stays, for one that is running."""
    cdef unit_t **p = &t.buckets[bucket_of(t, unit.eip, unit.context)]
    while p[0] != unit:
        p = &p[0].bucket
    p[0] = unit.bucket
    if unit.page_previous != NULL:
        unit.page_previous.page_next = unit.page_next
    else:
        c.pages[unit.pa >> 12].unit = (
            0 if unit.page_next == NULL else <uint32_t>(unit.page_next - t.units) + 1)
    if unit.page_next != NULL:
        unit.page_next.page_previous = unit.page_previous
    while unit.incoming != NULL:
        cut(t, unit.incoming)
        t.counts.unchained += 1
    cut(t, &unit.exits[0])
    cut(t, &unit.exits[1])
    unit.exits[0].used = 0
    unit.exits[1].used = 0
    unit.alive = 0
    unit.stamp = 0
    t.live -= 1


cdef void drop_page(translator_t *t, cpu_t *c, uint32_t frame) noexcept nogil:
    """The code of a frame was written."""
    while c.pages[frame].unit:
        drop(t, c, &t.units[c.pages[frame].unit - 1])
        t.counts.invalidations += 1


cdef void drop_all(translator_t *t, cpu_t *c) noexcept nogil:
    """Empty the cache."""
    cdef uint32_t i
    if not t.live:
        return
    for i in range(t.capacity):
        if t.units[i].alive:
            drop(t, c, &t.units[i])
    t.counts.flushes += 1


# --- where code lies --------------------------------------------------------------------------

cdef void set_context(translator_t *t, cpu_t *c, uint32_t ring) noexcept nogil:
    """Note under which code segment and privilege the guest runs now."""
    cdef uint32_t i, wide = c.seg[S_CS].attributes >> 14 & 1
    cdef context_t *x = &t.contexts[t.context]
    if c.epoch < t.last_epoch:      # it came round: old stamps would match again
        for i in range(t.capacity):
            t.units[i].stamp = 0
        memset(t.memo, 0, sizeof(t.memo))
    t.last_epoch = c.epoch
    if (t.context_count and x.base == c.seg[S_CS].base and x.limit == c.seg[S_CS].limit
            and x.wide == wide and x.ring == ring):
        return
    for i in range(t.context_count):
        x = &t.contexts[i]
        if (x.base == c.seg[S_CS].base and x.limit == c.seg[S_CS].limit
                and x.wide == wide and x.ring == ring):
            t.context = i
            return
    if t.context_count == CONTEXTS:
        drop_all(t, c)
        memset(t.memo, 0, sizeof(t.memo))
        memset(t.middle, 0, sizeof(t.middle))
        t.context_count = 0
    t.context = t.context_count
    t.context_count += 1
    x = &t.contexts[t.context]
    x.base = c.seg[S_CS].base
    x.limit = c.seg[S_CS].limit
    x.wide = wide
    x.ring = ring


cdef bint where(translator_t *t, cpu_t *c, uint32_t linear, uint64_t *pa) noexcept nogil:
    """The physical address of code; False after a page fault."""
    cdef uint32_t page = linear >> 12
    cdef memo_t *memo = &t.memo[page & ((1 << MEMO_BITS) - 1)]
    cdef const uint8_t *host
    if memo.page != page or memo.stamp != stamp(t, c):
        if not code_page(c, linear, pa, &host):
            return False
        memo.page = page
        memo.stamp = stamp(t, c)
        memo.pa = pa[0] & ~<uint64_t>4095
    pa[0] = memo.pa | (linear & 4095)
    return True


cdef bint still_valid(translator_t *t, cpu_t *c, unit_t *unit) noexcept nogil:
    """Whether a unit stands for what the guest's tables show at its address; EVENT_FAULT if they
    show nothing."""
    cdef uint64_t pa
    if not unit.alive or unit.context != t.context:
        return False
    if unit.stamp == stamp(t, c):
        return True
    if not where(t, c, c.seg[S_CS].base + unit.eip, &pa) or pa != unit.pa:
        return False
    unit.stamp = stamp(t, c)
    return True


# --- translation ------------------------------------------------------------------------------

cdef void replace(uop_t *u, int kind) noexcept nogil:
    u.selector = u.kind
    u.kind = kind


cdef int convert(uop_t *u, uint32_t ring) noexcept nogil:
    """How an instruction is translated, by the guest's own privilege: MADE_."""
    cdef uint32_t k = u.kind
    if k == K_JMP or k == K_JCC or k == K_CALL or k == K_LOOP:
        return MADE_DIRECT
    if k == K_JMP_RM or k == K_CALL_RM or k == K_RET:
        return MADE_INDIRECT
    if k < K_SYSTEM and k != K_UD and k != K_NM:
        return MADE_IDENTICAL
    if ring == 0:
        if k == K_CLI:
            replace(u, T_CLI)
        elif k == K_STI:
            replace(u, T_STI)
        elif k == K_PUSHF:
            replace(u, T_PUSHF)
        elif k == K_POPF:
            replace(u, T_POPF)
        elif k == K_RDTSC:
            replace(u, T_RDTSC)
        elif k == K_MOV_FROM_CR and (u.op == 0 or u.op == 2 or u.op == 3 or u.op == 4):
            replace(u, T_READ_CR)
        elif k == K_MOV_FROM_SEG:
            replace(u, T_READ_SEGMENT)
        elif k == K_PUSH_SEG:
            replace(u, T_PUSH_SEGMENT)
        if u.kind != k:
            return MADE_INLINED
    replace(u, T_CALLOUT)
    return MADE_CALLOUT


cdef bint leaves(const uop_t *u) noexcept nogil:
    """Whether a call-out of this instruction ends its unit: it does not go on behind it."""
    cdef uint32_t k = u.selector
    return (k == K_HLT or k == K_INT or k == K_IRET or k == K_JMP_FAR or k == K_CALL_FAR
            or k == K_RET_FAR or k == K_UD or k == K_NM)


cdef void set_exits(translator_t *t, cpu_t *c, unit_t *unit) noexcept nogil:
    """Where control can go from the end of a unit, as far as its text says."""
    cdef const uop_t *last = &unit.ops[unit.count - 1]
    cdef uint32_t behind = unit.eip + unit.bytes, target = behind + last.imm
    cdef uint32_t i
    memset(unit.exits, 0, sizeof(unit.exits))
    for i in range(2):
        unit.exits[i].to = &t.nowhere
    if unit.ends == ENDS_DIRECT:
        unit.exits[0].used = 1
        unit.exits[0].eip = target & 0xFFFF if last.size == 2 else target
    if unit.ends == ENDS_LENGTH or last.kind == K_JCC or last.kind == K_LOOP:
        unit.exits[1].used = 1
        unit.exits[1].eip = behind


cdef unit_t *make_unit(translator_t *t, cpu_t *c, uint64_t pa) noexcept nogil:
    """Translate what lies at EIP; NULL: no unit can hold it, or a page fault is raised."""
    cdef uint32_t linear = c.seg[S_CS].base + c.eip, here = 4096 - (linear & 4095), done = 0, i
    cdef context_t *x = &t.contexts[t.context]
    cdef unit_t *unit
    cdef uop_t *u
    cdef insn_t insn
    cdef const uint8_t *host
    cdef uint64_t granules = 0
    cdef uint32_t mode = 32 if x.wide else 16
    cdef int status, made
    if pa >> 12 >= c.page_count or pa >= c.memory.limit or not code_page(c, linear, &pa, &host):
        return NULL
    unit = &t.units[t.hand]
    if unit.alive:
        drop(t, c, unit)
        t.counts.evictions += 1
    unit.count = 0
    unit.ends = ENDS_LENGTH
    while unit.count < UNIT_LENGTH and done < here:
        u = &unit.ops[unit.count]
        status = decode(host + done, min(here - done, <uint32_t>16), mode, &insn)
        if status == TRUNCATED or status == TOO_LONG:
            break
        if <uint64_t>c.eip + done + insn.length > <uint64_t>x.limit + 1:
            break
        if status == DECODED:
            translate(&insn, u)
        else:
            undefined(u, insn.length)
        made = convert(u, x.ring)
        unit.eips[unit.count] = c.eip + done
        unit.made[unit.count] = made
        unit.traces[unit.count] = 0
        unit.count += 1
        done += insn.length
        if made == MADE_DIRECT or made == MADE_INDIRECT:
            unit.ends = ENDS_DIRECT if made == MADE_DIRECT else ENDS_INDIRECT
            break
        if made == MADE_CALLOUT and leaves(u):
            unit.ends = ENDS_CALLOUT
            break
    if unit.count == 0:
        return NULL
    t.hand = t.hand + 1 if t.hand + 1 < t.capacity else 0
    unit.eip = c.eip
    unit.eips[unit.count] = c.eip + done
    unit.context = t.context
    unit.pa = pa
    unit.bytes = done
    unit.stamp = stamp(t, c)
    unit.runs = 0
    unit.alive = 1
    unit.incoming = NULL
    set_exits(t, c, unit)
    i = bucket_of(t, unit.eip, unit.context)
    unit.bucket = t.buckets[i]
    t.buckets[i] = unit
    i = c.pages[pa >> 12].unit
    unit.page_previous = NULL
    unit.page_next = &t.units[i - 1] if i else NULL
    if i:
        unit.page_next.page_previous = unit
    c.pages[pa >> 12].unit = <uint32_t>(unit - t.units) + 1
    for i in range((pa & 4095) >> 6, (((pa & 4095) + done - 1) >> 6) + 1):
        granules |= <uint64_t>1 << i
    mark_code(c, <uint32_t>(pa >> 12), granules)
    t.live += 1
    t.counts.units += 1
    t.made += 1
    unit.order = t.made
    t.counts.instructions += unit.count
    t.counts.lengths[unit.count] += 1
    for i in range(unit.count):
        t.counts.made[unit.made[i]] += 1
    return unit


cdef unit_t *find_unit(translator_t *t, cpu_t *c, uint32_t *at) noexcept nogil:
    """The unit that EIP lies in, translated if need be, and which of its instructions it is.

    NULL: no unit can hold what is there, or a fault is raised.
    """
    cdef uint64_t pa
    cdef unit_t *unit = t.buckets[bucket_of(t, c.eip, t.context)]
    cdef middle_t *middle = &t.middle[scatter(c.eip) & ((1 << MIDDLE_BITS) - 1)]
    c.start = c.eip
    at[0] = 0
    if c.eip > c.seg[S_CS].limit:
        raise_fault(c, X_GP, 1, 0)
        return NULL
    if not where(t, c, c.seg[S_CS].base + c.eip, &pa):
        return NULL
    while unit != NULL:
        if unit.eip == c.eip and unit.context == t.context and unit.pa == pa:
            unit.stamp = stamp(t, c)
            return unit
        unit = unit.bucket
    # units are entered where they were interrupted: there is nothing that only their beginning sets
    if middle.unit != NULL and middle.eip == c.eip and still_valid(t, c, middle.unit):
        unit = middle.unit
        if middle.at < unit.count and unit.eips[middle.at] == c.eip:
            at[0] = middle.at
            return unit
    return make_unit(t, c, pa)

