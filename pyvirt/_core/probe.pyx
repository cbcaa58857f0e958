"""Cycles that the processor under us takes for what needs no privilege: CPUID, a system call, a fault."""

from libc.stdint cimport int64_t, uint32_t

import numpy as np

from pyvirt.errors import InvalidValueError

cdef extern from "probe.h":
    const bint PROBE_HERE
    void probe_leaf(uint32_t leaf, uint32_t subleaf, uint32_t *out) noexcept nogil
    void probe_nothing(int64_t *out, size_t n) noexcept nogil
    void probe_cpuid(int64_t *out, size_t n) noexcept nogil
    void probe_syscall(int64_t *out, size_t n) noexcept nogil
    int probe_fault(int64_t *out, size_t n) noexcept nogil
    double probe_hertz(int64_t span) noexcept nogil

here = bool(PROBE_HERE)
"""Whether this machine can be probed: x86-64 under Linux."""

KINDS = ("nothing", "cpuid", "syscall", "fault")


def sample(str kind, Py_ssize_t count):
    """Measure `count` times, and return all of them: int64 of shape (count,)."""
    if kind not in KINDS:
        raise InvalidValueError(f"kind is {kind!r}; accepted: {', '.join(KINDS)}")
    if not here or not 0 < count <= 1 << 20:
        raise InvalidValueError(f"count is {count}; accepted: 1 to 1048576, on x86-64 under Linux")
    out = np.empty(count, np.int64)
    cdef int64_t[::1] view = out
    cdef int failed = 0
    if kind == "nothing":
        with nogil:
            probe_nothing(&view[0], count)
    elif kind == "cpuid":
        with nogil:
            probe_cpuid(&view[0], count)
    elif kind == "syscall":
        with nogil:
            probe_syscall(&view[0], count)
    else:
        with nogil:
            failed = probe_fault(&view[0], count)
    if failed:
        raise MemoryError(f"no room for {count} pages")
    return out


def leaf(uint32_t number, uint32_t subleaf=0):
    """EAX, EBX, ECX, EDX of a CPUID leaf; zeros where there is no CPUID."""
    cdef uint32_t out[4]
    probe_leaf(number, subleaf, out)
    return out[0], out[1], out[2], out[3]


def hertz(int64_t span_ns):
    """Frequency of the time stamp counter, measured for `span_ns` (at most a second)."""
    if not 0 < span_ns <= 1_000_000_000:
        raise InvalidValueError(f"span_ns is {span_ns}; accepted: 1 to 1000000000")
    cdef double found
    with nogil:
        found = probe_hertz(span_ns)
    return found
