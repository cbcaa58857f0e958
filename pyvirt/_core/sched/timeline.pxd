# Who ran where, and when: a record for each time that a CPU takes up another world, or none.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyvirt._core.types cimport ns_t

ctypedef struct switch_t:
    ns_t t_ns
    ns_t ready_ns                   # how long the world that begins had been ready
    uint32_t world                  # that runs from now on, or NO_WORLD
    uint16_t cpu
    uint8_t state                   # of who ran until now; GONE if nobody did, WAIT if removed
    uint8_t unused

ctypedef struct timeline_t:
    switch_t *records
    uint64_t capacity               # of records
    uint64_t count                  # that ever were; record i is at i modulo capacity
    uint64_t taken                  # of these, how many are no longer there
    uint64_t lost                   # and how many of those made room
    bint ring                       # the oldest make room, or `records` grows
    switch_t *open                  # of each CPU, the last switch before the records
    uint32_t *on                    # of each CPU, the world of its last switch
    ns_t start                      # what happened from this time on is known

cdef void note_switch(
    timeline_t *t, ns_t now, uint32_t cpu, uint32_t world, ns_t ready, uint8_t state
) noexcept nogil

cdef class Recorder:
    cdef timeline_t t
    cdef uint32_t cpus
    cdef void begin(self, ns_t now) noexcept
