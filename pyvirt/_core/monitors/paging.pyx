"""The guest's paging through shadow or nested tables (`pyvirt._core.shadow`).

The processor's look-aside is the TLB of those tables: it is emptied whenever the shadow MMU asks for
a flush. A fault that the tables cause is dealt with at once, inside the access that made it, which
is what running the instruction again comes to. Without paging a guest's addresses are physical: a
shadow MMU has nothing to do (its identity map is made once), nested tables are used all the same.
"""

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.frames cimport pm_lock, pm_unlock
from pyvirt._core.interp.cpu cimport (
    CR0_PG,
    CR4_PAE,
    EVENT_EXIT,
    EVENT_FAULT,
    EXIT_NO_MEMORY,
    X_PF,
    cpu_t,
)
from pyvirt._core.interp.memory cimport flush
from pyvirt._core.monitors.state cimport (
    E_PAGE_TABLE_UPDATE,
    PAGING_NESTED,
    monitor_t,
)
from pyvirt._core.paging cimport ACCESS_EXEC, ACCESS_WRITE
from pyvirt._core.shadow.access cimport (
    DONE,
    DONE_EMULATED,
    DONE_MMIO,
    DONE_NO_ROOM,
    DONE_OUTSIDE_TABLE,
    DONE_REFUSED,
    DONE_RESTART,
    KIND_FETCH,
    KIND_LOAD,
    KIND_STORE,
    access,
    done_t,
    nested_page,
)
from pyvirt._core.shadow.cpu cimport invlpg, mov_cr0, mov_cr3, mov_cr4, set_registers
from pyvirt._core.shadow.roots cimport enter, forget_all
from pyvirt._core.shadow.state cimport (
    FRAME_SHIFT,
    MAX_RESTARTS,
    REQUEST_GUEST_FLUSH,
    REQUEST_ROOT,
    hyper_t,
    mark_dirty,
    shadows,
)
from pyvirt._core.shadow.writes cimport table_written
from pyvirt._core.shadow.zap cimport zap_all


cdef enum:
    NOTHING = 0xFFFFFFFF            # no page number is that


cdef bint no_memory(cpu_t *c) noexcept nogil:
    c.event |= EVENT_EXIT
    c.exit_reason = EXIT_NO_MEMORY
    return False


cdef bint page_fault(cpu_t *c, uint32_t linear, uint32_t error) noexcept nogil:
    c.cr2 = linear
    c.event |= EVENT_FAULT
    c.fault_vector = X_PF
    c.fault_code = 1
    c.fault_error = error
    return False


cdef bint serve(monitor_t *m) noexcept nogil:
    """Do what is due before the guest runs on its tables; False: there is no room for a root."""
    if not m.v.requests:
        return True
    flush(m.c)
    return enter(m.h, m.v)


cdef done_t physical(monitor_t *m, uint64_t gpa, bint write) noexcept nogil:
    """A guest-physical access, which nested tables have to map."""
    cdef uint32_t _restarts
    cdef done_t done = DONE_RESTART
    for _restarts in range(MAX_RESTARTS):
        done = nested_page(m.tables[0], &m.tables[0].cpus[0], gpa, write)
        if done != DONE_RESTART:
            break
    return done


cdef bint translate(
    void *monitor, cpu_t *c, uint32_t linear, uint32_t asked, uint32_t user, uint64_t *pa,
    uint32_t *watched
) noexcept nogil:
    """See `translate_t` of pyvirt._core.interp.cpu."""
    cdef monitor_t *m = <monitor_t *>monitor
    cdef uint32_t _restarts
    cdef bint write = asked & ACCESS_WRITE
    cdef int kind = KIND_STORE if write else KIND_FETCH if asked & ACCESS_EXEC else KIND_LOAD
    cdef done_t done = DONE_RESTART
    pa[0] = linear
    if not m.paged:
        if m.paging != PAGING_NESTED:
            return True
        pm_lock(c.memory)
        done = physical(m, linear, write)
        pm_unlock(c.memory)
        return True if done == DONE or done == DONE_MMIO else no_memory(c)
    if (write and m.checked_page == linear >> 12 and m.checked_eip == c.eip
            and m.checked_time == c.tsc):
        # found to be the monitor's to emulate when it was checked, before the write itself
        pa[0] = m.checked_pa | (linear & 4095)
        watched[0] = 1
        return True
    if m.lost:
        done = DONE_OUTSIDE_TABLE
    else:
        pm_lock(c.memory)
        for _restarts in range(MAX_RESTARTS):
            if not serve(m):
                done = DONE_NO_ROOM
                break
            done = access(m.h, m.v, linear, kind, user, pa)
            if done != DONE_RESTART:
                break
        if done < DONE_OUTSIDE_TABLE and not serve(m):
            done = DONE_NO_ROOM
        pm_unlock(c.memory)
    if done == DONE or done == DONE_MMIO:
        return True
    if done == DONE_EMULATED:
        watched[0] = 1
        m.checked_page = linear >> 12
        m.checked_eip = c.eip
        m.checked_time = c.tsc
        m.checked_pa = pa[0] & ~<uint64_t>4095
        return True
    if done == DONE_REFUSED:
        return page_fault(c, linear, <uint32_t>m.v.error)
    if done == DONE_OUTSIDE_TABLE:
        # such a table reads as ones: present, with reserved bits
        return page_fault(c, linear, 9 | (2 if write else 0) | (4 if user else 0))
    return no_memory(c)


cdef void after_write(void *monitor, cpu_t *c, uint64_t pa, uint32_t n) noexcept nogil:
    """A write to a table whose shadow must follow."""
    cdef monitor_t *m = <monitor_t *>monitor
    m.events[E_PAGE_TABLE_UPDATE] += 1
    m.checked_page = NOTHING
    pm_lock(c.memory)
    mark_dirty(m.h, pa >> FRAME_SHIFT)
    table_written(m.h, m.v, pa, n)
    if not serve(m):
        no_memory(c)
    pm_unlock(c.memory)


cdef void attach_paging(monitor_t *m) noexcept nogil:
    """Have the processor translate through `tables`."""
    m.h = m.tables[0]
    m.v = &m.h.cpus[0]
    m.checked_page = NOTHING
    m.c.translate = translate
    m.c.after_write = after_write
    m.c.monitor = m
    flush(m.c)


cdef void begin(monitor_t *m, uint32_t cr0, uint32_t cr4) noexcept nogil:
    """Paging begins, or goes on in another format."""
    m.v.cr0 = cr0
    m.v.cr4 = cr4
    set_registers(m.h, m.v)
    if shadows(m.h):
        forget_all(m.h, m.v)
        m.v.requests |= REQUEST_GUEST_FLUSH


cdef void guest_registers(
    monitor_t *m, uint32_t cr0, uint32_t cr3, uint32_t cr4
) noexcept nogil:
    """The guest has written one of these registers, and now they are so.

    Where neither CR0 nor CR4 is another, it was CR3, perhaps with the value that it had.
    """
    cdef uint64_t loads
    cdef uint32_t _restarts
    cdef done_t done = DONE_RESTART
    cdef hyper_t *h
    cdef bint fresh
    m.guest.cr0 = cr0
    m.guest.cr3 = cr3
    m.guest.cr4 = cr4
    if m.tables[0] == NULL:
        return
    if not cr0 & CR0_PG:
        if m.paged:
            flush(m.c)
        m.paged = 0
        return
    pm_lock(m.c.memory)
    h = m.tables[1 if cr4 & CR4_PAE else 0]
    fresh = not m.paged or h != m.h
    m.h = h
    m.v = &h.cpus[0]
    m.paged = 1
    if fresh:
        begin(m, cr0, cr4)
    elif m.v.cr0 != cr0 or m.v.cr4 != cr4:
        if m.v.cr0 != cr0:
            mov_cr0(h, m.v, cr0)
        if m.v.cr4 != cr4:
            mov_cr4(h, m.v, cr4)
        pm_unlock(m.c.memory)
        return
    loads = h.counters.x_cr3_write
    for _restarts in range(MAX_RESTARTS):
        done = mov_cr3(h, m.v, cr3)
        if done != DONE_RESTART:    # the PDPTEs of a PAE guest, which nested tables did not map
            break
    m.lost = done != DONE
    if fresh:
        h.counters.x_cr3_write = loads
    pm_unlock(m.c.memory)


cdef void memory_changed(monitor_t *m) noexcept nogil:
    """Somebody else wrote the guest's memory: shadow tables begin anew."""
    cdef uint32_t i
    cdef hyper_t *h
    for i in range(2):
        h = m.tables[i]
        if h != NULL and shadows(h):
            pm_lock(m.c.memory)
            forget_all(h, &h.cpus[0])
            zap_all(h)
            h.cpus[0].requests |= REQUEST_GUEST_FLUSH | REQUEST_ROOT
            pm_unlock(m.c.memory)


cdef void guest_invlpg(monitor_t *m, uint32_t linear) noexcept nogil:
    """The guest has forgotten the translation of an address."""
    if m.tables[0] == NULL or not m.paged:
        return
    pm_lock(m.c.memory)
    invlpg(m.h, m.v, linear)
    pm_unlock(m.c.memory)
