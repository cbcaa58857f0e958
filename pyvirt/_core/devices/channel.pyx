"""A paravirtual front end for disk and network: a stream of requests through one port.

Drivers that know of the hypervisor tell it of many requests at a time, where those of a disk
controller and a network card access registers for each. Here a string instruction is one access of
a guest, so REP OUTSD of a buffer of requests, and REP INSD of what they read, are two, whatever is
in the buffer. A choice of ours, as small as can be: there are no interrupts, and what was asked for is
done when its last word has come.

A request is a header, kind << 24 | number, and words after it: kind 1 reads `number` sectors, 1 to
256, from the one that the next word names; kind 2 writes them, with the data after that; kind 3
sends a frame of `number` bytes, 14 to 1,514, in whole words. What was read is fetched from the
same port, in the order of requests; 32 reads may wait. The status is 1 after a request that was
refused: its words are taken and dropped. Any write of the status begins anew.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from pyvirt._core.devices.ata cimport SECTOR, ata_t
from pyvirt._core.devices.bytebuf cimport buffer_put
from pyvirt._core.devices.ne2000 cimport nic_t

cdef enum:
    READ = 1
    WRITE = 2
    FRAME = 3
    WORDS = 128                 # of a sector
    REGISTER_DATA = 0
    REGISTER_STATUS = 4


cdef void channel_reset(channel_t *c) noexcept nogil:
    """As after power on; the number of requests stays."""
    cdef uint64_t requests = c.requests
    memset(c, 0, sizeof(channel_t))
    c.requests = requests


cdef inline bint inside(const ata_t *a, uint32_t lba, uint32_t count) noexcept nogil:
    return a.disk != NULL and <uint64_t>lba + count <= a.sectors


cdef uint32_t fetch(channel_t *c, ata_t *a) noexcept nogil:
    """The next word of the oldest read."""
    cdef uint32_t value = 0, sector
    if not c.queued:
        c.error = 1
        return 0xFFFFFFFF
    sector = c.lbas[c.head % CHANNEL_READS] + c.fetched / WORDS
    if inside(a, sector, 1):
        memcpy(&value, a.disk + <uint64_t>sector * SECTOR + c.fetched % WORDS * 4, 4)
    c.fetched += 1
    if c.fetched % WORDS == 0:
        a.reads += 1
    if c.fetched >= c.counts[c.head % CHANNEL_READS] * WORDS:
        c.head = (c.head + 1) % CHANNEL_READS
        c.queued -= 1
        c.fetched = 0
    return value


cdef void send(channel_t *c, nic_t *n) noexcept nogil:
    """The frame, to where the card's go."""
    cdef uint8_t length[2]
    if c.count > CHANNEL_FRAME:
        return
    if n.sent.most - n.sent.length < c.count + 2:
        n.sent.lost += c.count
        return
    length[0] = c.count & 0xFF
    length[1] = c.count >> 8
    buffer_put(&n.sent, length, 2)
    buffer_put(&n.sent, c.frame, c.count)
    n.frames_out += 1


cdef void begin(channel_t *c, uint32_t word) noexcept nogil:
    """A header."""
    c.kind = word >> 24
    c.count = word & 0xFFFFFF
    c.at = 0
    c.first = c.kind != FRAME
    c.need = 1
    c.requests += 1
    if c.kind == FRAME and 14 <= c.count <= 1514:
        c.need = (c.count + 3) / 4
    elif (c.kind != READ and c.kind != WRITE) or not 1 <= c.count <= CHANNEL_SECTORS:
        c.need = 0
        c.error = 1


cdef void sector(channel_t *c, const ata_t *a, uint32_t word) noexcept nogil:
    """The first sector of a request."""
    cdef uint32_t place
    cdef bint right = inside(a, word, c.count)
    c.first = 0
    c.lba = word
    if c.kind == WRITE:
        c.need = c.count * WORDS
        if not right:
            c.error = 1
            c.kind = 0              # the data are dropped
    elif not right or c.queued >= CHANNEL_READS:
        c.error = 1
    else:
        place = (c.head + c.queued) % CHANNEL_READS
        c.lbas[place] = word
        c.counts[place] = c.count
        c.queued += 1


cdef uint32_t channel_read(channel_t *c, ata_t *a, int register) noexcept nogil:
    if register == REGISTER_DATA:
        return fetch(c, a)
    return c.error if register == REGISTER_STATUS else 0


cdef void channel_write(
    channel_t *c, ata_t *a, nic_t *n, int register, uint32_t value
) noexcept nogil:
    cdef uint32_t number
    if register == REGISTER_STATUS:
        channel_reset(c)
    if register != REGISTER_DATA:
        return
    if not c.need:
        begin(c, value)
        return
    c.need -= 1
    if c.first:
        sector(c, a, value)
        return
    if c.kind == WRITE:
        number = c.lba + c.at / WORDS
        if inside(a, number, 1):
            memcpy(a.disk + <uint64_t>number * SECTOR + c.at % WORDS * 4, &value, 4)
            a.dirty[number] = 1
            a.writes += c.at % WORDS == WORDS - 1
    elif c.kind == FRAME:
        if 4 * c.at <= CHANNEL_FRAME - 4:
            memcpy(c.frame + 4 * c.at, &value, 4)
        if not c.need:
            send(c, n)
    c.at += 1
