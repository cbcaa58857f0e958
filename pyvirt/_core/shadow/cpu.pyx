"""What a vCPU does, event by event: accesses with their data, and what makes it exit."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from pyvirt._core.events cimport (
    EVENT_FETCH,
    EVENT_INVLPG,
    EVENT_INVPCID,
    EVENT_IO,
    EVENT_LOAD,
    EVENT_MODIFY,
    EVENT_MOV_CR0,
    EVENT_MOV_CR3,
    EVENT_MOV_CR4,
    EVENT_NOP,
    EVENT_STORE,
    EVENT_STORE_TABLE,
    EVENT_VM_ENTRY,
    EVENT_VM_EXIT,
    event_t,
)
from pyvirt._core.frames cimport PM_OK, pm_frame, pm_owned, pm_status, pm_writable
from pyvirt._core.paging cimport FORMAT_PAE, FORMAT_X86_32, in_range
from pyvirt._core.shadow.access cimport (
    DONE,
    DONE_BAD_INSTRUCTION,
    DONE_BAD_OP,
    DONE_BAD_PCID,
    DONE_BAD_PDPTE,
    DONE_BAD_ROOT,
    DONE_BAD_SIZE,
    DONE_BAD_VALUE,
    DONE_BAD_VCPU,
    DONE_DOUBLE_FAULT,
    DONE_EMULATED,
    DONE_LIVELOCK,
    DONE_MMIO,
    DONE_NO_MEMORY,
    DONE_NO_ROOM,
    DONE_OUTSIDE,
    DONE_OUTSIDE_TABLE,
    DONE_REFUSED,
    DONE_RESTART,
    DONE_SKIPPED,
    FIRST_ERROR,
    KIND_FETCH,
    KIND_LOAD,
    KIND_STORE,
    access,
    done_t,
    nested_page,
    set_checks,
)
from pyvirt._core.shadow.agile cimport end_interval, root_is_cached
from pyvirt._core.shadow.dirty cimport empty_pml
from pyvirt._core.shadow.faults cimport invalidate, write_traps
from pyvirt._core.shadow.front cimport (
    front_cr3,
    front_invlpg,
    front_registers,
    front_root,
    front_shoot_down,
    front_split,
)
from pyvirt._core.shadow.pcid cimport PCID_MASK, flush_pcid, invpcid
from pyvirt._core.shadow.quadrants cimport (
    PDPTES_CHANGED,
    PDPTES_OUTSIDE,
    PDPTES_RESERVED,
    load_pdptes,
    pdptes_t,
)
from pyvirt._core.shadow.roots cimport enter, forget_all, forget_current, switch_root
from pyvirt._core.shadow.state cimport (
    FRAME_SHIFT,
    INSTRUCTION_EVENTS,
    MAX_RESTARTS,
    MODE_NATIVE,
    REQUEST_FLUSH,
    REQUEST_GUEST_FLUSH,
    ROLE_4_BYTE,
    ROLE_NX,
    ROLE_PSE,
    ROLE_SMAP,
    ROLE_SMEP,
    ROLE_WP,
    cpu_t,
    hyper_t,
    in_slot,
    mark_dirty,
    note_store,
    shadows,
)
from pyvirt._core.shadow.sync cimport evict_unsync
from pyvirt._core.shadow.unsync cimport may_write
from pyvirt._core.shadow.writes cimport table_written
from pyvirt._core.shadow.zap cimport zap_all

cdef uint64_t CR0_WP = 1 << 16
cdef uint64_t CR0_CACHES = 3 << 29            # NW, CD
cdef uint64_t CR0_PE_PG = (<uint64_t>1 << 31) | 1
cdef uint64_t CR3_NO_FLUSH = <uint64_t>1 << 63
cdef uint64_t CR4_PSE = 1 << 4
cdef uint64_t CR4_PAE = 1 << 5
cdef uint64_t CR4_PGE = 1 << 7
cdef uint64_t CR4_LA57 = 1 << 12
cdef uint64_t CR4_PCIDE = 1 << 17
cdef uint64_t CR4_SMEP = 1 << 20
cdef uint64_t CR4_SMAP = 1 << 21
cdef uint64_t CR4_KEYS = (1 << 22) | (1 << 24)


# --- registers --------------------------------------------------------------------------------

cdef void set_registers(hyper_t *s, cpu_t *v) noexcept nogil:
    """Follow the control registers: rights of the guest's walk, role of pages, checks."""
    v.guest.wp = (v.cr0 & CR0_WP) != 0
    v.guest.smep = (v.cr4 & CR4_SMEP) != 0
    v.guest.smap = (v.cr4 & CR4_SMAP) != 0
    v.guest.root = v.cr3 & v.guest.table_address
    v.pcid_mask = PCID_MASK if v.cr4 & CR4_PCIDE else 0
    if v.guest.format == FORMAT_X86_32:
        v.guest.level[2].may_map = (v.cr4 & CR4_PSE) != 0
        v.role = ROLE_4_BYTE | (ROLE_PSE if v.guest.level[2].may_map else 0)
    else:
        v.role = 0
    v.role |= ROLE_WP if v.guest.wp else 0
    if v.guest.nxe:
        v.role |= ROLE_NX
    if not v.guest.wp:
        v.role |= (ROLE_SMEP if v.guest.smep else 0) | (ROLE_SMAP if v.guest.smap else 0)
    set_checks(s, v)


cdef inline void exit_for(hyper_t *s, cpu_t *v, uint64_t *reason) noexcept nogil:
    """Exit, if there is a hypervisor to exit to."""
    if s.mode != MODE_NATIVE:
        reason[0] += 1
        empty_pml(s, v)


cdef done_t reload_pdptes(hyper_t *s, cpu_t *v, uint64_t cr3) noexcept nogil:
    """Load a PAE guest's PDPTEs; other ones than before make other roots."""
    cdef pdptes_t loaded = load_pdptes(s, v, cr3)
    if loaded == PDPTES_RESERVED:
        return DONE_BAD_PDPTE
    if loaded == PDPTES_OUTSIDE:
        return DONE_OUTSIDE_TABLE
    if loaded == PDPTES_CHANGED and shadows(s):
        forget_current(s, v)
    return DONE


cdef done_t mov_cr3(hyper_t *s, cpu_t *v, uint64_t value) noexcept nogil:
    """Another root, or the same again: its tables are synced before the next entry.

    With PCIDs, bit 63 says that they need not be.
    """
    cdef bint flush = not (v.pcid_mask and value & CR3_NO_FLUSH), other
    cdef done_t done
    if v.pcid_mask:
        value &= ~CR3_NO_FLUSH
    elif value & CR3_NO_FLUSH:
        return DONE_BAD_PCID
    other = value != v.cr3
    if (not in_slot(s, (value & v.guest.table_address) >> FRAME_SHIFT)
            or (v.quartered and value >> 32)):
        return DONE_BAD_ROOT
    if v.guest.format == FORMAT_PAE:
        if not shadows(s):
            # the processor reads them itself; these reads are no writes (SDM 30.3.5)
            done = nested_page(s, v, value & ~<uint64_t>31, False)
            if done != DONE:
                return done
        done = reload_pdptes(s, v, value)
        if done != DONE:
            return done
    v.cr3 = value
    v.guest.root = value & v.guest.table_address
    if s.tables != NULL and s.agile.root_cache and root_is_cached(s, v, value):
        s.counters.agile_root_hits += 1
        switch_root(s, v, value)
        front_cr3(s, v, not flush)
        front_root(s, v)
        return DONE
    if not shadows(s):
        if s.front != NULL:
            front_cr3(s, v, not flush)
        return DONE
    s.counters.x_cr3_write += 1
    if not s.rules.keep_pages:
        forget_all(s, v)
        zap_all(s)
    elif other:
        switch_root(s, v, value)
    if flush:
        flush_pcid(s, v, value & v.pcid_mask)
    elif s.front != NULL:
        front_root(s, v)            # there may be nothing else to do before the next entry
    return DONE


cdef done_t mov_cr0(hyper_t *s, cpu_t *v, uint64_t value) noexcept nogil:
    cdef uint64_t changed = v.cr0 ^ value
    cdef done_t done
    if value & CR0_PE_PG != CR0_PE_PG or value >> 32:
        return DONE_BAD_VALUE
    if v.guest.format == FORMAT_PAE and changed & CR0_CACHES:
        done = reload_pdptes(s, v, v.cr3)
        if done != DONE:
            return done
    exit_for(s, v, &s.counters.x_cr0)
    v.cr0 = value
    if changed & CR0_WP:
        set_registers(s, v)
        if s.front != NULL:
            front_registers(s, v, True)
        if shadows(s):
            forget_all(s, v)
    return DONE


cdef done_t mov_cr4(hyper_t *s, cpu_t *v, uint64_t value) noexcept nogil:
    cdef uint64_t changed = v.cr4 ^ value
    cdef done_t done
    if changed & (CR4_PAE | CR4_LA57 | CR4_KEYS) or value >> 32:
        return DONE_BAD_VALUE
    if changed & value & CR4_PCIDE and (v.cr3 & PCID_MASK or v.quartered):
        return DONE_BAD_PCID
    if v.guest.format == FORMAT_PAE and changed & (CR4_PGE | CR4_PSE | CR4_SMEP):
        done = reload_pdptes(s, v, v.cr3)       # SDM vol. 3, 4.4.1
        if done != DONE:
            return done
    exit_for(s, v, &s.counters.x_cr4)
    v.cr4 = value
    if changed & (CR4_SMEP | CR4_SMAP | CR4_PSE | CR4_PCIDE):
        set_registers(s, v)
        # roots known without PCIDs must not be taken for some of PCID 0
        if (shadows(s)
                and changed & (CR4_SMEP | CR4_SMAP | CR4_PSE | value & CR4_PCIDE)):
            forget_all(s, v)
    if s.front != NULL and changed & (CR4_SMEP | CR4_SMAP | CR4_PGE | CR4_PCIDE):
        front_registers(s, v, False)
    if shadows(s):
        if changed & (CR4_PGE | ~value & CR4_PCIDE):
            v.requests |= REQUEST_GUEST_FLUSH
        elif changed & value & CR4_SMEP:
            v.requests |= REQUEST_FLUSH
    return DONE


cdef void invlpg(hyper_t *s, cpu_t *v, uint64_t va) noexcept nogil:
    if not shadows(s) or v.root.nested:
        if s.front != NULL:
            front_invlpg(s, v, va)
        return
    s.counters.x_invlpg += 1
    s.counters.invlpg += 1
    if in_range(&v.guest, va):
        invalidate(s, v, va, True)


# --- data -------------------------------------------------------------------------------------

cdef inline uint64_t load(const hyper_t *s, uint64_t gpa, uint32_t size) noexcept nogil:
    """Bytes of memory within one frame; zeros where there is none."""
    cdef uint64_t value = 0
    cdef const uint8_t *frame = pm_frame(s.mem, gpa)
    if frame != NULL:
        if size == 8:
            memcpy(&value, frame + (gpa & 0xFFF), 8)
        else:
            memcpy(&value, frame + (gpa & 0xFFF), size)
    return value


cdef inline bint store(hyper_t *s, uint64_t gpa, uint32_t size, uint64_t value) noexcept nogil:
    cdef uint8_t *frame = pm_owned(s.mem, gpa)
    cdef pm_status status
    if frame == NULL:
        frame = pm_writable(s.mem, gpa, &status)
        if status != PM_OK:
            return False
    s.mem.version += 1
    if size == 8:
        memcpy(frame + (gpa & 0xFFF), &value, 8)
    else:
        memcpy(frame + (gpa & 0xFFF), &value, size)
    return True


cdef inline uint64_t value_of(const cpu_t *v, const event_t *e) noexcept nogil:
    cdef uint32_t kind = (e.arg & ARG_VALUE_MASK) >> ARG_VALUE_SHIFT
    if kind == VALUE_GIVEN:
        return e.value
    if kind == VALUE_LOADED:
        return v.accumulator
    if kind == VALUE_AND:
        return v.accumulator & e.value
    if kind == VALUE_OR:
        return v.accumulator | e.value
    if kind == VALUE_MOVE:
        return (v.accumulator & ~<uint64_t>0x000FFFFFFFFFF000ULL) | e.value
    return e.value | v.error


cdef done_t transfer(
    hyper_t *s, cpu_t *v, const event_t *e, uint64_t gpa, uint32_t size, done_t done
) noexcept nogil:
    """Move the data of an access that is allowed; `done` says who does it."""
    if (e.op == EVENT_LOAD or e.op == EVENT_MODIFY) and not e.arg & ARG_KEEP:
        v.accumulator = load(s, gpa, min(size, 8))
    if e.op == EVENT_LOAD:
        return done
    if e.arg & ARG_VALUE_MASK and done != DONE_MMIO:
        if not store(s, gpa, size, value_of(v, e)):
            return DONE_NO_MEMORY
        if done == DONE:
            note_store(s, gpa >> FRAME_SHIFT)
    if done == DONE_EMULATED:
        mark_dirty(s, gpa >> FRAME_SHIFT)
        table_written(s, v, gpa, size)
    return done


cdef done_t crossing(
    hyper_t *s, cpu_t *v, const event_t *e, int kind, uint32_t size
) noexcept nogil:
    """An access that crosses a page: both parts are allowed before either moves data."""
    cdef uint32_t first = 4096 - <uint32_t>(e.addr & 0xFFF)
    cdef bint user = e.arg & ARG_USER
    cdef uint64_t gpa = 0, next = 0, value
    cdef done_t done, other
    if e.arg & ARG_VALUE_MASK and size > 8:
        return DONE_BAD_SIZE
    if s.front != NULL:
        front_split(s, v)
    done = access(s, v, e.addr, kind, user, &gpa)
    if done == DONE_RESTART or done == DONE_REFUSED or done >= FIRST_ERROR:
        return done
    other = access(s, v, e.addr + first, kind, user, &next)
    if other == DONE_RESTART or other == DONE_REFUSED or other >= FIRST_ERROR:
        return other
    if (size <= 8 and (e.op == EVENT_LOAD or e.op == EVENT_MODIFY)
            and not e.arg & ARG_KEEP):
        v.accumulator = (load(s, gpa, first)
                         | load(s, next, size - first) << 8 * first)
    if kind == KIND_STORE:
        if e.arg & ARG_VALUE_MASK:
            value = value_of(v, e)
            if done != DONE_MMIO and not store(s, gpa, first, value):
                return DONE_NO_MEMORY
            if other != DONE_MMIO and not store(s, next, size - first, value >> 8 * first):
                return DONE_NO_MEMORY
        if done == DONE_EMULATED:
            mark_dirty(s, gpa >> FRAME_SHIFT)
            table_written(s, v, gpa, first)
        if other == DONE_EMULATED:
            mark_dirty(s, next >> FRAME_SHIFT)
            table_written(s, v, next, size - first)
    return done if done else other


cdef inline done_t touch(hyper_t *s, cpu_t *v, const event_t *e, int kind) noexcept nogil:
    """A fetch, load, store, or both."""
    cdef uint32_t size = e.size if e.size else 8
    cdef uint64_t gpa
    cdef done_t done
    s.counters.accesses += 1
    if e.size and (e.addr & 0xFFF) + size > 4096:
        return crossing(s, v, e, kind, size)
    if e.arg & ARG_VALUE_MASK and kind == KIND_STORE:
        if size > 8 or (e.addr & 0xFFF) + size > 4096:
            return DONE_BAD_SIZE
    done = access(s, v, e.addr, kind, e.arg & ARG_USER, &gpa)
    if done == DONE or done == DONE_EMULATED or done == DONE_MMIO:
        if kind != KIND_FETCH:
            if e.size == 0 and not e.arg & ARG_VALUE_MASK:
                gpa &= ~<uint64_t>7             # not known: as if it were one aligned word
            return transfer(s, v, e, gpa, size, done)
    return done


cdef done_t store_table(hyper_t *s, cpu_t *v, const event_t *e) noexcept nogil:
    """A store by guest-physical address, as if through a mapping of all memory that is in use.

    It exits only where the frame holds a table whose shadow is in step, or is clean in the log.
    """
    cdef uint32_t size = e.size if e.size else 8
    cdef uint64_t gfn = e.addr >> FRAME_SHIFT
    cdef bint traps = False, clean
    cdef done_t done
    if (size != 4 and size != 8) or e.addr & (size - 1):
        return DONE_BAD_SIZE
    if not in_slot(s, gfn):
        return DONE_OUTSIDE
    if not shadows(s):
        done = nested_page(s, v, e.addr, True)
        if done != DONE:
            return done
    else:
        traps = write_traps(s, gfn)
        clean = not traps and s.log[gfn >> 9] and not s.dirty[gfn >> 6] >> (gfn & 63) & 1
        s.counters.log_faults += clean
        if traps or clean or not may_write(s, gfn, True, True):
            s.counters.x_pf += 1
            s.counters.pf_taken += 1
            if traps:
                s.counters.pf_emulate += 1
            else:
                s.counters.pf_fixed += 1
                may_write(s, gfn, True, False)
                if s.rules.unsync_limit:
                    evict_unsync(s, v)
    if not store(s, e.addr, size, e.value):
        return DONE_NO_MEMORY
    mark_dirty(s, gfn)
    if s.tables != NULL and s.tables[gfn].nested:
        s.tables[gfn].written = True
        s.counters.agile_untrapped += 1
    if traps:
        table_written(s, v, e.addr, size)
    return DONE


# --- the stream -------------------------------------------------------------------------------

cdef inline done_t perform(hyper_t *s, cpu_t *v, const event_t *e) noexcept nogil:
    cdef uint32_t i
    if v.requests and not enter(s, v):
        return DONE_NO_ROOM
    if e.op == EVENT_LOAD:
        return touch(s, v, e, KIND_LOAD)
    if e.op == EVENT_STORE or e.op == EVENT_MODIFY:
        return touch(s, v, e, KIND_STORE)
    if e.op == EVENT_FETCH:
        return touch(s, v, e, KIND_FETCH)
    if e.op == EVENT_INVLPG:
        invlpg(s, v, e.addr)
        if e.arg & 1:
            if s.front != NULL:
                front_shoot_down(s, v)
            for i in range(s.cpu_count):
                if i != e.vcpu:
                    invlpg(s, &s.cpus[i], e.addr)
        return DONE
    if e.op == EVENT_INVPCID:
        return invpcid(s, v, e.arg & 0xFF, e.value, e.addr)
    if e.op == EVENT_MOV_CR3:
        return mov_cr3(s, v, e.value)
    if e.op == EVENT_MOV_CR0:
        return mov_cr0(s, v, e.value)
    if e.op == EVENT_MOV_CR4:
        return mov_cr4(s, v, e.value)
    if e.op == EVENT_STORE_TABLE:
        return store_table(s, v, e)
    if e.op == EVENT_IO:
        exit_for(s, v, &s.counters.x_io)
        return DONE
    if e.op == EVENT_VM_EXIT:
        exit_for(s, v, &s.counters.x_other)
        return DONE
    if e.op == EVENT_VM_ENTRY or e.op == EVENT_NOP:
        return DONE
    return DONE_BAD_OP


cdef done_t again(hyper_t *s, cpu_t *v) noexcept nogil:
    """Run the accesses of an instruction from its first after exits that were handled."""
    cdef uint32_t i, _restarts
    cdef done_t done = DONE_RESTART
    for _restarts in range(MAX_RESTARTS):
        for i in range(v.events):
            done = perform(s, v, &v.instruction[i])
            if done == DONE_RESTART or done == DONE_REFUSED or done >= FIRST_ERROR:
                break
        if done != DONE_RESTART:
            return done
    return DONE_LIVELOCK


cdef void tick(hyper_t *s, uint32_t vcpu) noexcept nogil:
    """Agile paging: one more event of an interval."""
    s.agile.running = vcpu
    if s.agile.length == 0:
        return
    if s.agile.left == 0:
        s.agile.left = s.agile.length
        end_interval(s)
    s.agile.left -= 1


cdef inline done_t step(hyper_t *s, const event_t *e) noexcept nogil:
    """Run one event, with the exits that it takes."""
    cdef cpu_t *v
    cdef done_t done
    if e.vcpu >= s.cpu_count:
        return DONE_BAD_VCPU
    v = &s.cpus[e.vcpu]
    if s.tables != NULL:
        tick(s, e.vcpu)
    if not e.arg & (ARG_CONTINUES | ARG_SAME | ARG_HANDLER):
        v.faulted = False
    elif v.faulted != ((e.arg & ARG_HANDLER) != 0):
        return DONE_SKIPPED
    if not e.arg & ARG_SAME:
        v.events = 0
    elif v.events == INSTRUCTION_EVENTS:
        return DONE_BAD_INSTRUCTION
    v.instruction[v.events] = e[0]
    v.events += 1
    done = perform(s, v, e)
    if done == DONE_RESTART:
        done = again(s, v)
    if done == DONE_REFUSED:
        if v.faulted:
            return DONE_DOUBLE_FAULT
        v.faulted = True
    return done


cdef done_t run(
    hyper_t *s, const event_t *events, uint64_t n, uint16_t *codes, uint64_t *values, bint stop,
    uint64_t *count
) noexcept nogil:
    """Run events up to the end, the first that cannot be, or with `stop` a page fault."""
    cdef uint64_t i
    cdef done_t done = DONE
    for i in range(n):
        done = step(s, &events[i])
        if done >= FIRST_ERROR:
            count[0] = i
            return done
        if codes != NULL:
            codes[i] = <uint16_t>done
        if values != NULL:
            values[i] = 0
            if done == DONE_REFUSED:
                values[i] = s.cpus[events[i].vcpu].error
            elif done != DONE_SKIPPED and (events[i].op == EVENT_LOAD
                                           or events[i].op == EVENT_MODIFY):
                values[i] = s.cpus[events[i].vcpu].accumulator
        if done == DONE_REFUSED and stop:
            count[0] = i + 1
            return DONE_REFUSED
    count[0] = n
    return DONE
