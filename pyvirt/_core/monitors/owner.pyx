"""The Python object that owns a monitor, and what it makes it of."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from pyvirt._core.arrays cimport as_int
from pyvirt._core.interp.cpu cimport (
    CLASSES,
    COUNT_RETIRED,
    EXIT_BUDGET,
    cpu_t,
)
from pyvirt._core.interp.memory cimport flush, forget_code
from pyvirt._core.interp.owner cimport Cpu
from pyvirt._core.monitors.deprivilege cimport close_deprivileged, open_deprivileged
from pyvirt._core.monitors.front cimport open_front, settle_front
from pyvirt._core.monitors.hardware cimport run_hardware
from pyvirt._core.monitors.naive cimport run_naive
from pyvirt._core.monitors.paging cimport attach_paging, guest_registers, memory_changed
from pyvirt._core.monitors.paravirtual cimport (
    HYPERCALLS,
    close_paravirtual,
    open_paravirtual,
    run_paravirtual,
)
from pyvirt._core.monitors.state cimport (
    BOOKED,
    E_HIDDEN_FAULT,
    E_PAGE_FAULT,
    EVENTS,
    HARDWARE,
    NAIVE,
    PAGING_NESTED,
    PAGING_SHADOW,
    PARAVIRTUAL,
    REASONS,
    TRANSLATION,
    X_REASON_EPT,
    X_REASON_EXCEPTION,
    monitor_t,
)
from pyvirt._core.monitors.translation cimport (
    close_translation,
    open_translation,
    run_translation,
)
from pyvirt._core.monitors.unitlist cimport translation_counts, translation_units
from pyvirt._core.monitors.units cimport forget_counts, translator_t
from pyvirt._core.shadow.engine cimport HyperCore
from pyvirt._core.shadow.state cimport counters_t
from pyvirt.errors import InvalidTypeError, InvalidValueError

TECHNIQUES = ("naive", "translation", "paravirtual", "hardware")
PAGINGS = ("direct", "shadow", "nested")
BOOKS = ("direct", "translated", "vmm", "vmkernel", "device")
EVENT_NAMES = ("syscall", "interrupt_flag", "call_return", "exception", "io", "interrupt", "halt",
               "cpuid", "msr", "translation_unit", "page_fault", "page_table_update",
               "context_switch", "invlpg", "hidden_fault", "emulated", "hypercall")
HYPERCALL_NAMES = ("events", "idle", "stop", "exit", "gdt", "idt", "task", "paging", "cr3", "pte",
                   "invlpg", "in", "out", "in_many", "out_many", "iret", "many", "release", "bind", "console",
                   "disk")


cdef uint32_t run_by(monitor_t *m, uint64_t end) noexcept nogil:
    """Run by the monitor's technique until `end`."""
    if m.technique == NAIVE:
        return run_naive(m, end)
    if m.technique == PARAVIRTUAL:
        return run_paravirtual(m, end)
    if m.technique == TRANSLATION:
        return run_translation(m, end)
    return run_hardware(m, end)


cdef uint32_t run_for(monitor_t *m, uint64_t budget) noexcept nogil:
    """As `run` of the interpreter, under a monitor."""
    cdef cpu_t *c = m.c
    cdef uint64_t end = c.tsc + budget
    if end < c.tsc:
        end = <uint64_t>0xFFFFFFFFFFFFFFFF
    if c.memory.version != c.version:
        flush(c)
        forget_code(c)
        memory_changed(m)
    if m.guest.cr0 != c.cr0 or m.guest.cr3 != c.cr3 or m.guest.cr4 != c.cr4:
        m.paged = 0                 # somebody else set them
        guest_registers(m, c.cr0, c.cr3, c.cr4)
    if m.back != NULL:
        settle_front(m)
    m.checked_page = <uint32_t>0xFFFFFFFF       # what was found belongs to another run
    c.exit_reason = EXIT_BUDGET
    c.exit_class = 0
    c.exit_reason = run_by(m, end)
    c.event = 0
    c.memory.version += 1
    c.version = c.memory.version
    return c.exit_reason


cdef class MonitorCore:
    """A monitor between a processor and its guest.

    Parameters
    ----------
    cpu : Cpu
        The processor, which belongs to the monitor from now on. Its state is the guest's.
    technique : {"naive", "translation", "paravirtual", "hardware"}
        How the guest is executed.
    tables : sequence of HyperCore
        For guests with 32-bit tables and with PAE, over the processor's memory; empty: the guest's
        tables are the machine's.
    cache : tuple of int
        With translation: units that the code cache has room for (1 to 2**20); writes to traced pages
        after which an instruction is retranslated (0 to 255; 0: never); whether code of CPL 3 is
        translated too.
    """

    def __init__(self, Cpu cpu not None, technique, tables=(), cache=(4096, 4, False)):
        cdef int i
        cdef uint32_t units = as_int(cache[0], "units", 1, 1 << 20)
        cdef uint32_t threshold = as_int(cache[1], "threshold", 0, 255)
        cdef bint user = cache[2]
        if self.cpu is not None:
            raise InvalidTypeError("this monitor is initialised already")
        if cpu.memory is None:
            raise InvalidTypeError("this processor was not initialised")
        if cpu.c.monitor != NULL:
            raise InvalidValueError("this processor has a monitor already")
        if technique not in TECHNIQUES:
            raise InvalidValueError(
                f"technique must be one of {', '.join(TECHNIQUES)}, got {technique!r:.80}")
        tables = tuple(tables)
        if len(tables) not in (0, 2) or not all(isinstance(one, HyperCore) for one in tables):
            raise InvalidTypeError("tables must be two HyperCore, or none")
        for one in tables:
            if one.mem is not cpu.memory:
                raise InvalidValueError("tables must be those of the processor's memory")
        self.cpu = cpu
        self.tables = tables
        self.m.c = &cpu.c
        self.m.technique = TECHNIQUES.index(technique)
        for i in range(len(tables)):
            self.m.tables[i] = (<HyperCore>tables[i]).pointer()
        if tables:
            self.m.paging = (PAGING_SHADOW if self.m.tables[0].mode == 0 else PAGING_NESTED)
            attach_paging(&self.m)
        self.m.c.monitor = &self.m
        if technique in ("naive", "translation") and not open_deprivileged(&self.m):
            raise MemoryError
        if technique == "translation" and not open_translation(&self.m, units, threshold, user):
            raise MemoryError
        if technique == "paravirtual" and not open_paravirtual(&self.m):
            raise MemoryError
        if cpu.c.bus != NULL:
            self.m.back = cpu.c.bus
            open_front(&self.m)
            cpu.c.bus = &self.m.front
        memset(self.m.controls.ports, 0xFF, sizeof(self.m.controls.ports))
        self.forget()

    def __dealloc__(self):
        if self.cpu is not None:
            close_translation(&self.m)
            close_deprivileged(&self.m)
            close_paravirtual(&self.m)
            self.cpu.c.translate = NULL
            self.cpu.c.after_write = NULL
            self.cpu.c.monitor = NULL
            self.cpu.c.intercept = 0
            self.cpu.c.exception_bitmap = 0
            if self.m.back != NULL:
                self.cpu.c.bus = self.m.back

    def _check(self):
        if self.cpu is None:
            raise InvalidTypeError("this monitor was not initialised")
        self.cpu._check()

    def forget(self):
        """Begin to count anew."""
        self._check()
        memset(self.m.booked, 0, sizeof(self.m.booked))
        memset(self.m.events, 0, sizeof(self.m.events))
        memset(self.m.exits, 0, sizeof(self.m.exits))
        memset(self.m.hypercalls, 0, sizeof(self.m.hypercalls))
        memset(self.m.batched, 0, sizeof(self.m.batched))
        self.m.clustered = 0
        self.m.retired = self.m.c.counters[COUNT_RETIRED]
        for one in self.tables:
            one.reset()
        if self.m.translator != NULL:
            forget_counts(<translator_t *>self.m.translator)

    def set_controls(self, intercept, exceptions, cluster, ports):
        """What exits from a guest with hardware assistance.

        Parameters
        ----------
        intercept : int
            Bits of classes of instructions.
        exceptions : int
            Bits of vectors.
        cluster : int
            Further instructions that an exit may emulate, 0 to 64.
        ports : bytes
            8,192 of them: the I/O bitmaps.
        """
        self._check()
        cdef uint32_t classes = as_int(intercept, "intercept", 0, (1 << CLASSES) - 1)
        cdef uint32_t vectors = as_int(exceptions, "exceptions", 0, <uint32_t>0xFFFFFFFF)
        cdef uint32_t further = as_int(cluster, "cluster", 0, 64)
        cdef const uint8_t[::1] bits = ports
        if bits.shape[0] != 8192:
            raise InvalidValueError(f"ports must be 8192 bytes, got {bits.shape[0]}")
        self.m.controls.intercept = classes
        self.m.controls.exceptions = vectors
        self.m.controls.cluster = further
        memcpy(self.m.controls.ports, &bits[0], 8192)

    def take_frame(self, frame):
        """Drop all entries of shadow or nested tables that map a guest frame; how many there were."""
        self._check()
        if not self.tables:
            raise InvalidValueError("this guest's own tables are the machine's: no frame can be taken")
        dropped = sum(one.drop_frames(frame) for one in self.tables)
        flush(self.m.c)
        return dropped

    def run(self, budget):
        """Run at most `budget` cycles; returns the number of the exit, as `Cpu.run`."""
        self._check()
        cdef uint64_t n = as_int(budget, "budget", 0, 0x7FFFFFFFFFFFFFFF)
        cdef uint32_t reason
        self.cpu.running = True
        with nogil:
            reason = run_for(&self.m, n)
        self.cpu.running = False
        return reason

    def counts(self):
        """What happened since counting began.

        Returns
        -------
        dict
            ``booked`` and ``events`` by name, ``exits`` by basic reason (those that happened),
            ``clustered``, ``instructions``; ``hypercalls`` and ``batched`` by name.
        """
        cdef int i
        cdef counters_t *t
        cdef uint64_t hidden = self.m.events[E_HIDDEN_FAULT], true = self.m.events[E_PAGE_FAULT]
        cdef uint64_t faults = 0, violations = 0
        self._check()
        for i in range(len(self.tables)):
            t = self.m.tables[i].counters
            hidden += t.pf_fixed + t.pf_spurious
            true += t.guest_faults
            faults += t.x_pf
            violations += t.x_npf
        events = {EVENT_NAMES[i]: self.m.events[i] for i in range(EVENTS)}
        events["hidden_fault"] = hidden
        events["page_fault"] = true
        exits = {i: self.m.exits[i] for i in range(REASONS)}
        if self.m.technique == HARDWARE:
            exits[X_REASON_EXCEPTION] += faults
            exits[X_REASON_EPT] += violations
        retired = self.m.c.counters[COUNT_RETIRED] - self.m.retired
        booked = {BOOKS[i]: self.m.booked[i] for i in range(BOOKED)}
        booked["direct"] = retired - sum(self.m.booked[i] for i in range(1, BOOKED))
        return {"booked": booked, "events": events, "exits": {k: n for k, n in exits.items() if n},
                "clustered": self.m.clustered, "instructions": retired,
                "hypercalls": {HYPERCALL_NAMES[i]: self.m.hypercalls[i]
                               for i in range(HYPERCALLS) if self.m.hypercalls[i]},
                "batched": {HYPERCALL_NAMES[i]: self.m.batched[i]
                            for i in range(HYPERCALLS) if self.m.batched[i]}}

    def translation(self):
        """Counts of the code cache by name, and its units, oldest first; see `unitlist`."""
        self._check()
        if self.m.translator == NULL:
            raise InvalidValueError("only translation has a code cache")
        return (translation_counts(<translator_t *>self.m.translator),
                translation_units(<translator_t *>self.m.translator))
