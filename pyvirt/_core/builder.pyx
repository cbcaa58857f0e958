"""The table builder: map, protect and unmap ranges in tables that live in simulated memory.

An edit that fails is undone: the mappings are then what they were, though tables that it made
stay, empty, and a large leaf that it split stays split.
"""

from libc.stdint cimport uint64_t

from pyvirt._core.arrays cimport as_int, as_u64
from pyvirt._core.edits cimport edit_range, finish, leaf_of, map_run
from pyvirt._core.frames cimport pm_lock, pm_unlock
from pyvirt._core.paging cimport FORMAT_X86_32, bad_memory_type, configure, in_range
from pyvirt._core.physmem cimport PhysMem
from pyvirt._core.tables cimport (
    BUILT,
    BUILT_LIMIT,
    BUILT_NESTED,
    BUILT_NO_FRAME,
    BUILT_RESERVED,
    BUILT_TABLE,
    BUILT_TAKEN,
    BUILT_WIDE,
    PS,
    built_t,
    new_table,
)
from pyvirt._core.types cimport PAGE_OFFSET, PAGE_SIZE
from pyvirt._core.undo cimport undo_free
from pyvirt._core.walker cimport Walker
from pyvirt._core.walker import DEFAULTS as _DEFAULTS
from pyvirt.errors import (
    FrameExhaustedError,
    InvalidTypeError,
    InvalidValueError,
    LimitError,
    MappingError,
)

# What the builder takes of the options of a Walker: what decides the format of entries.
_OPTIONS = ("format", "levels", "pa_width", "cr4", "efer", "vendor", "large_1g", "exec_only",
            "mbec")


cdef class PageTables:
    """Page tables under construction.

    Parameters
    ----------
    mem : PhysMem
        The memory that receives the tables.
    format : {"x86-64", "pae", "x86-32", "ept", "npt"}
    levels : int, default 4
        4 or 5 for x86-64, EPT and NPT; 3 for PAE; 2 for 32-bit tables.
    frames : (int, int), optional
        (start, size) of the range that tables are taken from, in the tables' own physical
        space. None: existing tables can be edited, and no table added.
    outer : Walker, optional
        The next dimension out, for a guest's tables: frames and entries then hold
        guest-physical addresses.
    root : int, optional
        An existing top table to edit; by default a new one is made.
    **options
        ``pa_width``, ``cr4``, ``efer``, ``vendor``, ``large_1g``, ``exec_only``, ``mbec`` as in
        `Walker`: what decides which entries are well formed.
    """

    def __init__(self, PhysMem mem not None, *, format="x86-64", levels=None, frames=None,
                 Walker outer=None, root=None, **options):
        cdef uint64_t start = 0, size = 0, address
        if self.mem is not None:
            raise InvalidTypeError("these tables are initialised already")
        if mem.m.region_count == 0:
            raise InvalidTypeError("mem was not initialised")
        unknown = options.keys() - set(_OPTIONS)
        if unknown:
            raise InvalidTypeError(f"unknown option {min(unknown)!r}; "
                                   f"accepted are {', '.join(_OPTIONS)}")
        if levels is None:
            levels = {"pae": 3, "x86-32": 2}.get(format, 4)
        if frames is not None:
            try:
                start, size = frames
            except (TypeError, ValueError, OverflowError) as error:
                raise InvalidTypeError(
                    f"frames must be a (start, size) pair, not {frames!r:.80}") from error
        elif root is None:
            raise InvalidTypeError("give frames for new tables, or the root of existing ones")
        if outer is not None and outer.mem is not mem:
            raise InvalidValueError("outer must walk the same memory")
        cdef dict full = {**_DEFAULTS, **options, "format": format, "levels": levels}
        configure(&self.b.d, 0 if root is None else root, full)
        if (start & PAGE_OFFSET or size & PAGE_OFFSET
                or (start + size) >> (32 if self.b.d.format == FORMAT_X86_32 else 52)):
            raise InvalidValueError(
                f"frames must be whole 4 KiB frames of physical memory, got {frames}")
        self.b.d.mem = mem.pointer()
        if outer is not None:
            outer._check()
            self.b.d.outer = &outer.plain[0]
        # frame 0 is never a table: 0 ends the list of free frames
        self.b.next_frame = max(start, <uint64_t>PAGE_SIZE) if size else 0
        self.b.first_frame = self.b.next_frame
        self.b.frame_end = start + size if size else 0
        self.b.table_flags = (7 | (0x400 if self.b.d.mbec else 0)) if self.b.d.is_ept else 7
        self.options = full
        self.frame_range = (start, start + size)
        self.outer = outer
        self.mem = mem
        if root is None:
            status = self._new_root(&address)
            if status != BUILT:
                self.mem = None
                self._raise(status, 0)
            self.b.d.root = address
            root = address
        self.root = root

    cdef built_t _new_root(self, uint64_t *address):
        cdef built_t status
        with nogil:
            pm_lock(self.b.d.mem)
            status = new_table(&self.b, self.b.d.levels, address)
            finish(&self.b, BUILT)
            pm_unlock(self.b.d.mem)
        return status

    def __dealloc__(self):
        undo_free(&self.b.undo)

    # --- what there is ---

    @property
    def format(self):
        """Name of the entry format."""
        self._check()
        return self.options["format"]

    @property
    def levels(self):
        """Number of levels."""
        return self.b.d.levels

    @property
    def tables_used(self):
        """Frames taken as tables so far."""
        return self.b.tables

    def walker(self, **options):
        """A `Walker` over these tables; `options` as there."""
        self._check()
        return Walker(self.mem, self.root, outer=self.outer, **{**self.options, **options})

    # --- edits ---

    def map(self, vas, pas, *, page_shift=12, rights=None, attrs=0, overwrite=False):
        """Map pages.

        Parameters
        ----------
        vas, pas : array of int, shape (n,)
            Page starts, virtual and physical, multiples of the page size.
        page_shift : {12, 21, 22, 30}
            log2 of the page size; 21 and 30 for 8-byte entries, 22 for 32-bit tables.
        rights : str, optional
            Of ``"r"``, ``"w"``, ``"x"`` and ``"u"`` (user; EPT with MBEC: executable for user
            addresses). Without ``"x"`` NX is set. Tables above allow everything. ``"rwx"`` by
            default, ``"rwxu"`` for npt, where every access is a user's.
        attrs : int
            Further bits of the leaf entry as they are: G, PAT, PCD, PWT, A, D, keys, software
            bits; for EPT the memory type too (bits 5:3, write-back if 0).
        overwrite : bool, default False
            Replace present mappings (larger leaves are split).

        Raises
        ------
        MappingError
            If a mapping, or a table in use, is in the way; with the first such address.
        FrameExhaustedError
            If the frame range holds no further table.
        InvalidValueError, InvalidTypeError
            For addresses that are unaligned, not canonical or too wide, and bad rights.
        """
        self._check()
        cdef const uint64_t[::1] virtual = as_u64(vas, "vas")
        cdef const uint64_t[::1] physical = as_u64(pas, "pas")
        cdef int level = self._level_of(page_shift)
        cdef uint64_t flags = self._leaf_flags(rights, attrs, level)
        cdef uint64_t i, run, n = virtual.shape[0], done = 0
        cdef uint64_t offset = self.b.d.level[level].offset, page = offset + 1
        cdef uint64_t wide = self._leaf_address(level)
        cdef bint replace = overwrite, wide_32 = self.b.d.format == FORMAT_X86_32 and level == 2
        cdef built_t status = BUILT
        if physical.shape[0] != virtual.shape[0]:
            raise InvalidTypeError(
                f"pas must have shape ({virtual.shape[0]},), got ({physical.shape[0]},)")
        for i in range(n):
            if not in_range(&self.b.d, virtual[i]) or virtual[i] & offset:
                raise InvalidValueError(f"vas[{i}] = {virtual[i]:#x} is not canonical, or not a "
                                        f"multiple of {offset + 1:#x}")
            if physical[i] & ~wide:
                raise InvalidValueError(f"pas[{i}] = {physical[i]:#x} is too wide, or not a "
                                        f"multiple of {offset + 1:#x}")
        with nogil:
            pm_lock(self.b.d.mem)
            while done < n:
                i = done
                run = 1
                while (not wide_32 and i + run < n and virtual[i + run] == virtual[i] + run * page
                       and physical[i + run] == physical[i] + run * page):
                    run += 1
                status = map_run(&self.b, virtual[i], leaf_of(physical[i], flags, wide_32), level,
                                 run, replace, &done)
                if status != BUILT:
                    break
            finish(&self.b, status)
            pm_unlock(self.b.d.mem)
        if status != BUILT:
            self._raise(status, virtual[done])

    def map_range(self, va, pa, size, *, page_shift=12, rights=None, attrs=0, overwrite=False):
        """Map `size` bytes from `va` on to `pa` on, in pages of one size; see `map`."""
        self._check()
        cdef uint64_t start = as_int(va, "va", 0, 0xFFFFFFFFFFFFFFFF)
        cdef uint64_t base = as_int(pa, "pa", 0, 0xFFFFFFFFFFFFFFFF)
        cdef uint64_t length = as_int(size, "size", 0, 1 << 57)
        cdef int level = self._level_of(page_shift)
        cdef uint64_t flags = self._leaf_flags(rights, attrs, level)
        cdef uint64_t page = self.b.d.level[level].offset + 1, done = 0, n = length // page
        cdef uint64_t last = length - page
        cdef bint replace = overwrite, wide_32 = self.b.d.format == FORMAT_X86_32 and level == 2
        cdef built_t status = BUILT
        if length % page:
            raise InvalidValueError(f"size must be a multiple of {page:#x}, got {size:#x}")
        if length:
            if start + last < start or base + last < base:
                raise InvalidValueError(f"the range of {size:#x} bytes leaves the 64-bit space")
            if (start % page or not in_range(&self.b.d, start)
                    or not in_range(&self.b.d, start + last) or (start ^ (start + last)) >> 63):
                raise InvalidValueError(f"the range from va={va:#x} (+{size:#x} bytes) is not "
                                        f"canonical, or no multiple of {page:#x}")
            if (base | (base + last)) & ~self._leaf_address(level):
                raise InvalidValueError(f"the range from pa={pa:#x} (+{size:#x} bytes) is too "
                                        f"wide, or no multiple of {page:#x}")
        with nogil:
            pm_lock(self.b.d.mem)
            while done < n and status == BUILT:
                status = map_run(&self.b, start + done * page,
                                 leaf_of(base + done * page, flags, wide_32), level,
                                 1 if wide_32 else n - done, replace, &done)
            finish(&self.b, status)
            pm_unlock(self.b.d.mem)
        if status != BUILT:
            self._raise(status, start + done * page)

    def unmap(self, va, size, *, limit=1 << 24):
        """Remove every mapping in [va, va + size); larger leaves that stick out are split.

        Parameters
        ----------
        va, size : int
            Bytes, multiples of 4096.
        limit : int
            Most leaves and holes that are visited: hostile tables can describe 2**36.

        Returns
        -------
        int
            Bytes that were mapped and no longer are.

        Raises
        ------
        LimitError
            If the limit is exceeded; nothing is changed then.
        """
        self._check()
        return self._edit(va, size, True, 0, 0, limit)

    def protect(self, va, size, rights, *, limit=1 << 24):
        """Give every mapping in [va, va + size) other rights (as in `map`); holes stay holes.

        Returns
        -------
        int
            Bytes whose mapping was edited.

        Raises
        ------
        LimitError
            As in `unmap`, which explains `limit`.
        """
        self._check()
        cdef uint64_t put = self._leaf_flags(rights, 0, 1)
        cdef uint64_t clear
        if self.b.d.is_ept:
            clear = 0x7 | (0x400 if self.b.d.mbec else 0)
            put &= clear
        else:
            clear = 6 | (<uint64_t>1 << 63 if self.b.d.format != FORMAT_X86_32 else 0)
        return self._edit(va, size, False, clear, put, limit)

    cdef object _edit(self, object va, object size, bint remove, uint64_t clear, uint64_t put,
                      object limit):
        cdef uint64_t start = as_int(va, "va", 0, 0xFFFFFFFFFFFFFFFF), changed = 0
        cdef uint64_t length = as_int(size, "size", 0, 1 << 57)
        cdef uint64_t most = as_int(limit, "limit", 0, 1 << 40)
        cdef built_t status
        if start & PAGE_OFFSET or length & PAGE_OFFSET:
            raise InvalidValueError(
                f"a range must be whole 4 KiB pages, got {start:#x} (+{length:#x} bytes)")
        if length and not (in_range(&self.b.d, start) and start + (length - 1) >= start
                           and in_range(&self.b.d, start + (length - 1))
                           and start >> 63 == (start + (length - 1)) >> 63):
            raise InvalidValueError(
                f"the range {start:#x} (+{length:#x} bytes) is not canonical")
        with nogil:
            pm_lock(self.b.d.mem)
            status = edit_range(&self.b, start, length, remove, clear, put, most,
                                &changed)
            finish(&self.b, status)
            pm_unlock(self.b.d.mem)
        if status != BUILT:
            self._raise(status, start)
        return changed

    # --- checks ---

    cdef object _check(self):
        if self.mem is None:
            raise InvalidTypeError("these tables were not initialised")

    cdef int _level_of(self, object page_shift) except -1:
        cdef int level
        for level in range(1, self.b.d.levels + 1):
            if ((level == 1 or self.b.d.level[level].may_map)
                    and self.b.d.level[level].shift == page_shift):
                return level
        raise InvalidValueError(f"{self.format} tables have no pages of page_shift={page_shift!r}")

    cdef uint64_t _leaf_address(self, int level):
        """Bits that the physical address of a page mapped at `level` may have."""
        cdef uint64_t bits = self.b.d.level[level].leaf_address, high = <uint64_t>0xFF << 32
        if self.b.d.format == FORMAT_X86_32 and level == 2:
            bits |= high >> (40 - min(<int>self.options["pa_width"], 40)) & high
        return bits

    cdef uint64_t _leaf_flags(self, object rights, object attrs, int level) except? 0:
        """Bits of a leaf entry beside the address."""
        cdef uint64_t flags = as_int(attrs, "attrs", 0, 0xFFFFFFFFFFFFFFFF), fixed
        if rights is None:
            rights = "rwxu" if self.b.d.is_npt else "rwx"
        if (not isinstance(rights, str) or set(rights) - set("rwxu")
                or len(set(rights)) < len(rights)):
            raise InvalidValueError(f"rights must be of the letters r, w, x, u, got {rights!r:.80}")
        fixed = self.b.d.level[level].leaf_address | self.b.d.level[level].leaf_reserved
        fixed |= self.b.d.present | self.b.d.rights_and | self.b.d.rights_or
        if self.b.d.is_ept and not self.b.d.mbec:
            fixed &= ~<uint64_t>0x400       # a software bit then
        if flags & (fixed | (PS if level > 1 else 0)):
            raise InvalidValueError("attrs must not hold address bits, reserved bits, or what "
                                    f"page_shift and rights decide, got {flags:#x}")
        if level > 1:
            flags |= PS
        if self.b.d.is_ept:
            if flags & 0x38 == 0:
                flags |= 6 << 3
            if bad_memory_type(flags):
                raise InvalidValueError(f"attrs has no EPT memory type, got {flags >> 3 & 7}")
            flags |= ("r" in rights) | ("w" in rights) << 1 | ("x" in rights) << 2
            if "u" in rights:
                if not self.b.d.mbec:
                    raise InvalidValueError("EPT has user rights only with mbec=True")
                flags |= 0x400
            if flags & self.b.d.present == 0:
                raise InvalidValueError("an EPT mapping without rights is no mapping")
            return flags
        if "r" not in rights:
            raise InvalidValueError(f"{self.format} pages are always readable: "
                                    f"rights must include r, got {rights!r}")
        flags |= 1 | ("w" in rights) << 1 | ("u" in rights) << 2
        if "x" not in rights:
            if not self.b.d.nxe:
                raise InvalidValueError(f"{self.format} pages without EFER.NXE are always "
                                        f"executable: rights must include x, got {rights!r}")
            flags |= <uint64_t>1 << 63
        return flags

    cdef object _raise(self, built_t status, object va):
        if status == BUILT_TAKEN:
            raise MappingError(f"{va:#x} is mapped already; use overwrite=True or unmap it first")
        if status == BUILT_TABLE:
            raise MappingError(f"smaller pages are mapped under {va:#x}; unmap them first")
        if status == BUILT_NO_FRAME:
            raise FrameExhaustedError(
                f"no free frame for another table in {self.frame_range[0]:#x} to "
                f"{self.frame_range[1]:#x} ({self.b.tables} tables in use)")
        if status == BUILT_NESTED:
            raise MappingError(f"a table on the way to {va:#x} lies outside RAM, or where the next "
                               "dimension does not map it")
        if status == BUILT_RESERVED:
            raise MappingError(f"an entry on the way to {va:#x} has reserved bits set")
        if status == BUILT_LIMIT:
            raise LimitError(f"more leaves and holes than the limit in the range at {va:#x}")
        if status == BUILT_WIDE:
            raise MappingError(f"a 4 MiB page in the range at {va:#x} lies beyond 4 GiB, where "
                               "4 KiB pages of 32-bit tables do not reach: it cannot be split")
        raise MemoryError("the host has no memory left for another frame")

    # --- state as a value ---

    def __reduce__(self):
        self._check()
        return (_rebuild, (type(self), self.mem, self.root, self.outer, self.frame_range,
                           self.options,
                           (self.b.next_frame, self.b.free_frame, self.b.tables)))

    def __repr__(self):
        if self.mem is None:
            return "<PageTables (not initialised)>"
        return (f"<PageTables {self.format} {self.levels}-level root={self.root:#x}, "
                f"{self.b.tables} tables>")


def _rebuild(kind, mem, root, outer, frame_range, options, state):
    """Tables of class `kind`, for unpickling and copying."""
    cdef PageTables tables = kind.__new__(kind)
    PageTables.__init__(
        tables, mem, root=root, outer=outer,
        frames=(frame_range[0], frame_range[1] - frame_range[0]), format=options["format"],
        levels=options["levels"], **{name: options[name] for name in _OPTIONS[2:]})
    tables.b.next_frame, tables.b.free_frame, tables.b.tables = state
    return tables
