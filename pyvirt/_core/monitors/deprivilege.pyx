"""A deprivileged guest: its kernel at CPL 1, its tables in the monitor's, and the way between the views.

Levels 0 and 1 of the guest share level 1 of the processor (ring compression); 2 and 3 are
themselves. Descriptors of DPL 0 are held as DPL 1, CS and SS have the RPL that goes with it. The
processor's interrupt flag is always set and its IOPL 0, so CLI, STI, IN and OUT trap and POPF leaves
IF alone without a word (J. Robin and C. Irvine, USENIX Security 2000).

The shadow of a descriptor table is filled from the guest's when that is loaded, and then follows each
write: its pages are watched (K. Adams and O. Agesen, ASPLOS 2006, section 2.3: traces). What the
processor must not do on its own in a shadow makes it fault: setting an accessed bit, since the
window is read-only, and a call gate, whose selector is null there. A protection fault is then
settled by execution of the instruction in the guest's view, where it does what it does natively, its
own fault included.

One trace of this is in the guest's memory: what the processor reads of a descriptor table it reads in
the shadow, so the guest's page-table entry for that page may lack an accessed bit that it would have.

Time: an instruction that the monitor executes takes one cycle, as natively. The cycle that the
engine takes for the attempt is given back.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from pyvirt._core.frames cimport pm_frame, pm_lock, pm_unlock
from pyvirt._core.interp.blocks cimport find_block
from pyvirt._core.interp.bus cimport NO_VECTOR
from pyvirt._core.interp.cpu cimport *
from pyvirt._core.interp.engine cimport emulate, fetch_failed, loop
from pyvirt._core.interp.interrupts cimport BY_DEVICE, BY_TRAP, deliver, deliver_fault
from pyvirt._core.interp.kinds cimport K_IN, K_MOV_TO_CR, K_OUT
from pyvirt._core.interp.memory cimport address, flush
from pyvirt._core.interp.segments cimport set_cpl
from pyvirt._core.monitors.front cimport settle_front
from pyvirt._core.monitors.paging cimport guest_invlpg, guest_registers
from pyvirt._core.monitors.state cimport *
from pyvirt._core.paging cimport ACCESS_ANY, ACCESS_PURE, ACCESS_WRITE, walk, walk_t

cdef uint64_t NOWHERE = 0xFFFFFFFFFFFFFFFF
cdef uint32_t HOST_CR0 = 0x80050033         # what an operating system of the host sets
# selectors of the monitor's own system segments, in naive mode
cdef enum:
    HOST_LDT = 0xFFF0
    HOST_TASK = 0xFFF8
# what is settled by execution in the guest's view; the other exceptions are the guest's as they are
cdef enum:
    SETTLED = 1 << 7 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13


cdef inline host_t *host_of(const monitor_t *m) noexcept nogil:
    return <host_t *>m.host_tables


# --- shadows of descriptor tables -------------------------------------------------------------

cdef uint64_t frame_at(monitor_t *m, uint32_t linear) noexcept nogil:
    """The frame of a linear address in the guest's tables, without a trace in them; or NOWHERE."""
    cdef cpu_t *c = m.c
    cdef walk_t w
    cdef uint32_t code
    if not c.cr0 & CR0_PG:
        return linear >> 12
    pm_lock(c.memory)
    code = walk(&c.tables[2 if c.cr4 & CR4_PAE else 1 if c.cr4 & CR4_PSE else 0], linear,
                ACCESS_ANY | ACCESS_PURE, &w, NULL)
    pm_unlock(c.memory)
    return NOWHERE if code else w.pa >> 12


cdef bint read_descriptor(
    monitor_t *m, const table_t *t, uint32_t offset, uint64_t *raw
) noexcept nogil:
    """The guest's descriptor; False where it is not mapped."""
    cdef uint32_t at = (t.base & 4095) + offset, i
    cdef uint64_t frame
    cdef const uint8_t *p
    cdef uint8_t[8] bytes
    for i in range(8):
        frame = t.frames[(at + i) >> 12]
        if frame == NOWHERE:
            return False
        p = <const uint8_t *>pm_frame(m.c.memory, frame << 12)
        if at & 4095 <= 4088 and p != NULL:
            memcpy(raw, p + (at & 4095), 8)
            return True
        bytes[i] = 0xFF if p == NULL else p[(at + i) & 4095]
    memcpy(raw, bytes, 8)
    return True


cdef void shadow_descriptor(monitor_t *m, table_t *t, uint32_t index) noexcept nogil:
    """Make one descriptor of the shadow anew."""
    cdef uint64_t raw = 0
    t.lowered[index] = 0
    if read_descriptor(m, t, index * 8, &raw):
        # conforming code is anybody's: its level shows in LAR and does no harm
        if raw >> 45 & 3 == 0 and raw >> 42 & 7 != 7:
            raw |= <uint64_t>1 << 45
            t.lowered[index] = 1
        if raw >> 40 & 0x17 == 4:           # a call gate, of 16 or 32 bits
            raw &= ~<uint64_t>0xFFFF0000
    memcpy(host_of(m).window + t.at + index * 8, &raw, 8)


cdef bint find_frames(monitor_t *m, table_t *t) noexcept nogil:
    """Where the table's pages are now; whether one is not where it was."""
    cdef uint32_t i, first = t.base & ~<uint32_t>4095
    cdef uint64_t frame
    cdef bint moved = False
    t.holes = 0
    for i in range(t.pages):
        frame = frame_at(m, first + (i << 12))
        moved = moved or frame != t.frames[i]
        t.frames[i] = frame
        t.holes += frame == NOWHERE
    return moved


cdef bint shadow_table(
    monitor_t *m, table_t *t, uint32_t base, uint32_t size, bint anew
) noexcept nogil:
    """Follow a table that was loaded, or may be mapped elsewhere; whether its pages are others."""
    cdef uint32_t i
    cdef bint moved = False
    size &= ~<uint32_t>7
    if base != t.base or size != t.size:
        t.base = base
        t.size = size
        t.pages = 0 if not size else ((base & 4095) + size + 4095) >> 12
        for i in range(TABLE_PAGES):
            t.frames[i] = NOWHERE
        memset(host_of(m).window + t.at, 0, 0x10000)
        anew = True
        moved = True
    if find_frames(m, t):
        moved = True
    if moved or anew:
        for i in range(size >> 3):
            shadow_descriptor(m, t, i)
    return moved


cdef void shadow_tables(monitor_t *m, bint anew) noexcept nogil:
    """Both tables of the guest, and the filter of their frames; in the guest's view."""
    cdef host_t *h = host_of(m)
    cdef cpu_t *c = m.c
    cdef uint32_t i, size = 0
    cdef bint moved = shadow_table(m, &h.gdt, c.gdt_base, c.gdt_limit + 1, anew)
    if c.ldtr.selector & 0xFFFC:
        size = min(c.ldtr.limit, <uint32_t>0xFFFF) + 1
    if shadow_table(m, &h.ldt, c.ldtr.base if size else 0, size, anew):
        moved = True
    h.stale = 0
    if not moved:
        return
    h.filter = 0
    for i in range(TABLE_PAGES):
        if i < h.gdt.pages and h.gdt.frames[i] != NOWHERE:
            h.filter |= <uint64_t>1 << (h.gdt.frames[i] & 63)
        if i < h.ldt.pages and h.ldt.frames[i] != NOWHERE:
            h.filter |= <uint64_t>1 << (h.ldt.frames[i] & 63)
    flush(c)                                # writes there may be in the look-aside


cdef inline bint holds(const table_t *t, uint64_t frame) noexcept nogil:
    cdef uint32_t i
    for i in range(t.pages):
        if t.frames[i] == frame:
            return True
    return False


cdef inline bint touches(const table_t *t, uint32_t linear) noexcept nogil:
    """Whether an address is in a page of the table's."""
    return ((linear >> 12) - (t.base >> 12)) & 0xFFFFF < t.pages


cdef void descriptors_written(
    monitor_t *m, table_t *t, uint64_t pa, uint32_t n
) noexcept nogil:
    """Follow a write of n bytes within one frame."""
    cdef uint32_t i
    cdef int64_t first, last
    for i in range(t.pages):
        if t.frames[i] != pa >> 12:
            continue
        first = (<int64_t>i << 12) + <int64_t>(pa & 4095) - <int64_t>(t.base & 4095)
        last = min(first + n - 1, <int64_t>t.size - 1)
        first = max(first, <int64_t>0)
        while first >> 3 <= last >> 3 and last >= 0:
            shadow_descriptor(m, t, <uint32_t>(first >> 3))
            first += 8


cdef bint translate_watching(
    void *monitor, cpu_t *c, uint32_t linear, uint32_t access, uint32_t user, uint64_t *pa,
    uint32_t *watched
) noexcept nogil:
    """Paging's translation; writes to descriptor tables are watched."""
    cdef monitor_t *m = <monitor_t *>monitor
    cdef host_t *h = host_of(m)
    cdef uint64_t frame
    if not h.below(monitor, c, linear, access, user, pa, watched):
        return False
    if access & ACCESS_WRITE:
        frame = pa[0] >> 12
        if watched[0]:
            h.traced_at ^= 1
            h.traced[h.traced_at] = frame
        elif h.traced[0] == frame or h.traced[1] == frame:
            h.traced[0] = h.traced[1] = NOWHERE
        if h.filter >> (frame & 63) & 1 and (holds(&h.gdt, frame) or holds(&h.ldt, frame)):
            watched[0] = 1
    return True


cdef void after_write(void *monitor, cpu_t *c, uint64_t pa, uint32_t n) noexcept nogil:
    cdef monitor_t *m = <monitor_t *>monitor
    cdef host_t *h = host_of(m)
    cdef uint64_t frame = pa >> 12
    if h.traced[0] == frame or h.traced[1] == frame:
        h.below_after(monitor, c, pa, n)
    if h.filter >> (frame & 63) & 1 and (holds(&h.gdt, frame) or holds(&h.ldt, frame)):
        m.events[E_HIDDEN_FAULT] += 1
        descriptors_written(m, &h.gdt, pa, n)
        descriptors_written(m, &h.ldt, pa, n)


# --- the two views ----------------------------------------------------------------------------

cdef bint open_deprivileged(monitor_t *m) noexcept nogil:
    """Make the monitor's tables, and watch the guest's; paging is attached. False: no memory."""
    cdef host_t *h = <host_t *>calloc(1, sizeof(host_t))
    cdef uint32_t i
    if h == NULL:
        return False
    m.host_tables = <uint8_t *>h
    h.gdt.at = WINDOW_GDT
    h.ldt.at = WINDOW_LDT
    for i in range(TABLE_PAGES):
        h.gdt.frames[i] = h.ldt.frames[i] = NOWHERE
    h.traced[0] = h.traced[1] = NOWHERE
    # a TSS without a map of ports
    h.window[WINDOW_TSS + 102] = 0x68
    h.below = m.c.translate
    h.below_after = m.c.after_write
    m.c.translate = translate_watching
    m.c.after_write = after_write
    m.c.monitor = m
    m.c.window_host = h.window
    m.c.window_size = WINDOW_SIZE
    m.c.window = <uint64_t>1 << 32
    begin(m)
    return True


cdef void close_deprivileged(monitor_t *m) noexcept nogil:
    """Give the processor back, in the guest's view."""
    cdef host_t *h = host_of(m)
    if h == NULL:
        return
    to_guest(m)
    m.c.translate = h.below
    m.c.after_write = h.below_after
    m.c.window_host = NULL
    m.c.window_size = 0
    flush(m.c)
    free(h)
    m.host_tables = NULL


cdef void begin(monitor_t *m) noexcept nogil:
    """A run begins: the processor and memory are as someone else left them."""
    m.guest.in_view = True
    host_of(m).stale = 2


cdef inline void hold(segment_t *s, uint32_t cpl, bint stack_or_code) noexcept nogil:
    """What the processor gets in place of the guest's segment."""
    if s.attributes & 0x70 == 0x10 and s.attributes & 0xC != 0xC:
        s.attributes |= 0x20
    s.attributes |= HELD
    if stack_or_code:
        s.selector = (s.selector & 0xFFFC) | cpl


cdef void to_host(monitor_t *m) noexcept nogil:
    """Make the processor ready to run the guest; its CR0.PE is set."""
    cdef virtual_t *g = &m.guest
    cdef cpu_t *c = m.c
    cdef host_t *h = host_of(m)
    cdef uint32_t i, real
    cdef bint naive = m.technique == NAIVE
    if not g.in_view:
        return
    g.in_view = False
    if (h.stale or c.gdt_base != g.gdt_base or c.gdt_limit != g.gdt_limit
            or c.ldtr.base != g.ldtr.base or c.ldtr.limit != g.ldtr.limit
            or c.ldtr.selector != g.ldtr.selector):
        shadow_tables(m, h.stale == 2)
    g.gdt_base = c.gdt_base
    g.gdt_limit = c.gdt_limit
    g.idt_base = c.idt_base
    g.idt_limit = c.idt_limit
    g.ldtr = c.ldtr
    g.tr = c.tr
    g.cr0 = c.cr0
    g.cr3 = c.cr3
    g.cr4 = c.cr4
    g.cpl = c.cpl
    g.eflags = c.eflags & (F_IF | F_IOPL)
    real = max(c.cpl, <uint32_t>1)
    for i in range(6):
        g.seg[i] = c.seg[i]
        hold(&c.seg[i], real, i == S_CS or i == S_SS)
        g.held[i] = c.seg[i]
    set_cpl(c, real)
    c.eflags = (c.eflags & ~<uint32_t>F_IOPL) | F_IF
    c.window = WINDOW
    c.gdt_base = WINDOW + WINDOW_GDT
    c.idt_base = <uint32_t>WINDOW + WINDOW_IDT
    if g.ldtr.selector & 0xFFFC:
        c.ldtr.base = <uint32_t>WINDOW + WINDOW_LDT
        c.ldtr.limit = min(c.ldtr.limit, <uint32_t>0xFFFF)
    c.tr.base = <uint32_t>WINDOW + WINDOW_TSS
    c.tr.limit = 0x67
    c.tr.attributes = 0x8B
    if naive:
        # the monitor's tables have sizes and selectors of their own; else it hides what it can
        c.gdt_limit = 0xFFFF
        c.idt_limit = 0x7FF
        c.tr.selector = HOST_TASK
        if g.ldtr.selector & 0xFFFC:
            c.ldtr.selector = HOST_LDT
        c.cr0 = HOST_CR0 | (c.cr0 & (CR0_EM | CR0_TS))
    else:
        # SGDT and its like trap at CPL 3, too, on a host that has it (SDM vol. 3, 2.5)
        c.cr4 |= CR4_UMIP
    c.intercept = 1 << C_INT
    c.exception_bitmap = <uint32_t>0xFFFFFFFF
    c.interrupt_exit = 1
    h.gap = c.tsc - c.counters[COUNT_RETIRED]
    m.open = (g.eflags & F_IF) != 0
    if m.back != NULL:
        settle_front(m)


cdef inline bint was_lowered(const monitor_t *m, const segment_t *s) noexcept nogil:
    """Whether the descriptor that was loaded is one of DPL 0, held as 1."""
    cdef const host_t *h = host_of(m)
    if s.selector & 4:
        return h.ldt.lowered[s.selector >> 3]
    return h.gdt.lowered[s.selector >> 3]


cdef uint32_t level_now(const monitor_t *m) noexcept nogil:
    """The guest's level: the processor's, but for 1, which stands for two."""
    cdef const segment_t *s = &m.c.seg[S_CS]
    if m.c.cpl != 1:
        return m.c.cpl
    if s.attributes & HELD:
        return m.guest.cpl
    if s.attributes & 4:                    # conforming code: the level stayed
        return min(m.guest.cpl, <uint32_t>1)
    return 0 if was_lowered(m, s) else 1


cdef void to_guest(monitor_t *m) noexcept nogil:
    """Show the processor as the guest believes it to be, with what it changed on its own."""
    cdef virtual_t *g = &m.guest
    cdef cpu_t *c = m.c
    cdef segment_t *s
    cdef uint32_t i, cpl
    if g.in_view:
        return
    g.in_view = True
    cpl = level_now(m)
    for i in range(6):
        s = &c.seg[i]
        if s.attributes & HELD:
            c.seg[i] = g.seg[i]
        else:
            # loaded since, from the shadow
            if s.attributes & 0x70 == 0x30 and was_lowered(m, s):
                s.attributes &= ~0x20
            if i == S_CS or i == S_SS:
                s.selector = (s.selector & 0xFFFC) | cpl
    set_cpl(c, cpl)
    c.eflags = (c.eflags & ~<uint32_t>(F_IF | F_IOPL)) | g.eflags
    c.window = <uint64_t>1 << 32
    c.gdt_base = g.gdt_base
    c.gdt_limit = g.gdt_limit
    c.idt_base = g.idt_base
    c.idt_limit = g.idt_limit
    c.ldtr = g.ldtr
    c.tr = g.tr
    c.cr0 = g.cr0
    c.cr4 = g.cr4
    c.intercept = 0
    c.exception_bitmap = 0
    c.interrupt_exit = 0
    m.open = 1


# --- what the monitor does for the guest ------------------------------------------------------

cdef void book(
    monitor_t *m, const uop_t *u, uint64_t count, uint32_t port, uint32_t cpl
) noexcept nogil:
    """An instruction that the monitor executed in place of the guest, which was at a level."""
    cdef uint32_t k = u.klass, event = E_EMULATED
    if k == C_IN or k == C_OUT:
        m.booked[route(port)] += count
        event = E_IO
    else:
        m.booked[BOOKED_VMM] += count
    if k == C_CLI_STI or k == C_PUSHF or k == C_POPF:
        event = E_INTERRUPT_FLAG
    elif k == C_HLT:
        event = E_HALT
    elif k == C_CPUID:
        event = E_CPUID
    elif k == C_RDMSR or k == C_WRMSR:
        event = E_MSR
    elif k == C_INVLPG:
        event = E_INVLPG
    elif k == C_CR_WRITE and u.op == 3:
        event = E_CONTEXT_SWITCH
    elif k == C_INT:
        event = E_SYSCALL if cpl == 3 else E_EXCEPTION
    m.events[event] += 1


cdef bint delivered(monitor_t *m, uint64_t before, bint goes_on) noexcept nogil:
    """Count exceptions that were delivered since; page faults are paging's to count."""
    if m.c.counters[COUNT_EXCEPTIONS] != before and m.c.fault_vector != X_PF:
        m.events[E_EXCEPTION] += 1
    return goes_on


cdef inline bint klass_translates(uint32_t klass) noexcept nogil:
    return klass == C_CR_WRITE or klass == C_CLTS_LMSW or klass == C_INVLPG


cdef bint step_trap(monitor_t *m) noexcept nogil:
    """#DB of a single step, after the instruction, with DR6 set; False: the run ends."""
    cdef cpu_t *c = m.c
    m.events[E_EXCEPTION] += 1
    c.event = 0
    if deliver(c, X_DB, BY_TRAP, 0, 0):
        c.counters[COUNT_EXCEPTIONS] += 1
        return True
    return not c.event & EVENT_EXIT and deliver_fault(c)


cdef bint emulate_guest(monitor_t *m) noexcept nogil:
    """Execute the guest's instruction at EIP in its view, and follow what it changed.

    Exceptions go through the guest's tables. The processor is left in the guest's view. False:
    `exit_reason` says why the run ends.
    """
    cdef cpu_t *c = m.c
    cdef host_t *h = host_of(m)
    cdef block_t *b
    cdef uop_t u
    cdef uint32_t cr0, cr4, cpl, linear, port
    cdef uint64_t faults = c.counters[COUNT_EXCEPTIONS], retired = c.counters[COUNT_RETIRED]
    cdef bint goes_on, stepped
    to_guest(m)
    c.event = 0
    b = find_block(c)
    if b == NULL:
        goes_on = fetch_failed(c)
        return delivered(m, faults, goes_on)
    u = b.first[0]
    cr0 = c.cr0
    cr4 = c.cr4
    cpl = c.cpl
    linear = c.seg[u.segment].base + address(c, &u)
    port = c.gpr[R_EDX] & 0xFFFF
    if (u.kind == K_IN or u.kind == K_OUT) and not u.op:
        port = u.imm & 0xFF
    # a single step behind a change of translation needs the new one
    c.exception_bitmap = 1 << X_DB if klass_translates(u.klass) else 0
    goes_on = emulate(c)
    c.exception_bitmap = 0
    stepped = not goes_on and c.exit_reason == EXIT_EXCEPTION
    retired = c.counters[COUNT_RETIRED] - retired
    if retired:
        book(m, &u, retired, port, cpl)
        if u.klass == C_INVLPG:
            guest_invlpg(m, linear)
            # one large page may hold a table and the address
            if touches(&h.gdt, linear) or touches(&h.ldt, linear) or c.cr4 & (CR4_PSE | CR4_PAE):
                h.stale |= 1
        elif c.cr0 != cr0 or c.cr4 != cr4 or (u.kind == K_MOV_TO_CR and u.op == 3):
            guest_registers(m, c.cr0, c.cr3, c.cr4)
            h.stale |= 1
    if h.gdt.holes or h.ldt.holes:
        h.stale |= 1                        # a page may have been mapped by now
    if stepped:
        return step_trap(m)
    return delivered(m, faults, goes_on)


cdef bint reflect(monitor_t *m, uint32_t vector, uint32_t coded, uint32_t error) noexcept nogil:
    """Deliver an exception to the guest through its own tables; False: the run ends."""
    cdef cpu_t *c = m.c
    to_guest(m)
    if vector != X_PF:                      # those are paging's to count
        m.events[E_EXCEPTION] += 1
    c.event = EVENT_FAULT
    c.fault_vector = vector
    c.fault_code = coded
    c.fault_error = error
    return deliver_fault(c)


cdef bint take_interrupt(monitor_t *m) noexcept nogil:
    """Deliver what the interrupt line stands for; the guest takes interrupts. False: the run ends."""
    cdef cpu_t *c = m.c
    cdef int vector
    to_guest(m)
    if c.bus == NULL:
        return True
    c.event = 0
    vector = c.bus.acknowledge(c.bus.board)
    if vector == NO_VECTOR:
        return True
    c.halted = 0
    if deliver(c, <uint32_t>vector & 0xFF, BY_DEVICE, 0, 0):
        c.counters[COUNT_INTERRUPTS] += 1
        return True
    return not c.event & EVENT_EXIT and deliver_fault(c)


cdef bint attempted(monitor_t *m) noexcept nogil:
    """A fault of the host's view that execution in the guest's settles.

    The attempt, and the cycle that it took, are taken back.
    """
    cdef cpu_t *c = m.c
    cdef host_t *h = host_of(m)
    cdef block_t *b
    cdef uint64_t lost = c.tsc - c.counters[COUNT_RETIRED] - h.gap
    if lost == 1:
        c.tsc -= 1
        to_guest(m)
        c.event = 0
        b = find_block(c)
        if b != NULL:
            c.counters[b.first.klass] -= b.first.klass != C_NONE
    return emulate_guest(m)


cdef bint served(monitor_t *m, uint32_t why) noexcept nogil:
    """Do what the processor left the host's view for; False: `exit_reason` says why the run ends.

    `why` is EXIT_INTERCEPT, EXIT_EXCEPTION or EXIT_INTERRUPT.
    """
    cdef cpu_t *c = m.c
    cdef uint32_t vector = c.exit_vector
    if why == EXIT_INTERRUPT:
        return take_interrupt(m)
    if why == EXIT_INTERCEPT:
        to_guest(m)
        c.counters[c.exit_class] -= 1
        return emulate_guest(m)
    if SETTLED >> vector & 1:
        return attempted(m)
    if vector == X_DB:
        to_guest(m)
        return step_trap(m)
    return reflect(m, vector, vector == X_PF or vector == X_AC, c.exit_error)


cdef uint32_t interpret(monitor_t *m, uint64_t end) noexcept nogil:
    """Run a guest in real mode, all of it by the monitor, until it is in protected mode: EXIT_.

    EXIT_INTERCEPT: CR0.PE is set, in the guest's view.
    """
    cdef cpu_t *c = m.c
    cdef uint32_t why
    cdef uint64_t retired
    while not c.cr0 & CR0_PE:
        m.open = 1
        if m.back != NULL:
            settle_front(m)
        retired = c.counters[COUNT_RETIRED]
        c.intercept = 1 << C_CR_WRITE | 1 << C_CLTS_LMSW
        why = loop(c, end)
        c.intercept = 0
        m.booked[BOOKED_VMM] += c.counters[COUNT_RETIRED] - retired
        if why != EXIT_INTERCEPT:
            return why
        c.counters[c.exit_class] -= 1
        if not emulate_guest(m):
            return c.exit_reason
    return EXIT_INTERCEPT


cdef bint runs_direct(const monitor_t *m) noexcept nogil:
    """Whether the guest's code may run as it stands with the same results, in the guest's view.

    At CPL 3, with interrupts on and IOPL 0: else PUSHF and POPF show it (E. Bugnion et al., ACM
    Transactions on Computer Systems 30(4), 2012, section 4).
    """
    return (m.c.cpl == 3 and m.c.eflags & (F_IF | F_IOPL) == F_IF and m.c.cr0 & CR0_PE != 0)
