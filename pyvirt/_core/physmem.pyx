"""Simulated physical memory: 4 KiB frames of up to 52-bit addresses, held only where written."""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.pythread cimport PyThread_allocate_lock, PyThread_free_lock
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

import numpy as np

from pyvirt._core.arrays cimport as_int, as_output, as_u64
from pyvirt._core.frames cimport (
    PM_NO_MEMORY,
    PM_OK,
    PM_OUTSIDE,
    directory_slot,
    frames_in_pool,
    free_chunks,
    free_root,
    load_sparse,
    make_root,
    match_frames,
    node_t,
    owned_frames,
    physmem_t,
    pm_in_ram,
    pm_lock,
    pm_owned,
    pm_read,
    pm_status,
    pm_unlock,
    pm_write,
    region_t,
    segment_t,
)
from pyvirt._core.types cimport PAGE_OFFSET, PAGE_SIZE, hpa_t
from pyvirt.errors import InvalidTypeError, InvalidValueError, OutsideMemoryError

cdef uint64_t ADDRESS_LIMIT = 0x10000000000000   # 2**52: the widest physical address, plus one

_SCALARS = {1: np.dtype("<u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4"), 8: np.dtype("<u8")}


# --- borders ----------------------------------------------------------------------------------

@cython.final
cdef class _BufferView:
    """The bytes of a buffer, held for as long as this object lives."""

    cdef Py_buffer buffer
    cdef bint held
    cdef const uint8_t *data
    cdef uint64_t length

    def __cinit__(self, source):
        self.held = False
        if isinstance(source, _BufferView):
            source = (<_BufferView>source).buffer.obj if (<_BufferView>source).held else None
        try:
            PyObject_GetBuffer(source, &self.buffer, PyBUF_SIMPLE)
        except (TypeError, BufferError, ValueError) as error:
            raise InvalidTypeError(
                f"a C-contiguous buffer is needed, not {type(source).__name__}: {error}"
            ) from error
        self.held = True
        self.data = <const uint8_t *>self.buffer.buf
        self.length = self.buffer.len

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.buffer)


cdef object raise_status(pm_status status, object pa, object n):
    if status == PM_NO_MEMORY:
        raise MemoryError("the host has no memory left for another frame")
    raise OutsideMemoryError(f"physical address {pa:#x} (+{n:#x} bytes) is outside RAM")


cdef object read_scalar(PhysMem memory, object pa, uint64_t n):
    cdef uint64_t value = 0
    cdef hpa_t start = as_int(pa, "pa", 0, 0xFFFFFFFFFFFFFFFF)
    if pm_read(&memory.m, start, n, <uint8_t *>&value) != PM_OK:
        raise_status(PM_OUTSIDE, start, n)
    return value


cdef object write_scalar(PhysMem memory, object pa, object value, uint64_t n):
    cdef hpa_t start = as_int(pa, "pa", 0, 0xFFFFFFFFFFFFFFFF)
    cdef uint64_t word = as_int(value, "value", 0, <uint64_t>0xFFFFFFFFFFFFFFFF >> (64 - 8 * n))
    cdef pm_status status
    with nogil:
        pm_lock(&memory.m)
        status = pm_write(&memory.m, start, n, <uint8_t *>&word)
        pm_unlock(&memory.m)
    if status != PM_OK:
        raise_status(status, start, n)


cdef object gather(PhysMem memory, const uint64_t[::1] pas, uint64_t n, uint8_t[::1] out, object ok):
    cdef uint64_t i, count = pas.shape[0], bad = count
    cdef uint8_t[::1] good
    cdef bint mark = ok is not None
    if mark:
        good = as_output(ok, np.dtype(bool), (count,), "ok").view(np.uint8)
    with nogil:
        for i in range(count):
            if pm_read(&memory.m, pas[i], n, &out[i * n]) == PM_OK:
                if mark:
                    good[i] = 1
            elif mark:
                good[i] = 0
                memset(&out[i * n], 0, n)
            else:
                bad = i
                break
    if bad < count:
        raise_status(PM_OUTSIDE, pas[bad], n)


cdef object scatter(PhysMem memory, const uint64_t[::1] pas, uint64_t n, const uint8_t[::1] data):
    cdef uint64_t i, count = pas.shape[0], bad = count
    cdef pm_status status = PM_OK
    if n == 0:
        return
    with nogil:
        for i in range(count):
            if not pm_in_ram(&memory.m, pas[i], n):
                status = PM_OUTSIDE
                bad = i
                break
        if status == PM_OK:
            pm_lock(&memory.m)
            for i in range(count):
                status = pm_write(&memory.m, pas[i], n, &data[i * n])
                if status != PM_OK:
                    bad = i
                    break
            pm_unlock(&memory.m)
    if bad < count:
        raise_status(status, pas[bad], n)

# --- the object -------------------------------------------------------------------------------

cdef list checked_regions(object size, object regions):
    """Sorted, merged, page-rounded (start, end) pairs of RAM from the constructor's arguments."""
    cdef object limit = ADDRESS_LIMIT, start, length
    cdef list pairs = [], merged = [], last = None
    if (size is None) == (regions is None):
        raise InvalidTypeError("give either size or regions")
    if regions is None:
        regions = [(0, size)]
    for region in regions:
        try:
            start, length = region
        except (TypeError, ValueError) as error:
            raise InvalidTypeError(f"a region is a (start, size) pair, not {region!r:.80}") from error
        start = as_int(start, "region start", 0, limit - 1)
        length = as_int(length, "region size", 1, limit - start)
        pairs.append((start, start + length))
    pairs.sort()
    for (_, end), (start, _) in zip(pairs, pairs[1:], strict=False):
        if start < end:
            raise InvalidValueError(f"RAM regions overlap at {start:#x}")
    for start, end in pairs:
        start &= ~PAGE_OFFSET
        end = (end + PAGE_OFFSET) & ~PAGE_OFFSET
        if last is not None and start <= last[1]:
            last[1] = max(end, last[1])
        else:
            last = [start, end]
            merged.append(last)
    if not merged:
        raise InvalidValueError("a memory needs at least one RAM region")
    return merged


cdef class PhysMem:
    """Sparse physical memory.

    Parameters
    ----------
    size : int, optional
        Bytes of RAM from address 0, rounded up to whole 4 KiB frames.
    regions : sequence of (int, int), optional
        Instead of `size`: (start, size) in bytes of each stretch of RAM, disjoint, within
        52-bit addresses, widened to whole frames.
    huge_pages : bool, default True
        Ask the system for huge pages for the frame pool, once it is large enough that the
        unused part of the last one is under a tenth of what is held.

    Raises
    ------
    InvalidValueError, InvalidTypeError
        For regions that overlap, are empty, or leave the 52-bit address space.

    Notes
    -----
    Reads may run in any number of threads. Writes take a lock for the whole call, and a reader
    that runs at the same time may see part of them.
    """

    def __cinit__(self, *args, **kwargs):
        memset(&self.m, 0, sizeof(physmem_t))
        self.buffers = []
        self.m.lock = PyThread_allocate_lock()
        if self.m.lock == NULL:
            raise MemoryError

    def __init__(self, size=None, *, regions=None, huge_pages=True):
        cdef uint64_t i
        if self.m.region_count:
            raise InvalidTypeError("this memory is initialised already")
        cdef list merged = checked_regions(size, regions)
        self.m.regions = <region_t *>calloc(len(merged), sizeof(region_t))
        if self.m.regions == NULL or not make_root(&self.m, max(end for _, end in merged)):
            raise MemoryError
        self.m.huge_pages = bool(huge_pages)
        for i in range(<uint64_t>len(merged)):
            self.m.regions[i].start, self.m.regions[i].end = merged[i]
        self.m.region_count = len(merged)

    def __dealloc__(self):
        free_root(self.m.root, self.m.root_length)
        free_chunks(&self.m)
        free(self.m.regions)
        free(self.m.segments)
        if self.m.lock != NULL:
            PyThread_free_lock(self.m.lock)

    cdef physmem_t *pointer(self) noexcept nogil:
        return &self.m

    def __repr__(self):
        return (f"<{type(self).__name__} {self.size >> 10} KiB RAM, "
                f"{self.m.frames} frames held, {self.mapped_bytes >> 10} KiB mapped>")

    # --- what there is ---

    @property
    def regions(self):
        """RAM as a list of (start, size) in bytes, sorted, adjacent ones merged."""
        return [(self.m.regions[i].start, self.m.regions[i].end - self.m.regions[i].start)
                for i in range(self.m.region_count)]

    @property
    def size(self):
        """Bytes of RAM."""
        return sum(size for _, size in self.regions)

    @property
    def end(self):
        """One past the highest RAM address."""
        if self.m.region_count == 0:
            return 0
        return self.m.regions[self.m.region_count - 1].end

    @property
    def version(self):
        """A number that grows with every write: equal versions, equal content."""
        return self.m.version

    @property
    def frames_held(self):
        """Frames that this object owns a copy of."""
        return self.m.frames

    @property
    def mapped_bytes(self):
        """Bytes of RAM whose first content is an attached buffer (not held by this object)."""
        cdef uint64_t total = 0, i
        for i in range(self.m.segment_count):
            total += self.m.segments[i].end - self.m.segments[i].start
        return total

    @property
    def nbytes(self):
        """Bytes held: frames, pool chunks on huge pages whole, directory and tables."""
        return (frames_in_pool(&self.m) * PAGE_SIZE
                + self.m.directory_pages * PAGE_SIZE
                + self.m.root_length * sizeof(node_t)
                + self.m.chunk_count * sizeof(uint8_t *)
                + self.m.region_count * sizeof(region_t)
                + self.m.segment_capacity * sizeof(segment_t))

    def is_ram(self, pa):
        """Whether RAM contains the physical address `pa` (any integer)."""
        pa = as_int(pa, "pa", 0, 0xFFFFFFFFFFFFFFFF)
        return bool(pm_in_ram(&self.m, pa, 1))

    # --- filling ---

    def attach(self, pa, buffer, offset=0, size=None):
        """Back RAM by a read-only buffer, which is not copied and stays as it is.

        Unlike a write, this is not for a memory that other threads use at the same time.

        Parameters
        ----------
        pa : int
            First physical address, a multiple of 4096.
        buffer : buffer
            C-contiguous bytes, such as an `mmap.mmap`; kept alive. The first write to a frame
            copies it.
        offset : int, default 0
            Byte of the buffer that becomes the byte at `pa`; any alignment.
        size : int, optional
            Bytes, a multiple of 4096; the rest of the buffer by default.

        Raises
        ------
        InvalidValueError
            If the range is not whole frames, leaves the buffer, or meets another attached one.
        OutsideMemoryError
            If RAM does not contain the range.
        """
        cdef segment_t *segments
        cdef hpa_t start
        cdef uint64_t length, length_after, first, i
        cdef _BufferView view = _BufferView(buffer)
        offset = as_int(offset, "offset", 0, view.length)
        start = as_int(pa, "pa", 0, ADDRESS_LIMIT - 1)
        length = as_int(view.length - offset if size is None else size, "size", 0,
                        view.length - offset)
        if start & PAGE_OFFSET or length & PAGE_OFFSET:
            raise InvalidValueError(
                f"an attached range must be whole frames, got {start:#x} (+{length:#x} bytes)")
        if length == 0:
            return
        if not pm_in_ram(&self.m, start, length):
            raise_status(PM_OUTSIDE, start, length)
        first = 0
        i = self.m.segment_count
        while first < i:
            if self.m.segments[(first + i) >> 1].end <= start:
                first = ((first + i) >> 1) + 1
            else:
                i = (first + i) >> 1
        if first < self.m.segment_count and self.m.segments[first].start < start + length:
            raise InvalidValueError(f"an attached buffer covers part of {start:#x} already")
        if self.m.segment_count == self.m.segment_capacity:
            length_after = max(<uint64_t>16, 2 * self.m.segment_capacity)
            segments = <segment_t *>realloc(self.m.segments, length_after * sizeof(segment_t))
            if segments == NULL:
                raise MemoryError
            self.m.segments = segments
            self.m.segment_capacity = length_after
        segments = self.m.segments
        for i in range(self.m.segment_count, first, -1):
            segments[i] = segments[i - 1]
        segments[first].start = start
        segments[first].end = start + length
        segments[first].data = view.data + <uint64_t>offset
        self.m.segment_count += 1
        self.m.version += 1
        self.buffers.append((start, view))

    def load(self, pa, data):
        """Copy bytes in; all-zero parts of untouched frames stay untouched.

        Parameters
        ----------
        pa : int
            Physical address of the first byte; any alignment.
        data : buffer
            C-contiguous bytes.

        Returns
        -------
        int
            Frames that are held now and were not before.

        Raises
        ------
        OutsideMemoryError
            If RAM does not contain all of the range; nothing is changed then.
        """
        cdef _BufferView view = _BufferView(data)
        cdef hpa_t start = as_int(pa, "pa", 0, 0xFFFFFFFFFFFFFFFF)
        cdef uint64_t before = self.m.frames
        cdef pm_status status
        with nogil:
            pm_lock(&self.m)
            status = load_sparse(&self.m, start, view.length, view.data)
            pm_unlock(&self.m)
        if status != PM_OK:
            raise_status(status, start, view.length)
        return self.m.frames - before

    def _narrow(self, regions):
        """Give up the RAM outside `regions`, which must contain every frame that is held.

        For a reader that learns only at the end of a stream what RAM there was; to be called
        before another thread knows the memory.
        """
        cdef list merged = checked_regions(None, regions)
        cdef uint64_t i
        cdef physmem_t new = self.m
        cdef uint64_t[::1] held
        cdef node_t slot
        frames = self.frames()
        bounds = np.array(merged, dtype=np.uint64)
        index = np.searchsorted(bounds[:, 1], frames, side="right")
        if np.any(index == len(bounds)) or np.any(frames < bounds[index, 0]):
            raise InvalidValueError("RAM cannot be narrowed to less than the frames that are held")
        new.regions = <region_t *>calloc(len(merged), sizeof(region_t))
        if new.regions == NULL or not make_root(&new, max(end for _, end in merged)):
            free(new.regions)
            raise MemoryError
        for i in range(<uint64_t>len(merged)):
            new.regions[i].start, new.regions[i].end = merged[i]
        new.region_count = len(merged)
        held = frames
        for i in range(<uint64_t>held.shape[0]):
            if pm_owned(&self.m, held[i]) != NULL:
                slot = directory_slot(&new, held[i])
                if slot == NULL:
                    free_root(new.root, new.root_length)
                    free(new.regions)
                    raise MemoryError
                slot[0] = pm_owned(&self.m, held[i])
        free_root(self.m.root, self.m.root_length)
        free(self.m.regions)
        self.m = new
        self.m.version += 1

    # --- finding ---

    def frames(self):
        """Sorted base addresses of the frames that are owned or attached, uint64."""
        return self._matching(0, 0, 0)

    def match_u64(self, offset, mask, value):
        """Frames with a given pattern in one 64-bit word.

        Parameters
        ----------
        offset : int
            Byte offset of the word in the frame, a multiple of 8 below 4096.
        mask, value : int
            A frame matches if ``word & mask == value``.

        Returns
        -------
        ndarray of uint64
            Sorted base addresses, of frames that are owned or attached.
        """
        offset = as_int(offset, "offset", 0, PAGE_SIZE - 8)
        if offset & 7:
            raise InvalidValueError(f"offset must be a multiple of 8, got {offset:#x}")
        return self._matching(offset, as_int(mask, "mask", 0, 0xFFFFFFFFFFFFFFFF),
                              as_int(value, "value", 0, 0xFFFFFFFFFFFFFFFF))

    def _matching(self, uint64_t offset, uint64_t mask, uint64_t value):
        cdef uint64_t capacity = self.m.frames + self.mapped_bytes // PAGE_SIZE
        cdef object found = np.empty(capacity, dtype=np.uint64)
        cdef uint64_t[::1] bases = found
        cdef uint64_t count = 0
        with nogil:
            count = match_frames(&self.m, offset, mask, value, &bases[0] if capacity else NULL)
        # owned and attached frames come in two sorted runs, without a frame in both
        found = found[:count]
        found.sort()
        return found.copy()

    # --- scalars and blocks ---

    def read_u8(self, pa):
        """The byte at `pa`."""
        return read_scalar(self, pa, 1)

    def read_u16(self, pa):
        """The little-endian 16-bit word at `pa`, of any alignment."""
        return read_scalar(self, pa, 2)

    def read_u32(self, pa):
        """The little-endian 32-bit word at `pa`, of any alignment."""
        return read_scalar(self, pa, 4)

    def read_u64(self, pa):
        """The little-endian 64-bit word at `pa`, of any alignment."""
        return read_scalar(self, pa, 8)

    def write_u8(self, pa, value):
        """Store one byte at `pa`."""
        write_scalar(self, pa, value, 1)

    def write_u16(self, pa, value):
        """Store a little-endian 16-bit word at `pa`, of any alignment."""
        write_scalar(self, pa, value, 2)

    def write_u32(self, pa, value):
        """Store a little-endian 32-bit word at `pa`, of any alignment."""
        write_scalar(self, pa, value, 4)

    def write_u64(self, pa, value):
        """Store a little-endian 64-bit word at `pa`, of any alignment."""
        write_scalar(self, pa, value, 8)

    def read(self, pa, n):
        """`n` bytes from `pa` on, across frames.

        Raises
        ------
        OutsideMemoryError
            If RAM does not contain them all.
        """
        cdef hpa_t start = as_int(pa, "pa", 0, 0xFFFFFFFFFFFFFFFF)
        cdef uint64_t length = as_int(n, "n", 0, (1 << 63) - 1)
        if not pm_in_ram(&self.m, start, length):
            raise_status(PM_OUTSIDE, start, length)
        cdef bytes result = PyBytes_FromStringAndSize(NULL, length)
        cdef uint8_t *out = <uint8_t *>PyBytes_AS_STRING(result)
        with nogil:
            pm_read(&self.m, start, length, out)
        return result

    def write(self, pa, data):
        """Store bytes from `pa` on, across frames.

        Raises
        ------
        OutsideMemoryError
            If RAM does not contain them all; nothing is changed then.
        """
        cdef _BufferView view = _BufferView(data)
        cdef hpa_t start = as_int(pa, "pa", 0, 0xFFFFFFFFFFFFFFFF)
        cdef pm_status status
        with nogil:
            pm_lock(&self.m)
            status = pm_write(&self.m, start, view.length, view.data)
            pm_unlock(&self.m)
        if status != PM_OK:
            raise_status(status, start, view.length)

    # --- batches ---

    def read_batch(self, pas, dtype=np.uint64, *, out=None, ok=None):
        """One integer from each of many addresses.

        Parameters
        ----------
        pas : array of int, shape (n,)
            Physical addresses, of any alignment.
        dtype : {uint8, uint16, uint32, uint64}
            What is read, little-endian.
        out : ndarray, optional
            Receives the values; shape (n,), of `dtype`.
        ok : ndarray of bool, optional
            Receives whether RAM contains each; values outside are then 0. Without it, an
            address outside RAM raises.

        Returns
        -------
        ndarray
            `out`, or a new array.

        Raises
        ------
        OutsideMemoryError
            Naming the first address outside RAM, if `ok` is not given.
        """
        dtype = np.dtype(dtype)
        if dtype != _SCALARS.get(dtype.itemsize):
            raise InvalidTypeError(f"dtype must be uint8, uint16, uint32 or uint64, got {dtype}")
        pas = as_u64(pas, "pas")
        out = as_output(out, dtype, (len(pas),), "out")
        gather(self, pas, dtype.itemsize, out.view(np.uint8), ok)
        return out

    def read_blocks(self, pas, n, *, out=None, ok=None):
        """`n` bytes from each of many addresses, as the rows of a (len(pas), n) uint8 array.

        `out` and `ok` are as in `read_batch`.
        """
        pas = as_u64(pas, "pas")
        n = as_int(n, "n", 1, 1 << 48)
        out = as_output(out, np.uint8, (len(pas), n), "out")
        gather(self, pas, n, out.reshape(-1), ok)
        return out

    def write_batch(self, pas, values):
        """Store one integer at each of many addresses, in order (the last of equals wins).

        Parameters
        ----------
        pas : array of int, shape (n,)
            Physical addresses, of any alignment.
        values : ndarray of uint8, uint16, uint32 or uint64, shape (n,)
            What is stored, little-endian; the dtype is the width.

        Raises
        ------
        OutsideMemoryError
            Naming the first address outside RAM; nothing is changed then.
        """
        pas = as_u64(pas, "pas")
        if not isinstance(values, np.ndarray) or values.dtype != _SCALARS.get(values.itemsize):
            raise InvalidTypeError("values must be an ndarray of uint8, uint16, uint32 or uint64, "
                                   f"got {getattr(values, 'dtype', type(values).__name__)}")
        if values.shape != pas.shape:
            raise InvalidTypeError(f"values must have shape {pas.shape}, got {values.shape}")
        scatter(self, pas, values.itemsize, np.ascontiguousarray(values).view(np.uint8))

    def write_blocks(self, pas, data):
        """Store row i of a (len(pas), n) uint8 array at address i; errors as `write_batch`."""
        pas = as_u64(pas, "pas")
        if (not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2
                or len(data) != len(pas)):
            raise InvalidTypeError(f"data must be a uint8 ndarray of shape ({len(pas)}, n)")
        scatter(self, pas, data.shape[1], np.ascontiguousarray(data).reshape(-1))

    # --- state as a value ---

    def copy(self):
        """An independent memory with the same content; attached buffers are shared."""
        cdef PhysMem other = type(self).__new__(type(self))
        PhysMem.__init__(other, regions=self.regions, huge_pages=self.m.huge_pages)
        if hasattr(self, "__dict__"):       # a subclass
            other.__dict__.update(self.__dict__)
        cdef uint64_t i
        cdef segment_t segment
        cdef dict views = dict(self.buffers)
        for i in range(self.m.segment_count):
            segment = self.m.segments[i]
            view = views[segment.start]
            PhysMem.attach(other, segment.start, view, segment.data - (<_BufferView>view).data,
                           segment.end - segment.start)
        other._set_owned(*self._get_owned())
        other.m.version = self.m.version
        return other

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    def _get_owned(self):
        """Addresses and content of the owned frames: (uint64 (n,), uint8 (n, 4096))."""
        cdef uint64_t count = self.m.frames, used = 0
        addresses = np.empty(count, dtype=np.uint64)
        cdef uint64_t[::1] bases = addresses
        with nogil:
            if count:
                used = owned_frames(&self.m, &bases[0])
        addresses = addresses[:used]
        return addresses, self.read_blocks(addresses, PAGE_SIZE)

    def _set_owned(self, addresses, content):
        self.write_blocks(addresses, content)

    def __getstate__(self):
        if self.m.segment_count:
            raise InvalidTypeError("a memory with attached buffers cannot be pickled")
        return {"owned": self._get_owned(), "version": self.version,
                "attributes": getattr(self, "__dict__", {})}

    def __setstate__(self, state):
        self._set_owned(*state["owned"])
        self.m.version = state["version"]
        if state["attributes"]:
            self.__dict__.update(state["attributes"])

    def __reduce__(self):
        return _rebuild, (type(self), self.regions, bool(self.m.huge_pages)), self.__getstate__()


def _rebuild(kind, regions, huge_pages):
    """An empty memory of class `kind`, for unpickling."""
    memory = kind.__new__(kind)
    PhysMem.__init__(memory, regions=regions, huge_pages=huge_pages)
    return memory
