"""Who owns an MMU: makes and frees what `pyvirt._core.state` describes, guards and copies it."""

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

from pyvirt._core.arrays cimport as_int, as_output
from pyvirt._core.contexts cimport context_t, contexts_free, contexts_restore
from pyvirt._core.counters cimport counters_t
from pyvirt._core.dtypes import COUNTER_DTYPE as _COUNTER_DTYPE
from pyvirt._core.dtypes import RECORD_DTYPE as _RECORD_DTYPE
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
    DONE_NO_MEMORY,
    DONE_OUTSIDE,
    adopt,
    done_t,
)
from pyvirt._core.paging cimport configure, dimension_t
from pyvirt._core.physmem cimport PhysMem
from pyvirt._core.state cimport (
    MODE_NATIVE,
    MODE_NESTED,
    MODE_TLB_ONLY,
    REFERENCE_ROOM,
    WALKCACHE_SPLIT,
    core_t,
    mmu_t,
    record_t,
    vcpu_t,
    walkcache_t,
)
from pyvirt._core.stream cimport PREFETCH_ALWAYS, PREFETCH_AUTO, PREFETCH_NEVER
from pyvirt.errors import InvalidTypeError, InvalidValueError, OutsideMemoryError

cdef enum:
    CR4_PCIDE = 0x20000
    MOST_CPUS = 4096
    MOST_ARENA_BITS = 34

MODES = {"native": MODE_NATIVE, "nested": MODE_NESTED, "tlb-only": MODE_TLB_ONLY}

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


cdef void forget_places(mmu_t *m) noexcept nogil:
    """Drop the places of tables in the host from walk caches: they are this process's."""
    cdef int i, level
    cdef walkcache_t *c
    for i in range(2 * m.core_count):
        c = &m.cores[i >> 1].host if i & 1 else &m.cores[i >> 1].guest
        if c.kind != WALKCACHE_SPLIT or (m.mode == MODE_NESTED and not i & 1):
            continue
        for level in range(2, 6):
            if c.has[level]:
                memset(c.level[level].second, 0,
                       <uint64_t>c.level[level].sets * c.level[level].stride * 8)


cdef class MmuOwner:
    """Cores, vCPUs and their caches over a memory, and the lock that guards them.

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
        self._counters = np.zeros(m.core_count, dtype=_COUNTER_DTYPE)
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
            ring = as_output(self.ring, _RECORD_DTYPE, self.ring.shape, "records").view(np.uint8)
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
        self._done(adopt(&self.m, v, &own, cr3))

    cdef object _dimension(self, dimension_t *d, dict options, uint64_t cr3):
        """A vCPU's own dimension, without its links, from its options and CR3."""
        cdef uint64_t root = cr3
        if options["cr4"] & CR4_PCIDE:
            root &= ~(<uint64_t>1 << 63)
        try:
            configure(d, 0 if self.m.mode == MODE_TLB_ONLY else root, options)
        except InvalidValueError as error:
            raise InvalidValueError(str(error).replace("root", "cr3")) from None

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

    # --- what it is ---

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

    # --- state as a value ---

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
            forget_places(&self.m)   # so that equal states have equal bytes
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
            v[i].shadow.mem = NULL
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
        forget_places(&self.m)
        restored = contexts_restore(&self.m.contexts, items, count)
        memcpy(&into[0], &counted[0], into.shape[0])
        self.m.accesses = accesses_made
        self.m.ring_written = written_so_far
        self.m.globals, self.m.pieces = globals_met, pieces
        self.leave()
        self.guest_options = copied
        if not restored:
            raise MemoryError

    def __repr__(self):
        if self.made is None:
            return f"<{type(self).__name__} (not initialised)>"
        return (f"<{type(self).__name__} {self.made[0]} {self.geometry.name} "
                f"vcpus={self.m.vcpu_count}>")
