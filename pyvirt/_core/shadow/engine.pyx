"""The hypervisor object: owner of the pool, the lists and the vCPUs."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

import numpy as np

from pyvirt._core.arrays cimport as_int, as_output
from pyvirt._core.datacache cimport drain
from pyvirt._core.events cimport event_t
from pyvirt._core.frames cimport pm_lock, pm_unlock
from pyvirt._core.mmu import MmuCore
from pyvirt._core.operations cimport adopt
from pyvirt._core.paging cimport FORMAT_PAE, FORMAT_X86_32, configure
from pyvirt._core.physmem cimport PhysMem
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
    DONE_LIVELOCK,
    DONE_NO_MEMORY,
    DONE_NO_ROOM,
    DONE_OUTSIDE,
    DONE_OUTSIDE_TABLE,
    DONE_REFUSED,
    done_t,
)
from pyvirt._core.shadow.check cimport find_faults, list_leaves, list_pages
from pyvirt._core.shadow.cpu cimport run, set_registers
from pyvirt._core.shadow.front cimport front_start
from pyvirt._core.shadow.host cimport drop_frames, new_generation
from pyvirt._core.shadow.nested cimport make_nested_root
from pyvirt._core.shadow.pool cimport close_pool, open_pool, show_page
from pyvirt._core.shadow.quadrants cimport (
    PDPTES_OUTSIDE,
    PDPTES_RESERVED,
    load_pdptes,
    pdptes_t,
)
from pyvirt._core.shadow.state cimport (
    FRAME_SHIFT,
    LARGE_REFUSALS,
    MODE_AGILE,
    MODE_LEGACY,
    MODE_NATIVE,
    MODE_SHADOW,
    MODE_TDP,
    PREVIOUS_ROOTS,
    REQUEST_ROOT,
    UNSYNC_LIMIT,
    agile_t,
    counters_t,
    cpu_t,
    hyper_t,
    in_slot,
    link_t,
    link_to,
    page_t,
    rules_t,
    shadows,
    table_t,
)
from pyvirt._core.state cimport run_t
from pyvirt.errors import InvalidTypeError, InvalidValueError, OutsideMemoryError

cdef enum:
    MOST_CPUS = 256
    MMIO_PAGES = 64                     # nested tables for places without memory
    MOST_PAGES = (1 << 22) - 64         # entries are numbered in 32 bits
    CR0_WP = 0x10000
    EFER_NXE = 0x800
    CR4_PCIDE = 1 << 17

MODES = {
    "shadow": MODE_SHADOW,
    "tdp": MODE_TDP,
    "legacy": MODE_LEGACY,
    "agile": MODE_AGILE,
    "none": MODE_NATIVE,
}

COUNTER_DTYPE = np.dtype([
    (name, "<i8" if name in ("pages_4k", "pages_2m", "mmu_unsync") else "<u8",
     {"large_refused": LARGE_REFUSALS, "agile_switches": 6}.get(name, ()))
    for name in (
        "x_pf x_npf x_invlpg x_cr3_write x_cr0 x_cr4 x_io x_other "
        "pf_taken pf_fixed pf_guest pf_emulate pf_spurious pf_mmio "
        "invlpg tlb_flush remote_tlb_flush_requests pages_4k pages_2m mmu_cache_miss "
        "mmu_shadow_zapped mmu_pte_write mmu_pde_zapped mmu_flooded mmu_recycled mmu_unsync "
        "accesses guest_faults guest_walks guest_a_set guest_d_set filled prefetched pages_found "
        "roots_hit roots_built syncs sync_compared sync_dropped sync_changed unsyncs "
        "unsync_evicted write_protected reverse_map_walked reverse_map_longest large_refused "
        "host_invalidated traces_lifted "
        "x_pml_full pf_fast log_faults logged log_protected large_split collapsed "
        "x_invpcid "
        "agile_intervals agile_moved agile_returned agile_trapped agile_untrapped agile_switches "
        "agile_root_hits"
    ).split()
])
assert COUNTER_DTYPE.itemsize == sizeof(counters_t)

EVENT_DTYPE = np.dtype([("op", "u1"), ("size", "u1"), ("vcpu", "<u2"), ("arg", "<u4"),
                        ("addr", "<u8"), ("value", "<u8")])
assert EVENT_DTYPE.itemsize == sizeof(event_t)

_REASONS = {
    DONE_OUTSIDE_TABLE: "a table of the guest is not in memory",
    DONE_NO_ROOM: "no shadow page is free, and all are in use: the limit is too low",
    DONE_BAD_OP: "there is no such operation here",
    DONE_BAD_VCPU: "there is no such vCPU",
    DONE_BAD_SIZE: "a store with data is 1 to 8 bytes, one to a table 4 or 8 aligned bytes",
    DONE_BAD_ROOT: "CR3 is not in memory",
    DONE_BAD_VALUE: "a value of this register that is not supported: paging without protection keys "
                    "is, and stays on in the format that the machine was made with",
    DONE_BAD_PDPTE: "a PDPTE has reserved bits",
    DONE_BAD_PCID: "the processor refuses this: CR3[11:0] must be 0 where CR4.PCIDE is set, "
                   "CR3[63] and PCIDs from 1 to 0xfff need it, types of INVPCID are 0 to 3 and "
                   "its address is canonical",
    DONE_DOUBLE_FAULT: "a page fault while one is delivered or handled",
    DONE_LIVELOCK: "an instruction that cannot end: its pages do not fit in the limit",
    DONE_OUTSIDE: "a physical address outside memory",
    DONE_BAD_INSTRUCTION: "more than 16 accesses in one instruction",
}
_OUTSIDE = {DONE_OUTSIDE_TABLE, DONE_BAD_ROOT, DONE_OUTSIDE}


cdef class HyperCore:
    """Shadow or nested tables of one machine, and the vCPUs that run on them.

    Parameters
    ----------
    mem : PhysicalMemory
        The guest's memory.
    mode : {"shadow", "tdp", "legacy", "agile", "none"}
        Kind of tables; none: the guest's are the machine's own.
    rules : dict
        A number for each field of `pyvirt.mmu.shadow.ShadowRules`.
    backing : ndarray of uint8
        For each 2 MiB of guest memory, whether the host keeps it in one page.
    limit : int
        Pages of the pool that may be used; 0: as many as there can be (nested tables only).
    levels : int
        Of nested tables.
    vcpus : int
        How many.
    guest : dict
        Options of the guest's tables, as for `Walker`.
    cr3 : int
        Of every vCPU at the start.
    caches : tuple, optional
        With a processor in front of the tables: its `Geometry`, one seed for each array as
        `MmuCore` takes them, and data caches for the references of its walks.
    agile : dict, optional
        With mode "agile": a number for each field of `pyvirt.mmu.agile.AgileRules`.

    Attributes
    ----------
    mem
        As given.
    counters : ndarray of COUNTER_DTYPE, shape (1,)
        What was counted, live; read-only.
    """

    def __init__(self, mem, mode, rules, backing, limit, levels, vcpus, guest, cr3, caches=None,
                 agile=None):
        cdef hyper_t *s = &self.s
        cdef uint32_t i
        cdef uint64_t regions
        cdef const uint8_t[::1] huge
        if self.begun:
            raise InvalidTypeError("this hypervisor is initialised already, or failed to be")
        if not isinstance(mem, PhysMem):
            raise InvalidTypeError(f"memory must be a PhysicalMemory, got {mem!r:.80}")
        if (<PhysMem>mem).m.region_count == 0:
            raise InvalidTypeError("memory was not initialised")
        if mode not in MODES:
            raise InvalidValueError(f"tables must be one of {', '.join(MODES)}, got {mode!r:.80}")
        self.mem = mem
        s.mem = &self.mem.m
        s.mode = MODES[mode]
        s.levels = as_int(levels, "levels", 4, 5)
        s.frames = s.mem.limit >> FRAME_SHIFT
        if s.frames > <uint64_t>1 << 28:
            raise InvalidValueError(
                f"memory must end below 1 TiB, its last byte is at {s.mem.limit - 1:#x}")
        s.first_frame = (s.frames + 511) & ~<uint64_t>511
        vcpus = as_int(vcpus, "vcpus", 1, MOST_CPUS)
        self._set_rules(rules)
        if s.mode == MODE_NATIVE:
            s.limit = 0
            s.capacity = 2
        elif s.mode == MODE_TDP:
            s.limit = 0
            s.capacity = 2 + s.levels + MMIO_PAGES
            regions = s.frames
            while regions > 1:
                regions = (regions + 511) >> 9
                s.capacity += <uint32_t>regions
        else:
            least = (s.rules.previous_roots + 2) * vcpus + 16 if shadows(s) else 16
            s.limit = as_int(limit, "page_limit", least, MOST_PAGES)
            s.capacity = s.limit + 2
        regions = (s.frames >> 9) + 1
        self.begun = True
        if caches is not None and guest["format"] != "x86-64":
            raise InvalidValueError(
                f"tlb= is for 64-bit guests, the format is {guest['format']!r:.80}")
        if caches is not None and not open_pool(s):
            raise MemoryError
        s.backing = <uint8_t *>calloc(regions, 1)
        s.log = <uint8_t *>calloc(regions, 1)
        s.dirty = <uint64_t *>calloc(regions << 3, sizeof(uint64_t))
        s.reverse = <uint32_t *>calloc(s.frames, sizeof(uint32_t))
        s.reverse_large = <uint32_t *>calloc(regions, sizeof(uint32_t))
        s.same = <uint32_t *>calloc(s.frames + 1, sizeof(uint32_t))
        s.shadowed = <uint16_t *>calloc(regions, sizeof(uint16_t))
        s.pages = <page_t *>calloc(s.capacity, sizeof(page_t))
        s.entries = <uint64_t *>calloc(<uint64_t>s.capacity << 9, sizeof(uint64_t))
        s.links = <link_t *>calloc(<uint64_t>s.capacity << 9, sizeof(link_t))
        s.found = <uint32_t *>calloc(s.capacity, sizeof(uint32_t))
        s.cpus = <cpu_t *>calloc(vcpus, sizeof(cpu_t))
        if (s.backing == NULL or s.reverse == NULL or s.reverse_large == NULL or s.same == NULL
                or s.shadowed == NULL or s.pages == NULL or s.entries == NULL or s.links == NULL
                or s.found == NULL or s.cpus == NULL or s.log == NULL or s.dirty == NULL):
            raise MemoryError
        s.cpu_count = vcpus
        if s.mode == MODE_AGILE:
            self._set_agile(agile, caches)
        if (not isinstance(backing, np.ndarray) or backing.dtype != np.uint8
                or backing.shape != ((s.frames + 511) >> 9,)):
            raise InvalidTypeError("backing must be uint8, one for each 2 MiB of memory")
        huge = np.ascontiguousarray(backing)
        memcpy(s.backing, &huge[0], huge.shape[0])
        s.epoch = 1
        self._counters = np.zeros(1, dtype=COUNTER_DTYPE)
        cdef uint8_t[::1] counter_bytes = self._counters.view(np.uint8)
        s.counters = <counters_t *>&counter_bytes[0]
        self.counters = self._counters.view()
        self.counters.flags.writeable = False
        for i in range(s.cpu_count):
            self._start(i, guest, cr3)
        if s.mode not in (MODE_SHADOW, MODE_NATIVE) and not make_nested_root(s):
            raise MemoryError
        if caches is not None:
            self._attach(guest, cr3, caches)

    def _set_agile(self, agile, caches):
        """Rules of agile paging, and what it knows of each frame."""
        cdef hyper_t *s = &self.s
        if agile is None or caches is None:
            raise InvalidValueError("agile paging needs a processor: tlb=")
        s.agile.writes = as_int(agile["writes"], "writes", 0, 0xFFFFFFFF)
        s.agile.length = s.agile.left = as_int(agile["interval"], "interval", 0, 1 << 62)
        s.agile.by_process = agile["by_process"]
        s.agile.all_back = agile["all_back"]
        s.agile.hardware_ad = agile["hardware_ad"]
        s.agile.root_cache = as_int(agile["root_cache"], "root_cache", 0, PREVIOUS_ROOTS)
        s.rules.previous_roots = max(s.rules.previous_roots, s.agile.root_cache)
        s.tables = <table_t *>calloc(s.frames, sizeof(table_t))
        s.moved = <uint32_t *>calloc(s.frames, sizeof(uint32_t))
        if s.tables == NULL or s.moved == NULL:
            raise MemoryError

    cdef object _attach(self, dict guest, object cr3, tuple caches):
        """Put a processor in front of the tables, with an ASID and a core for each vCPU.

        On shadow tables WP, NX and 52 bits of physical addresses are the hypervisor's own.
        """
        cdef hyper_t *s = &self.s
        cdef uint32_t i
        cdef bint shadow = s.mode == MODE_SHADOW
        cdef bint nested = s.mode not in (MODE_SHADOW, MODE_NATIVE)
        geometry, seeds, data_cache = caches
        own = dict(guest, set_ad=True)
        host = dict(own, format="npt", levels=s.levels, pa_width=52)
        ours = dict(own, cr0=guest["cr0"] | CR0_WP, efer=guest["efer"] | EFER_NXE, pa_width=52)
        if shadow:
            own = ours
        cr3 = self.s.cpus[0].guest.root
        self.processor = MmuCore(
            "nested" if nested else "native", self.mem, geometry, own, host if nested else None,
            0 if shadow else cr3, link_to(s, s.nested_root) if nested else 0, s.cpu_count, None,
            True, False, False, False, seeds, data_cache, None)
        s.runs = <run_t *>calloc(s.cpu_count, sizeof(run_t))
        if s.runs == NULL:
            raise MemoryError
        s.front = &self.processor.m
        for i in range(s.cpu_count):
            s.front.vcpus[i].vpid = <uint16_t>(i + 1)
            if s.mode == MODE_AGILE:
                configure(&s.front.vcpus[i].shadow, 0, ours)
                s.front.vcpus[i].guest.wp = s.front.vcpus[i].guest.nxe = True
            if adopt(s.front, &s.front.vcpus[i], &s.front.vcpus[i].guest, s.front.vcpus[i].cr3):
                raise MemoryError
        self._start_processor()

    cdef void _start_processor(self) noexcept nogil:
        """After what its engine takes from this process was set anew."""
        cdef uint32_t i
        for i in range(self.s.cpu_count):
            front_start(&self.s, i)

    def __dealloc__(self):
        free(self.s.tables)
        free(self.s.moved)
        free(self.s.runs)
        close_pool(&self.s)
        free(self.s.backing)
        free(self.s.log)
        free(self.s.dirty)
        free(self.s.reverse)
        free(self.s.reverse_large)
        free(self.s.same)
        free(self.s.shadowed)
        free(self.s.pages)
        free(self.s.entries)
        free(self.s.links)
        free(self.s.found)
        free(self.s.cpus)

    cdef hyper_t *pointer(self) noexcept nogil:
        return &self.s

    def _set_rules(self, rules):
        cdef rules_t *r = &self.s.rules
        r.unsync = rules["unsync"]
        r.clean_read_only = rules["clean_read_only"]
        r.keep_pages = rules["keep_pages"]
        r.refill_at_invlpg = rules["refill_at_invlpg"]
        r.refill_at_injection = rules["refill_at_injection"]
        r.sync_at_cr3 = rules["sync_at_cr3"]
        r.sync_at_link = rules["sync_at_link"]
        r.prefetch_accessed = rules["prefetch_accessed"]
        r.stay_unsync = rules["stay_unsync"]
        r.large_pages = rules["large_pages"]
        r.refill_at_write = rules["refill_at_write"]
        r.log_writes_only = rules["log_writes_only"]
        r.split_eagerly = rules["split_eagerly"]
        r.flood_leaves = rules["flood_leaves"]
        r.prefetch = as_int(rules["prefetch"], "prefetch", 0, 512)
        if r.prefetch & (r.prefetch - 1) and r.prefetch:
            raise InvalidValueError(
                f"prefetch must be 0 or a power of two up to 512, got {r.prefetch}")
        r.flood_limit = as_int(rules["flood_limit"], "flood_limit", 0, 255)
        r.previous_roots = as_int(rules["previous_roots"], "previous_roots", 0, PREVIOUS_ROOTS)
        r.least_free = as_int(rules["least_free"], "least_free", 5, MOST_PAGES)
        r.refill = as_int(rules["refill"], "refill", r.least_free, MOST_PAGES)
        r.batch = as_int(rules["batch"], "batch", 8, 0xFFFFFFFF)
        r.unsync_limit = as_int(rules["unsync_limit"], "unsync_limit", 0, UNSYNC_LIMIT - 1)
        r.trace_limit = as_int(rules["trace_limit"], "trace_limit", 0, 0xFFFF)

    def _start(self, uint32_t vcpu, guest, cr3):
        """Give a vCPU its registers."""
        cdef cpu_t *v = &self.s.cpus[vcpu]
        cdef pdptes_t loaded
        configure(&v.guest, 0, guest)
        v.guest.mem = self.s.mem
        v.cr0 = guest["cr0"]
        v.cr4 = guest["cr4"]
        v.efer = guest["efer"]
        v.cr3 = as_int(cr3, "cr3", 0, 0xFFFFFFFFFFFFFFFF)
        if v.cr3 >> 63:
            raise InvalidValueError(f"cr3 must have bit 63 clear, which is not kept: {v.cr3:#x}")
        v.quartered = v.guest.format == FORMAT_PAE or v.guest.format == FORMAT_X86_32
        if v.quartered and (v.cr3 >> 32 or v.cr4 & CR4_PCIDE):
            raise InvalidValueError("cr3 has 32 bits, and cr4 no PCIDE, in a 32-bit or PAE guest: "
                                    f"got {v.cr3:#x} and {v.cr4:#x}")
        if not in_slot(&self.s, (v.cr3 & v.guest.table_address) >> FRAME_SHIFT):
            raise OutsideMemoryError(f"cr3 is not in memory: {v.cr3:#x}")
        if v.guest.format == FORMAT_PAE:
            loaded = load_pdptes(&self.s, v, v.cr3)
            if loaded == PDPTES_RESERVED:
                raise InvalidValueError(f"a PDPTE at cr3 has reserved bits: {v.cr3:#x}")
            if loaded == PDPTES_OUTSIDE:
                raise OutsideMemoryError(f"a PDPTE at cr3 is not in memory: {v.cr3:#x}")
            v.guest.levels = 2              # walks begin at what a PDPTE points to
        set_registers(&self.s, v)
        if shadows(&self.s):
            v.requests = REQUEST_ROOT

    def _check_begun(self):
        if self.s.counters == NULL:
            raise InvalidTypeError("this hypervisor was not initialised")

    def _vcpu(self, vcpu):
        self._check_begun()
        return as_int(vcpu, "vcpu", 0, self.s.cpu_count - 1)

    # --- running ---

    def run_into(self, events, codes=None, values=None, stop=False, position=0):
        """Run events up to the end, or with `stop` the first page fault.

        Parameters
        ----------
        events : ndarray of EVENT_DTYPE, shape (n,)
            What the vCPUs do.
        codes, values : ndarray of uint16 and uint64, shape (n,), optional
            Receive for each event what became of it, and what a load read or the error code of
            a page fault.
        stop : bool, default False
            End after the first page fault.
        position : int, default 0
            Number of the first event, for error messages.

        Returns
        -------
        int
            Events done.

        Raises
        ------
        InvalidValueError, OutsideMemoryError, MemoryError
            For an event that cannot be; those before it are done, the state is consistent.
        """
        cdef const uint8_t[::1] raw
        cdef uint16_t[::1] code_view
        cdef uint64_t[::1] value_view
        cdef uint16_t *code_pointer = NULL
        cdef uint64_t *value_pointer = NULL
        cdef uint64_t n, count = 0
        cdef bint until_fault = stop
        cdef done_t done
        self._check_begun()
        if not isinstance(events, np.ndarray) or events.dtype != EVENT_DTYPE or events.ndim != 1:
            raise InvalidTypeError(
                "events must be a one-dimensional ndarray of EVENT_DTYPE, got "
                f"{getattr(events, 'dtype', type(events).__name__)}")
        n = events.shape[0]
        if codes is not None:
            code_view = as_output(codes, np.dtype(np.uint16), (n,), "codes")
        if values is not None:
            value_view = as_output(values, np.dtype(np.uint64), (n,), "values")
        if n == 0:
            return 0
        raw = np.ascontiguousarray(events).view(np.uint8)
        if codes is not None:
            code_pointer = &code_view[0]
        if values is not None:
            value_pointer = &value_view[0]
        with nogil:
            pm_lock(self.s.mem)
            done = run(&self.s, <const event_t *>&raw[0], n, code_pointer, value_pointer,
                       until_fault, &count)
            if self.s.front != NULL:
                drain(self.s.front)
            pm_unlock(self.s.mem)
        if done != DONE and done != DONE_REFUSED:
            self._raise(done, events[count], position + count)
        return count

    def _raise(self, done_t done, event, position):
        text = (f"event {position} (op {event['op']}, vcpu {event['vcpu']}, "
                f"arg {event['arg']:#x}, addr {event['addr']:#x}, value {event['value']:#x}): ")
        if done == DONE_NO_MEMORY:
            raise MemoryError(text + "the host has no memory left for another frame")
        kind = OutsideMemoryError if done in _OUTSIDE else InvalidValueError
        raise kind(text + _REASONS[done])

    def reset(self):
        """Set the counters to 0; gauges count from here."""
        self._check_begun()
        self._counters[:] = 0
        if self.processor is not None:
            self.processor.reset()

    # --- the host ---

    def drop_frames(self, first, count=1):
        """Drop every entry that maps one of these guest frames: the host moves or takes them.

        Parameters
        ----------
        first, count : int
            Guest frames.

        Returns
        -------
        int
            Entries dropped.
        """
        cdef uint64_t start, end
        self._check_begun()
        start = as_int(first, "first", 0, self.s.frames - 1)
        end = start + <uint64_t>as_int(count, "count", 1, self.s.frames - start)
        return drop_frames(&self.s, start, end)

    def set_backing(self, first, count, bint huge):
        """Split or collapse the host's pages under whole 2 MiB of guest frames.

        Parameters
        ----------
        first, count : int
            Guest frames, multiples of 512.
        huge : bool
            Whether each 2 MiB is one page from now on.

        Returns
        -------
        int
            Entries dropped: the next touch makes those that fit.
        """
        cdef uint64_t start, end, i
        self._check_begun()
        start = as_int(first, "first", 0, self.s.frames - 1)
        end = start + <uint64_t>as_int(count, "count", 1, self.s.frames - start)
        if start & 511 or (end & 511 and end != self.s.frames):
            raise InvalidValueError(
                f"first and count must be multiples of 512 frames, got {first} and {count}")
        dropped = drop_frames(&self.s, start, end)
        for i in range(start >> 9, (end + 511) >> 9):
            self.s.backing[i] = huge
        return dropped

    def slots_changed(self, times=1):
        """The host changed what memory there is: places without any are looked up anew.

        Parameters
        ----------
        times : int, default 1
            How often. Every 2**18 times all tables are dropped, because entries that remember
            an older state could not be told from new ones.
        """
        cdef uint64_t count = as_int(times, "times", 1, 0xFFFFFFFF), _i
        self._check_begun()
        for _i in range(count):
            new_generation(&self.s)

    # --- looking at it ---

    def registers(self, vcpu=0):
        """The control registers of a vCPU, and the error code of its last page fault."""
        cdef cpu_t *v = &self.s.cpus[<uint32_t>self._vcpu(vcpu)]
        return {"cr0": v.cr0, "cr3": v.cr3, "cr4": v.cr4, "efer": v.efer, "error": v.error}

    @property
    def mmu_counters(self):
        """What the processor in front of the tables counted, one row a vCPU; None without one."""
        return None if self.processor is None else self.processor.counters

    def tlb_entries(self, vcpu=0):
        """What TLBs and walk caches of a vCPU hold; see `pyvirt.MMU.entries`."""
        cpu = self._vcpu(vcpu)
        if self.processor is None:
            raise InvalidTypeError("this hypervisor was made without tlb=")
        return self.processor.entries(cpu)

    def nested_tables(self):
        """List the guest's tables that agile paging has in nested mode now.

        Returns
        -------
        ndarray of uint64, shape (n, 2)
            Frame of each, and the level that it had when it went there; in that order.
        """
        cdef hyper_t *s = &self.s
        cdef uint32_t i
        self._check_begun()
        rows = [(s.moved[i], s.tables[s.moved[i]].nested) for i in range(s.agile.moved)
                if s.tables[s.moved[i]].nested]
        return np.array(rows, dtype=np.uint64).reshape(-1, 2)

    @property
    def pages_used(self):
        """Pages of the pool in use."""
        return self.s.used

    @property
    def page_limit(self):
        """How many may be."""
        return self.s.limit or self.s.capacity - 1

    @property
    def nbytes(self):
        """Bytes of the pool, the lists and the vCPUs; none of it grows."""
        cdef uint64_t regions = (self.s.frames >> 9) + 1
        cdef uint64_t agile = 0 if self.s.tables == NULL else sizeof(table_t) + 4
        return (self.s.capacity * (sizeof(page_t) + 512 * (8 + sizeof(link_t)) + 4)
                + self.s.frames * agile + self.s.frames * 8 + regions * 72 + self.s.cpu_count * sizeof(cpu_t))

    def check(self):
        """Walk entries and lists both ways, and compare tables that are in step with the guest's.

        Returns
        -------
        list of str
            What contradicts; empty for a consistent state.
        """
        self._check_begun()
        return find_faults(&self.s)

    def leaves(self, vcpu=0):
        """List what the tables map for a vCPU now.

        Returns
        -------
        ndarray of LEAF_DTYPE
            Address (guest-virtual in shadow mode, else guest-physical), guest frame address,
            page shift, and the entry's flags as in x86-64 (P, W, U, A, D, large, NX).
        """
        return list_leaves(&self.s, self._vcpu(vcpu))

    def pages(self):
        """List the pages of the pool, oldest first, invalid roots last.

        Returns
        -------
        ndarray of PAGE_DTYPE
            Guest frame, role, entries, whether unsync, marks, emulated writes, uses as a root.
        """
        self._check_begun()
        return list_pages(&self.s)

    # --- state as a value ---

    def _state(self):
        """What changes while it runs, without addresses of this process."""
        cdef hyper_t *s = &self.s
        cdef uint64_t regions = (s.frames >> 9) + 1, used = <uint64_t>(s.high + 1) << 9
        cdef uint32_t i
        self._check_begun()
        cpus = np.frombuffer((<uint8_t *>s.cpus)[:s.cpu_count * sizeof(cpu_t)], np.uint8).copy()
        cdef uint8_t[::1] raw = cpus
        for i in range(s.cpu_count):
            v = <cpu_t *>&raw[i * sizeof(cpu_t)]
            v.guest.mem = NULL
            memset(v.memo, 0, sizeof(v.memo))
        return (
            (s.used, s.free, s.oldest, s.newest, s.nested_root, s.visit, s.epoch, s.generation,
             s.high, [s.unsync[i] for i in range(s.unsync_count)], s.pml, s.logging),
            s.log[:regions], (<uint8_t *>s.dirty)[:regions << 6],
            (<uint8_t *>s.backing)[:regions], (<uint8_t *>s.reverse)[:s.frames * 4],
            (<uint8_t *>s.reverse_large)[:regions * 4], (<uint8_t *>s.same)[:(s.frames + 1) * 4],
            (<uint8_t *>s.shadowed)[:regions * 2],
            (<uint8_t *>s.pages)[:(s.high + 1) * sizeof(page_t)],
            (<uint8_t *>s.entries)[:used * 8], (<uint8_t *>s.links)[:used * sizeof(link_t)],
            cpus.tobytes(), self._counters.tobytes(),
            None if self.processor is None else self.processor._state(),
            None if s.tables == NULL else (
                (<uint8_t *>&s.agile)[:sizeof(agile_t)],
                (<uint8_t *>s.tables)[:s.frames * sizeof(table_t)],
                (<uint8_t *>s.moved)[:s.agile.moved * 4]),
        )

    def _set_state(self, state):
        """Back to what `_state` gave, of a hypervisor that was made with the same arguments."""
        cdef hyper_t *s = &self.s
        cdef uint64_t regions = (s.frames >> 9) + 1, used
        cdef uint32_t i
        cdef const uint8_t[::1] part
        self._check_begun()
        scalars, *arrays, cached, agile = state
        used = <uint64_t>(scalars[8] + 1) << 9
        sizes = (regions, regions << 6, regions, s.frames * 4, regions * 4, (s.frames + 1) * 4, regions * 2,
                 (scalars[8] + 1) * sizeof(page_t), used * 8, used * sizeof(link_t),
                 s.cpu_count * sizeof(cpu_t), sizeof(counters_t))
        if (scalars[8] >= s.capacity or tuple(map(len, arrays)) != sizes
                or (cached is None) != (self.processor is None)
                or (agile is None) != (s.tables == NULL)):
            raise InvalidValueError("this snapshot is of a hypervisor with other arguments")
        if agile is not None:
            part = agile[0]
            memcpy(&s.agile, &part[0], sizeof(agile_t))
            part = agile[1]
            memcpy(s.tables, &part[0], part.shape[0])
            part = agile[2]
            if part.shape[0]:
                memcpy(s.moved, &part[0], part.shape[0])
        for i in range(1, scalars[8] + 1):
            if not show_page(s, i):
                raise MemoryError
        if cached is not None:
            self.processor._set_state(cached)
        (s.used, s.free, s.oldest, s.newest, s.nested_root, s.visit, s.epoch, s.generation,
         s.high) = scalars[:9]
        s.pml, s.logging = scalars[10:12]
        s.unsync_count = len(scalars[9])
        for i in range(s.unsync_count):
            s.unsync[i] = scalars[9][i]
        cdef uint8_t *targets[12]
        targets[:] = [
            s.log, <uint8_t *>s.dirty, s.backing, <uint8_t *>s.reverse, <uint8_t *>s.reverse_large, <uint8_t *>s.same,
            <uint8_t *>s.shadowed, <uint8_t *>s.pages, <uint8_t *>s.entries, <uint8_t *>s.links,
            <uint8_t *>s.cpus, <uint8_t *>s.counters,
        ]
        for i in range(12):
            part = arrays[i]
            memcpy(targets[i], &part[0], part.shape[0])
        for i in range(s.cpu_count):
            # what is an address in this process comes from this process
            s.cpus[i].guest.mem = s.mem
            s.cpus[i].guest.outer = NULL
            s.cpus[i].guest.memo = NULL
        if self.processor is not None:
            self._start_processor()
