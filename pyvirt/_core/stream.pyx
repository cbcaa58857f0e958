"""Streams: many accesses of one kind, or a mixture of accesses and of what the system does.

Accesses that hit 4 KiB pages stay in a small loop with vectors (`hits.h`); every other one goes
through `pyvirt._core.pipeline`. Both count and change the same.
"""

from libc.stdint cimport uint8_t, uint16_t, uint64_t

from pyvirt._core.ahead cimport (
    AHEAD_GROUP,
    ahead_native,
    ahead_nested,
    ahead_start,
    ahead_t,
)
from pyvirt._core.counters cimport counters_t
from pyvirt._core.datacache cimport drain
from pyvirt._core.events cimport (
    EVENT_FETCH,
    EVENT_INVEPT,
    EVENT_INVLPG,
    EVENT_INVLPGA,
    EVENT_INVPCID,
    EVENT_INVVPID,
    EVENT_LOAD,
    EVENT_MAP,
    EVENT_MODIFY,
    EVENT_MOV_CR0,
    EVENT_MOV_CR3,
    EVENT_MOV_CR4,
    EVENT_NOP,
    EVENT_PROTECT,
    EVENT_STORE_TABLE,
    EVENT_TLB_CONTROL,
    EVENT_UNMAP,
    EVENT_VCPU_SWITCH,
    EVENT_VM_ENTRY,
    EVENT_VM_EXIT,
    EVENT_VM_SWITCH,
    event_t,
)
from pyvirt._core.hits cimport (
    HITS_END,
    HITS_IDENTITY,
    HITS_MISS,
    HITS_NATIVE,
    HITS_NESTED,
    HITS_NO_WALK,
    hit_one,
    hits,
    hits_choose,
    hits_t,
)
from pyvirt._core.nestedwalk cimport nested_t
from pyvirt._core.operations cimport (
    DONE,
    DONE_BAD_OP,
    DONE_BAD_VCPU,
    DONE_IN_PYTHON,
    done_t,
    invept,
    invlpg,
    invlpga,
    invpcid,
    invvpid,
    mov_cr3,
    start,
    store_table,
    tlb_control,
    vcpu_switch,
    vm_crossing,
    vm_switch,
)
from pyvirt._core.paging cimport dimension_t
from pyvirt._core.pipeline cimport access_missed, access_one
from pyvirt._core.shortwalk cimport (
    shortwalk_ask,
    shortwalk_caches,
    shortwalk_loops,
    shortwalk_t,
    shortwalk_tables,
)
from pyvirt._core.state cimport (
    KIND_FETCH,
    KIND_LOAD,
    KIND_STORE,
    MODE_NATIVE,
    MODE_NESTED,
    MODE_TLB_ONLY,
    REFERENCE_ROOM,
    VALUE_D,
    VALUE_NESTED_SHIFT,
    VALUE_U,
    VALUE_W,
    WALKCACHE_SPLIT,
    mmu_t,
    plan_t,
    request_t,
    run_t,
)
from pyvirt._core.tlb cimport tlb_others
from pyvirt._core.walks cimport walks_choose_nested

cdef enum:
    BLOCK = 1024                    # accesses between two looks at how many walk
    MOST_OF_ONE = 512               # references that a single access can make, at the very most
    HIT_FIRST = 0x10                # outcome: level 1, 4 KiB
    CR4_PGE = 0x80

hits_choose(True)


def use_vectors(wanted=None):
    """Choose the form of the loop over hits; for tests and benchmarks, the results are the same.

    Parameters
    ----------
    wanted : bool, optional
        Vectors, where the processor has them, or plain code. None: as at first, vectors where
        the processor has them.

    Returns
    -------
    bool
        Whether vectors were in use before.
    """
    return bool(hits_choose(wanted is None or bool(wanted)))


cdef struct lane_t:                 # how the accesses of one stream go
    hits_t h
    int first                       # array; -1: none that the loop over hits can use
    int second                      # likewise of the second level


cdef int only_taker(const plan_t *plan, int kind, int level) noexcept nogil:
    """The one array of a level that takes 4 KiB pages and is the first looked up; or -1."""
    cdef int i, takers = 0
    for i in range(plan.count[kind][level]):
        takers += plan.takes[plan.index[kind][level][i]][0] == 0
    if takers != 1 or plan.takes[plan.index[kind][level][0]][0] != 0:
        return -1
    return plan.index[kind][level][0]


cdef void choose_lane(lane_t *lane, run_t *x, int kind, bint user) noexcept nogil:
    cdef const plan_t *plan = &x.m.plan
    cdef const request_t *r = &x.v.requests[kind][user]
    lane.first = lane.second = -1
    if plan.levels == 0 or not x.v.paging or r.judged or not x.v.guest.sign_extended:
        return
    lane.first = only_taker(plan, kind, 1)
    if lane.first < 0 or not shortwalk_loops(&x.core.tlb[lane.first]):
        lane.first = -1
        return
    if plan.levels > 1:
        lane.second = only_taker(plan, kind, 2)
        if lane.second >= 0 and not shortwalk_loops(&x.core.tlb[lane.second]):
            lane.second = -1
    lane.h.first = &x.core.tlb[lane.first]
    lane.h.low = x.guest_low
    lane.h.twin_low = x.global_low
    lane.h.global_low = x.global_low if x.v.cr4 & CR4_PGE else x.guest_low
    lane.h.mask = r.mask
    lane.h.wanted = r.wanted
    lane.h.unused = <uint8_t>(64 - x.v.guest.address_bits)
    lane.h.walk = HITS_NO_WALK
    lane.h.calm = True
    lane.h.mixed = False
    lane.h.asks = False
    lane.h.ahead = NULL


cdef void choose_walk(lane_t *lane, run_t *x, int kind, bint user) noexcept nogil:
    """Whether the loop can settle misses, too, and how."""
    cdef const plan_t *plan = &x.m.plan
    cdef const request_t *r = &x.v.requests[kind][user]
    cdef nested_t *t = &lane.h.tables
    # a short walk must be all there is to a miss: both levels filled, nothing else to do
    if (lane.first < 0 or plan.inclusive or plan.levels > 2
            or (plan.levels == 2 and lane.second < 0) or x.m.buffer != NULL):
        return
    if x.m.mode == MODE_TLB_ONLY:
        lane.h.walk = HITS_IDENTITY
        lane.h.identity = VALUE_W | VALUE_U | VALUE_D | <uint64_t>7 << VALUE_NESTED_SHIFT
    elif x.m.mode == MODE_NATIVE:
        if choose_tables(t, x, r):
            t.guest.added |= <uint64_t>7 << VALUE_NESTED_SHIFT
            lane.h.walk = HITS_NATIVE
    elif choose_tables(t, x, r) and walks_choose_nested(t, x, r.access):
        # what the nested tables allow is seen there
        t.access.mask &= ~(<uint64_t>7 << VALUE_NESTED_SHIFT)
        t.access.wanted &= ~(<uint64_t>7 << VALUE_NESTED_SHIFT)
        lane.h.walk = HITS_NESTED


cdef bint choose_tables(nested_t *t, run_t *x, const request_t *r) noexcept nogil:
    """Describe the vCPU's own tables; false if they cannot be walked the short way."""
    cdef const dimension_t *d = &x.v.guest
    cdef shortwalk_t *w = &t.guest
    if (x.core.guest.kind != WALKCACHE_SPLIT or not shortwalk_tables(w, d)
            or not shortwalk_caches(w, d, x.core.guest.level, x.core.guest.has)):
        return False
    shortwalk_ask(&t.access, d, r.access)
    t.access.mask = r.mask
    t.access.wanted = r.wanted
    w.low = x.guest_low
    if not d.accessed:
        w.added = VALUE_D
    w.cache_hits = x.counters.guest_cache_hits
    w.level_refs = x.counters.guest_refs
    return True


cdef struct asker_t:                # prefetches for a stream
    ahead_t walks
    nested_t tables
    bint able                       # the tables are of a form that it knows
    bint active


cdef void choose_asker(asker_t *a, run_t *x) noexcept nogil:
    """Nothing is prefetched yet; `able` if it can be."""
    a.able = a.active = False
    if x.m.mode == MODE_TLB_ONLY or not x.v.paging:
        return
    a.able = shortwalk_tables(&a.tables.guest, &x.v.guest)
    if x.m.mode == MODE_NESTED:
        a.able = a.able and shortwalk_tables(&a.tables.host, &x.v.host)
        a.tables.beyond = ~((<uint64_t>1 << x.v.host.address_bits) - 1)


cdef inline ahead_t *ask(asker_t *a) noexcept nogil:
    """What is walked ahead, begun with the first question."""
    if not a.active:
        a.active = True
        ahead_start(&a.walks)
    return &a.walks


cdef void ask_ahead(
    asker_t *a, const mmu_t *m, const char *vas, uint64_t stride, uint64_t i, uint64_t n
) noexcept nogil:
    """Prefetch for the accesses after `i`, AHEAD_GROUP after it was last asked to."""
    cdef ahead_t *walks = ask(a)
    if m.mode == MODE_NESTED:
        ahead_nested(walks, &a.tables, vas, stride, i, n)
    else:
        ahead_native(walks, &a.tables.guest, vas, stride, i, n)


cdef uint64_t run_lane(
    lane_t *lane, run_t *x, bint sure, const uint64_t *vas, uint64_t i, uint64_t n, uint64_t *pas,
    uint16_t *codes
) noexcept nogil:
    """The loop over hits, and what it counted."""
    cdef uint64_t begin = i
    cdef counters_t *counted = x.counters
    lane.h.second = &x.core.tlb[lane.second] if lane.second >= 0 else NULL
    lane.h.sure = sure
    lane.h.globals = x.m.globals
    lane.h.second_hits = lane.h.walks = 0
    i = hits(&lane.h, vas, i, n, pas, codes)
    x.m.globals = lane.h.globals
    counted.tlb_hits[0] += i - begin - lane.h.second_hits - lane.h.walks
    counted.tlb_hits[3] += lane.h.second_hits
    if lane.h.walks:
        counted.walks[0] += lane.h.walks
    return i


cdef uint64_t stream_accesses(
    mmu_t *m, int vcpu, int kind, bint user, const uint64_t *vas, uint64_t n, uint64_t *pas,
    uint16_t *codes, bint stop, int prefetch
) noexcept nogil:
    """Accesses of one kind by one vCPU; returns how many were done, fewer only with `stop`.

    `pas` and `codes` may be NULL.
    """
    cdef run_t x
    cdef lane_t lane
    cdef asker_t asker
    cdef uint64_t i = 0, end, part, k, slow, odd, firsts, pa, base
    cdef uint16_t code
    cdef bint ahead, sure
    start(&x, m, vcpu)
    choose_asker(&asker, &x)
    if not asker.able or n <= AHEAD_GROUP:
        prefetch = PREFETCH_NEVER
    ahead = prefetch == PREFETCH_ALWAYS
    choose_lane(&lane, &x, kind, user)
    choose_walk(&lane, &x, kind, user)
    lane.h.asked = &asker.tables
    lane.h.nested = m.mode == MODE_NESTED
    lane.h.total = n
    base = m.accesses
    while i < n:
        end = min(n, i + BLOCK)
        lane.h.asks = ahead and lane.first >= 0
        if lane.h.asks or (lane.h.mixed and prefetch != PREFETCH_NEVER):
            lane.h.ahead = ask(&asker)
        slow = odd = 0
        firsts = x.counters.tlb_hits[0]
        while i < end:
            part = end
            if ahead and not lane.h.asks:
                ask_ahead(&asker, m, <const char *>vas, 8, i, n)
                part = min(end, i + AHEAD_GROUP)
            if codes != NULL:
                for k in range(i, part):
                    codes[k] = HIT_FIRST
            while i < part:
                sure = False
                if lane.first >= 0:
                    sure = tlb_others(&m.plan, x.core, kind, lane.first, lane.second) == 0
                    i = run_lane(&lane, &x, sure, vas, i, part, pas, codes)
                    slow += lane.h.walks
                    if i == part:
                        break
                    if lane.h.why == HITS_END:
                        continue
                    sure = sure and lane.h.why == HITS_MISS
                slow += 1
                odd += 1
                m.accesses = base + i
                if sure:
                    code = access_missed(&x, vas[i], kind, &x.v.requests[kind][user], &pa)
                else:
                    code = access_one(&x, vas[i], kind, user, &pa)
                if codes != NULL:
                    codes[i] = code
                if pas != NULL:
                    pas[i] = pa
                i += 1
                if m.buffered > REFERENCE_ROOM - MOST_OF_ONE:
                    drain(m)
                if stop and code & 15:
                    end = n = i
                    break
        firsts = x.counters.tlb_hits[0] - firsts
        lane.h.calm = firsts > BLOCK - BLOCK // 32
        lane.h.mixed = odd == 0 and firsts > BLOCK // 16 and slow > BLOCK // 16
        if prefetch == PREFETCH_AUTO:
            ahead = slow > BLOCK // 2
    x.counters.accesses[kind] += n
    m.accesses = base + n
    drain(m)
    return n


cdef inline int kind_of(int op) noexcept nogil:
    if op == EVENT_FETCH:
        return KIND_FETCH
    return KIND_LOAD if op == EVENT_LOAD else KIND_STORE


cdef struct lanes_t:                # how each kind of access by one vCPU goes, until an operation
    run_t x
    lane_t lane[3][2]               # [kind][user]


cdef void choose_lanes(lanes_t *l, mmu_t *m, int vcpu) noexcept nogil:
    cdef int kind, user
    start(&l.x, m, vcpu)
    for kind in range(3):
        for user in range(2):
            choose_lane(&l.lane[kind][user], &l.x, kind, user)


cdef inline uint16_t access_part(
    lanes_t *l, uint64_t va, int kind, bint user, uint64_t *pa
) noexcept nogil:
    """One access, by the shortest way; counted."""
    cdef lane_t *lane = &l.lane[kind][user]
    cdef uint16_t code = HIT_FIRST
    if lane.first >= 0:
        lane.h.globals = l.x.m.globals
    if lane.first >= 0 and hit_one(&lane.h, va, pa):
        l.x.counters.tlb_hits[0] += 1
    else:
        code = access_one(&l.x, va, kind, user, pa)
    l.x.counters.accesses[kind] += 1
    l.x.m.accesses += 1
    return code


cdef uint16_t access_event(lanes_t *l, const event_t *e, uint64_t *pa) noexcept nogil:
    """An access of some bytes; one that crosses a 4 KiB boundary is two. The first's outcome."""
    cdef int kind = kind_of(e.op)
    cdef bint user = e.arg & 1
    cdef uint64_t other
    cdef uint16_t code, second
    code = access_part(l, e.addr, kind, user, pa)
    if (e.addr & 0xFFF) + e.size > 0x1000:
        l.x.counters.splits += 1
        second = access_part(l, (e.addr | 0xFFF) + 1, kind, user, &other)
        if code & 15 == 0 and second & 15:
            code = second
            pa[0] = 0
    return code


cdef done_t operate(mmu_t *m, const event_t *e) noexcept nogil:
    """Anything but an access."""
    cdef int op = e.op, vcpu = e.vcpu
    if op == EVENT_NOP:
        return DONE
    if op == EVENT_MOV_CR3:
        return mov_cr3(m, vcpu, e.value)
    if op == EVENT_INVLPG:
        invlpg(m, vcpu, e.addr, e.arg & 1)
        return DONE
    if op == EVENT_INVPCID:
        return invpcid(m, vcpu, e.arg, e.value, e.addr)
    if op == EVENT_INVVPID:
        return invvpid(m, vcpu, e.arg, e.value, e.addr)
    if op == EVENT_INVEPT:
        return invept(m, vcpu, e.arg, e.value)
    if op == EVENT_INVLPGA:
        return invlpga(m, vcpu, e.addr, e.value)
    if op == EVENT_TLB_CONTROL:
        return tlb_control(m, vcpu, e.arg)
    if op == EVENT_VM_ENTRY or op == EVENT_VM_EXIT:
        vm_crossing(m, vcpu, op == EVENT_VM_ENTRY)
        return DONE
    if op == EVENT_STORE_TABLE:
        return store_table(m, vcpu, e.addr, e.value, e.size)
    if op == EVENT_VCPU_SWITCH:
        drain(m)                    # references count for the core that made them
        return vcpu_switch(m, vcpu, e.arg)
    if op == EVENT_VM_SWITCH:
        return vm_switch(m, vcpu, e.arg, e.addr, e.value)
    if op in (EVENT_MOV_CR0, EVENT_MOV_CR4, EVENT_MAP, EVENT_UNMAP, EVENT_PROTECT):
        return DONE_IN_PYTHON
    return DONE_BAD_OP


cdef uint64_t stream_events(
    mmu_t *m, const event_t *events, uint64_t n, uint64_t *pas, uint16_t *codes, bint stop,
    int prefetch, done_t *done
) noexcept nogil:
    """Events in order; returns how many were done.

    Fewer than n: `done` says what the next one lacks, or is DONE after a fault with `stop`.
    """
    cdef lanes_t l
    cdef asker_t asker
    cdef event_t event
    cdef const event_t *e = &event
    cdef uint64_t i = 0, pa, walked = 0
    cdef uint16_t code
    cdef bint ahead = False
    cdef int asked = -1             # for whom the asker was chosen
    cdef uint64_t offset = <char *>&event.addr - <char *>&event
    if m.mode == MODE_TLB_ONLY or n <= AHEAD_GROUP:
        prefetch = PREFETCH_NEVER
    l.x.vcpu = -1
    done[0] = DONE
    while i < n:
        event = events[i]           # a copy: the caller may write the array meanwhile
        pa = 0
        code = 0
        if e.vcpu >= m.vcpu_count:
            done[0] = DONE_BAD_VCPU
            break
        if i % AHEAD_GROUP == 0 and prefetch != PREFETCH_NEVER:
            if i % BLOCK == 0:
                ahead = prefetch == PREFETCH_ALWAYS or walked > BLOCK // 2
                walked = 0
            if ahead and l.x.vcpu >= 0:
                # what is no access does no harm
                if asked != l.x.vcpu:
                    choose_asker(&asker, &l.x)
                    asked = l.x.vcpu
                if asker.able:
                    ask_ahead(&asker, m, <const char *>events + offset, sizeof(event_t), i, n)
        if EVENT_LOAD <= e.op <= EVENT_MODIFY:
            if l.x.vcpu != e.vcpu:
                choose_lanes(&l, m, e.vcpu)
            code = access_event(&l, e, &pa)
            walked += code & 0x70 == 0
            if m.buffered > REFERENCE_ROOM - 2 * MOST_OF_ONE:
                drain(m)
        else:
            done[0] = operate(m, e)
            if done[0] != DONE:
                break
            l.x.vcpu = asked = -1
        if pas != NULL:
            pas[i] = pa
        if codes != NULL:
            codes[i] = code
        i += 1
        if stop and code & 15:
            break
    drain(m)
    return i
