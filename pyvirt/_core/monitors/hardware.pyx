"""The hardware-assisted monitor: the guest runs on the processor itself until its controls say exit.

Controls and reasons are VMX's (SDM vol. 3, 24.6, 25.1 and appendix C). An instruction that faults
does so in the guest, without an exit (25.1.1). Interrupts are injected by the front of the bus;
page faults and violations of nested tables are dealt with in `paging`.
"""

from libc.stdint cimport uint32_t, uint64_t

from pyvirt._core.interp.blocks cimport find_block
from pyvirt._core.interp.cpu cimport (
    C_CACHE,
    C_CLTS_LMSW,
    C_CPUID,
    C_CR_READ,
    C_CR_WRITE,
    C_DR,
    C_HLT,
    C_IN,
    C_INVLPG,
    C_NONE,
    C_OUT,
    C_RDMSR,
    C_RDTSC,
    C_TABLE_LOAD,
    C_TABLE_STORE,
    C_WRMSR,
    COUNT_EXCEPTIONS,
    COUNT_RETIRED,
    EVENT_EXIT,
    EVENT_FAULT,
    EXIT_EXCEPTION,
    EXIT_INTERCEPT,
    EXIT_TRIPLE,
    F_IF,
    R_EDX,
    X_BP,
    X_DB,
    X_OF,
    X_PF,
    block_t,
    cpu_t,
    uop_t,
)
from pyvirt._core.interp.engine cimport emulate, loop
from pyvirt._core.interp.interrupts cimport BY_TRAP, deliver, deliver_fault
from pyvirt._core.interp.kinds cimport K_CLTS, K_IN, K_OUT
from pyvirt._core.interp.memory cimport address
from pyvirt._core.monitors.paging cimport guest_invlpg, guest_registers
from pyvirt._core.monitors.state cimport (
    BOOKED_VMM,
    E_CONTEXT_SWITCH,
    E_CPUID,
    E_EMULATED,
    E_EXCEPTION,
    E_HALT,
    E_INVLPG,
    E_IO,
    E_MSR,
    E_PAGE_FAULT,
    PAGING_SHADOW,
    X_REASON_CPUID,
    X_REASON_CR,
    X_REASON_DR,
    X_REASON_EXCEPTION,
    X_REASON_HLT,
    X_REASON_INVD,
    X_REASON_INVLPG,
    X_REASON_IO,
    X_REASON_RDMSR,
    X_REASON_RDTSC,
    X_REASON_SYSTEM_SEGMENT,
    X_REASON_TABLES,
    X_REASON_TRIPLE,
    X_REASON_WBINVD,
    X_REASON_WRMSR,
    monitor_t,
    route,
)

cdef enum:
    GAP = 4                     # instructions between two of a cluster, at most


cdef inline bint port_exits(const monitor_t *m, uint32_t port, uint32_t n) noexcept nogil:
    """The I/O bitmaps; an access that wraps around at FFFF exits (SDM vol. 3, 25.1.3)."""
    cdef uint32_t i
    if port + n > 0x10000:
        return True
    for i in range(port, port + n):
        if m.controls.ports[i >> 3] >> (i & 7) & 1:
            return True
    return False


cdef bint control_register_exits(const monitor_t *m, const uop_t *u) noexcept nogil:
    """CR0 and CR4 are the monitor's to watch; CR3 where its tables are not the guest's.

    Reads of CR0 and CR4 are answered from their shadows, CR2 is the guest's own, CLTS too.
    """
    if u.klass == C_CR_READ:
        return u.op == 3 and m.paging == PAGING_SHADOW
    if u.klass == C_CLTS_LMSW:
        return u.kind != K_CLTS
    if u.op == 3:
        return m.paging == PAGING_SHADOW
    return u.op != 2


cdef bint inject(monitor_t *m) noexcept nogil:
    """Hand the guest an exception that its controls gave to the monitor, as it is; False: the end.

    Of INT3, INTO and INT1 the instruction is executed: what they save is the address after it.
    """
    cdef cpu_t *c = m.c
    cdef uint32_t vector = c.exit_vector
    cdef bint done
    m.exits[X_REASON_EXCEPTION] += 1
    m.events[E_PAGE_FAULT if vector == X_PF else E_EXCEPTION] += 1
    c.exception_bitmap = 0
    if vector == X_BP or vector == X_OF or (vector == X_DB and c.event & EVENT_EXIT):
        done = emulate(c)
    elif vector == X_DB:
        # a single step, behind its instruction
        c.event = 0
        done = deliver(c, X_DB, BY_TRAP, 0, 0)
        c.counters[COUNT_EXCEPTIONS] += done
        done = done or (not c.event & EVENT_EXIT and deliver_fault(c))
    else:
        c.event = EVENT_FAULT
        c.fault_vector = vector
        c.fault_error = c.exit_error
        done = deliver_fault(c)
    c.exception_bitmap = m.controls.exceptions
    return done


cdef bint emulated(monitor_t *m, bint registers, uint32_t linear) noexcept nogil:
    """Emulate an instruction that may change translation, and follow it; False: the run ends.

    A single step behind it, and exceptions that the monitor asked for, come when that is done.
    """
    cdef cpu_t *c = m.c
    cdef uint64_t retired = c.counters[COUNT_RETIRED]
    cdef bint goes_on, asked
    c.exception_bitmap |= 1 << X_DB
    goes_on = emulate(c)
    asked = not goes_on and c.exit_reason == EXIT_EXCEPTION
    if c.counters[COUNT_RETIRED] != retired:
        if registers:
            guest_registers(m, c.cr0, c.cr3, c.cr4)
        else:
            guest_invlpg(m, linear)
    c.exception_bitmap = m.controls.exceptions
    if asked:
        goes_on = inject(m)
        if c.exit_vector == X_DB and not m.controls.exceptions >> X_DB & 1:
            m.exits[X_REASON_EXCEPTION] -= 1        # not one of its own
            m.events[E_EXCEPTION] -= 1
    return goes_on


cdef bint attend(monitor_t *m, const uop_t *u, bint counted) noexcept nogil:
    """Deal with one instruction that the controls name; False: the run ends.

    `counted`: with an exit of its own, else in that of the instruction before.
    """
    cdef cpu_t *c = m.c
    cdef uint32_t klass = u.klass, reason = X_REASON_CR, event = E_EMULATED, linear = 0
    cdef int booked = BOOKED_VMM
    cdef uint64_t retired = c.counters[COUNT_RETIRED]
    cdef bint goes_on, exits = True, registers = False
    if klass == C_IN or klass == C_OUT:
        linear = c.gpr[R_EDX] & 0xFFFF
        if (u.kind == K_IN or u.kind == K_OUT) and not u.op:
            linear = u.imm
        exits = port_exits(m, linear, u.size)
        booked = route(linear)
        reason = X_REASON_IO
        event = E_IO
    elif klass == C_CPUID:
        reason = X_REASON_CPUID
        event = E_CPUID
    elif klass == C_HLT:
        reason = X_REASON_HLT
        event = E_HALT
    elif klass == C_INVLPG:
        linear = c.seg[u.segment].base + address(c, u)
        reason = X_REASON_INVLPG
        event = E_INVLPG
    elif klass == C_CR_READ or klass == C_CR_WRITE or klass == C_CLTS_LMSW:
        exits = control_register_exits(m, u)
        registers = klass != C_CR_READ
        if klass == C_CR_WRITE and u.op == 3:
            event = E_CONTEXT_SWITCH
    elif klass == C_RDMSR or klass == C_WRMSR:
        reason = X_REASON_RDMSR if klass == C_RDMSR else X_REASON_WRMSR
        event = E_MSR
    elif klass == C_RDTSC:
        reason = X_REASON_RDTSC
    elif klass == C_DR:
        reason = X_REASON_DR
    elif klass == C_CACHE:
        reason = X_REASON_WBINVD if u.op else X_REASON_INVD
    elif klass == C_TABLE_LOAD or klass == C_TABLE_STORE:
        reason = X_REASON_TABLES
    else:
        reason = X_REASON_SYSTEM_SEGMENT
    if registers or klass == C_INVLPG:
        goes_on = emulated(m, registers, linear)
    else:
        goes_on = emulate(c)
        if not goes_on and c.exit_reason == EXIT_EXCEPTION:
            goes_on = inject(m)
    if c.counters[COUNT_RETIRED] == retired:
        return goes_on              # it faulted, in the guest
    if exits:
        if counted:
            m.exits[reason] += 1
        else:
            m.clustered += 1
        m.events[event] += 1
        m.booked[booked] += 1
    return goes_on


cdef bint cluster(monitor_t *m, uint64_t end) noexcept nogil:
    """Emulate the next instructions too if one of them is about to exit (Agesen et al., ATC 2012).

    Only as far as nothing else is due, and within a block; False: the run ends.
    """
    cdef cpu_t *c = m.c
    cdef block_t *b
    cdef uint32_t _i, n, left = m.controls.cluster
    cdef const uop_t *u
    cdef uint64_t retired
    while left:
        if c.halted or c.shadow or c.tsc >= end:
            return True
        if c.bus != NULL and (c.bus.stop or c.bus.next_event <= c.tsc
                              or (c.bus.line and c.eflags & F_IF)):
            return True
        c.event = 0
        b = find_block(c)
        if b == NULL:
            c.event = 0             # the guest finds it out by itself
            return True
        n = 0
        while n < b.count and n <= GAP and not m.controls.intercept >> b.first[n].klass & 1:
            n += 1
        if n == b.count or n > GAP or n >= left or end - c.tsc <= n:
            return True
        retired = c.counters[COUNT_RETIRED]
        for _i in range(n):
            if not emulate(c) and (c.exit_reason != EXIT_EXCEPTION or not inject(m)):
                return False
            m.booked[BOOKED_VMM] += c.counters[COUNT_RETIRED] - retired
            retired = c.counters[COUNT_RETIRED]
            if c.event:
                return True
            b = find_block(c)
            if b == NULL:
                c.event = 0
                return True
        u = b.first
        if not m.controls.intercept >> u.klass & 1:
            return True
        left -= n + 1
        if not attend(m, u, False):
            return False
    return True


cdef uint32_t run_hardware(monitor_t *m, uint64_t end) noexcept nogil:
    """Enter the guest until `end`, or until it ends: EXIT_."""
    cdef cpu_t *c = m.c
    cdef uint32_t reason
    cdef block_t *b
    c.intercept = m.controls.intercept & ~<uint32_t>(1 << C_NONE)
    c.exception_bitmap = m.controls.exceptions
    while True:
        reason = loop(c, end)
        if reason == EXIT_INTERCEPT:
            c.event = 0
            b = find_block(c)
            if b == NULL or not attend(m, b.first, True) or not cluster(m, end):
                return c.exit_reason
        elif reason == EXIT_EXCEPTION:
            if not inject(m):
                return c.exit_reason
        else:
            if reason == EXIT_TRIPLE:
                m.exits[X_REASON_TRIPLE] += 1
            return reason
