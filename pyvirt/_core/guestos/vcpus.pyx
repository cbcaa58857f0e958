"""Virtual processors: how they enter the kernel and leave it, what CR3 holds, and flushes.

After Linux 6.1: arch/x86/entry/entry_64.S and calling.h (entries, isolation), arch/x86/mm/tlb.c
(address-space numbers, their reuse, flushes).
"""

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.events cimport (
    EVENT_INVLPG,
    EVENT_LOAD,
    EVENT_MOV_CR3,
    EVENT_STORE,
    EVENT_VM_EXIT,
)
from pyvirt._core.guestos.emit cimport emit, kernel_fetch, kernel_load, kernel_store
from pyvirt._core.guestos.state cimport NOTHING, vcpu_t
from pyvirt._core.guestos.tables cimport ENTRY_AREA, IMAGE_VA, span
from pyvirt._core.shadow.cpu cimport ARG_KEEP, ARG_SAME

cdef enum:
    PAGE_FAULT = 14
    TIMER = 0xEC                    # LOCAL_TIMER_VECTOR
    TSS_AT = 4096 + 2048            # in an entry area: the stack ends where the task state begins
    USER_PCID = 1 << 11             # X86_CR3_PTI_PCID_USER_BIT
    TEXT_STEP = 0x1240              # between functions of the kernel that are fetched

cdef uint64_t NO_FLUSH = <uint64_t>1 << 63


# --- CR3 --------------------------------------------------------------------------------------

cdef uint64_t cr3_of(const guest_t *g, uint32_t cpu, bint user) noexcept nogil:
    """CR3 for the space that is current, without bit 63."""
    cdef const vcpu_t *v = &g.cpus[cpu]
    cdef uint64_t value
    if v.current == NOTHING:
        return g.boot_root
    value = g.procs[v.current].root
    if user:
        value += 4096
    if g.rules.pcid:
        value |= v.asid + 1
        if user:
            value |= USER_PCID
    return value


cdef uint64_t loaded_cr3(const guest_t *g, uint32_t cpu) noexcept nogil:
    return cr3_of(g, cpu, g.cpus[cpu].user)


cdef void load_space(guest_t *g, uint32_t pid) noexcept nogil:
    """Make a process's space current on the vCPU that acts, in the kernel."""
    cdef vcpu_t *v = &g.cpus[g.cpu]
    cdef proc_t *p
    cdef uint32_t i
    cdef bint stale = True
    if v.current != NOTHING:
        g.procs[v.current].cpus &= ~(<uint64_t>1 << g.cpu)
    v.current = pid
    if pid == NOTHING:
        # its pages never change, so that its entries are kept
        emit(g, EVENT_MOV_CR3, 0, 0, 0, g.boot_root | (NO_FLUSH if g.rules.pcid else 0))
        return
    p = &g.procs[pid]
    p.cpus |= <uint64_t>1 << g.cpu
    if g.rules.pcid:
        i = 0
        while i < g.rules.asids and v.context[i] != p.context:
            i += 1
        if i < g.rules.asids:
            stale = v.generation[i] != p.generation
        else:
            i = v.next_asid
            v.next_asid = (i + 1) % g.rules.asids
            v.context[i] = p.context
        v.asid = i
        v.generation[i] = p.generation
        if stale and g.rules.isolation:
            v.user_stale |= <uint64_t>1 << i
    emit(g, EVENT_MOV_CR3, 0, 0, 0,
         cr3_of(g, g.cpu, False) | (NO_FLUSH if g.rules.pcid and not stale else 0))


# --- kernel entries ---------------------------------------------------------------------------

cdef uint64_t stack_of(const guest_t *g) noexcept nogil:
    """Where the stack of the kernel ends that the vCPU uses; it is in the direct map."""
    cdef const vcpu_t *v = &g.cpus[g.cpu]
    if v.current == NOTHING:
        return v.data + 4096
    return g.procs[v.current].object + 4096


cdef void deliver(guest_t *g, uint64_t vector) noexcept nogil:
    """What the processor accesses: gate, code segment, stack pointer, and six words pushed."""
    cdef uint64_t entry = g.cpus[g.cpu].entry
    cdef uint64_t i
    emit(g, EVENT_LOAD, 8, ARG_KEEP, ENTRY_AREA + 16 * vector, 0)
    emit(g, EVENT_LOAD, 8, ARG_KEEP | ARG_SAME, ENTRY_AREA + 16 * vector + 8, 0)
    emit(g, EVENT_LOAD, 8, ARG_KEEP | ARG_SAME, entry + 0x10, 0)
    emit(g, EVENT_LOAD, 8, ARG_KEEP | ARG_SAME, entry + TSS_AT + 8, 0)
    for i in range(1, 7):
        emit(g, EVENT_STORE, 8, ARG_SAME, entry + TSS_AT - 8 * i, 0)


cdef void enter_kernel(guest_t *g, cause_t cause) noexcept nogil:
    """Delivery, the kernel's root with isolation, and the registers saved."""
    cdef vcpu_t *v = &g.cpus[g.cpu]
    cdef uint64_t stack, i
    if cause == CAUSE_INTERRUPT:
        emit(g, EVENT_VM_EXIT, 0, 0, 0, 0)
    if cause != CAUSE_SYSCALL and g.rules.delivery:
        deliver(g, PAGE_FAULT if cause == CAUSE_FAULT else TIMER)
    kernel_fetch(g, IMAGE_VA + span(2) + 64 * <uint64_t>cause)
    if v.user:
        v.user = False
        emit(g, EVENT_MOV_CR3, 0, 0, 0,
             cr3_of(g, g.cpu, False) | (NO_FLUSH if g.rules.pcid else 0))
    stack = stack_of(g)
    for i in range(g.rules.registers):
        kernel_store(g, stack - 56 - 8 * i)
    kernel_fetch(g, IMAGE_VA + TEXT_STEP * (1 + <uint64_t>cause))


cdef void leave_kernel(guest_t *g, cause_t cause) noexcept nogil:
    """The same back; the user's root is loaded, if that is another."""
    cdef vcpu_t *v = &g.cpus[g.cpu]
    cdef uint64_t stack = stack_of(g), bit, i
    for i in range(g.rules.registers, 0, -1):
        kernel_load(g, stack - 48 - 8 * i)
    if g.rules.isolation and v.current != NOTHING:
        bit = <uint64_t>1 << v.asid
        v.user = True
        emit(g, EVENT_MOV_CR3, 0, 0, 0, cr3_of(g, g.cpu, True)
             | (NO_FLUSH if g.rules.pcid and not v.user_stale & bit else 0))
        v.user_stale &= ~bit
    if cause != CAUSE_SYSCALL and g.rules.delivery:
        for i in range(5, 0, -1):
            emit(g, EVENT_LOAD, 8, ARG_KEEP | (ARG_SAME if i < 5 else 0),
                 v.entry + TSS_AT - 8 * i - 8, 0)


cdef void kernel_work(guest_t *g, uint32_t count) noexcept nogil:
    """Loads of kernel data: by turns of the process's records and of the vCPU's."""
    cdef const vcpu_t *v = &g.cpus[g.cpu]
    cdef uint64_t i, record = v.data
    if v.current != NOTHING:
        record = g.procs[v.current].object
    for i in range(count):
        kernel_load(g, (record if i & 1 == 0 else v.data) + 64 * (i >> 1 & 15))


# --- flushes ----------------------------------------------------------------------------------

cdef void flush_here(
    guest_t *g, proc_t *p, uint64_t start, uint64_t end, bint whole
) noexcept nogil:
    """On the vCPU that acts, where the space is current."""
    cdef vcpu_t *v = &g.cpus[g.cpu]
    if whole:
        g.counters.flushes += 1
        emit(g, EVENT_MOV_CR3, 0, 0, 0, cr3_of(g, g.cpu, False))
    else:
        while start < end:
            g.counters.page_flushes += 1
            emit(g, EVENT_INVLPG, 0, 0, start, 0)
            start += 4096
    if g.rules.pcid:
        v.generation[v.asid] = p.generation
        if g.rules.isolation:
            v.user_stale |= <uint64_t>1 << v.asid


cdef void interrupt_other(
    guest_t *g, uint32_t cpu, proc_t *p, uint64_t start, uint64_t end, bint whole
) noexcept nogil:
    """Another vCPU flushes in an interrupt that this one sends, with an exit of each."""
    cdef uint32_t own = g.cpu, handler = g.handler
    g.counters.shootdowns += 1
    emit(g, EVENT_VM_EXIT, 0, 0, 0, 0)
    g.cpu = cpu
    g.handler = 0
    enter_kernel(g, CAUSE_INTERRUPT)
    flush_here(g, p, start, end, whole)
    leave_kernel(g, CAUSE_INTERRUPT)
    g.cpu = own
    g.handler = handler


cdef void flush(guest_t *g, uint32_t pid, uint64_t start, uint64_t end, bint whole) noexcept nogil:
    """Flush pages of a space, or all of it, wherever it is current.

    Where it is not, its generation tells with the next switch that its entries are stale.
    """
    cdef proc_t *p = &g.procs[pid]
    cdef uint64_t others = p.cpus & ~(<uint64_t>1 << g.cpu)
    cdef uint32_t i
    p.generation += 1
    whole = whole or (end - start) >> 12 > g.rules.flush_ceiling
    if others and g.rules.broadcast and not whole and not g.rules.isolation:
        while start < end:
            g.counters.page_flushes += 1
            emit(g, EVENT_INVLPG, 0, 1, start, 0)
            start += 4096
        g.counters.shootdowns += 1
        for i in range(g.cpu_count):
            if p.cpus >> i & 1:
                g.cpus[i].generation[g.cpus[i].asid] = p.generation
        return
    if p.cpus >> g.cpu & 1:
        flush_here(g, p, start, end, whole)
    for i in range(g.cpu_count):
        if others >> i & 1:
            interrupt_other(g, i, p, start, end, whole)


# --- context switches -------------------------------------------------------------------------

cdef void switch_to(guest_t *g, uint32_t cpu, uint32_t pid, cause_t cause) noexcept nogil:
    """Run another process, or none, on a vCPU."""
    cdef uint32_t i
    g.cpu = cpu
    if g.cpus[cpu].current == pid:
        return
    g.counters.switches += 1
    enter_kernel(g, cause)
    kernel_work(g, g.rules.handler_loads)
    for i in range(6):                      # __switch_to_asm: six registers
        kernel_store(g, stack_of(g) - 512 - 8 * <uint64_t>i)
    load_space(g, pid)
    for i in range(6):
        kernel_load(g, stack_of(g) - 512 - 8 * <uint64_t>i)
    leave_kernel(g, cause)
