"""The MMU object: it owns what `pyvirt._core.state` describes and checks what comes from Python."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.pythread cimport (
    NOWAIT_LOCK,
    WAIT_LOCK,
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_release_lock,
)
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

import numpy as np

from pyvirt._core.access cimport Access
from pyvirt._core.arrays cimport as_int, as_output, as_u64
from pyvirt._core.contexts cimport context_t, contexts_free, contexts_restore
from pyvirt._core.counters cimport OP_MOV_CR0, OP_MOV_CR4, counters_t
from pyvirt._core.dtypes import COUNTER_DTYPE, EVENT_DTYPE, RECORD_DTYPE
from pyvirt._core.entries cimport entries_of
from pyvirt._core.events cimport event_t
from pyvirt._core.frames cimport pm_lock, pm_unlock
from pyvirt._core.layout cimport arena_start, layout_clear, layout_describe, layout_place
from pyvirt._core.operations cimport (
    DONE,
    DONE_BAD_CORE,
    DONE_BAD_OP,
    DONE_BAD_ROOT,
    DONE_BAD_SIZE,
    DONE_BAD_TYPE,
    DONE_BAD_VCPU,
    DONE_IN_PYTHON,
    DONE_NO_MEMORY,
    DONE_OUTSIDE,
    cr0_cr4_changed,
    done_t,
    invept,
    invlpg,
    invlpga,
    invpcid,
    invvpid,
    mov_cr3,
    set_contexts,
    set_requests,
    start,
    tlb_control,
    vcpu_switch,
    vm_crossing,
    vm_switch,
)
from pyvirt._core.paging cimport configure, dimension_t
from pyvirt._core.physmem cimport PhysMem
from pyvirt._core.pipeline cimport access_one
from pyvirt._core.state cimport (
    KIND_FETCH,
    KIND_LOAD,
    KIND_STORE,
    MODE_NATIVE,
    MODE_NESTED,
    MODE_TLB_ONLY,
    PML_ENTRIES,
    REFERENCE_ROOM,
    WALKCACHE_SPLIT,
    core_t,
    mmu_t,
    record_t,
    run_t,
    vcpu_t,
    walkcache_t,
)
from pyvirt._core.stream cimport (
    PREFETCH_ALWAYS,
    PREFETCH_AUTO,
    PREFETCH_NEVER,
    stream_accesses,
    stream_events,
)
from pyvirt.errors import (
    InvalidTypeError,
    InvalidValueError,
    OutsideMemoryError,
    PageFaultError,
)

cdef enum:
    CR4_PCIDE = 0x20000
    CR0_PG = 0x80000000
    MOST_CPUS = 4096
    MOST_ARENA_BITS = 34

MODES = {"native": MODE_NATIVE, "nested": MODE_NESTED, "tlb-only": MODE_TLB_ONLY}
_KINDS = {"x": KIND_FETCH, "r": KIND_LOAD, "w": KIND_STORE}

_REASONS = {
    DONE_BAD_TYPE: "there is no such type of this invalidation",
    DONE_BAD_ROOT: "the root has bits beyond the physical width",
    DONE_BAD_CORE: "there is no such core",
    DONE_BAD_VCPU: "there is no such vCPU or VPID",
    DONE_BAD_SIZE: "a store to a table is 4 or 8 aligned bytes",
    DONE_BAD_OP: "there is no such operation",
}


_REGISTERS = {"cr0": 64, "cr4": 64, "efer": 64, "pkru": 32, "pkrs": 32}
_SWITCHES = ("ac", "large_1g", "exec_only", "ept_ad", "mbec", "set_ad")


cdef dict plain_options(dict options):
    """Options of a dimension as plain integers and booleans, which later use cannot surprise."""
    found = dict(options)
    for name, bits in _REGISTERS.items():
        found[name] = as_int(options[name], name, 0, (1 << bits) - 1)
    found["levels"] = as_int(options["levels"], "levels", 2, 5)
    found["pa_width"] = as_int(options["pa_width"], "pa_width", 32, 52)
    for name in _SWITCHES:
        try:
            found[name] = bool(options[name])
        except (TypeError, ValueError) as error:
            raise InvalidTypeError(
                f"{name} must be True or False, got {options[name]!r:.80}") from error
    for name in ("format", "vendor"):
        if not isinstance(options[name], str):
            raise InvalidTypeError(f"{name} must be text, got {options[name]!r:.80}")
    return found


cdef class MmuCore:
    """Cores, vCPUs and their caches over a memory. Use `pyvirt.MMU`, which says what it all means.

    Parameters
    ----------
    mode : {"native", "nested", "tlb-only"}
    mem : PhysMem or None
        The memory that holds the tables; None for ``"tlb-only"``.
    geometry : Geometry
    guest, host : dict
        Options of the two dimensions, complete, as `pyvirt.Walker` has them; `host` None unless
        nested.
    cr3, nested_root : int
    vcpus, cores : int
    vpids, pml, conservative : bool
    prefetch : bool or "auto"
    seeds : ndarray of uint64
        One for each array: core by core, TLBs, guest and host walk caches, nested TLB.
    data_cache : sequence of Cache
        The last levels of data caches that the references of walks go through, at most three.
    ring : ndarray of RECORD_DTYPE or None
        Receives the references of walks, the oldest being overwritten.
    frames_of : FrameMapping, optional
        Where pages lie in ``"tlb-only"``; None: where they are.

    Attributes
    ----------
    mem, geometry
        As given.
    counters : ndarray of COUNTER_DTYPE, shape (cores,)
        What was counted, live; read-only.
    """

    def __cinit__(self, *args, **kwargs):
        self.lock = PyThread_allocate_lock()
        if self.lock == NULL:
            raise MemoryError

    def __init__(self, mode, mem, geometry, guest, host, cr3, nested_root, vcpus, cores, vpids,
                 pml, conservative, prefetch, seeds, data_cache, ring, frames_of=None):
        cdef int i
        if self.begun:
            raise InvalidTypeError("this MMU is initialised already, or failed to be")
        self.begun = True
        if not isinstance(mode, str) or mode not in MODES:
            raise InvalidValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r:.80}")
        if mode != "tlb-only":
            if not isinstance(mem, PhysMem):
                raise InvalidTypeError(
                    f"memory must be a PhysicalMemory in mode {mode!r}, got {mem!r:.80}")
            if (<PhysMem>mem).m.region_count == 0:
                raise InvalidTypeError("memory was not initialised")
        if not isinstance(prefetch, (bool, str)) or prefetch not in (True, False, "auto"):
            raise InvalidValueError(f'prefetch must be True, False or "auto", got {prefetch!r:.80}')
        vcpus = as_int(vcpus, "vcpus", 1, MOST_CPUS)
        cores = as_int(vcpus if cores is None else cores, "cores", 1, MOST_CPUS)
        cr3 = as_int(cr3, "cr3", 0, 0xFFFFFFFFFFFFFFFF)
        nested_root = as_int(nested_root, "nested_root", 0, 0xFFFFFFFFFFFFFFFF)
        self.m.mode = MODES[mode]
        self.m.vcpu_count = vcpus
        self.m.core_count = cores
        self.m.pml = pml
        self.m.conservative = conservative
        self.prefetch = (PREFETCH_AUTO if prefetch == "auto" and isinstance(prefetch, str)
                         else PREFETCH_ALWAYS if prefetch else PREFETCH_NEVER)
        self.geometry = geometry
        self.mem = mem if mode != "tlb-only" else None
        if self.mem is not None:
            self.m.mem = self.mem.pointer()
        self.ring = ring
        self.frames_of = frames_of
        self._build(seeds, data_cache)
        guest = plain_options(guest)
        host = None if host is None else plain_options(host)
        self.guest_options = [dict(guest) for _ in range(vcpus)]
        self.host_options = host
        for i in range(vcpus):
            self.m.vcpus[i].core = i % cores
            self._set_vcpu(i, cr3, nested_root, (i + 1 if vpids and host is not None else 0))
        self.marks = self.m.vcpus[0].guest.accessed or self.m.vcpus[0].host.accessed
        self.made = (mode, mem, geometry, dict(guest), host, cr3, nested_root, vcpus, cores,
                     vpids, pml, conservative, prefetch, seeds, data_cache, None, frames_of)

    cdef object _build(self, object seeds, object data_cache):
        """Plan, arrays and counters."""
        cdef mmu_t *m = &self.m
        cdef int i
        cdef uint64_t size
        m.vcpus = <vcpu_t *>calloc(m.vcpu_count, sizeof(vcpu_t))
        m.cores = <core_t *>calloc(m.core_count, sizeof(core_t))
        if m.vcpus == NULL or m.cores == NULL:
            raise MemoryError
        layout_describe(m, self.geometry, data_cache)
        size = layout_place(m, NULL)
        if size >> MOST_ARENA_BITS:
            raise InvalidValueError(
                f"the caches of {m.core_count} cores of this geometry take {size >> 20:,} MiB; "
                f"at most {<uint64_t>1 << MOST_ARENA_BITS >> 20:,} are accepted")
        m.arena_size = size
        m.arena = <char *>calloc(size + 64, 1)
        if m.arena == NULL:
            raise MemoryError
        layout_place(m, arena_start(m))
        layout_clear(m, self.geometry, seeds)
        self._counters = np.zeros(m.core_count, dtype=COUNTER_DTYPE)
        cdef uint8_t[::1] bytes_of = self._counters.view(np.uint8)
        for i in range(m.core_count):
            m.cores[i].counters = <counters_t *>&bytes_of[i * sizeof(counters_t)]
        self.counters = self._counters.view()
        self.counters.flags.writeable = False
        if self.ring is not None or m.data_levels:
            m.buffer = <record_t *>calloc(REFERENCE_ROOM, sizeof(record_t))
            if m.buffer == NULL:
                raise MemoryError
        cdef uint8_t[::1] ring
        if self.ring is not None:
            if (not isinstance(self.ring, np.ndarray) or self.ring.ndim != 1
                    or self.ring.size == 0):
                raise InvalidTypeError(
                    "records must be a one-dimensional array of RECORD_DTYPE with room for one")
            ring = as_output(self.ring, RECORD_DTYPE, self.ring.shape, "records").view(np.uint8)
            m.ring = <record_t *>&ring[0]
            m.ring_size = self.ring.size

    cdef object _set_vcpu(self, int vcpu, object cr3, object root, int vpid):
        """Power on a vCPU."""
        cdef vcpu_t *v = &self.m.vcpus[vcpu]
        cdef dimension_t own
        options = self.guest_options[vcpu]
        self._dimension(&own, options, cr3)
        v.cr0 = options["cr0"]
        v.cr4 = options["cr4"]
        v.vpid = <uint16_t>vpid
        if self.host_options is not None:
            try:
                configure(&v.host, root, self.host_options)
            except InvalidValueError as error:
                raise InvalidValueError(str(error).replace("root", "nested_root")) from None
            v.host.mem = self.m.mem
            v.ep4ta = v.host.root
        self._done(self._adopt(v, &own, cr3))

    cdef object _dimension(self, dimension_t *d, dict options, uint64_t cr3):
        """A vCPU's own dimension, without its links, from its options and CR3."""
        cdef uint64_t root = cr3
        if options["cr4"] & CR4_PCIDE:
            root &= ~(<uint64_t>1 << 63)
        try:
            configure(d, 0 if self.m.mode == MODE_TLB_ONLY else root, options)
        except InvalidValueError as error:
            raise InvalidValueError(str(error).replace("root", "cr3")) from None

    cdef done_t _adopt(self, vcpu_t *v, const dimension_t *d, uint64_t cr3) noexcept nogil:
        """Take a dimension over, and what follows from the control registers."""
        v.guest = d[0]
        v.guest.mem = self.m.mem
        v.guest.outer = &v.host if self.m.mode == MODE_NESTED else NULL
        v.cr3 = cr3 & ~(<uint64_t>1 << 63) if v.cr4 & CR4_PCIDE else cr3
        v.pcid = <uint16_t>(cr3 & 0xFFF) if v.cr4 & CR4_PCIDE else 0
        v.paging = v.cr0 & CR0_PG != 0 or self.m.mode == MODE_TLB_ONLY
        set_requests(&self.m, v)
        return set_contexts(&self.m, v)

    def __dealloc__(self):
        free(self.m.vcpus)
        free(self.m.cores)
        free(self.m.arena)
        free(self.m.buffer)
        contexts_free(&self.m.contexts)
        if self.lock != NULL:
            PyThread_free_lock(self.lock)

    # --- borders ---

    cdef object _check(self):
        if self.made is None:
            raise InvalidTypeError("this MMU was not initialised")

    cdef int _vcpu(self, object vcpu) except -1:
        self._check()
        return as_int(vcpu, "vcpu", 0, self.m.vcpu_count - 1)

    cdef object _done(self, done_t done):
        if done == DONE_NO_MEMORY:
            raise MemoryError
        if done == DONE_OUTSIDE:
            raise OutsideMemoryError("a store to a table outside RAM, or not mapped by the "
                                     "nested tables")
        if done != DONE:
            raise InvalidValueError(_REASONS[done])

    cdef void enter(self) noexcept:
        """Wait for the MMU, and for its memory if accesses write there."""
        if not PyThread_acquire_lock(self.lock, NOWAIT_LOCK):
            with nogil:
                PyThread_acquire_lock(self.lock, WAIT_LOCK)
        # set and read with the GIL held: who sees it clear, and keeps the GIL, needs no lock
        self.busy = True
        if self.marks:
            with nogil:
                pm_lock(self.m.mem)

    cdef void leave(self) noexcept:
        if self.marks:
            pm_unlock(self.m.mem)
        self.busy = False
        PyThread_release_lock(self.lock)

    # --- accesses ---

    @property
    def mode(self):
        """The kind of translation."""
        return self.made[0] if self.made else None

    @property
    def vcpus(self):
        """Number of vCPUs."""
        return self.m.vcpu_count

    @property
    def cores(self):
        """Number of cores, each with caches of its own."""
        return self.m.core_count

    @property
    def records_written(self):
        """References that went into the caller's ring buffer so far, the overwritten included."""
        return self.m.ring_written

    def translate_into(self, vas, access, user, vcpu, pa=None, code=None, stop=False):
        """Run many accesses of one kind into given arrays.

        Parameters
        ----------
        vas : array of int, shape (n,)
        access : {"r", "w", "x"}
        user : bool
        vcpu : int
        pa, code : ndarray, shape (n,), optional
            Receive the results: uint64 and uint16, C-contiguous. None: not wanted.
        stop : bool, default False
            End after the first fault.

        Returns
        -------
        int
            Accesses made, the faulting one included.
        """
        cdef int cpu = self._vcpu(vcpu)
        cdef int kind = kind_of(access)
        cdef const uint64_t[::1] addresses = as_u64(vas, "vas")
        cdef uint64_t n = addresses.shape[0], done
        cdef uint64_t[::1] pas
        cdef uint16_t[::1] codes
        cdef uint64_t *pa_pointer = NULL
        cdef uint16_t *code_pointer = NULL
        cdef bint by_user = user, until_fault = stop
        if pa is not None:
            pas = as_output(pa, np.dtype(np.uint64), (n,), "pa")
        if code is not None:
            codes = as_output(code, np.dtype(np.uint16), (n,), "code")
        if n == 0:
            return 0
        if self.frames_of is not None and pa is not None:
            vas = np.asarray(addresses)
            if np.may_share_memory(vas, pa):
                vas = vas.copy()            # the results will be in its place
            if code is None:
                code = codes = np.empty(n, np.uint16)
        if pa is not None:
            pa_pointer = &pas[0]
        if code is not None:
            code_pointer = &codes[0]
        self.enter()
        with nogil:
            done = stream_accesses(&self.m, cpu, kind, by_user, &addresses[0], n, pa_pointer,
                                   code_pointer, until_fault, self.prefetch)
        self.leave()
        if self.frames_of is not None and pa is not None:
            self.frames_of.fill(vas[:done], pa[:done], code[:done])
        return done

    def translate_one(self, va, access="r", user=False, vcpu=0):
        """Run one access.

        Parameters
        ----------
        va : int
        access : {"r", "w", "x"}
        user : bool, default False
            Whether at CPL 3.
        vcpu : int, default 0

        Returns
        -------
        Access
        """
        cdef Access result = Access.__new__(Access)
        cdef int cpu = 0 if vcpu is 0 and self.made is not None else self._vcpu(vcpu)
        cdef uint64_t address = as_int(va, "va", 0, 0xFFFFFFFFFFFFFFFF)
        cdef int kind = kind_of(access)
        cdef bint by_user = user
        result.va = address
        self.enter()
        stream_accesses(&self.m, cpu, kind, by_user, &address, 1, &result.c_pa, &result.c_code,
                        False, PREFETCH_NEVER)
        self.leave()
        if self.frames_of is not None and result.c_code & 15 == 0:
            result.c_pa = self.frames_of.one(address)
        return result

    cdef object _one(self, object va, int kind):
        """One access by vCPU 0 at CPL 0, as fast as a call from Python can be."""
        cdef uint64_t address, pa = 0
        cdef uint16_t code
        cdef run_t x
        if self.made is None:
            self._check()
        if type(va) is int:
            try:
                address = va        # two comparisons would take as long as the access
            except OverflowError:
                address = as_int(va, "va", 0, 0xFFFFFFFFFFFFFFFF)
        else:
            address = as_int(va, "va", 0, 0xFFFFFFFFFFFFFFFF)
        if self.busy or self.marks or self.m.buffer != NULL:
            self.enter()
            stream_accesses(&self.m, 0, kind, False, &address, 1, &pa, &code, False,
                            PREFETCH_NEVER)
            self.leave()
        else:
            start(&x, &self.m, 0)
            code = access_one(&x, address, kind, False, &pa)
            x.counters.accesses[kind] += 1
            self.m.accesses += 1
        if code & 15:
            raise PageFaultError(va, code)
        return pa if self.frames_of is None else self.frames_of.one(address)

    def load(self, va):
        """One load by vCPU 0 at CPL 0: its host-physical address.

        Parameters
        ----------
        va : int

        Returns
        -------
        int

        Raises
        ------
        PageFaultError
        """
        return self._one(va, KIND_LOAD)

    def store(self, va):
        """One store by vCPU 0 at CPL 0: its host-physical address; as `load`.

        Parameters
        ----------
        va : int

        Returns
        -------
        int

        Raises
        ------
        PageFaultError
        """
        return self._one(va, KIND_STORE)

    def fetch(self, va):
        """One fetch by vCPU 0 at CPL 0: its host-physical address; as `load`.

        Parameters
        ----------
        va : int

        Returns
        -------
        int

        Raises
        ------
        PageFaultError
        """
        return self._one(va, KIND_FETCH)

    def run_into(self, events, pa=None, code=None, stop=False, position=0):
        """Run events up to the end, a fault with `stop`, or one that needs Python.

        Parameters
        ----------
        events : ndarray of EVENT_DTYPE, shape (n,)
        pa, code : ndarray, shape (n,), optional
            Receive the results of accesses, uint64 and uint16; 0 for other events.
        stop : bool, default False
            End after the first fault.
        position : int, default 0
            Number of the first event, for error messages.

        Returns
        -------
        done : int
            Events done.
        rare : bool
            Whether the next event is left to the caller: a load of CR0 or CR4, or an edit of
            tables.

        Raises
        ------
        InvalidValueError, OutsideMemoryError
            For an event that cannot be; those before it are done.
        """
        cdef const uint8_t[::1] raw
        cdef uint64_t[::1] pas
        cdef uint16_t[::1] codes
        cdef uint64_t *pa_pointer = NULL
        cdef uint16_t *code_pointer = NULL
        cdef uint64_t n, done = 0
        cdef done_t status = DONE
        cdef bint until_fault = stop
        self._check()
        if not isinstance(events, np.ndarray) or events.dtype != EVENT_DTYPE or events.ndim != 1:
            raise InvalidTypeError(
                "events must be a one-dimensional ndarray of EVENT_DTYPE, got "
                f"{getattr(events, 'dtype', type(events).__name__)}")
        n = events.shape[0]
        if pa is not None:
            pas = as_output(pa, np.dtype(np.uint64), (n,), "pa")
        if code is not None:
            codes = as_output(code, np.dtype(np.uint16), (n,), "code")
        if n == 0:
            return 0, False
        raw = np.ascontiguousarray(events).view(np.uint8)
        if self.frames_of is not None and pa is not None and code is None:
            code = codes = np.empty(n, np.uint16)
        if pa is not None:
            pa_pointer = &pas[0]
        if code is not None:
            code_pointer = &codes[0]
        self.enter()
        with nogil:
            # stores to tables write, whatever `marks` says
            if self.m.mem != NULL and not self.marks:
                pm_lock(self.m.mem)
            done = stream_events(&self.m, <const event_t *>&raw[0], n, pa_pointer, code_pointer,
                                 until_fault, self.prefetch, &status)
            if self.m.mem != NULL and not self.marks:
                pm_unlock(self.m.mem)
        self.leave()
        if self.frames_of is not None and pa is not None:
            self.frames_of.fill_events(events[:done], pa[:done], code[:done])
        if status == DONE_IN_PYTHON:
            return done, True
        if status != DONE:
            try:
                self._done(status)
            except (InvalidValueError, OutsideMemoryError) as error:
                event = events[done]
                raise type(error)(
                    f"event {position + done} (op {event['op']}, vcpu {event['vcpu']}, arg {event['arg']}, "
                    f"addr {event['addr']:#x}, value {event['value']:#x}): {error}") from None
        return done, False

    # --- operations ---

    def invlpg(self, va, vcpu=0, shoot_down=False):
        """INVLPG, on the other vCPUs too with `shoot_down`."""
        cdef int cpu = self._vcpu(vcpu)
        cdef uint64_t address = as_int(va, "va", 0, 0xFFFFFFFFFFFFFFFF)
        cdef bint everywhere = shoot_down
        self.enter()
        invlpg(&self.m, cpu, address, everywhere)
        self.leave()

    def mov_cr3(self, value, vcpu=0):
        """MOV to CR3; with CR4.PCIDE, bits 11:0 are the PCID and bit 63 keeps its entries."""
        cdef int cpu = self._vcpu(vcpu)
        cdef uint64_t v = as_int(value, "value", 0, 0xFFFFFFFFFFFFFFFF)
        self.enter()
        status = mov_cr3(&self.m, cpu, v)
        self.leave()
        self._done(status)

    def mov_cr0(self, value, vcpu=0):
        """MOV to CR0: PG and WP matter."""
        self._mov_control("cr0", value, vcpu)

    def mov_cr4(self, value, vcpu=0):
        """MOV to CR4: PGE, PCIDE, SMEP, SMAP, PKE, PKS matter; the tables keep their format."""
        self._mov_control("cr4", value, vcpu)

    def _mov_control(self, name, value, vcpu):
        cdef int cpu = self._vcpu(vcpu)
        cdef vcpu_t *v = &self.m.vcpus[cpu]
        cdef uint64_t cr0, cr4, checked = as_int(value, "value", 0, 0xFFFFFFFFFFFFFFFF)
        cdef uint16_t pcid
        cdef bint is_cr0 = name == "cr0"
        cdef dimension_t own
        cdef dict options = dict(self.guest_options[cpu])
        cdef done_t done
        options[name] = checked
        # outside the lock, for it runs Python code
        self._dimension(&own, options, 0)
        self.guest_options[cpu] = options
        self.enter()
        own.root = v.guest.root
        cr0, cr4, pcid = v.cr0, v.cr4, v.pcid
        if is_cr0:
            v.cr0 = checked
        else:
            v.cr4 = checked
        done = self._adopt(v, &own, v.cr3)
        cr0_cr4_changed(&self.m, cpu, cr0, cr4, pcid)
        self.m.cores[v.core].counters.invalidations[
            <int>(OP_MOV_CR0 if is_cr0 else OP_MOV_CR4)] += 1
        self.leave()
        self._done(done)

    def invpcid(self, type, pcid=0, va=0, vcpu=0):
        """INVPCID of types 0 to 3."""
        cdef int cpu = self._vcpu(vcpu)
        cdef uint32_t kind = as_int(type, "type", 0, 3)
        cdef uint64_t p = as_int(pcid, "pcid", 0, 4095)
        cdef uint64_t address = as_int(va, "va", 0, 0xFFFFFFFFFFFFFFFF)
        self.enter()
        status = invpcid(&self.m, cpu, kind, p, address)
        self.leave()
        self._done(status)

    def invvpid(self, type, vpid=0, va=0, vcpu=0):
        """INVVPID of types 0 to 3."""
        cdef int cpu = self._vcpu(vcpu)
        cdef uint32_t kind = as_int(type, "type", 0, 3)
        cdef uint64_t p = as_int(vpid, "vpid", 0, 0xFFFF)
        cdef uint64_t address = as_int(va, "va", 0, 0xFFFFFFFFFFFFFFFF)
        self.enter()
        status = invvpid(&self.m, cpu, kind, p, address)
        self.leave()
        self._done(status)

    def invept(self, type, eptp=0, vcpu=0):
        """INVEPT of type 1 or 2."""
        cdef int cpu = self._vcpu(vcpu)
        cdef uint32_t kind = as_int(type, "type", 1, 2)
        cdef uint64_t root = as_int(eptp, "eptp", 0, 0xFFFFFFFFFFFFFFFF)
        self.enter()
        status = invept(&self.m, cpu, kind, root)
        self.leave()
        self._done(status)

    def invlpga(self, va, asid, vcpu=0):
        """AMD's INVLPGA."""
        cdef int cpu = self._vcpu(vcpu)
        cdef uint64_t address = as_int(va, "va", 0, 0xFFFFFFFFFFFFFFFF)
        cdef uint64_t a = as_int(asid, "asid", 0, 0xFFFF)
        self.enter()
        status = invlpga(&self.m, cpu, address, a)
        self.leave()
        self._done(status)

    def tlb_control(self, control, vcpu=0):
        """VMRUN with AMD's TLB_CONTROL 0, 1, 3 or 7."""
        cdef int cpu = self._vcpu(vcpu)
        cdef uint32_t c = as_int(control, "control", 0, 7)
        self.enter()
        status = tlb_control(&self.m, cpu, c)
        self.leave()
        self._done(status)

    def vm_entry(self, vcpu=0):
        """VM entry."""
        cdef int cpu = self._vcpu(vcpu)
        self.enter()
        vm_crossing(&self.m, cpu, True)
        self.leave()

    def vm_exit(self, vcpu=0):
        """VM exit."""
        cdef int cpu = self._vcpu(vcpu)
        self.enter()
        vm_crossing(&self.m, cpu, False)
        self.leave()

    def vcpu_switch(self, core, vcpu=0):
        """Go on on another core."""
        cdef int cpu = self._vcpu(vcpu)
        cdef uint32_t c = as_int(core, "core", 0, self.m.core_count - 1)
        self.enter()
        status = vcpu_switch(&self.m, cpu, c)
        self.leave()
        self._done(status)

    def vm_switch(self, vpid, cr3, nested_root=0, vcpu=0):
        """Become a vCPU of another VM."""
        cdef int cpu = self._vcpu(vcpu)
        cdef uint32_t p = as_int(vpid, "vpid", 0, 0xFFFF)
        cdef uint64_t c = as_int(cr3, "cr3", 0, 0xFFFFFFFFFFFFFFFF)
        cdef uint64_t r = as_int(nested_root, "nested_root", 0, 0xFFFFFFFFFFFFFFFF)
        self.enter()
        status = vm_switch(&self.m, cpu, p, c, r)
        self.leave()
        self._done(status)

    def registers(self, vcpu=0):
        """CR0, CR3, CR4, VPID, PCID, EP4TA and core of a vCPU.

        Returns
        -------
        dict of str to int
        """
        cdef int cpu = self._vcpu(vcpu)
        cdef const vcpu_t *v = &self.m.vcpus[cpu]
        cdef uint64_t cr0, cr3, cr4, ep4ta
        cdef int vpid, pcid, core
        self.enter()
        cr0, cr3, cr4, ep4ta = v.cr0, v.cr3, v.cr4, v.ep4ta
        vpid, pcid, core = v.vpid, v.pcid, v.core
        self.leave()
        return {"cr0": cr0, "cr3": cr3, "cr4": cr4, "vpid": vpid, "pcid": pcid, "ep4ta": ep4ta,
                "core": core}

    def pml_log(self, vcpu=0):
        """Guest-physical pages in a vCPU's page-modification log, oldest first.

        Returns
        -------
        ndarray of uint64
        """
        cdef int cpu = self._vcpu(vcpu)
        cdef uint64_t count
        cdef uint64_t[::1] room = np.zeros(PML_ENTRIES, dtype=np.uint64)
        self.enter()
        count = self.m.vcpus[cpu].pml_count
        memcpy(&room[0], self.m.vcpus[cpu].pml, count * 8)
        self.leave()
        return np.asarray(room)[:count].copy()

    # --- inspection and state ---

    def entries(self, core=0):
        """All valid entries of one core's arrays.

        Parameters
        ----------
        core : int, default 0

        Returns
        -------
        ndarray
            Fields ``structure`` (the TLB array's name; ``guest-L`` and ``host-L`` for a walk cache
            of level-L entries, without L where one array holds all; ``nested-tlb``), ``set``,
            ``way``, ``page`` (the number that is tagged: of the page, or of the region that the
            entry spans; an eighth of the physical address in a page-table cache), ``size`` (0 4K,
            1 2M, 2 1G; the level of a walk cache's entry), ``vpid``, ``pcid``, ``global``,
            ``ep4ta`` and ``value``: the host-physical page, or the table that the entry leads to.
        """
        self._check()
        cdef int i = as_int(core, "core", 0, self.m.core_count - 1)
        cdef tuple copies = self._copy()
        found = entries_of(&self.m, i, self.geometry, copies[0], copies[2])
        if self.frames_of is not None and len(found):
            found["value"] = self.frames_of.frames(found["page"]) << np.uint64(12)
        return found

    def reset(self):
        """Set all counters to zero. What is cached stays."""
        self._check()
        cdef uint8_t[::1] counted = self._counters.view(np.uint8)
        self.enter()
        memset(&counted[0], 0, counted.shape[0])
        self.m.accesses = 0
        self.leave()

    def _arguments(self):
        """What __init__ was given, without the ring buffer, which is the caller's."""
        self._check()
        return self.made

    def _state(self):
        """Everything that changes, as values."""
        self._check()
        arena, vcpus, contexts, counters, accesses, written, met = self._copy()
        return (arena, vcpus, contexts, counters, accesses, written, met,
                [dict(options) for options in self.guest_options])

    cdef tuple _copy(self):
        """The bytes of arrays, vCPUs and contexts, and the counters, all of one moment.

        Nothing is allocated while the lock is held: that might run code that waits for it.
        """
        cdef bytes arena = PyBytes_FromStringAndSize(NULL, self.m.arena_size)
        cdef bytes vcpus = PyBytes_FromStringAndSize(NULL, self.m.vcpu_count * sizeof(vcpu_t))
        cdef bytes contexts
        cdef uint64_t capacity, accesses, written
        cdef uint32_t count
        cdef bint globals_met, pieces
        cdef vcpu_t *v
        cdef int i
        counters = np.empty_like(self._counters)
        cdef uint8_t[::1] into = counters.view(np.uint8)
        cdef uint8_t[::1] source = self._counters.view(np.uint8)
        while True:
            capacity = self.m.contexts.capacity
            contexts = PyBytes_FromStringAndSize(NULL, capacity * sizeof(context_t))
            self.enter()
            count = self.m.contexts.count
            self._forget_places()   # so that equal states have equal bytes
            if count <= capacity:
                memcpy(PyBytes_AS_STRING(contexts), self.m.contexts.items,
                       count * sizeof(context_t))
                memcpy(PyBytes_AS_STRING(arena), arena_start(&self.m), self.m.arena_size)
                memcpy(PyBytes_AS_STRING(vcpus), self.m.vcpus, self.m.vcpu_count * sizeof(vcpu_t))
                memcpy(&into[0], &source[0], into.shape[0])
                accesses, written = self.m.accesses, self.m.ring_written
                globals_met, pieces = self.m.globals, self.m.pieces
                self.leave()
                break
            self.leave()
        v = <vcpu_t *>PyBytes_AS_STRING(vcpus)
        for i in range(self.m.vcpu_count):
            # addresses in this process mean nothing elsewhere
            v[i].guest.mem = v[i].host.mem = NULL
            v[i].guest.outer = NULL
        return (arena, vcpus, contexts[:count * sizeof(context_t)], counters, accesses, written,
                (globals_met, pieces))

    def _set_state(self, state):
        """Back to what `_state` gave, of an MMU made with the same arguments."""
        cdef bytes arena, vcpus, contexts
        cdef const context_t *items
        cdef int i
        arena, vcpus, contexts, counters, accesses, written, met, options = state
        cdef uint32_t count = <uint32_t>(len(contexts) // sizeof(context_t))
        cdef bint globals_met = met[0], pieces = met[1], restored
        cdef uint64_t accesses_made = accesses, written_so_far = written
        cdef uint8_t[::1] into = self._counters.view(np.uint8)
        cdef const uint8_t[::1] counted = np.ascontiguousarray(counters).view(np.uint8)
        self._check()
        if (len(arena) != self.m.arena_size
                or len(vcpus) != self.m.vcpu_count * sizeof(vcpu_t)
                or len(contexts) % sizeof(context_t) or counted.shape[0] != into.shape[0]):
            raise InvalidValueError("this snapshot is of an MMU with other caches or vCPUs")
        copied = [dict(each) for each in options]
        items = <const context_t *>PyBytes_AS_STRING(contexts)
        self.enter()
        memcpy(arena_start(&self.m), PyBytes_AS_STRING(arena), self.m.arena_size)
        memcpy(self.m.vcpus, PyBytes_AS_STRING(vcpus), self.m.vcpu_count * sizeof(vcpu_t))
        for i in range(self.m.vcpu_count):
            # what is an address in this process comes from this process
            self.m.vcpus[i].guest.mem = self.m.vcpus[i].host.mem = self.m.mem
            self.m.vcpus[i].guest.memo = self.m.vcpus[i].host.memo = NULL
            self.m.vcpus[i].host.outer = NULL
            self.m.vcpus[i].guest.outer = (
                &self.m.vcpus[i].host if self.m.mode == MODE_NESTED else NULL)
        self._forget_places()
        restored = contexts_restore(&self.m.contexts, items, count)
        memcpy(&into[0], &counted[0], into.shape[0])
        self.m.accesses = accesses_made
        self.m.ring_written = written_so_far
        self.m.globals, self.m.pieces = globals_met, pieces
        self.leave()
        self.guest_options = copied
        if not restored:
            raise MemoryError

    cdef void _forget_places(self) noexcept nogil:
        """Drop the places of tables in the host from walk caches: they are this process's."""
        cdef int i, level
        cdef walkcache_t *c
        for i in range(2 * self.m.core_count):
            c = &self.m.cores[i >> 1].host if i & 1 else &self.m.cores[i >> 1].guest
            if c.kind != WALKCACHE_SPLIT or (self.m.mode == MODE_NESTED and not i & 1):
                continue
            for level in range(2, 6):
                if c.has[level]:
                    memset(c.level[level].second, 0,
                           <uint64_t>c.level[level].sets * c.level[level].stride * 8)

    def __repr__(self):
        if self.made is None:
            return f"<{type(self).__name__} (not initialised)>"
        return (f"<{type(self).__name__} {self.made[0]} {self.geometry.name} "
                f"vcpus={self.m.vcpu_count}>")


cdef int kind_of(object access) except -1:
    """Number of a kind of access, from its letter."""
    kind = _KINDS.get(access) if isinstance(access, str) else None
    if kind is None:
        raise InvalidValueError(f"access must be 'r', 'w' or 'x', got {access!r:.80}")
    return kind
