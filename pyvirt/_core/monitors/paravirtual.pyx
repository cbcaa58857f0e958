"""The paravirtual monitor: the guest's kernel is ported, runs at CPL 1 and calls the monitor.

The interface is that of the guest kernel in pyvirt/x86/guests/kernel (its README), after Xen's (P.
Barham et al., SOSP 2003, sections 2.1 and 3.2): a page of code that enters the monitor, calls that
hold several operations, a page shared with the flag for interrupts and the event channels, page
tables that are the guest's own and the processor's at the same time, but written by the monitor once
they are in use. Nothing of the guest is emulated, and nothing it does on its own shows a wrong answer,
since it knows where it runs.

System calls go from CPL 3 to CPL 1 through the monitor's IDT without the monitor. Other exceptions
and interrupts go to the monitor, which enters the guest's kernel through its gate.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from pyvirt._core.frames cimport (
    PM_OK,
    pm_frame,
    pm_lock,
    pm_owned,
    pm_status,
    pm_unlock,
    pm_writable,
)
from pyvirt._core.interp.blocks cimport find_block
from pyvirt._core.interp.bus cimport NO_VECTOR
from pyvirt._core.interp.control cimport peek, set_esp
from pyvirt._core.interp.cpu cimport *
from pyvirt._core.interp.engine cimport loop
from pyvirt._core.interp.interrupts cimport BY_DEVICE, deliver, deliver_fault, iret
from pyvirt._core.interp.kinds cimport K_INT
from pyvirt._core.interp.memory cimport (
    check_write,
    flush,
    flush_page,
    forget_code,
    read_linear,
    settle_tables,
    write_linear,
)
from pyvirt._core.interp.segments cimport make_segment, null_segment, set_cpl, set_segment
from pyvirt._core.monitors.deprivilege cimport (
    WINDOW,
    WINDOW_GDT,
    WINDOW_IDT,
    WINDOW_SIZE,
    WINDOW_TSS,
)
from pyvirt._core.monitors.front cimport settle_front
from pyvirt._core.monitors.state cimport *
from pyvirt._core.paging cimport (
    ACCESS_PURE,
    ACCESS_USER,
    ACCESS_WRITE,
    FAULT_NO_MEMORY,
    FAULT_OUTSIDE_TABLE,
    walk,
    walk_t,
)

cdef enum:
    CALL_PAGE = 0xFF000
    SHARED_PAGE = 0xFE000
    VECTOR = 0x82               # of INT in the page of hypercalls
    UPCALL = 0x20               # the gate that stands for all event channels
    CHANNELS = 16
    MOST_OPERATIONS = 1024      # of one call
    MOST_WORDS = 32768
    PRESENT = 1
cdef enum:
    REFUSED = 0xFFFFFFFF        # what a call answers that was not done
    BOUNCED = 0xFFFFFFE5        # all exceptions but #DB, #BP, #OF: those go straight to their gates


cdef inline pv_t *pv_of(const monitor_t *m) noexcept nogil:
    return <pv_t *>m.port


cdef inline uint32_t *shared(const monitor_t *m) noexcept nogil:
    """The shared page; the memory has a frame for it."""
    return <uint32_t *>pm_owned(m.c.memory, SHARED_PAGE)


cdef inline uint32_t load32(const uint8_t *p) noexcept nogil:
    cdef uint32_t v
    memcpy(&v, p, 4)
    return v


cdef inline void store32(uint8_t *p, uint32_t v) noexcept nogil:
    memcpy(p, &v, 4)


# --- page tables ------------------------------------------------------------------------------

cdef inline uint32_t kind_of(const pv_t *p, uint64_t frame) noexcept nogil:
    return p.kinds[frame] & FRAME_KIND if frame < p.frames else FRAME_MONITOR


cdef bint translate_direct(
    void *monitor, cpu_t *c, uint32_t linear, uint32_t access, uint32_t user, uint64_t *pa,
    uint32_t *watched
) noexcept nogil:
    """Through the guest's own tables; those in use cannot be written.

    Xen refuses the mapping that would allow it; here the write faults in any mapping.
    """
    cdef pv_t *p = pv_of(<monitor_t *>monitor)
    cdef walk_t w
    cdef uint32_t code, kind
    if user:
        access |= ACCESS_USER
    pa[0] = linear
    if c.cr0 & CR0_PG:
        pm_lock(c.memory)
        code = walk(&c.tables[0], linear, access, &w, NULL)
        pm_unlock(c.memory)
        if code:
            if code & 15 == FAULT_NO_MEMORY:
                c.event |= EVENT_EXIT
                c.exit_reason = EXIT_NO_MEMORY
                return False
            if code & 15 == FAULT_OUTSIDE_TABLE:
                w.error = 9 | (2 if access & ACCESS_WRITE else 0) | (4 if user else 0)
            c.cr2 = linear
            c.event |= EVENT_FAULT
            c.fault_vector = X_PF
            c.fault_code = 1
            c.fault_error = <uint32_t>w.error
            return False
        pa[0] = w.pa
    if access & ACCESS_WRITE and pa[0] >> 12 < p.frames:
        kind = p.kinds[pa[0] >> 12] & FRAME_KIND
        if kind and kind != FRAME_SHARED:
            c.cr2 = linear
            c.event |= EVENT_FAULT
            c.fault_vector = X_PF
            c.fault_code = 1
            c.fault_error = 3 | (4 if user else 0)
            return False
    return True


cdef void after_write(void *monitor, cpu_t *c, uint64_t pa, uint32_t n) noexcept nogil:
    """No write is watched."""


cdef bint set_word(monitor_t *m, uint64_t pa, uint32_t v) noexcept nogil:
    """Write a word of the guest's RAM; False: the host has no memory."""
    cdef cpu_t *c = m.c
    cdef pm_status status
    cdef uint8_t *host = pm_owned(c.memory, pa)
    cdef uint64_t frame = pa >> 12
    if host == NULL:
        pm_lock(c.memory)
        host = pm_writable(c.memory, pa, &status)
        pm_unlock(c.memory)
        if host == NULL:
            return False
        flush(c)
    store32(host + (pa & 4095), v)
    if frame < c.page_count and c.pages[frame].granules:
        c.pages[frame].granules = 0
        c.pages[frame].generation += 1
    return True


cdef bint take_table(pv_t *p, cpu_t *c, uint64_t frame) noexcept nogil:
    """One more directory leads to a table; False: it cannot be one."""
    cdef uint32_t i, entry
    cdef const uint8_t *host
    if frame >= p.frames:
        return False
    if p.kinds[frame] & FRAME_KIND == FRAME_TABLE:
        p.kinds[frame] += 1
        return True
    host = <const uint8_t *>pm_frame(c.memory, frame << 12)
    if p.kinds[frame] or host == NULL:
        return False
    for i in range(1024):
        entry = load32(host + 4 * i)
        if entry & PRESENT and entry >> 12 >= p.frames:
            return False
    p.kinds[frame] = FRAME_TABLE | 1
    return True


cdef void drop_table(pv_t *p, uint64_t frame) noexcept nogil:
    """One directory less leads there; the host may have written the tables meanwhile."""
    if frame >= p.frames or p.kinds[frame] & FRAME_KIND != FRAME_TABLE:
        return
    p.kinds[frame] -= 1
    if p.kinds[frame] == FRAME_TABLE:
        p.kinds[frame] = 0


cdef void drop_tables(pv_t *p, const uint8_t *host, uint32_t count) noexcept nogil:
    """Those that the first entries of a directory lead to."""
    cdef uint32_t i, entry
    for i in range(count):
        entry = load32(host + 4 * i)
        if entry & PRESENT:
            drop_table(p, entry >> 12)


cdef bint take_directory(pv_t *p, cpu_t *c, uint64_t frame) noexcept nogil:
    """Look through a directory before it is loaded for the first time; False: it is refused."""
    cdef uint32_t i, entry
    cdef const uint8_t *host
    if frame >= p.frames:
        return False
    if p.kinds[frame] & FRAME_KIND == FRAME_DIRECTORY:
        return True
    host = <const uint8_t *>pm_frame(c.memory, frame << 12)
    if p.kinds[frame] or host == NULL:
        return False
    p.kinds[frame] = FRAME_DIRECTORY        # so that it is none of its own tables
    for i in range(1024):
        entry = load32(host + 4 * i)
        if entry & PRESENT and not take_table(p, c, entry >> 12):
            drop_tables(p, host, i)
            p.kinds[frame] = 0
            return False
    return True


cdef uint32_t load_directory(monitor_t *m, uint32_t directory) noexcept nogil:
    cdef cpu_t *c = m.c
    if directory & 4095 or not take_directory(pv_of(m), c, directory >> 12):
        return REFUSED
    c.cr3 = directory
    settle_tables(c)
    return 0


cdef uint32_t release_directory(monitor_t *m, uint32_t directory) noexcept nogil:
    cdef pv_t *p = pv_of(m)
    cdef uint64_t frame = directory >> 12
    if directory & 4095 or frame >= p.frames or frame == m.c.cr3 >> 12 and m.c.cr0 & CR0_PG:
        return REFUSED
    if p.kinds[frame] & FRAME_KIND != FRAME_DIRECTORY:
        # one that was never loaded is memory already
        return REFUSED if p.kinds[frame] else 0
    drop_tables(p, <const uint8_t *>pm_frame(m.c.memory, frame << 12), 1024)
    p.kinds[frame] = 0
    return 0


cdef bint quiet(cpu_t *c) noexcept nogil:
    """Forget a fault of an access on the guest's behalf: its call is refused instead."""
    if c.event & EVENT_EXIT:
        return False
    c.event = 0
    return True


cdef uint32_t set_entry(monitor_t *m, uint32_t linear, uint32_t v) noexcept nogil:
    """Write an entry of a page table, wherever the table is."""
    cdef cpu_t *c = m.c
    cdef pv_t *p = pv_of(m)
    cdef walk_t w
    cdef uint64_t pa = linear, frame
    cdef uint32_t old, kind, code
    cdef const uint8_t *host
    if linear & 3 or v & PRESENT and v >> 12 >= p.frames:
        return REFUSED
    if c.cr0 & CR0_PG:
        pm_lock(c.memory)
        code = walk(&c.tables[0], linear, ACCESS_WRITE | ACCESS_PURE, &w, NULL)
        pm_unlock(c.memory)
        if code:
            return REFUSED
        pa = w.pa
    frame = pa >> 12
    kind = kind_of(p, frame)
    host = <const uint8_t *>pm_frame(c.memory, pa)
    if host == NULL or kind == FRAME_MONITOR or kind == FRAME_SHARED:
        return REFUSED
    if kind == FRAME_DIRECTORY:
        old = load32(host + (pa & 4095))
        if v & PRESENT:
            if not take_table(p, c, v >> 12):
                return REFUSED
            if p.kinds[v >> 12] == (FRAME_TABLE | 1):
                flush(c)                    # it may be written through the look-aside
        if old & PRESENT:
            drop_table(p, old >> 12)
    if not set_word(m, pa, v):
        c.event |= EVENT_EXIT
        c.exit_reason = EXIT_NO_MEMORY
        return REFUSED
    m.events[E_PAGE_TABLE_UPDATE] += 1
    return 0


# --- descriptor tables ------------------------------------------------------------------------

cdef bint kernel_segment(uint64_t raw, uint32_t wanted) noexcept nogil:
    """Whether a descriptor can be the kernel's code or stack: 32 bits, present, of DPL 1."""
    return raw >> 40 & 0xFE == wanted and raw >> 54 & 1


cdef uint32_t load_gdt(monitor_t *m, uint32_t linear, uint32_t size) noexcept nogil:
    """Copy a GDT; system descriptors and gates stay out of the processor's reach."""
    cdef cpu_t *c = m.c
    cdef pv_t *p = pv_of(m)
    cdef uint32_t i, v = 0
    cdef uint64_t raw = 0
    cdef uint64_t[3] first
    cdef segment_t s
    if size < 24 or size > 0x10000 or size & 7:
        return REFUSED
    p.gdt_size = 0
    for i in range(0, size, 4):
        if not read_linear(c, linear + i, 4, 0, &v):
            quiet(c)
            return REFUSED
        store32(p.gdt + i, v)
    for i in range(0, size, 8):
        memcpy(&raw, p.gdt + i, 8)
        if not raw >> 44 & 1:
            raw = 0
        else:
            if raw >> 45 & 3 == 0:
                raw |= <uint64_t>1 << 45
            raw |= <uint64_t>1 << 40        # A, so that the processor need not write it
        if i < 24:
            first[i >> 3] = raw
            if i == 16 and not (kernel_segment(first[1], 0xBA) and kernel_segment(first[2], 0xB2)):
                return REFUSED
        if i >= 16:
            memcpy(p.window + WINDOW_GDT + i, &raw, 8)
    memset(p.window + WINDOW_GDT, 0, 8)
    memcpy(p.window + WINDOW_GDT + 8, &first[1], 8)
    memset(p.window + WINDOW_GDT + size, 0, 0x10000 - size)
    p.gdt_size = size
    c.gdt_limit = size - 1
    make_segment(9, first[1], &s)
    set_segment(c, S_CS, &s)
    make_segment(0x11, first[2], &s)
    set_segment(c, S_SS, &s)
    s.selector = 0x10
    set_segment(c, S_DS, &s)
    set_segment(c, S_ES, &s)
    null_segment(0, &s)
    set_segment(c, S_FS, &s)
    set_segment(c, S_GS, &s)
    return 0


cdef uint32_t load_idt(monitor_t *m, uint32_t linear, uint32_t size) noexcept nogil:
    """Copy gates: those to interrupts and traps of 32 bits, all as traps, into the kernel's level."""
    cdef cpu_t *c = m.c
    cdef pv_t *p = pv_of(m)
    cdef uint32_t i, low = 0, high = 0
    if size > 0x800 or size & 7:
        return REFUSED
    for i in range(0, size, 8):
        if (not read_linear(c, linear + i, 4, 0, &low)
                or not read_linear(c, linear + i + 4, 4, 0, &high)):
            quiet(c)
            return REFUSED
        if high & 0x9E00 != 0x8E00 or i == VECTOR * 8:
            low = high = 0
        else:
            high |= 0x100                   # the processor's own flag is never cleared
            if not high & 0x6000:
                high |= 0x2000
            low = (low & ~<uint32_t>0x30000) | 0x10000
        store32(p.window + WINDOW_IDT + i, low)
        store32(p.window + WINDOW_IDT + i + 4, high)
    memset(p.window + WINDOW_IDT + size, 0, 0x800 - size)
    c.idt_limit = max(size, <uint32_t>1) - 1
    return 0


cdef uint32_t load_task(monitor_t *m, uint32_t selector) noexcept nogil:
    """Take the kernel's stack out of a TSS of the guest's."""
    cdef cpu_t *c = m.c
    cdef pv_t *p = pv_of(m)
    cdef uint64_t raw = 0
    cdef uint32_t base, esp = 0, ss = 0
    if selector & <uint32_t>0xFFFF0007 or selector + 7 >= p.gdt_size:
        return REFUSED
    memcpy(&raw, p.gdt + selector, 8)
    if raw >> 40 & 0x9D != 0x89:
        return REFUSED
    base = <uint32_t>(raw >> 16 & 0xFFFFFF) | <uint32_t>(raw >> 32 & <uint32_t>0xFF000000)
    if not read_linear(c, base + 4, 4, 0, &esp) or not read_linear(c, base + 8, 2, 0, &ss):
        quiet(c)
        return REFUSED
    store32(p.window + WINDOW_TSS + 12, esp)
    store32(p.window + WINDOW_TSS + 16, (ss & 0xFFFC) | 1)
    c.tr.selector = selector
    return 0


# --- devices ----------------------------------------------------------------------------------

cdef void device_out(monitor_t *m, uint32_t port, uint32_t n, uint32_t v) noexcept nogil:
    cdef cpu_t *c = m.c
    cdef uint64_t version = c.memory.version
    if c.bus == NULL:
        return
    if n < 4:
        v &= 0xFF if n == 1 else 0xFFFF
    c.bus.now = c.tsc
    c.bus.port_out(c.bus.board, <uint16_t>port, n, v)
    if c.memory.version != version:
        flush(c)
        forget_code(c)


cdef uint32_t device_in(monitor_t *m, uint32_t port, uint32_t n) noexcept nogil:
    cdef cpu_t *c = m.c
    cdef uint64_t version = c.memory.version
    cdef uint32_t v = <uint32_t>0xFFFFFFFF >> (32 - 8 * n)
    if c.bus != NULL:
        c.bus.now = c.tsc
        v = c.bus.port_in(c.bus.board, <uint16_t>port, n)
        if c.memory.version != version:
            flush(c)
            forget_code(c)
    return v


cdef bint port_refused(uint32_t port, uint32_t n) noexcept nogil:
    """The interrupt controllers are the monitor's."""
    return (n != 1 and n != 2 and n != 4 or port + n > 0x10000 or port + n < n
            or port < 0x22 and port + n > 0x20 or port < 0xA2 and port + n > 0xA0)


cdef uint32_t many_words(
    monitor_t *m, bint out, uint32_t port, uint32_t linear, uint32_t count
) noexcept nogil:
    """INS and OUTS of words, after a check of all memory."""
    cdef cpu_t *c = m.c
    cdef uint32_t i, v
    if port_refused(port, 2) or count > MOST_WORDS:
        return REFUSED
    for i in range(count):
        if out:
            if not read_linear(c, linear + 2 * i, 2, 0, &v):
                quiet(c)
                return REFUSED
        elif not check_write(c, linear + 2 * i, 2, 0):
            quiet(c)
            return REFUSED
    for i in range(count):
        if out:
            if not read_linear(c, linear + 2 * i, 2, 0, &v):
                return REFUSED
            device_out(m, port, 2, v)
        elif not write_linear(c, linear + 2 * i, 2, 0, device_in(m, port, 2)):
            return REFUSED
    m.events[E_IO] += count
    return 0


cdef uint32_t bind(monitor_t *m, uint32_t channel) noexcept nogil:
    """An interrupt line becomes an event channel; the controllers are set up with the first."""
    cdef pv_t *p = pv_of(m)
    cdef uint32_t masked
    if channel >= CHANNELS or channel == 2:
        return REFUSED
    if not p.bound:
        device_out(m, 0x20, 1, 0x11)
        device_out(m, 0xA0, 1, 0x11)
        device_out(m, 0x21, 1, 0x20)
        device_out(m, 0xA1, 1, 0x28)
        device_out(m, 0x21, 1, 0x04)
        device_out(m, 0xA1, 1, 0x02)
        device_out(m, 0x21, 1, 0x01)
        device_out(m, 0xA1, 1, 0x01)
    p.bound |= <uint32_t>1 << channel
    masked = ~(p.bound | 4)                 # the second controller comes through line 2
    device_out(m, 0x21, 1, masked & 0xFF)
    device_out(m, 0xA1, 1, masked >> 8 & 0xFF)
    return 0


cdef uint32_t console(monitor_t *m, uint32_t linear, uint32_t size) noexcept nogil:
    """Text for the serial port, which takes it at once."""
    cdef cpu_t *c = m.c
    cdef uint32_t i, v
    if size > 4096:
        return REFUSED
    for i in range(size):
        if not read_linear(c, linear + i, 1, 0, &v):
            quiet(c)
            return REFUSED
    for i in range(size):
        if read_linear(c, linear + i, 1, 0, &v):
            device_out(m, 0x3F8, 1, v)
    m.events[E_IO] += 1
    return 0


cdef uint32_t disk(
    monitor_t *m, uint32_t sector, uint32_t linear, uint32_t what
) noexcept nogil:
    """One sector of the first disk, which the monitor's own driver moves; an event ends it."""
    cdef cpu_t *c = m.c
    cdef pv_t *p = pv_of(m)
    cdef walk_t w
    cdef uint64_t pa = linear
    cdef uint32_t i, code
    cdef const uint8_t *host
    if (what > 2 or p.disk or c.bus == NULL or not p.bound >> 14 & 1 or sector >> 28
            or linear & 511):
        return REFUSED
    if c.cr0 & CR0_PG and what < 2:
        pm_lock(c.memory)
        code = walk(&c.tables[0], linear, ACCESS_PURE | (0 if what else ACCESS_WRITE), &w, NULL)
        pm_unlock(c.memory)
        if code:
            return REFUSED
        pa = w.pa
    host = <const uint8_t *>pm_frame(c.memory, pa)
    if what < 2 and (host == NULL or kind_of(p, pa >> 12)):
        return REFUSED
    p.disk = what + 1
    p.disk_pa = pa
    m.events[E_IO] += 1
    device_out(m, 0x1F6, 1, 0xE0 | sector >> 24)
    device_out(m, 0x1F2, 1, 1)
    device_out(m, 0x1F3, 1, sector)
    device_out(m, 0x1F4, 1, sector >> 8)
    device_out(m, 0x1F5, 1, sector >> 16)
    device_out(m, 0x1F7, 1, 0x20 if what == 0 else 0x30 if what == 1 else 0xE7)
    if what == 1 and device_in(m, 0x3F6, 1) & 8:
        for i in range(128):
            host = <const uint8_t *>pm_frame(c.memory, pa) + (pa & 4095) + 4 * i
            device_out(m, 0x1F0, 2, load32(host))
            device_out(m, 0x1F0, 2, load32(host) >> 16)
    return 0


cdef void disk_ended(monitor_t *m) noexcept nogil:
    """Its interrupt came: take the status, and what was read."""
    cdef pv_t *p = pv_of(m)
    cdef uint32_t status = device_in(m, 0x1F7, 1), i, v
    cdef bint failed = status & 0x21
    if p.disk == 1 and not failed:
        failed = not status & 8
        for i in range(128):
            if failed:
                break
            v = device_in(m, 0x1F0, 2)
            failed = not set_word(m, p.disk_pa + 4 * i, device_in(m, 0x1F0, 2) << 16 | v)
    p.disk = 0
    shared(m)[SHARED_DISK_ERROR] = failed


# --- entering the guest -----------------------------------------------------------------------

cdef inline void show_flag(monitor_t *m, uint32_t flag) noexcept nogil:
    """Have the flag of the shared page in what is pushed next."""
    m.c.eflags = (m.c.eflags & ~<uint32_t>F_IF) | (F_IF if flag else 0)


cdef bint entered(monitor_t *m, bint done) noexcept nogil:
    """After an entry into the kernel: the flag is cleared, the processor's own is set."""
    cdef cpu_t *c = m.c
    if not done:
        c.exception_bitmap = 0
        done = not c.event & EVENT_EXIT and deliver_fault(c)
        c.exception_bitmap = BOUNCED
    c.eflags |= F_IF
    shared(m)[SHARED_ENABLED] = 0
    return done


cdef bint bounce(monitor_t *m, uint32_t vector, uint32_t error) noexcept nogil:
    """Hand an exception to the guest's kernel; False: the run ends."""
    cdef cpu_t *c = m.c
    m.events[E_PAGE_FAULT if vector == X_PF else E_EXCEPTION] += 1
    if vector == X_PF:
        shared(m)[SHARED_ADDRESS] = c.cr2
    show_flag(m, shared(m)[SHARED_ENABLED])
    c.event = EVENT_FAULT
    c.fault_vector = vector
    c.fault_error = error
    c.fault_code = (vector == X_DF or vector >= X_TS and vector <= X_PF or vector == X_AC)
    return entered(m, False)


cdef bint upcall(monitor_t *m) noexcept nogil:
    """Enter the kernel for its events, if it takes them now; False: the run ends."""
    cdef cpu_t *c = m.c
    cdef pv_t *p = pv_of(m)
    cdef uint32_t *page = shared(m)
    cdef bint done
    page[SHARED_PENDING] = page[SHARED_EVENTS] != 0 and not page[SHARED_ENABLED]
    if not page[SHARED_EVENTS] or not page[SHARED_ENABLED]:
        return True
    # after IDLE the flag is clear again
    show_flag(m, not p.idle)
    p.idle = 0
    c.halted = 0
    c.event = 0
    done = deliver(c, UPCALL, BY_DEVICE, 0, 0)
    c.counters[COUNT_INTERRUPTS] += done
    return entered(m, done)


cdef bint host_interrupt(monitor_t *m) noexcept nogil:
    """An interrupt of the machine's, which the monitor takes: it sets an event; False: the end."""
    cdef cpu_t *c = m.c
    cdef pv_t *p = pv_of(m)
    cdef int vector
    cdef uint32_t line
    c.event = 0
    vector = c.bus.acknowledge(c.bus.board)
    if vector == NO_VECTOR:
        return True
    line = <uint32_t>vector - 0x20
    if p.bound and line < CHANNELS:
        if line >= 8:
            device_out(m, 0xA0, 1, 0x20)
        device_out(m, 0x20, 1, 0x20)
        if line == 14 and p.disk:
            disk_ended(m)
        if p.bound >> line & 1:
            shared(m)[SHARED_EVENTS] |= <uint32_t>1 << line
    return upcall(m)


# --- hypercalls -------------------------------------------------------------------------------

cdef uint32_t operate(
    monitor_t *m, uint32_t n, uint32_t a, uint32_t b, uint32_t d
) noexcept nogil:
    """One of the calls that control comes back from as from a function."""
    cdef cpu_t *c = m.c
    if n == HYPER_GDT:
        return load_gdt(m, a, b)
    if n == HYPER_IDT:
        return load_idt(m, a, b)
    if n == HYPER_TASK:
        return load_task(m, a)
    if n == HYPER_PAGING:
        if c.cr0 & CR0_PG or a & 4095 or not take_directory(pv_of(m), c, a >> 12):
            return REFUSED
        c.cr0 |= <uint32_t>CR0_PG | CR0_WP
        return load_directory(m, a)
    if n == HYPER_CR3:
        if not c.cr0 & CR0_PG:
            return REFUSED
        m.events[E_CONTEXT_SWITCH] += 1
        return load_directory(m, a)
    if n == HYPER_PTE:
        return set_entry(m, a, b)
    if n == HYPER_INVLPG:
        m.events[E_INVLPG] += 1
        flush_page(c, a)
        return 0
    if n == HYPER_IN or n == HYPER_OUT:
        if port_refused(a, b):
            return REFUSED
        m.events[E_IO] += 1
        if n == HYPER_IN:
            return device_in(m, a, b)
        device_out(m, a, b, d)
        return 0
    if n == HYPER_IN_MANY or n == HYPER_OUT_MANY:
        return many_words(m, n == HYPER_OUT_MANY, a, b, d)
    if n == HYPER_RELEASE:
        return release_directory(m, a)
    if n == HYPER_BIND:
        return bind(m, a)
    if n == HYPER_CONSOLE:
        return console(m, a, b)
    if n == HYPER_DISK:
        return disk(m, a, b, d)
    return REFUSED


cdef uint32_t many(monitor_t *m, uint32_t linear, uint32_t count) noexcept nogil:
    """Several operations in one call; how many were done before one was refused."""
    cdef cpu_t *c = m.c
    cdef uint32_t i, j
    cdef uint32_t[4] word
    if count > MOST_OPERATIONS:
        return REFUSED
    for i in range(count):
        for j in range(4):
            if not read_linear(c, linear + 16 * i + 4 * j, 4, 0, &word[j]):
                quiet(c)
                return i
        j = word[0]
        if (j != HYPER_TASK and j != HYPER_CR3 and j != HYPER_PTE and j != HYPER_INVLPG
                and j != HYPER_OUT and j != HYPER_RELEASE):
            return i
        if operate(m, j, word[1], word[2], word[3]) == REFUSED:
            return i
        m.batched[j] += 1
    return count


cdef bint go_on(monitor_t *m, uint32_t eip) noexcept nogil:
    """HYPER_IRET: a frame as for IRET, under the EAX that the page pushed; False: the run ends."""
    cdef cpu_t *c = m.c
    cdef uint32_t eax = 0, flags = 0, esp = c.gpr[R_ESP]
    if peek(c, 0, 4, &eax) and peek(c, 12, 4, &flags):
        set_esp(c, esp + 4)
        iret(c, 4)
    if c.event & (EVENT_FAULT | EVENT_EXIT):
        c.gpr[R_ESP] = esp
        c.eip = eip
        return not c.event & EVENT_EXIT and bounce(m, c.fault_vector, c.fault_error)
    c.gpr[R_EAX] = eax
    c.eflags |= F_IF
    shared(m)[SHARED_ENABLED] = flags >> 9 & 1
    return upcall(m)


cdef bint hypercall(monitor_t *m, uint32_t length) noexcept nogil:
    """The guest's kernel called, by INT; False: the run ends."""
    cdef cpu_t *c = m.c
    cdef pv_t *p = pv_of(m)
    cdef uint32_t n = c.gpr[R_EAX], a = c.gpr[R_EBX], b = c.gpr[R_ECX], d = c.gpr[R_EDX]
    cdef uint32_t eip = c.eip
    cdef int booked = BOOKED_VMM
    c.event = 0
    if n == HYPER_STOP:
        c.exit_reason = EXIT_HALT
        return False
    c.eip += length
    c.counters[COUNT_RETIRED] += 1
    m.events[E_HYPERCALL] += 1
    if n < HYPERCALLS:
        m.hypercalls[n] += 1
    if n == HYPER_IN or n == HYPER_OUT or n == HYPER_IN_MANY or n == HYPER_OUT_MANY:
        booked = route(a)
    elif n == HYPER_CONSOLE or n == HYPER_DISK:
        booked = BOOKED_DEVICE if n == HYPER_CONSOLE else BOOKED_VMKERNEL
    m.booked[booked] += 1
    if n == HYPER_IRET:
        return go_on(m, eip)
    if n == HYPER_EVENTS:
        c.gpr[R_EAX] = 0
        return upcall(m)
    if n == HYPER_IDLE:
        m.events[E_HALT] += 1
        c.gpr[R_EAX] = 0
        shared(m)[SHARED_ENABLED] = 1
        p.idle = 1
        c.halted = 1
        return upcall(m)
    if n == HYPER_EXIT:
        device_out(m, 0xF4, 1, a)
        c.gpr[R_EAX] = 0
    elif n == HYPER_MANY:
        c.gpr[R_EAX] = many(m, a, b)
    else:
        c.gpr[R_EAX] = operate(m, n, a, b, d)
    return not c.event & EVENT_EXIT


cdef bint excepted(monitor_t *m) noexcept nogil:
    """An exception of the guest's, or a call; False: the run ends."""
    cdef cpu_t *c = m.c
    cdef block_t *b
    cdef uint32_t vector = c.exit_vector, error = c.exit_error
    if vector == X_GP and error == VECTOR * 8 + 2 and c.cpl == 1:
        c.event = 0
        b = find_block(c)
        if b != NULL and b.first.kind == K_INT and b.first.imm == VECTOR:
            return hypercall(m, b.first.length)
    return bounce(m, vector, error)


# --- runs -------------------------------------------------------------------------------------

cdef bint own_page(monitor_t *m, uint64_t pa) noexcept nogil:
    """Have a frame for a page of RAM; False: there is no memory."""
    cdef pm_status status
    cdef bint there
    pm_lock(m.c.memory)
    there = pm_writable(m.c.memory, pa, &status) != NULL and status == PM_OK
    pm_unlock(m.c.memory)
    return there


cdef void write_calls(uint8_t *page) noexcept nogil:
    """The page of hypercalls: 32 bytes for each."""
    cdef uint32_t i
    cdef uint8_t *at
    memset(page, 0xF4, 4096)
    for i in range(HYPERCALLS):
        at = page + 32 * i
        if i == HYPER_IRET:
            at[0] = 0x50                    # PUSH EAX
            at += 1
        at[0] = 0xB8                        # MOV EAX, i
        store32(at + 1, i)
        at[5] = 0xCD                        # INT
        at[6] = VECTOR
        at[7] = 0xC3                        # RET; after HYPER_IRET it is not reached


cdef uint32_t start(monitor_t *m) noexcept nogil:
    """Lower a guest that its loader has just left at CPL 0; EXIT_INTERRUPT: it may run."""
    cdef cpu_t *c = m.c
    cdef pv_t *p = pv_of(m)
    cdef uint32_t i
    if not c.cr0 & CR0_PE or c.cr0 & CR0_PG or c.memory.limit < 0x100000:
        c.exit_class = NO_V86               # real mode is what would need it
        return EXIT_UNSUPPORTED
    if not own_page(m, CALL_PAGE) or not own_page(m, SHARED_PAGE):
        return EXIT_NO_MEMORY
    memset(p.kinds, 0, p.frames * sizeof(uint32_t))
    memset(p.window, 0, WINDOW_SIZE)
    p.gdt_size = p.bound = p.idle = p.disk = 0
    p.kinds[CALL_PAGE >> 12] = FRAME_MONITOR
    p.kinds[SHARED_PAGE >> 12] = FRAME_SHARED
    write_calls(pm_owned(c.memory, CALL_PAGE))
    memset(pm_owned(c.memory, SHARED_PAGE), 0, 4096)
    p.window[WINDOW_TSS + 102] = 0x68       # no map of ports
    for i in range(6):
        if c.seg[i].attributes & 0x70 == 0x10:
            c.seg[i].attributes |= 0x20
    c.seg[S_CS].selector = (c.seg[S_CS].selector & 0xFFFC) | 1
    c.seg[S_SS].selector = (c.seg[S_SS].selector & 0xFFFC) | 1
    set_cpl(c, 1)
    c.cr4 = 0
    c.gdt_base = <uint32_t>WINDOW + WINDOW_GDT
    c.gdt_limit = 0
    c.idt_base = <uint32_t>WINDOW + WINDOW_IDT
    c.idt_limit = 0
    null_segment(0, &c.ldtr)
    c.tr.selector = 0
    c.tr.base = <uint32_t>WINDOW + WINDOW_TSS
    c.tr.limit = 0x67
    c.tr.attributes = 0x8B
    settle_tables(c)
    forget_code(c)
    return EXIT_INTERRUPT


cdef bint open_paravirtual(monitor_t *m) noexcept nogil:
    """Make what the monitor keeps of its guest; False: no memory."""
    cdef pv_t *p = <pv_t *>calloc(1, sizeof(pv_t))
    if p == NULL:
        return False
    p.frames = min(<uint64_t>m.c.memory.limit, <uint64_t>1 << 32) >> 12
    p.kinds = <uint32_t *>calloc(p.frames + 1, sizeof(uint32_t))
    if p.kinds == NULL:
        free(p)
        return False
    m.port = p
    m.c.translate = translate_direct
    m.c.after_write = after_write
    m.c.monitor = m
    m.c.window_host = p.window
    m.c.window_size = WINDOW_SIZE
    return True


cdef void close_paravirtual(monitor_t *m) noexcept nogil:
    cdef pv_t *p = pv_of(m)
    if p == NULL:
        return
    m.c.window = <uint64_t>1 << 32
    m.c.window_host = NULL
    m.c.window_size = 0
    m.c.interrupt_exit = 0
    flush(m.c)
    free(p.kinds)
    free(p)
    m.port = NULL


cdef uint32_t run_paravirtual(monitor_t *m, uint64_t end) noexcept nogil:
    """Run until `end` or something that ends the run: EXIT_."""
    cdef cpu_t *c = m.c
    cdef uint32_t why
    cdef uint64_t calls
    if c.cpl == 0:
        why = start(m)
        if why != EXIT_INTERRUPT:
            return why
    c.window = WINDOW
    c.eflags = (c.eflags & ~<uint32_t>F_IOPL) | F_IF
    m.open = 1
    if m.back != NULL:
        settle_front(m)
    while True:
        c.intercept = 0
        c.exception_bitmap = BOUNCED
        c.interrupt_exit = 1
        calls = c.counters[COUNT_SOFTWARE]
        why = loop(c, end)
        m.events[E_SYSCALL] += c.counters[COUNT_SOFTWARE] - calls
        if why == EXIT_INTERRUPT:
            if not host_interrupt(m):
                return c.exit_reason
        elif why == EXIT_EXCEPTION:
            if not excepted(m):
                return c.exit_reason
        else:
            return why
