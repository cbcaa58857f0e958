"""A record of each switch, in a buffer that grows or in a ring that keeps the last ones."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy

import numpy as np

from pyvirt._core.arrays cimport as_int
from pyvirt._core.types cimport ns_t

SWITCH_DTYPE = np.dtype([
    ("t_ns", "<i8"), ("ready_ns", "<i8"), ("world", "<i4"), ("cpu", "<u2"), ("state", "u1"),
    ("", "u1"),
])
assert SWITCH_DTYPE.itemsize == sizeof(switch_t)

cdef enum:
    FIRST_CAPACITY = 1024


cdef void note_switch(
    timeline_t *t, ns_t now, uint32_t cpu, uint32_t world, ns_t ready, uint8_t state
) noexcept nogil:
    """Add a record; the oldest makes room in a ring, or if there is no memory for more."""
    cdef switch_t *r
    cdef switch_t *grown
    if not t.ring and t.count - t.taken == t.capacity:
        grown = <switch_t *>realloc(t.records, 2 * t.capacity * sizeof(switch_t))
        if grown == NULL:
            t.ring = True
        else:
            # Record i is at i modulo capacity: those behind the seam move.
            spread(grown, t)
            t.records = grown
            t.capacity *= 2
    r = &t.records[t.count % t.capacity]
    if t.count - t.taken == t.capacity:
        t.open[r.cpu] = r[0]
        t.start = r.t_ns
        t.taken += 1
        t.lost += 1
    r.t_ns, r.ready_ns, r.world = now, ready, world
    r.cpu, r.state, r.unused = <uint16_t>cpu, state, 0
    t.count += 1


cdef void spread(switch_t *grown, const timeline_t *t) noexcept nogil:
    """Put a full buffer's records where they belong in one of twice the capacity."""
    cdef uint64_t i, old, new
    for i in range(t.taken, t.count):
        old, new = i % t.capacity, i % (2 * t.capacity)
        if new != old:
            grown[new] = grown[old]


cdef class Recorder:
    """The switches of one scheduler.

    Parameters
    ----------
    cpus : int
        How many it has.
    ring : int or None
        Keep so many records, the last ones; None: all.
    """

    def __cinit__(self, cpus, ring=None):
        cdef timeline_t *t = &self.t
        t.capacity = FIRST_CAPACITY if ring is None else as_int(ring, "ring", 1, 1 << 40)
        t.ring = ring is not None
        self.cpus = as_int(cpus, "cpus", 1, 0xFFFF)
        t.records = <switch_t *>realloc(NULL, t.capacity * sizeof(switch_t))
        t.open = <switch_t *>calloc(self.cpus, sizeof(switch_t))
        t.on = <uint32_t *>calloc(self.cpus, sizeof(uint32_t))
        if t.records == NULL or t.open == NULL or t.on == NULL:
            raise MemoryError(f"no memory for {t.capacity:,} records of switches")

    def __dealloc__(self):
        free(self.t.records)
        free(self.t.open)
        free(self.t.on)

    cdef void begin(self, ns_t now) noexcept:
        """Forget all; the caller sets `open` and `on`."""
        self.t.count = self.t.taken = self.t.lost = 0
        self.t.start = now

    def take(self, clear, now):
        """Give the records that there are, and those in force before them.

        Parameters
        ----------
        clear : bool
            Forget them, and go on from here.
        now : int
            The present time.

        Returns
        -------
        (ndarray of SWITCH_DTYPE, ndarray of SWITCH_DTYPE, int, int)
            Records by time; for each CPU the last one before them; the time from which on all
            is known; how many records there were since then that made room for others.
        """
        cdef timeline_t *t = &self.t
        cdef uint64_t i, at, n = t.count - t.taken
        cdef uint8_t[::1] into
        cdef switch_t *r
        records = np.zeros(n, SWITCH_DTYPE)
        before = np.zeros(self.cpus, SWITCH_DTYPE)
        into = before.view(np.uint8)
        memcpy(&into[0], t.open, self.cpus * sizeof(switch_t))
        start, lost = t.start, t.lost
        if n:
            into = records.view(np.uint8)
            at = t.taken % t.capacity
            i = min(n, t.capacity - at)
            memcpy(&into[0], &t.records[at], i * sizeof(switch_t))
            if i < n:
                memcpy(&into[i * sizeof(switch_t)], t.records, (n - i) * sizeof(switch_t))
        if clear:
            for i in range(t.taken, t.count):
                r = &t.records[i % t.capacity]
                t.open[r.cpu] = r[0]
            t.taken, t.lost, t.start = t.count, 0, now
        return records, before, start, lost
