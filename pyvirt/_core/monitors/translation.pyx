"""Binary translation: the guest's kernel runs out of a code cache, its user code as it stands.

After K. Adams and O. Agesen, "A comparison of software and hardware techniques for x86
virtualization" (ASPLOS 2006), section 3. Units of translated code hold the guest's innocuous
instructions as they are; those that work on its flags, and reads of what the monitor knows, as
operations on the monitor's own memory; and leave the cache for the monitor to execute the others.
Units are chained as they come to be run one after the other. Guest EIP and all registers are the
guest's own after each instruction, so faults and interrupts find them as natively.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyvirt._core.interp.control cimport peek, push, set_esp
from pyvirt._core.interp.cpu cimport *
from pyvirt._core.interp.engine cimport devices, execute, loop
from pyvirt._core.interp.flags cimport get_eflags, set_eflags
from pyvirt._core.interp.memory cimport store
from pyvirt._core.interp.operands cimport reg4, rm_put
from pyvirt._core.interp.steps cimport step
from pyvirt._core.monitors.deprivilege cimport (
    begin,
    emulate_guest,
    interpret,
    reflect,
    runs_direct,
    served,
    take_interrupt,
    to_guest,
    to_host,
)
from pyvirt._core.monitors.front cimport settle_front
from pyvirt._core.monitors.state cimport (
    BOOKED_TRANSLATED,
    BOOKED_VMM,
    E_CALL_RETURN,
    E_EMULATED,
    E_HIDDEN_FAULT,
    E_INTERRUPT_FLAG,
    E_PAGE_TABLE_UPDATE,
    E_TRANSLATION_UNIT,
    monitor_t,
)
from pyvirt._core.monitors.units cimport *
from pyvirt._core.protection.flags cimport popf_mask

cdef enum:
    EVENT_OUT = 8               # cpu_t.event: the instruction is the monitor's to execute

cdef enum:                      # why the processor left the cache
    LEFT_EVENT = 0              # an event, or it is time
    LEFT_CALLOUT = 1
    LEFT_TRANSFER = 2           # for a unit that is not chained to this one

cdef enum:
    GO_ON = 0xFFFF              # no EXIT_: the guest runs on

cdef uint64_t NEVER = 0xFFFFFFFFFFFFFFFF


cdef inline translator_t *translator_of(const monitor_t *m) noexcept nogil:
    return <translator_t *>m.translator


# --- what the processor tells -----------------------------------------------------------------

cdef void code_written(void *monitor, cpu_t *c, uint32_t frame) noexcept nogil:
    cdef translator_t *t = translator_of(<monitor_t *>monitor)
    if frame == NO_PAGE:
        drop_all(t, c)
    else:
        drop_page(t, c, frame)


cdef void table_written(void *monitor, cpu_t *c, uint64_t pa, uint32_t n) noexcept nogil:
    """A write to a watched page of page tables or descriptors.

    It faulted on the page's trace; or it is that of a call-out, which costs less; or the monitor's
    own, as it executes an instruction or pushes a frame in the guest's view.
    """
    cdef monitor_t *m = <monitor_t *>monitor
    cdef translator_t *t = translator_of(m)
    cdef uint64_t tables = m.events[E_PAGE_TABLE_UPDATE], others = m.events[E_HIDDEN_FAULT]
    t.below(monitor, c, pa, n)
    tables = m.events[E_PAGE_TABLE_UPDATE] - tables
    others = m.events[E_HIDDEN_FAULT] - others
    if m.guest.in_view:
        m.events[E_HIDDEN_FAULT] -= others
    elif t.quiet:
        m.events[E_HIDDEN_FAULT] -= others
        m.events[E_EMULATED] += others
    elif tables + others:
        m.events[E_PAGE_TABLE_UPDATE] -= tables
        m.events[E_HIDDEN_FAULT] += tables
        t.counts.traces += tables + others
        t.traced += 1
        c.event |= EVENT_LEAVE


cdef bint open_translation(
    monitor_t *m, uint32_t capacity, uint32_t threshold, bint user
) noexcept nogil:
    """Give a deprivileged guest an empty cache for so many units. False: no memory."""
    cdef translator_t *t = new_translator(capacity, threshold, user)
    if t == NULL:
        return False
    m.translator = t
    t.below = m.c.after_write
    m.c.after_write = table_written
    m.c.code_written = code_written
    return True


cdef void close_translation(monitor_t *m) noexcept nogil:
    cdef translator_t *t = translator_of(m)
    if t == NULL:
        return
    drop_all(t, m.c)
    m.c.code_written = NULL
    m.c.after_write = t.below
    free_translator(t)
    m.translator = NULL


# --- inlined instructions ---------------------------------------------------------------------

cdef inline void set_virtual_flags(monitor_t *m, uint32_t flags) noexcept nogil:
    """IF and IOPL as the guest believes them; the board's line reaches a guest with IF."""
    m.guest.eflags = flags & (F_IF | F_IOPL)
    m.open = flags & F_IF != 0
    if m.back != NULL:
        settle_front(m)


cdef inline uint32_t virtual_flags(const monitor_t *m) noexcept nogil:
    """All of EFLAGS as the guest believes it."""
    return (get_eflags(m.c) & ~<uint32_t>(F_IF | F_IOPL)) | m.guest.eflags


cdef void pop_virtual_flags(monitor_t *m, const uop_t *u) noexcept nogil:
    """POPF of a guest's level 0."""
    cdef cpu_t *c = m.c
    cdef uint32_t v, old = virtual_flags(m), mask
    if not peek(c, 0, u.size, &v):
        return
    mask = popf_mask(0, (old & F_IOPL) >> 12, u.size) | F_ARITHMETIC
    set_esp(c, c.gpr[R_ESP] + u.size)
    v = (old & ~mask & ~<uint32_t>F_RF) | (v & mask)
    set_eflags(c, (v & ~<uint32_t>F_IOPL) | F_IF)
    set_virtual_flags(m, v)
    if v & F_TF or (v & F_IF and m.back != NULL and m.back.line):
        c.event |= EVENT_LEAVE


cdef void special(
    monitor_t *m, translator_t *t, const uop_t *u, uint32_t start, uint64_t now
) noexcept nogil:
    """A micro-operation of the translator's own, at a time; EIP is that behind it."""
    cdef cpu_t *c = m.c
    cdef uint32_t k = u.kind, v
    cdef uop_t write
    if k == T_CALLOUT:
        c.event |= EVENT_OUT
        return
    if k == T_TRACED:
        write = u[0]
        write.kind = u.selector
        c.eip = start
        t.quiet = 1
        execute(c, &write, 1)
        t.quiet = 0
        if not c.event & (EVENT_FAULT | EVENT_EXIT):
            m.booked[BOOKED_VMM] += 1
            m.booked[BOOKED_TRANSLATED] -= 1
        return
    t.counts.inlined += 1
    c.counters[u.klass] += 1
    if k == T_CLI:
        set_virtual_flags(m, m.guest.eflags & ~<uint32_t>F_IF)
    elif k == T_STI:
        if not m.guest.eflags & F_IF:
            c.shadow = 2
            c.event |= EVENT_LEAVE
        set_virtual_flags(m, m.guest.eflags | F_IF)
    elif k == T_PUSHF:
        push(c, virtual_flags(m) & 0xFCFFFF, u.size)
    elif k == T_POPF:
        pop_virtual_flags(m, u)
    elif k == T_RDTSC:
        now += c.tsc_offset
        c.gpr[R_EAX] = <uint32_t>now
        c.gpr[R_EDX] = <uint32_t>(now >> 32)
        return
    elif k == T_READ_CR:
        reg4(c, u.rm)[0] = (m.guest.cr0 if u.op == 0 else c.cr2 if u.op == 2
                            else m.guest.cr3 if u.op == 3 else m.guest.cr4)
        return
    elif k == T_READ_SEGMENT:
        rm_put(c, u, 2 if u.mem else u.size, m.guest.seg[u.op].selector)
        return
    else:
        v = (c.gpr[R_ESP] - u.size) & c.stack_mask
        if store(c, S_SS, v, 2, m.guest.seg[u.op].selector):
            set_esp(c, v)
        return
    if not c.event & (EVENT_FAULT | EVENT_EXIT):
        m.events[E_INTERRUPT_FLAG] += 1


# --- the code cache runs ----------------------------------------------------------------------

cdef uint32_t run_units(monitor_t *m, translator_t *t, uint64_t horizon) noexcept nogil:
    """Run from instruction `at` of `unit` on; returns LEFT_, with both as they are then."""
    cdef cpu_t *c = m.c
    cdef unit_t *unit = t.unit
    cdef unit_t *next
    cdef const uop_t *first
    cdef const uop_t *u
    cdef const uop_t *end
    cdef const uint32_t *eip
    cdef uint64_t valid = stamp(t, c), tsc = c.tsc, began = c.tsc
    cdef uint64_t chained = 0, hits = 0, runs = 0
    cdef uint32_t left = LEFT_EVENT, at = t.at, count
    t.traced = 0
    while True:
        runs += 1
        unit.runs += 1
        count = unit.count - at
        if count > horizon - tsc:
            count = <uint32_t>(horizon - tsc)
        first = &unit.ops[at]
        u = first
        end = first + count
        eip = &unit.eips[at]
        while True:
            c.eip = eip[1]
            if not step(c, u, eip[0]):
                special(m, t, u, eip[0], tsc + <uint64_t>(u - first))
            u += 1
            eip += 1
            if c.event:
                break
            if u == end:
                break
        if c.event:
            count = <uint32_t>(u - first)
            if c.event & (EVENT_FAULT | EVENT_EXIT | EVENT_OUT):
                count -= 1
                c.eip = (eip - 1)[0]
            tsc += count
            c.tsc = tsc
            if c.event & EVENT_OUT:
                c.event &= ~<uint32_t>EVENT_OUT
                left = LEFT_CALLOUT
            break
        tsc += count
        c.tsc = tsc
        if tsc >= horizon:
            break
        if unit.ends == ENDS_INDIRECT:
            m.events[E_CALL_RETURN] += 1
            next = t.indirect[scatter(c.eip) & ((1 << INDIRECT_BITS) - 1)]
            if next.eip != c.eip or next.stamp != valid:
                left = LEFT_TRANSFER
                break
            hits += 1
        else:
            next = unit.exits[0].to
            if next.eip != c.eip or next.stamp != valid:
                next = unit.exits[1].to
                if next.eip != c.eip or next.stamp != valid:
                    left = LEFT_TRANSFER
                    break
            chained += 1
        unit = next
        at = 0
    t.unit = unit
    t.at = at + count
    t.counts.runs += runs
    t.counts.chained += chained
    t.counts.hits += hits
    c.counters[COUNT_BLOCKS] += runs
    c.counters[COUNT_RETIRED] += tsc - began
    m.booked[BOOKED_TRANSLATED] += tsc - began
    return left


cdef void remember_middle(translator_t *t, unit_t *unit, uint32_t at, uint32_t eip) noexcept nogil:
    """A unit is left between two of its instructions, where it is likely to be entered again."""
    cdef middle_t *middle = &t.middle[scatter(eip) & ((1 << MIDDLE_BITS) - 1)]
    if at < unit.count and unit.alive:
        middle.unit = unit
        middle.at = at
        middle.eip = eip


cdef void retranslate(monitor_t *m, translator_t *t) noexcept nogil:
    """Adaptation: an instruction whose writes hit traced pages calls the monitor from now on
    (Adams and Agesen 2006, 3.4)."""
    cdef unit_t *unit = t.unit
    cdef uop_t *u
    if not t.at or not t.threshold or not unit.alive:
        return
    u = &unit.ops[t.at - 1]
    if unit.made[t.at - 1] != MADE_IDENTICAL:
        return
    unit.traces[t.at - 1] = <uint8_t>min(unit.traces[t.at - 1] + t.traced, <uint32_t>255)
    if unit.traces[t.at - 1] < t.threshold:
        return
    unit.made[t.at - 1] = MADE_TRACED
    u.selector = u.kind
    u.kind = T_TRACED
    t.counts.retranslations += 1
    t.counts.made[MADE_TRACED] += 1
    m.events[E_TRANSLATION_UNIT] += 1


cdef bint call_out(monitor_t *m, translator_t *t, unit_t *unit, uint32_t at) noexcept nogil:
    """Have the monitor execute an instruction of a unit; False: the run ends."""
    if unit.made[at] == MADE_CALLOUT:
        remember_middle(t, unit, at + 1, unit.eips[at + 1])
    t.counts.callouts += 1
    return emulate_guest(m)


cdef bint fault(monitor_t *m) noexcept nogil:
    """Deliver the guest's own fault, which takes time as natively; False: the run ends."""
    cdef cpu_t *c = m.c
    cdef bint goes_on
    c.tsc += 1
    c.shadow = 0
    goes_on = reflect(m, c.fault_vector, c.fault_code, c.fault_error)
    c.event |= EVENT_LEAVE
    return goes_on


cdef bint run_some(monitor_t *m, translator_t *t, uint64_t horizon) noexcept nogil:
    """Run translated code from EIP on, until the cache is left; False: the run ends."""
    cdef cpu_t *c = m.c
    cdef unit_t *unit
    cdef unit_t *previous = t.previous
    cdef uint64_t units = t.counts.units
    cdef uint32_t at, left, single
    t.previous = NULL
    if c.eflags & F_TF:
        return emulate_guest(m)
    unit = find_unit(t, c, &at)
    m.events[E_TRANSLATION_UNIT] += t.counts.units - units
    if unit == NULL:
        if c.event & EVENT_EXIT:
            return False
        if c.event & EVENT_FAULT:
            return fault(m)
        t.counts.lone += 1
        return emulate_guest(m)
    if previous != NULL and at == 0:
        if previous.alive and previous.ends != ENDS_INDIRECT:
            t.counts.transfers += 1
            chain(t, previous, unit)
        elif previous.alive:
            t.counts.misses += 1
            t.indirect[scatter(c.eip) & ((1 << INDIRECT_BITS) - 1)] = unit
    if unit.ops[at].kind == T_CALLOUT:
        return call_out(m, t, unit, at)
    single = c.shadow
    if single:
        c.shadow = 1
        horizon = c.tsc + 1
    t.unit = unit
    t.at = at
    left = run_units(m, t, horizon)
    if c.event & EVENT_EXIT:
        return False
    if c.event & EVENT_FAULT:
        return fault(m)
    if single and c.shadow == 1:
        c.shadow = 0
        c.event |= EVENT_LEAVE
    if t.traced:
        retranslate(m, t)
    if left == LEFT_CALLOUT:
        return call_out(m, t, t.unit, t.at)
    if left == LEFT_TRANSFER:
        t.previous = t.unit
    else:
        remember_middle(t, t.unit, t.at, c.eip)
    return True


cdef inline bint takes_interrupts(const monitor_t *m) noexcept nogil:
    return (m.c.eflags if m.guest.in_view else m.guest.eflags) & F_IF and m.c.shadow == 0


cdef inline bint translated(const monitor_t *m, const translator_t *t) noexcept nogil:
    """Whether the guest's code is to run out of the cache."""
    return not m.guest.in_view or (m.c.cr0 & CR0_PE and (t.user or not runs_direct(m)))


cdef uint32_t run_kernel(monitor_t *m, translator_t *t, uint64_t end) noexcept nogil:
    """As one turn of the engine's loop, out of the cache: EXIT_, or GO_ON."""
    cdef cpu_t *c = m.c
    cdef uint64_t horizon = end
    c.event = 0
    if c.bus != NULL and c.bus.stop:
        return EXIT_STOP
    if c.tsc >= end:
        return EXIT_BUDGET
    if c.bus != NULL:
        if c.bus.next_event <= c.tsc:
            devices(c)
            if c.bus.next_event <= c.tsc:
                c.bus.next_event = c.tsc + 1
        if m.back.line and takes_interrupts(m):
            if not take_interrupt(m):
                return c.exit_reason
            c.event = 0
        horizon = min(end, c.bus.next_event)
    if c.halted:
        if c.bus == NULL or c.bus.next_event == NEVER:
            return EXIT_HALT
        c.tsc = horizon
        return GO_ON
    while c.event == 0 and c.tsc < horizon and translated(m, t):
        to_host(m)
        set_context(t, c, m.guest.cpl)
        if not run_some(m, t, horizon):
            return c.exit_reason
    return GO_ON


cdef uint32_t run_translation(monitor_t *m, uint64_t end) noexcept nogil:
    """Run the guest until `end`, or until it ends: EXIT_."""
    cdef cpu_t *c = m.c
    cdef translator_t *t = translator_of(m)
    cdef uint32_t why = GO_ON
    begin(m)
    while why == GO_ON:
        if translated(m, t):
            why = run_kernel(m, t, end)
        elif not c.cr0 & CR0_PE:
            why = interpret(m, end)
            if why == EXIT_INTERCEPT:
                why = GO_ON
        else:
            to_host(m)
            why = loop(c, end)
            to_guest(m)
            if why == EXIT_INTERCEPT or why == EXIT_EXCEPTION or why == EXIT_INTERRUPT:
                why = GO_ON if served(m, why) else c.exit_reason
    to_guest(m)
    return why
