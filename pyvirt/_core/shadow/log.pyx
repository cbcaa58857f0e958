"""The dirty log of a hypervisor, for Python."""

from libc.stdint cimport uint64_t

import numpy as np

from pyvirt._core.arrays cimport as_int
from pyvirt._core.shadow.dirty cimport clear_frame, fetch_log, start_log, stop_log
from pyvirt._core.shadow.engine cimport HyperCore
from pyvirt._core.shadow.state cimport (
    LOG_OFF,
    LOG_PML,
    LOG_PROTECT,
    MODE_SHADOW,
    hyper_t,
    request_flush,
)
from pyvirt.errors import InvalidTypeError, InvalidValueError

METHODS = {"write_protect": LOG_PROTECT, "pml": LOG_PML}


cdef class LoggedCore(HyperCore):
    """A hypervisor that can log which frames of its guest are written."""

    def log_dirty(self, first=0, count=None, on=True, method="write_protect", all_set=False):
        """Begin or end the log of writes to guest frames.

        Logged are the guest's stores, by entries or emulated, and A and D bits that its
        processor or the hypervisor sets in its tables; not what the host writes by itself, such
        as `PhysicalMemory.write`. As KVM does, a frame also counts as written when a page becomes
        writable because it was read or synced (`ShadowRules.log_writes_only`).

        Parameters
        ----------
        first : int, default 0
            Guest frame, a multiple of 512.
        count : int, optional
            Frames, a multiple of 512 or up to the end of memory; default: to the end.
        on : bool, default True
            Begin or end. At the end entries of 4 KiB are dropped where a larger one may come
            back.
        method : {"write_protect", "pml"}
            How to notice a write: by a fault, or by the processor's page-modification log,
            which is for nested tables only.
        all_set : bool, default False
            Begin with all frames dirty, and nothing protected until they are cleared
            (``KVM_DIRTY_LOG_INITIALLY_SET``), instead of all clean.

        Raises
        ------
        InvalidValueError
            Frames outside memory or no whole 2 MiB, logged already or not at all, or a method
            that these tables do not have.

        Notes
        -----
        https://docs.kernel.org/virt/kvm/api.html, "KVM_GET_DIRTY_LOG"; SDM vol. 3, 30.3.6.
        """
        cdef hyper_t *s = &self.s
        cdef uint64_t start, end, region
        cdef bint begin = on
        start, end = self._range(first, count)
        if start & 511 or (end & 511 and end != s.frames):
            raise InvalidValueError(
                f"first and count must be multiples of 512 frames, got {first} and {count}")
        if method not in METHODS:
            raise InvalidValueError(
                f"method must be one of {', '.join(METHODS)}, got {method!r:.80}")
        if method == "pml" and self.processor is not None:
            raise InvalidValueError("method \"pml\" is for a machine without tlb=")
        if method == "pml" and s.mode == MODE_SHADOW:
            raise InvalidValueError("method \"pml\" is for nested tables, these are shadow tables")
        if method == "pml" and s.front != NULL:
            raise InvalidValueError("method \"pml\" is for machines without tlb=: their D bits are "
                                    "set by a processor that does not note them")
        for region in range(start >> 9, (end + 511) >> 9):
            if (s.log[region] != LOG_OFF) == begin:
                raise InvalidValueError(
                    f"frames from {region << 9:#x} are {'logged already' if begin else 'not logged'}")
        if begin:
            start_log(s, start, end, METHODS[method], all_set)
        else:
            stop_log(s, start, end)

    def dirty(self, first=0, count=None, clear=True):
        """Fetch the frames that were written since they were cleared last.

        Parameters
        ----------
        first : int, default 0
            Guest frame.
        count : int, optional
            Frames; default: to the end of memory.
        clear : bool, default True
            Also clear them (``KVM_GET_DIRTY_LOG``): their entries are protected again, with one
            flush if there were any.

        Returns
        -------
        ndarray of uint64
            Frames, ascending.
        """
        cdef hyper_t *s = &self.s
        cdef uint64_t start, end
        start, end = self._range(first, count)
        fetch_log(s)
        words = np.frombuffer((<unsigned char *>s.dirty)[start >> 6 << 3:(end + 63) >> 6 << 3],
                              dtype=np.uint8)
        frames = np.flatnonzero(np.unpackbits(words, bitorder="little")).astype(np.uint64)
        frames += np.uint64(start >> 6 << 6)
        frames = frames[(frames >= start) & (frames < end)]
        if clear:
            self.clear_dirty(frames)
        return frames

    def clear_dirty(self, frames):
        """Clear frames of the log (``KVM_CLEAR_DIRTY_LOG``).

        Parameters
        ----------
        frames : array_like of int
            Guest frames. Those that are clean are passed over.

        Returns
        -------
        int
            Frames that were dirty.
        """
        cdef hyper_t *s = &self.s
        cdef const uint64_t[::1] view
        cdef uint64_t i, cleared = 0
        self._check_begun()
        given = np.asarray(frames)
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            raise InvalidTypeError(
                f"frames must be a one-dimensional array of integers, got {given.dtype} of shape "
                f"{given.shape}")
        if given.size == 0:
            return 0
        if not 0 <= int(given.min()) <= int(given.max()) < s.frames:
            raise InvalidValueError(
                f"frames must be in [0, {s.frames:#x}), got {int(given.min()):#x} to "
                f"{int(given.max()):#x}")
        view = np.ascontiguousarray(given, dtype=np.uint64)
        fetch_log(s)
        for i in range(view.shape[0]):
            cleared += clear_frame(s, view[i])
        if cleared:
            request_flush(s)
        return cleared

    def _range(self, first, count):
        """Check a range of guest frames; its first and one past its last."""
        self._check_begun()
        start = as_int(first, "first", 0, self.s.frames - 1)
        if count is None:
            return start, self.s.frames
        return start, start + as_int(count, "count", 1, self.s.frames - start)
