"""One access from end to end: TLBs, then a walk, then the fills; or a fault and what it drops."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pyvirt._core.agilewalk cimport walk_agile
from pyvirt._core.invalidate cimport drop_for_page_fault, drop_for_violation
from pyvirt._core.counters cimport OP_PAGE_FAULT, OP_VIOLATION
from pyvirt._core.paging cimport (
    FAULT_MISCONFIGURED,
    FAULT_NON_CANONICAL,
    FAULT_NONE,
    dimension_t,
    in_range,
    judge,
    walk_t,
)
from pyvirt._core.policies cimport touch
from pyvirt._core.state cimport (
    MODE_NESTED,
    MODE_TLB_ONLY,
    OWN_4M,
    VALUE_D,
    VALUE_G,
    VALUE_NESTED_SHIFT,
    VALUE_OWN_SHIFT,
    VALUE_U,
    VALUE_W,
    request_t,
    run_t,
)
from pyvirt._core.tlb cimport found_t, size_of_shift, size_shift, tlb_fill, tlb_find
from pyvirt._core.walks cimport host_t, walk_guest, walk_real

cdef enum:
    CR4_PGE = 0x80

cdef uint64_t ADDRESS = 0x000FFFFFFFFFF000ULL
cdef uint64_t NX = <uint64_t>1 << 63


cdef inline bint in_reach(const run_t *x, uint64_t va) noexcept nogil:
    """Canonical; without paging, of 32 bits."""
    return in_range(&x.v.guest, va) if x.v.paging else va >> 32 == 0


cdef inline uint64_t nested_rights(const dimension_t *d, uint64_t rights, bint user) noexcept nogil:
    """R, W, X of a nested mapping as bits 2:0; with MBEC, X of the guest page's own mode."""
    cdef uint64_t u
    if d.is_ept:
        if d.mbec and user:
            return (rights & 3) | (rights >> 8 & 4)
        return rights & 7
    u = rights >> 2 & 1             # NPT: every access is a user's (APM 15.25.5)
    return u | (rights & 2 if u else 0) | (4 if u and not (rights & NX and d.nxe) else 0)


cdef inline uint64_t value_of(const run_t *x, const walk_t *w, const host_t *last) noexcept nogil:
    """The mapping that a walk found, as TLBs keep it."""
    cdef const dimension_t *g = &x.v.guest
    cdef uint64_t value = (w.rights & VALUE_KEPT) | (w.pa & ADDRESS)
    cdef bint clean = g.accessed and w.rights & g.dirty == 0
    if not g.nxe:
        value &= ~NX
    if g.outer != NULL:
        value |= nested_rights(g.outer, last.rights, w.rights & VALUE_U != 0) << VALUE_NESTED_SHIFT
        clean |= last.rights & g.outer.dirty != g.outer.dirty
    else:
        value |= <uint64_t>7 << VALUE_NESTED_SHIFT
    return value if clean else value | VALUE_D


cdef uint16_t faulted(run_t *x, uint64_t va, uint16_t code, uint64_t gpa) noexcept nogil:
    """Count a fault, and drop what it drops."""
    x.counters.faults[code & 15] += 1
    if code >> 7 & 3:
        if code & 15 == FAULT_MISCONFIGURED:
            x.counters.ept_misconfigurations += 1
        else:
            x.counters.ept_violations += 1
        x.counters.invalidations[<int>OP_VIOLATION] += 1
        x.violated = gpa
        drop_for_violation(x, va, gpa)
    elif code & 15 != FAULT_NON_CANONICAL:
        x.counters.page_faults += 1
        x.counters.invalidations[<int>OP_PAGE_FAULT] += 1
        drop_for_page_fault(x, va)
    return code


cdef uint16_t walk_and_fill(
    run_t *x, uint64_t va, int kind, const request_t *r, bint weak, uint64_t *pa
) noexcept nogil:
    cdef walk_t w
    cdef host_t last
    cdef uint64_t value, offset, low, other
    cdef uint16_t code
    cdef int size, own, level
    x.refs = 0
    last.rights = 0
    if x.m.mode == MODE_TLB_ONLY:
        value = va & ADDRESS | VALUE_W | VALUE_U | VALUE_D | <uint64_t>7 << VALUE_NESTED_SHIFT
        size = 0
        pa[0] = va & (ADDRESS | 0xFFF)
        low = other = x.guest_low
    else:
        code = (walk_agile(x, va, r.access, &w, &last) if x.v.agile
                else walk_guest(x, va, r.access, &w, &last))
        if code:
            pa[0] = 0
            return faulted(x, va, code, w.gpa)
        value = value_of(x, &w, &last)
        size = size_of_shift(w.smallest)
        own = OWN_4M if w.shift == 22 else size_of_shift(w.shift)
        value |= <uint64_t>own << VALUE_OWN_SHIFT
        if own != size or (size > 0 and x.m.plan.smashes):
            x.m.pieces = True
        offset = (<uint64_t>1 << size_shift(size)) - 1
        value &= ~(offset & ADDRESS)
        pa[0] = w.pa
        if value & VALUE_G and x.v.cr4 & CR4_PGE:
            low, other = x.global_low, x.guest_low
            x.m.globals = True
        else:
            low, other = x.guest_low, x.global_low
    x.counters.walks[size] += 1
    for level in range(x.m.plan.levels, 0, -1):
        tlb_fill(&x.m.plan, x.core, kind, level, va, size, low, other, value, not weak)
    return <uint16_t>(min(x.refs, <uint32_t>OUTCOME_MOST_REFS) << OUTCOME_REFS_SHIFT
                      | size << OUTCOME_SIZE_SHIFT | (OUTCOME_WEAK if weak else 0))


cdef uint16_t access_missed(
    run_t *x, uint64_t va, int kind, const request_t *r, uint64_t *pa
) noexcept nogil:
    """An access that no TLB array can serve, as was found out already."""
    return walk_and_fill(x, va, kind, r, False, pa)


cdef uint16_t access_unpaged(
    run_t *x, uint64_t va, const request_t *r, uint64_t *pa
) noexcept nogil:
    """CR0.PG clear: no linear mapping is made; nested, the address is guest-physical."""
    cdef walk_t w
    cdef host_t last
    cdef uint16_t code
    cdef int size = 0
    x.refs = 0
    pa[0] = va
    if x.m.mode == MODE_NESTED:
        code = walk_real(x, va, r.access, &w, &last)
        if code:
            pa[0] = 0
            return faulted(x, va, code, w.gpa)
        pa[0] = w.pa
        size = size_of_shift(w.shift)
    x.counters.walks[size] += 1
    return <uint16_t>(min(x.refs, <uint32_t>OUTCOME_MOST_REFS) << OUTCOME_REFS_SHIFT
                      | size << OUTCOME_SIZE_SHIFT)


cdef uint16_t access_one(
    run_t *x, uint64_t va, int kind, bint user, uint64_t *pa
) noexcept nogil:
    """Any access; returns its outcome. The caller counts it in `accesses`."""
    cdef const request_t *r = &x.v.requests[kind][user]
    cdef found_t found
    cdef uint64_t mask, offset, low, other
    cdef int level
    if not in_reach(x, va):
        pa[0] = 0
        x.counters.faults[<int>FAULT_NON_CANONICAL] += 1
        return FAULT_NON_CANONICAL
    if not x.v.paging:
        return access_unpaged(x, va, r, pa)
    if not tlb_find(&x.m.plan, x.core, kind, va, x.guest_low, x.global_low, &found):
        return walk_and_fill(x, va, kind, r, False, pa)
    mask = r.mask & ~r.dirty
    if ((found.value & mask) != r.wanted & mask
            or (r.judged and judge(&x.v.guest, found.value, r.access) != FAULT_NONE)):
        x.counters.rights_rewalks += 1
        return walk_and_fill(x, va, kind, r, True, pa)
    if found.value & r.dirty != r.dirty:
        x.counters.dirty_assists += 1
        return walk_and_fill(x, va, kind, r, True, pa)
    touch(&x.core.tlb[found.array], found.set, found.way)
    x.counters.tlb_hits[(found.level - 1) * 3 + found.size] += 1
    offset = (<uint64_t>1 << size_shift(found.size)) - 1
    pa[0] = (found.value & ADDRESS & ~offset) | (va & offset)
    if found.level > 1:
        low = x.core.tlb[found.array].tags[found.slot] & 0x7FFF9
        other = x.guest_low ^ x.global_low ^ low
        for level in range(found.level - 1, 0, -1):
            tlb_fill(&x.m.plan, x.core, kind, level, va, found.size, low, other, found.value, True)
    return <uint16_t>(found.level << OUTCOME_LEVEL_SHIFT | found.size << OUTCOME_SIZE_SHIFT)
