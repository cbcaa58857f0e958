"""Register loads, invalidations, switches: each drops what the manuals say, or the next larger.

Sources: SDM vol. 3, 5.10.4.1 (INVLPG, INVPCID, MOV CR0/CR3/CR4) and 30.4.3 (VM entry and exit,
INVEPT, INVVPID), which in older editions are 4.10.4.1 and 28.3.3; AMD APM vol. 2, 15.16 (ASIDs,
INVLPGA, TLB_CONTROL).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from pyvirt._core.cache cimport cache_t
from pyvirt._core.contexts cimport (
    CONTEXT_COMBINED,
    CONTEXT_GLOBAL,
    CONTEXT_HOST,
    MAX_CONTEXTS,
    contexts_find,
    contexts_sweep,
)
from pyvirt._core.counters cimport (
    OP_INVEPT,
    OP_INVLPG,
    OP_INVLPGA,
    OP_INVPCID,
    OP_INVVPID,
    OP_MOV_CR0,
    OP_MOV_CR3,
    OP_MOV_CR4,
    OP_TLB_CONTROL,
    OP_VM_ENTRY,
    OP_VM_EXIT,
    counted_op_t,
)
from pyvirt._core.frames cimport PM_OK, pm_frame, pm_write
from pyvirt._core.invalidate cimport (
    DROP_GUEST_CACHE,
    DROP_TLB,
    drop,
    selector_t,
)
from pyvirt._core.paging cimport (
    ACCESS_ANY,
    ACCESS_EXEC,
    ACCESS_PURE,
    ACCESS_READ,
    ACCESS_TABLE,
    ACCESS_USER,
    ACCESS_WRITE,
    FORMAT_PAE,
    FORMAT_X86_32,
    dimension_t,
    walk,
    walk_t,
)
from pyvirt._core.state cimport (
    KIND_FETCH,
    KIND_LOAD,
    MODE_NESTED,
    MODE_TLB_ONLY,
    SHORT_UNKNOWN,
    VALUE_D,
    VALUE_NESTED_SHIFT,
    VALUE_U,
    VALUE_W,
    WALKCACHE_PAGE_TABLE,
    core_t,
    mmu_t,
    request_t,
    run_t,
    vcpu_t,
)

cdef enum:
    BOTH = 3                        # DROP_TLB | DROP_GUEST_CACHE
    HOSTS = 12                      # DROP_NESTED_TLB | DROP_HOST_CACHE
    CR0_PG = 0x80000000
    CR4_PAE = 0x20
    CR4_PGE = 0x80
    CR4_PCIDE = 0x20000
    CR4_SMEP = 0x100000

cdef uint64_t NX = <uint64_t>1 << 63


# --- what the state implies -------------------------------------------------------------------

cdef void start(run_t *x, mmu_t *m, int vcpu) noexcept nogil:
    """Make ready for accesses of one vCPU."""
    x.m = m
    x.v = &m.vcpus[vcpu]
    x.vcpu = vcpu
    x.core = &m.cores[x.v.core]
    x.counters = x.core.counters
    x.guest_low = <uint64_t>x.v.context << 3 | 1
    x.global_low = <uint64_t>x.v.global_context << 3 | 1
    x.host_low = <uint64_t>x.v.host_context << 3 | 1
    x.refs = 0
    x.rest.first = 0
    x.marking = False
    x.in_shadow = False
    x.switched = 0
    x.short_host = SHORT_UNKNOWN


cdef void set_requests(mmu_t *m, vcpu_t *v) noexcept nogil:
    """The rules of `pyvirt._core.paging.judge` as masks (SDM vol. 3, 5.6, formerly 4.6)."""
    cdef int kind, user
    cdef request_t *r
    cdef const dimension_t *d = &v.guest
    for kind in range(3):
        for user in range(2):
            r = &v.requests[kind][user]
            memset(r, 0, sizeof(request_t))
            r.access = ACCESS_USER if user else 0
            if kind == KIND_FETCH:
                r.access |= ACCESS_EXEC
                r.mask = <uint64_t>4 << VALUE_NESTED_SHIFT
            elif kind == KIND_LOAD:
                r.access |= ACCESS_READ
                r.mask = <uint64_t>1 << VALUE_NESTED_SHIFT
            else:
                r.access |= ACCESS_WRITE
                r.mask = <uint64_t>2 << VALUE_NESTED_SHIFT | VALUE_D
                r.dirty = VALUE_D
                if user or d.wp:
                    r.mask |= VALUE_W
            if user:
                r.mask |= VALUE_U
            r.wanted = r.mask
            if not user and (d.smep if kind == KIND_FETCH else d.smap):
                r.mask |= VALUE_U
            if kind == KIND_FETCH and d.nxe:
                r.mask |= NX
            r.judged = kind != KIND_FETCH and (d.pke or d.pks)


cdef void mark_used(const cache_t *c, uint8_t *used, bint in_second) noexcept nogil:
    cdef uint64_t slot, last = <uint64_t>c.sets * c.stride
    if c.state == NULL or c.state.valid == 0:
        return
    for slot in range(last):
        if c.tags[slot]:
            used[(c.second[slot] if in_second else c.tags[slot]) >> 3 & 0xFFFF] = 1


cdef bint collect_contexts(mmu_t *m, uint8_t *used) noexcept nogil:
    """Give back the ids of contexts that no entry and no vCPU has; false if all have one."""
    cdef int i, level
    cdef core_t *core
    cdef vcpu_t *v
    for i in range(m.vcpu_count):
        v = &m.vcpus[i]
        used[v.context] = used[v.global_context] = used[v.host_context] = 1
    for i in range(m.core_count):
        core = &m.cores[i]
        for level in range(m.plan.tlbs):
            mark_used(&core.tlb[level], used, False)
        for level in range(6):
            mark_used(&core.guest.level[level], used, core.guest.kind == WALKCACHE_PAGE_TABLE)
            mark_used(&core.host.level[level], used, core.host.kind == WALKCACHE_PAGE_TABLE)
        mark_used(&core.nested, used, False)
    contexts_sweep(&m.contexts, used)
    return m.contexts.live < MAX_CONTEXTS


cdef int intern(
    mmu_t *m, uint16_t vpid, uint16_t pcid, uint64_t ep4ta, uint16_t flags
) noexcept nogil:
    """The id of a context; -1 if the host has no memory."""
    cdef int id = contexts_find(&m.contexts, vpid, pcid, ep4ta, flags), i
    cdef uint8_t *used
    cdef selector_t s
    if id != -1:
        return -1 if id < 0 else id
    used = <uint8_t *>calloc(MAX_CONTEXTS, 1)
    if used == NULL:
        return -1
    if not collect_contexts(m, used):
        # more contexts alive than ids: drop everything, which a processor may always do
        memset(&s, 0, sizeof(selector_t))
        s.what = BOTH | HOSTS
        s.any_vpid = s.any_pcid = s.globals = s.any_ep4ta = True
        for i in range(m.core_count):
            drop(m, &m.cores[i], &m.vcpus[0].guest, &m.vcpus[0].host, &s)
        memset(used, 0, MAX_CONTEXTS)
        collect_contexts(m, used)
    free(used)
    id = contexts_find(&m.contexts, vpid, pcid, ep4ta, flags)
    return -1 if id < 0 else id


cdef done_t set_contexts(mmu_t *m, vcpu_t *v) noexcept nogil:
    """The ids of the contexts that a vCPU's registers name."""
    cdef uint16_t flags = CONTEXT_COMBINED if m.mode == MODE_NESTED else 0
    cdef uint64_t ep4ta = v.ep4ta if m.mode == MODE_NESTED else 0
    cdef int id = intern(m, v.vpid, v.pcid, ep4ta, flags)
    if id < 0:
        return DONE_NO_MEMORY
    v.context = <uint16_t>id
    id = intern(m, v.vpid, 0, ep4ta, flags | CONTEXT_GLOBAL)
    if id < 0:
        return DONE_NO_MEMORY
    v.global_context = <uint16_t>id
    id = intern(m, 0, 0, v.ep4ta, CONTEXT_HOST)
    if id < 0:
        return DONE_NO_MEMORY
    v.host_context = <uint16_t>id
    return DONE


cdef done_t adopt(mmu_t *m, vcpu_t *v, const dimension_t *d, uint64_t cr3) noexcept nogil:
    """Give a vCPU its own dimension, and what follows from it, CR0, CR4 and this CR3."""
    v.guest = d[0]
    v.guest.mem = m.mem
    v.guest.outer = &v.host if m.mode == MODE_NESTED else NULL
    v.cr3 = cr3 & ~NX if v.cr4 & CR4_PCIDE else cr3
    v.pcid = <uint16_t>(cr3 & 0xFFF) if v.cr4 & CR4_PCIDE else 0
    v.paging = v.cr0 & CR0_PG != 0 or m.mode == MODE_TLB_ONLY
    set_requests(m, v)
    return set_contexts(m, v)


# --- selections -------------------------------------------------------------------------------

cdef inline selector_t of_vpid(uint32_t what, uint16_t vpid) noexcept nogil:
    """Entries of one VPID and PCID 0, any EP4TA, global ones not."""
    cdef selector_t s
    memset(&s, 0, sizeof(selector_t))
    s.what = what
    s.vpid = vpid
    s.any_ep4ta = True
    return s


cdef void apply(mmu_t *m, int vcpu, const selector_t *s) noexcept nogil:
    cdef vcpu_t *v = &m.vcpus[vcpu]
    drop(m, &m.cores[v.core], &v.guest, &v.host, s)


cdef inline void count(mmu_t *m, int vcpu, counted_op_t op) noexcept nogil:
    m.cores[m.vcpus[vcpu].core].counters.invalidations[<int>op] += 1


# --- control registers ------------------------------------------------------------------------

cdef bint root_fits(const vcpu_t *v, uint64_t root) noexcept nogil:
    """Whether a root has only address bits that the tables can have."""
    if v.guest.format == FORMAT_X86_32 or v.guest.format == FORMAT_PAE:
        return True                 # bits 63:32 are ignored
    return root & ~<uint64_t>0xFFF & ~v.guest.table_address == 0


cdef void load_root(vcpu_t *v, uint64_t value) noexcept nogil:
    v.cr3 = value
    if v.guest.format == FORMAT_X86_32 or v.guest.format == FORMAT_PAE:
        value &= 0xFFFFFFFFULL
    v.guest.root = value & ~<uint64_t>(31 if v.guest.format == FORMAT_PAE else 0xFFF)
    v.pcid = <uint16_t>(value & 0xFFF) if v.cr4 & CR4_PCIDE else 0


cdef done_t mov_cr3(mmu_t *m, int vcpu, uint64_t value) noexcept nogil:
    """Load CR3; with CR4.PCIDE, bit 63 asks that nothing be dropped."""
    cdef vcpu_t *v = &m.vcpus[vcpu]
    cdef bint keep = v.cr4 & CR4_PCIDE and value >> 63
    cdef selector_t s
    if v.cr4 & CR4_PCIDE:
        value &= ~NX
    if m.mode != MODE_TLB_ONLY and not root_fits(v, value):
        return DONE_BAD_ROOT
    count(m, vcpu, OP_MOV_CR3)
    load_root(v, value)
    if not keep or m.conservative:
        s = of_vpid(BOTH, v.vpid)
        s.pcid = v.pcid
        s.any_pcid = m.conservative
        apply(m, vcpu, &s)
    return set_contexts(m, v)


cdef void cr0_cr4_changed(
    mmu_t *m, int vcpu, uint64_t old_cr0, uint64_t old_cr4, uint16_t old_pcid
) noexcept nogil:
    """What MOV to CR0 or CR4 drops; the registers have their new values already."""
    cdef vcpu_t *v = &m.vcpus[vcpu]
    cdef selector_t s = of_vpid(BOTH, v.vpid)
    cdef uint64_t changed = old_cr4 ^ v.cr4
    s.pcid = old_pcid
    if (changed & CR4_PGE or (changed & CR4_PCIDE and old_cr4 & CR4_PCIDE)
            or (old_cr0 & CR0_PG and v.cr0 & CR0_PG == 0)):
        s.any_pcid = s.globals = True
    elif changed & CR4_PAE or (changed & CR4_SMEP and v.cr4 & CR4_SMEP):
        s.globals = True
    else:
        return
    apply(m, vcpu, &s)


cdef done_t mov_control(
    mmu_t *m, int vcpu, bint is_cr0, uint64_t value, const dimension_t *d
) noexcept nogil:
    """Load CR0 or CR4; `d` is the vCPU's own dimension as it then is, but for the root."""
    cdef vcpu_t *v = &m.vcpus[vcpu]
    cdef dimension_t own = d[0]
    cdef uint64_t old_cr0 = v.cr0, old_cr4 = v.cr4
    cdef uint16_t old_pcid = v.pcid
    cdef done_t done
    own.root = v.guest.root
    if is_cr0:
        v.cr0 = value
    else:
        v.cr4 = value
    done = adopt(m, v, &own, v.cr3)
    cr0_cr4_changed(m, vcpu, old_cr0, old_cr4, old_pcid)
    count(m, vcpu, OP_MOV_CR0 if is_cr0 else OP_MOV_CR4)
    return done


# --- invalidations ----------------------------------------------------------------------------

cdef void invlpg_on(mmu_t *m, int vcpu, uint64_t va) noexcept nogil:
    """The page in the current PCID and global; every walk-cache entry of the PCID."""
    cdef vcpu_t *v = &m.vcpus[vcpu]
    cdef selector_t s = of_vpid(DROP_TLB, v.vpid)
    s.pcid = v.pcid
    s.globals = True
    s.by_address = True
    s.address = va
    apply(m, vcpu, &s)
    s.what = DROP_GUEST_CACHE
    s.by_address = False
    s.any_pcid = m.conservative
    apply(m, vcpu, &s)


cdef void invlpg(mmu_t *m, int vcpu, uint64_t va, bint shoot_down) noexcept nogil:
    """On this vCPU, and with `shoot_down` on every other one, by interrupt."""
    cdef int other
    count(m, vcpu, OP_INVLPG)
    invlpg_on(m, vcpu, va)
    if shoot_down:
        m.cores[m.vcpus[vcpu].core].counters.shootdowns += 1
        m.cores[m.vcpus[vcpu].core].counters.ipis += m.vcpu_count - 1
        for other in range(m.vcpu_count):
            if other != vcpu:
                invlpg_on(m, other, va)


cdef done_t invpcid(
    mmu_t *m, int vcpu, uint32_t type, uint64_t pcid, uint64_t va
) noexcept nogil:
    cdef selector_t s = of_vpid(BOTH, m.vcpus[vcpu].vpid)
    if type > 3:
        return DONE_BAD_TYPE
    count(m, vcpu, OP_INVPCID)
    if m.conservative:
        type = 1 if type == 0 else 3 if type == 1 else 2
    s.pcid = <uint16_t>(pcid & 0xFFF)
    s.by_address = type == 0
    s.address = va
    s.any_pcid = type >= 2
    s.globals = type == 2
    apply(m, vcpu, &s)
    return DONE


cdef done_t invvpid(
    mmu_t *m, int vcpu, uint32_t type, uint64_t vpid, uint64_t va
) noexcept nogil:
    cdef selector_t s = of_vpid(BOTH, <uint16_t>vpid)
    if type > 3:
        return DONE_BAD_TYPE
    count(m, vcpu, OP_INVVPID)
    s.any_pcid = True
    s.globals = True
    if type == 2:
        s.any_vpid = s.but_vpid_0 = True
    elif m.conservative:
        s.any_vpid = type == 1
    elif type == 0:
        s.by_address = True
        s.address = va
    elif type == 3:
        s.globals = False
    apply(m, vcpu, &s)
    return DONE


cdef done_t invept(mmu_t *m, int vcpu, uint32_t type, uint64_t eptp) noexcept nogil:
    cdef selector_t s = of_vpid(BOTH | HOSTS, 0)
    if type != 1 and type != 2:
        return DONE_BAD_TYPE
    count(m, vcpu, OP_INVEPT)
    s.any_vpid = s.any_pcid = s.globals = s.combined_only = True
    s.any_ep4ta = type == 2 or m.conservative
    s.ep4ta = eptp & 0x000FFFFFFFFFF000ULL
    apply(m, vcpu, &s)
    return DONE


cdef done_t invlpga(mmu_t *m, int vcpu, uint64_t va, uint64_t asid) noexcept nogil:
    """AMD's INVLPGA: the page in one ASID, which is kept as a VPID."""
    cdef selector_t s = of_vpid(BOTH, <uint16_t>asid)
    count(m, vcpu, OP_INVLPGA)
    s.any_pcid = s.globals = True
    s.by_address = not m.conservative
    s.address = va
    apply(m, vcpu, &s)
    return DONE


cdef done_t tlb_control(mmu_t *m, int vcpu, uint32_t control) noexcept nogil:
    """AMD's TLB_CONTROL, as VMRUN carries it out."""
    cdef vcpu_t *v = &m.vcpus[vcpu]
    cdef selector_t s = of_vpid(BOTH, v.vpid)
    if control != 0 and control != 1 and control != 3 and control != 7:
        return DONE_BAD_TYPE
    count(m, vcpu, OP_TLB_CONTROL)
    if control == 0:
        return DONE
    if m.conservative:
        control = 1
    s.any_pcid = True
    s.globals = control != 7
    s.any_vpid = control == 1
    apply(m, vcpu, &s)
    if control != 7:
        s.what = HOSTS
        s.any_ep4ta = control == 1
        s.ep4ta = v.ep4ta
        apply(m, vcpu, &s)
    return DONE


cdef void vm_crossing(mmu_t *m, int vcpu, bint entry) noexcept nogil:
    """VM entry or exit: without VPIDs, everything but guest-physical mappings is dropped."""
    cdef vcpu_t *v = &m.vcpus[vcpu]
    cdef selector_t s = of_vpid(BOTH, 0)
    count(m, vcpu, OP_VM_ENTRY if entry else OP_VM_EXIT)
    if v.vpid == 0:
        s.any_pcid = s.globals = True
        apply(m, vcpu, &s)


# --- tables and switches ----------------------------------------------------------------------

cdef done_t store_table(
    mmu_t *m, int vcpu, uint64_t address, uint64_t value, int size
) noexcept nogil:
    """A store to an entry at an own-physical address; no cache hears of it. The lock is held."""
    cdef vcpu_t *v = &m.vcpus[vcpu]
    cdef walk_t w
    cdef uint64_t pa = address
    if m.mode == MODE_TLB_ONLY:
        return DONE
    if size == 0:
        size = 1 << v.guest.entry_shift
    if size != 4 and size != 8 or address & <uint64_t>(size - 1):
        return DONE_BAD_SIZE
    if m.mode == MODE_NESTED:
        if walk(&v.host, address, ACCESS_ANY | ACCESS_TABLE | ACCESS_PURE, &w, NULL):
            return DONE_OUTSIDE
        pa = w.pa
    if pm_frame(m.mem, pa) == NULL:
        return DONE_OUTSIDE
    # the host is little-endian like the guest, or its build would have refused
    if pm_write(m.mem, pa, size, <const uint8_t *>&value) != PM_OK:
        return DONE_NO_MEMORY
    return DONE


cdef done_t vcpu_switch(mmu_t *m, int vcpu, uint32_t core) noexcept nogil:
    """The vCPU goes on on another core."""
    if core >= <uint32_t>m.core_count:
        return DONE_BAD_CORE
    m.vcpus[vcpu].core = <int>core
    return DONE


cdef done_t vm_switch(
    mmu_t *m, int vcpu, uint32_t vpid, uint64_t cr3, uint64_t root
) noexcept nogil:
    """The vCPU becomes one of another VM: VPID, guest CR3, nested root. Drops nothing itself."""
    cdef vcpu_t *v = &m.vcpus[vcpu]
    if vpid > 0xFFFF:
        return DONE_BAD_VCPU
    if m.mode != MODE_TLB_ONLY and not root_fits(v, cr3 & ~NX):
        return DONE_BAD_ROOT
    if m.mode == MODE_NESTED:
        if root & ~<uint64_t>0xFFF & ~v.host.table_address:
            return DONE_BAD_ROOT
        v.host.root = v.ep4ta = root & v.host.table_address
    v.vpid = <uint16_t>vpid
    load_root(v, cr3 & ~NX)
    return set_contexts(m, v)
