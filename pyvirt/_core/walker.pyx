"""The Walker: page tables in a memory as an object that translates, reads and enumerates."""

from cpython.pythread cimport (
    NOWAIT_LOCK,
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_release_lock,
)
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

import numpy as np

from pyvirt._core.arrays cimport as_int, as_output, as_u64
from pyvirt._core.batch cimport batch_t, detail_t, settle, translate_batch
from pyvirt._core.frames cimport pm_lock, pm_unlock
from pyvirt._core.paging cimport (
    ACCESS_EXEC,
    ACCESS_READ,
    ACCESS_USER,
    ACCESS_WRITE,
    FAULT_NONE,
    FAULT_OUTSIDE_TABLE,
    FAULT_SKIPPED,
    FORMAT_PAE,
    FORMAT_X86_32,
    MAX_DIMENSIONS,
    PAGE_MEMO_BITS,
    configure,
    memo_page_t,
    memo_t,
    recorder_t,
    reference_t,
    walk,
    walk_t,
)
from pyvirt._core.physmem cimport PhysMem
from pyvirt._core.types cimport PAGE_OFFSET, PAGE_SIZE
from pyvirt.errors import Fault, InvalidTypeError, InvalidValueError, PageFaultError, describe_fault

#: Options of a `Walker` and their defaults: a 64-bit kernel with NX and write protection.
DEFAULTS = {
    "format": "x86-64", "levels": 4, "pa_width": 52,
    "cr0": 0x80010033, "cr4": 0xB0, "efer": 0xD00, "pkru": 0, "pkrs": 0, "ac": False,
    "vendor": "intel", "large_1g": True,
    "exec_only": True, "ept_ad": False, "mbec": False,
    "set_ad": False, "memo": True, "nested_memo": True,
}

DETAIL_DTYPE = np.dtype([("entry", "<u8"), ("gpa", "<u8"), ("nested_entry", "<u8"),
                         ("error", "<u8"), ("nested_shift", "u1")])
REFERENCE_DTYPE = np.dtype([("dimension", "u1"), ("level", "u1"), ("pa", "<u8"),
                            ("address", "<u8"), ("entry", "<u8")])

_ACCESS = {"r": ACCESS_READ, "w": ACCESS_WRITE, "x": ACCESS_EXEC}


cdef uint32_t access_of(object access, object user) except 0:
    """Bits of access_t from the arguments of a translation."""
    code = _ACCESS.get(access) if isinstance(access, str) else None
    if code is None:
        raise InvalidValueError(f"access must be 'r', 'w' or 'x', got {access!r:.80}")
    return <uint32_t>code | (ACCESS_USER if user else 0)


# --- one translation --------------------------------------------------------------------------

cdef class Translation:
    """What one translation found; a batch of one has the same values.

    Attributes
    ----------
    pa : int
        Host-physical address; 0 if it failed.
    code : int
        0, or what failed where; see `pyvirt.errors.describe_fault`.
    page_shift : int
        log2 of the page size in the space's own tables (12, 21, 22 or 30); 0 if it failed.
    flags : int
        Bits 0 to 3: readable, writable, executable, user, over all levels of the own tables;
        4 to 6: A, D, G of the leaf; 8 to 11 as 0 to 3 for the next dimension. 0 if it failed.
    entry : int
        The leaf entry, or the last entry of the own tables read before a fault.
    gpa : int
        Address in the own tables' physical space (equal to `pa` without nesting). After a
        nested fault the guest-physical address that could not be translated; 0 after a fault of
        the own tables.
    nested_entry, nested_shift : int
        Leaf entry (or the last one read) and page size of the next dimension, for the final
        address or for the one that failed.
    error : int
        After a fault the #PF error code, EPT exit qualification or NPF EXITINFO1 of the
        dimension that failed.
    """

    @property
    def pa(self):
        return self.w.pa

    @property
    def code(self):
        return self.w.code

    @property
    def page_shift(self):
        return self.w.shift

    @property
    def flags(self):
        return self.w.flags

    @property
    def entry(self):
        return self.w.entry

    @property
    def gpa(self):
        return self.w.gpa

    @property
    def nested_entry(self):
        return self.w.nested_entry

    @property
    def nested_shift(self):
        return self.w.nested_shift

    @property
    def error(self):
        return self.w.error

    @property
    def ok(self):
        """Whether the translation succeeded."""
        return self.w.code == FAULT_NONE

    @property
    def fault(self):
        """What failed, as `pyvirt.errors.Fault`."""
        return Fault(self.w.code & 15)

    @property
    def level(self):
        """Level of the entry that failed, in its dimension; 0 where none applies."""
        return self.w.code >> 4 & 7

    @property
    def dimension(self):
        """Dimension that failed: 0 the own tables, 1 the nested ones, and so on."""
        return self.w.code >> 7 & 3

    def describe(self):
        """The result code in words."""
        return describe_fault(self.w.code)

    def _values(self):
        return (self.pa, self.code, self.page_shift, self.flags, self.entry, self.gpa,
                self.nested_entry, self.nested_shift, self.error)

    def __eq__(self, other):
        if not isinstance(other, Translation):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self):
        return hash(self._values())

    def __reduce__(self):
        return _translation, self._values()

    def __repr__(self):
        if self.w.code:
            return f"<Translation {self.describe()}>"
        return f"<Translation pa={self.pa:#x} page_shift={self.page_shift} flags={self.flags:#x}>"


def _translation(pa, code, page_shift, flags, entry, gpa, nested_entry, nested_shift, error):
    """A Translation of given values, for unpickling."""
    cdef Translation t = Translation.__new__(Translation)
    t.w.pa = pa
    t.w.code = code
    t.w.shift = page_shift
    t.w.flags = flags
    t.w.entry = entry
    t.w.gpa = gpa
    t.w.nested_entry = nested_entry
    t.w.nested_shift = nested_shift
    t.w.error = error
    return t


# --- the object -------------------------------------------------------------------------------

cdef class Walker:
    """A walker over page tables in a `PhysMem`.

    Parameters
    ----------
    mem : PhysMem
        The memory that holds the tables.
    root : int
        What the processor's root register holds: CR3 (its low 12 bits are ignored, 5 for PAE),
        EPTP or N_CR3; an address in the physical space of the next dimension out.
    outer : Walker, optional
        The next dimension out: an ``ept`` or ``npt`` walker over the same memory that
        translates the addresses in these tables. None: they are host-physical.
    format : {"x86-64", "pae", "x86-32", "ept", "npt"}
    levels : int, default 4
        4 or 5 for x86-64, EPT and NPT; 3 for PAE; 2 for 32-bit tables.
    pa_width : int, default 52
        Physical-address width (32 to 52): higher address bits in an entry are reserved.
    cr0, cr4, efer : int
        Control registers; CR0.WP, CR4.PSE, SMEP, SMAP, PKE, PKS and EFER.NXE matter.
    pkru, pkrs : int, default 0
        Protection-key rights for user and supervisor pages.
    ac : bool, default False
        EFLAGS.AC: lifts SMAP.
    vendor : {"intel", "amd"}
        AMD reserves bit 8 of upper entries, Intel ignores it.
    large_1g : bool, default True
        Whether the processor has 1 GiB pages; without, bit 7 of a PDPTE is reserved.
    exec_only, ept_ad, mbec : bool
        EPT: execute-only pages exist; EPTP bit 6; mode-based execute control.
    set_ad : bool, default False
        Set A and D bits as the processor does (EPT: only with `ept_ad`). A walk that fails in
        its own dimension sets none there; dimensions that it used before have theirs set.
    memo : bool, default True
        Remember the way to tables between the elements of a batch and between batches, as
        paging-structure caches do; in one or two dimensions. Never changes a result.
    nested_memo : bool, default True
        With `memo` and an `outer`: also remember pages that it translated, as a nested TLB does.

    Attributes
    ----------
    mem : PhysMem
        The memory that holds the tables.
    outer : Walker or None
        The next dimension out.
    root : int
        As given.

    Notes
    -----
    Every call may run in several threads at once; of two batches over the same Walker at the
    same time, one goes without memo.
    """

    def __cinit__(self, *args, **kwargs):
        self.memo_lock = PyThread_allocate_lock()
        if self.memo_lock == NULL:
            raise MemoryError

    def __init__(self, PhysMem mem not None, root, *, Walker outer=None, **options):
        cdef int i
        if self.count:
            raise InvalidTypeError("this walker is initialised already")
        if mem.m.region_count == 0:
            raise InvalidTypeError("mem was not initialised")
        unknown = options.keys() - DEFAULTS.keys()
        if unknown:
            raise InvalidTypeError(f"unknown option {min(unknown)!r}; "
                                   f"accepted are {', '.join(DEFAULTS)}")
        cdef dict full = {**DEFAULTS, **options}
        if outer is not None:
            if outer.mem is not mem:
                raise InvalidValueError("outer must walk the same memory")
            if outer.options["format"] not in ("ept", "npt"):
                raise InvalidValueError("outer must have format ept or npt, got "
                                        f"{outer.options['format']!r}")
            if outer.count == MAX_DIMENSIONS:
                raise InvalidValueError(f"at most {MAX_DIMENSIONS} dimensions")
        configure(&self.plain[0], root, full)
        self.plain[0].mem = mem.pointer()
        self.marks = self.plain[0].accessed != 0
        self.count = 1
        if outer is not None:
            for i in range(outer.count):
                self.plain[i + 1] = outer.plain[i]
            self.count += outer.count
            self.marks |= outer.marks
        for i in range(self.count - 1):
            self.plain[i].outer = &self.plain[i + 1]
        self.mem = mem
        self.outer = outer
        self.root = root
        self.options = full
        self._make_memos()

    cdef object _make_memos(self):
        """Room for memos where the options of each dimension want one and its format can."""
        cdef int i
        cdef Walker owner = self
        for i in range(self.count):
            self.fast[i] = self.plain[i]
            if i + 1 < self.count:
                self.fast[i].outer = &self.fast[i + 1]
            # three dimensions always walk, see translate_batch
            if (owner.options["memo"] and self.count <= 2
                    and self.plain[i].format not in (FORMAT_X86_32, FORMAT_PAE)):
                self.memos[i] = <memo_t *>calloc(1, sizeof(memo_t))
                if self.memos[i] == NULL:
                    raise MemoryError
                self.memos[i].epoch = <uint64_t>1 << 43
                self.memos[i].version = self.plain[i].mem.version
                if i > 0 and self.options["nested_memo"]:
                    self.memos[i].pages = <memo_page_t *>calloc(
                        1 << PAGE_MEMO_BITS, sizeof(memo_page_t))
                    if self.memos[i].pages == NULL:
                        raise MemoryError
                self.fast[i].memo = self.memos[i]
            owner = owner.outer

    def __dealloc__(self):
        cdef int i
        for i in range(MAX_DIMENSIONS):
            if self.memos[i] != NULL:
                free(self.memos[i].pages)
            free(self.memos[i])
        if self.memo_lock != NULL:
            PyThread_free_lock(self.memo_lock)

    cdef object _check(self):
        if self.count == 0:
            raise InvalidTypeError("this walker was not initialised")

    # --- from C ---

    cdef uint16_t translate_one_c(self, uint64_t va, uint32_t access, walk_t *w) noexcept nogil:
        """One translation; returns its code."""
        if self.count == 0:
            memset(w, 0, sizeof(walk_t))
            w.code = FAULT_OUTSIDE_TABLE
            return w.code
        if self.marks:
            pm_lock(self.plain[0].mem)
        walk(&self.plain[0], va, access, w, NULL)
        if self.marks:
            pm_unlock(self.plain[0].mem)
        settle(&self.plain[0], w, False)
        return w.code

    cdef uint64_t translate_c(
        self, const uint64_t *vas, uint64_t n, uint32_t access, const batch_t *out, bint stop,
        bint require_ram
    ) noexcept nogil:
        """Many translations; returns how many were done (fewer than n only with `stop`)."""
        cdef uint64_t done
        cdef bint memo
        if self.count == 0:
            return 0
        memo = PyThread_acquire_lock(self.memo_lock, NOWAIT_LOCK)
        if self.marks:
            pm_lock(self.plain[0].mem)
        done = translate_batch(&self.fast[0] if memo else &self.plain[0], vas, n, access, out, stop,
                   require_ram)
        if self.marks:
            pm_unlock(self.plain[0].mem)
        if memo:
            PyThread_release_lock(self.memo_lock)
        return done

    # --- from Python ---

    @property
    def format(self):
        """Name of the entry format."""
        return self.options["format"] if self.options else None

    @property
    def levels(self):
        """Number of levels of the own tables."""
        return self.plain[0].levels

    @property
    def dimensions(self):
        """Number of dimensions: 1 native, 2 nested."""
        return self.count

    def options_of(self):
        """All options of this dimension, the defaults too.

        Returns
        -------
        dict
        """
        self._check()
        return dict(self.options)

    def translate_one(self, va, access="r", user=False, require_ram=False):
        """Translate one address.

        Parameters
        ----------
        va : int
            Any 64-bit address.
        access : {"r", "w", "x"}
            Read, write or fetch.
        user : bool, default False
            Whether at CPL 3.
        require_ram : bool, default False
            Whether a final address outside RAM is a fault (as devices are, it is none).

        Returns
        -------
        Translation
        """
        cdef Translation t = Translation.__new__(Translation)
        cdef uint64_t address
        cdef uint32_t asked = access_of(access, user)
        self._check()
        if type(va) is int and 0 <= va <= 0xFFFFFFFFFFFFFFFF:
            address = va
        else:
            address = as_int(va, "va", 0, 0xFFFFFFFFFFFFFFFF)
        if self.marks:
            with nogil:
                self.translate_one_c(address, asked, &t.w)
        else:
            self.translate_one_c(address, asked, &t.w)
        if require_ram:
            settle(&self.plain[0], &t.w, True)
        return t

    def translate_into(self, vas, access, user, pa, code, page_shift, flags, detail=None,
                       stop=False, require_ram=False):
        """Translate many addresses into given arrays.

        Parameters
        ----------
        vas : array of int, shape (n,)
        access, user, require_ram
            As in `translate_one`.
        pa, code, page_shift, flags : ndarray, shape (n,)
            Receive the results: uint64, uint16, uint8, uint16, C-contiguous.
        detail : ndarray of DETAIL_DTYPE, shape (n,), optional
        stop : bool, default False
            End at the first fault; later elements get pa 0 and code 15 (`Fault.SKIPPED`).

        Returns
        -------
        int
            Elements done, the faulting one included.
        """
        cdef const uint64_t[::1] addresses = as_u64(vas, "vas")
        cdef uint64_t n = addresses.shape[0], done
        cdef uint32_t asked = access_of(access, user)
        cdef uint64_t[::1] pas = as_output(pa, np.dtype(np.uint64), (n,), "pa")
        cdef uint16_t[::1] codes = as_output(code, np.dtype(np.uint16), (n,), "code")
        cdef uint8_t[::1] shifts = as_output(page_shift, np.dtype(np.uint8), (n,), "page_shift")
        cdef uint16_t[::1] flag_bits = as_output(flags, np.dtype(np.uint16), (n,), "flags")
        cdef uint8_t[::1] details
        cdef batch_t out
        cdef bint until_fault = stop, ram = require_ram
        self._check()
        if n == 0:
            return 0
        out.pa = &pas[0]
        out.code = &codes[0]
        out.shift = &shifts[0]
        out.flags = &flag_bits[0]
        out.detail = NULL
        if detail is not None:
            details = as_output(detail, DETAIL_DTYPE, (n,), "detail").view(np.uint8)
            out.detail = <detail_t *>&details[0]
        with nogil:
            done = self.translate_c(&addresses[0], n, asked, &out, until_fault, ram)
        if done < n:
            for array in (pa, page_shift, flags, detail):
                if array is not None:
                    array[done:] = np.zeros((), array.dtype)
            code[done:] = FAULT_SKIPPED
        return done

    def references(self, va, access="r", user=False):
        """Table reads of one walk without caches, in order; A and D stay as they are.

        Parameters
        ----------
        va, access, user
            As in `translate_one`.

        Returns
        -------
        ndarray
            Fields ``dimension`` (0: the own tables), ``level``, ``pa`` of the entry
            (host-physical), its ``address`` in its own dimension's physical space, and ``entry``.
            A walk that fails ends with the entry that stopped it.

        Notes
        -----
        Without caches n levels in m nested levels make (n + 1)(m + 1) - 1 references
        (Bhargava et al., ASPLOS 2008).
        """
        cdef recorder_t recorder
        cdef walk_t w
        cdef uint64_t address = as_int(va, "va", 0, 0xFFFFFFFFFFFFFFFF)
        cdef uint32_t asked = access_of(access, user)
        cdef uint64_t capacity = 6 ** <uint64_t>MAX_DIMENSIONS
        cdef uint8_t[::1] room
        self._check()
        found = np.zeros(capacity, dtype=REFERENCE_DTYPE)
        room = found.view(np.uint8)
        recorder.references = <reference_t *>&room[0]
        recorder.capacity = capacity
        recorder.count = 0
        recorder.dimension = 0
        walk(&self.plain[0], address, asked, &w, &recorder)
        return found[:recorder.count].copy()

    def read(self, va, n, user=False):
        """Bytes at n consecutive virtual addresses, across pages.

        Raises
        ------
        PageFaultError
            For the first page that is not readable, or whose frame lies outside RAM; the
            address wraps at 2**64 like the processor's.
        """
        cdef uint64_t address = as_int(va, "va", 0, 0xFFFFFFFFFFFFFFFF)
        cdef uint64_t length = as_int(n, "n", 0, (1 << 62) - 1), done = 0, part
        cdef uint32_t asked = access_of("r", user)
        cdef walk_t w
        self._check()
        parts = []
        while done < length:
            part = min(length - done, PAGE_SIZE - (address & PAGE_OFFSET))
            self._step(address, asked, &w)
            parts.append(self.mem.read(w.pa, part))
            address += part
            done += part
        return b"".join(parts)

    def write(self, va, data, user=False):
        """Store bytes at consecutive virtual addresses, across pages.

        Raises
        ------
        PageFaultError
            For the first page that is not writable or lies outside RAM; no byte is stored then.
        """
        cdef uint64_t address = as_int(va, "va", 0, 0xFFFFFFFFFFFFFFFF)
        cdef const uint8_t[::1] source = np.frombuffer(data, dtype=np.uint8)
        cdef uint64_t length = source.shape[0], done = 0, part
        cdef uint32_t asked = access_of("w", user)
        cdef walk_t w
        self._check()
        places = []
        while done < length:
            part = min(length - done, PAGE_SIZE - (address & PAGE_OFFSET))
            self._step(address, asked, &w)
            places.append((w.pa, done, part))
            address += part
            done += part
        view = memoryview(data).cast("B")
        for pa, begin, size in places:
            self.mem.write(pa, view[begin:begin + size])

    cdef object _step(self, uint64_t address, uint32_t asked, walk_t *w):
        """Translate for `read` and `write`: a fault is an exception, RAM is required."""
        with nogil:
            self.translate_one_c(address, asked, w)
        settle(&self.plain[0], w, True)
        if w.code:
            raise PageFaultError(address, w.code)

    def __reduce__(self):
        self._check()
        return (_rebuild, (type(self), self.mem, self.root, self.outer, self.options),
                getattr(self, "__dict__", None) or None)

    def __repr__(self):
        if self.count == 0:
            return f"<{type(self).__name__} (not initialised)>"
        within = f" in {self.outer!r}" if self.outer is not None else ""
        return (f"<{type(self).__name__} {self.format} {self.plain[0].levels}-level "
                f"root={self.root:#x}{within}>")


def _rebuild(kind, mem, root, outer, options):
    """A walker of class `kind`, for unpickling and copying."""
    walker = kind.__new__(kind)
    Walker.__init__(walker, mem, root, outer=outer, **options)
    return walker
