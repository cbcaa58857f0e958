"""Traces of DynamoRIO's drmemtrace, in the canonical form that its raw2trace makes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from pyvirt._core import records
from pyvirt.errors import InvalidValueError
from pyvirt.traces.codec import Bytes, Decoder, Encoder, Step, as_bytes
from pyvirt.traces.events import Events, Op
from pyvirt.traces.sources import Piece

__all__ = ["ENTRY_DTYPE", "DrmemtraceDecoder", "DrmemtraceEncoder", "looks_like_drmemtrace"]

ENTRY_DTYPE = np.dtype([("type", "<u2"), ("size", "<u2"), ("addr", "<u8")])
"""An entry of 12 bytes (`trace_entry_t` in clients/drcachesim/common/trace_entry.h)."""

# trace_type_t and trace_marker_type_t of that file
_READ, _WRITE, _INSTR = 0, 1, 10
_THREAD, _THREAD_EXIT, _PID, _HEADER, _FOOTER, _MARKER = 22, 23, 24, 25, 26, 28
_MARKER_FILETYPE, _MARKER_VERSION = 9, 12
_VERSION = 3  # what is written: no encodings, no branch targets
_ARCH_X86_64 = 0x40

_FULL, _BAD_RECORD, _NEW_THREAD, _BAD_VERSION = 1, 2, 3, 4
_MOST_VCPUS = 1 << 16
_AFTER_HEADER = 1


def looks_like_drmemtrace(head: bytes) -> bool:
    """Tell whether a file begins as a canonical trace does.

    Parameters
    ----------
    head : bytes
        At least 12 bytes, if the file has them.

    Returns
    -------
    bool
        True for a header of a version that is possible.
    """
    if len(head) < ENTRY_DTYPE.itemsize:
        return False
    entry = np.frombuffer(head, ENTRY_DTYPE, 1)[0]
    return int(entry["type"]) == _HEADER and 2 <= int(entry["addr"]) < 256


class DrmemtraceDecoder(Decoder):
    """Loads, stores and fetches; markers, encodings and prefetches are skipped.

    Parameters
    ----------
    arg : int
        For the events.
    threads : mapping of int to int, optional
        vCPU of each thread id; those that are not in it get the next free numbers.
    """

    def __init__(self, arg: int = 0, threads: Mapping[int, int] | None = None) -> None:
        self._arg = arg
        self.threads = dict(threads or {})
        for vcpu in self.threads.values():
            if not 0 <= vcpu < _MOST_VCPUS:
                raise InvalidValueError(f"threads: vCPU must be in [0, 65536), got {vcpu}")
        self._next = 0
        none = (1 << 64) - 1  # no thread, and no instruction to repeat, until one is named
        self._state = np.array([0, none, none, 0, 0], np.uint64)

    def decode(self, data: Piece, out: Events, last: bool) -> Step:
        """Decode whole entries, following the threads."""
        used = made = 0
        while True:
            rest = memoryview(data)[used:]
            status, done, events, skipped, told = records.parse_drmemtrace(
                rest, as_bytes(out[made:]), self._state, self._arg
            )
            used += done
            made += events
            self.records += done // ENTRY_DTYPE.itemsize
            self.skipped += skipped
            if status != _NEW_THREAD:
                break
            vcpu = self._vcpu(told)
            if vcpu is None:
                return Step(used, made, problem=f"more than {_MOST_VCPUS} threads")
            self._state[:3] = vcpu, told, (1 << 64) - 1
        if status == _BAD_RECORD:
            return Step(used, made, problem=f"no entry has type {told} (is the trace raw?)")
        if status == _BAD_VERSION:
            return Step(used, made, problem=f"no format has version {told}")
        left = len(data) - used
        if last and not status and left:
            return Step(used, made, problem=f"the file ends after {left} of its 12 bytes")
        if last and not status and self._state[4] == _AFTER_HEADER:
            return Step(used, made, problem="the file ends without a footer")
        return Step(used, made, status == _FULL)

    def _vcpu(self, tid: int) -> int | None:
        if tid not in self.threads:
            taken = set(self.threads.values())
            while self._next in taken:
                self._next += 1
            if self._next >= _MOST_VCPUS:
                return None
            self.threads[tid] = self._next
            self._next += 1
        return self.threads[tid]


class DrmemtraceEncoder(Encoder):
    """Accesses, with a thread for each vCPU; MODIFY is a read and a write."""

    vcpus = True

    def __init__(self) -> None:
        self._vcpu = -1

    def begin(self) -> bytes:
        """Write header, version and kind."""
        return _entries(
            (_HEADER, 0, _VERSION),
            (_MARKER, _MARKER_VERSION, _VERSION),
            (_MARKER, _MARKER_FILETYPE, _ARCH_X86_64),
        ).tobytes()

    def encode(self, events: Events) -> Bytes:
        """Write entries, and whose they are where that changes."""
        if not len(events):
            return np.zeros(0, np.uint8)
        # How many entries each event becomes: two more at a switch, one more for a MODIFY.
        switch = np.diff(events["vcpu"].astype(np.int64), prepend=self._vcpu) != 0
        both = events["op"] == Op.MODIFY
        ends = np.cumsum(1 + 2 * switch + both)
        out = np.zeros(int(ends[-1]), ENTRY_DTYPE)
        main = ends - 1
        kinds = np.zeros(256, np.uint16)
        kinds[[Op.LOAD, Op.STORE, Op.FETCH, Op.MODIFY]] = _READ, _WRITE, _INSTR, _WRITE
        out["type"][main] = kinds[events["op"]]
        out["size"][main] = events["size"]
        out["addr"][main] = events["addr"]
        out[main[both] - 1] = out[main[both]]
        out["type"][main[both] - 1] = _READ
        first = (ends - (1 + 2 * switch + both))[switch]
        out["type"][first] = _THREAD
        out["addr"][first] = events["vcpu"][switch].astype(np.uint64) + 1  # no thread has id 0
        out["type"][first + 1] = _PID
        out["addr"][first + 1] = 1
        self._vcpu = int(events["vcpu"][-1])
        return out.view(np.uint8)

    def finish(self) -> Bytes:
        """Write the end."""
        last = [(_THREAD_EXIT, 0, self._vcpu + 1)] if self._vcpu >= 0 else []
        return _entries(*last, (_FOOTER, 0, 0)).view(np.uint8)


def _entries(*entries: tuple[int, int, int]) -> npt.NDArray[np.void]:
    return np.array([*entries], ENTRY_DTYPE)
