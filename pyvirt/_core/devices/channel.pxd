# A paravirtual front end for disk and network: a stream of requests through one port.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pyvirt._core.devices.ata cimport ata_t
from pyvirt._core.devices.ne2000 cimport nic_t

cdef enum:
    CHANNEL_READS = 32          # reads that wait to be fetched
    CHANNEL_FRAME = 1516        # bytes of a frame, in whole words
    CHANNEL_SECTORS = 256       # of one request

cdef struct channel_t:
    uint64_t requests
    uint32_t kind               # of the request under way
    uint32_t need               # its words still to come; 0: the next word is a header
    uint32_t first              # the next word is its first sector
    uint32_t count              # sectors, or bytes of a frame
    uint32_t lba
    uint32_t at                 # words of its data that came
    uint32_t error              # 1: a request was refused since the last reset
    uint32_t head               # the oldest read that waits, in a ring
    uint32_t queued
    uint32_t fetched            # words of it that were read
    uint32_t lbas[32]
    uint32_t counts[32]
    uint8_t frame[1516]

cdef void channel_reset(channel_t *c) noexcept nogil
cdef uint32_t channel_read(channel_t *c, ata_t *a, int register) noexcept nogil
cdef void channel_write(
    channel_t *c, ata_t *a, nic_t *n, int register, uint32_t value) noexcept nogil
