"""An NE2000 network card: a DP8390 with 16 KiB of memory.

Registers are those of National Semiconductor's data sheet of the DP8390D (sections 6 to 10); the
card adds the data port at 0x10, the reset port at 0x1F and a PROM with its address, each byte
twice. Frames leave and arrive whole and at once: there are no collisions and no wire errors, the
tally counters stay zero, and the frame's checksum is not part of it.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from pyvirt._core.devices.bytebuf cimport buffer_put

cdef enum:
    STOP = 1
    START = 2
    TRANSMIT = 4
    ISR_RECEIVED = 0x01
    ISR_SENT = 0x02
    ISR_OVERWRITTEN = 0x10
    ISR_REMOTE = 0x40
    ISR_RESET = 0x80
    SHORTEST = 60


cdef void nic_reset(nic_t *n) noexcept nogil:
    """As after a reset of the card: stopped; its memory stays."""
    n.command = 0x20 | STOP
    n.isr = ISR_RESET
    n.imr = 0
    n.start = n.stop = n.boundary = n.current = 0
    n.receive = n.transmit = n.data = 0
    n.transmit_page = n.transmit_status = n.receive_status = 0
    n.transmit_count = n.remote_address = n.remote_count = 0
    memset(n.physical, 0, 6)
    memset(n.multicast, 0, 8)


cdef bint nic_line(const nic_t *n) noexcept nogil:
    return n.isr & n.imr & 0x7F != 0


cdef uint8_t fetch(const nic_t *n, uint16_t address) noexcept nogil:
    """A byte of the card's own address space."""
    if address < 32:
        if address < 12:
            return n.station[address >> 1]
        return 0x57 if address >= 28 else 0     # the mark of a card on a 16-bit bus
    if NIC_START <= address < NIC_START + NIC_MEMORY:
        return n.memory[address - NIC_START]
    return 0xFF


cdef void put(nic_t *n, uint16_t address, uint8_t value) noexcept nogil:
    if NIC_START <= address < NIC_START + NIC_MEMORY:
        n.memory[address - NIC_START] = value


cdef void step_remote(nic_t *n) noexcept nogil:
    n.remote_address += 1
    if n.remote_address == <uint16_t>n.stop << 8:
        n.remote_address = <uint16_t>n.start << 8
    if n.remote_count:
        n.remote_count -= 1
        if n.remote_count == 0:
            n.isr |= ISR_REMOTE


cdef int remote_bytes(const nic_t *n, int size) noexcept nogil:
    """What one access of the data port moves: bytes or words, as DCR says; four as two words."""
    if not n.data & 1:
        return 1
    return 4 if size == 4 else 2


cdef uint32_t data_read(nic_t *n, int size) noexcept nogil:
    cdef uint32_t value = 0
    cdef int i
    for i in range(remote_bytes(n, size)):
        if n.remote_count == 0:
            break
        value |= <uint32_t>fetch(n, n.remote_address) << 8 * i
        step_remote(n)
    return value


cdef void data_write(nic_t *n, int size, uint32_t value) noexcept nogil:
    cdef int i
    for i in range(remote_bytes(n, size)):
        if n.remote_count == 0:
            break
        put(n, n.remote_address, value >> 8 * i & 0xFF)
        step_remote(n)


cdef uint32_t hash_of(const uint8_t *address) noexcept nogil:
    """The upper six bits of the CRC of an address: its place among the multicast registers."""
    cdef uint32_t crc = 0xFFFFFFFF, bit
    cdef int i, j
    for i in range(6):
        for j in range(8):
            bit = (crc >> 31 ^ address[i] >> j) & 1
            crc <<= 1
            if bit:
                crc ^= 0x04C11DB7
    return crc >> 26


cdef bint wanted(const nic_t *n, const uint8_t *frame) noexcept nogil:
    """Is a frame for this card, by its receive configuration?"""
    cdef int i
    cdef bint broadcast = True, own = True
    cdef uint32_t place
    for i in range(6):
        broadcast = broadcast and frame[i] == 0xFF
        own = own and frame[i] == n.physical[i]
    if broadcast:
        return n.receive & 4 != 0
    if frame[0] & 1:
        place = hash_of(frame)
        return n.receive & 8 != 0 and n.multicast[place >> 3] >> (place & 7) & 1
    return own or n.receive & 0x10 != 0


cdef bint nic_receive(nic_t *n, const uint8_t *frame, uint32_t length) noexcept nogil:
    """A frame from the wire, without checksum; False where it is not taken."""
    cdef uint32_t pages, free_pages, total, i
    cdef uint32_t ring = <uint32_t>n.stop - n.start
    cdef uint16_t at
    cdef uint8_t next_page
    if n.command & STOP or not n.command & START or n.transmit & 6 or n.stop <= n.start \
            or n.current < n.start or n.current >= n.stop or length < 14 \
            or not wanted(n, frame):
        n.frames_dropped += 1
        return False
    if n.receive & 0x20:
        n.frames_in += 1                        # monitor mode: it is counted, not kept
        return True
    total = (length if length > SHORTEST else SHORTEST) + 4
    pages = (total + 4 + 255) >> 8
    free_pages = (n.boundary + ring - n.current) % ring if n.boundary >= n.start else 0
    if n.boundary == n.current:
        free_pages = ring
    if pages >= free_pages:
        n.isr |= ISR_OVERWRITTEN
        n.frames_dropped += 1
        return False
    next_page = <uint8_t>(n.start + (n.current - n.start + pages) % ring)
    n.receive_status = 0x21 if frame[0] & 1 else 0x01
    at = <uint16_t>n.current << 8
    for i in range(total + 4):
        if i == 0:
            put(n, at, n.receive_status)
        elif i == 1:
            put(n, at, next_page)
        elif i == 2:
            put(n, at, total & 0xFF)
        elif i == 3:
            put(n, at, total >> 8 & 0xFF)
        else:
            put(n, at, frame[i - 4] if i - 4 < length else 0)
        at += 1
        if at == <uint16_t>n.stop << 8:
            at = <uint16_t>n.start << 8
    n.current = next_page
    n.frames_in += 1
    n.isr |= ISR_RECEIVED
    return True


cdef void send(nic_t *n) noexcept nogil:
    """The frame that the transmit registers name; in loopback it goes nowhere."""
    cdef uint8_t byte[2]
    cdef uint32_t i
    cdef uint32_t first = <uint32_t>n.transmit_page << 8
    n.transmit_status = 1
    n.isr |= ISR_SENT
    n.command &= ~TRANSMIT
    if n.transmit & 6:
        return
    if n.sent.most - n.sent.length < <uint32_t>n.transmit_count + 2:
        n.sent.lost += n.transmit_count
        return
    byte[0] = n.transmit_count & 0xFF
    byte[1] = n.transmit_count >> 8
    buffer_put(&n.sent, byte, 2)
    for i in range(n.transmit_count):
        byte[0] = fetch(n, <uint16_t>(first + i))
        buffer_put(&n.sent, byte, 1)
    n.frames_out += 1


cdef uint32_t nic_read(nic_t *n, int register, int size) noexcept nogil:
    cdef int page = n.command >> 6
    if register >= 0x18:
        nic_reset(n)
        return 0
    if register >= 0x10:
        return data_read(n, size)
    if register == 0:
        return n.command
    if page == 1:
        if register <= 6:
            return n.physical[register - 1]
        return n.current if register == 7 else n.multicast[register - 8]
    if page == 2:
        if register == 1:
            return n.start
        if register == 2:
            return n.stop
        if register == 4:
            return n.transmit_page
        if register == 12:
            return n.receive
        if register == 13:
            return n.transmit
        if register == 14:
            return n.data
        return n.imr if register == 15 else 0xFF
    if page == 3:
        return 0xFF
    if register == 3:
        return n.boundary
    if register == 4:
        return n.transmit_status
    if register == 7:
        return n.isr
    if register == 8:
        return n.remote_address & 0xFF
    if register == 9:
        return n.remote_address >> 8
    return n.receive_status if register == 12 else 0


cdef void set_command(nic_t *n, uint8_t value) noexcept nogil:
    n.command = value & ~TRANSMIT | (n.command & TRANSMIT)
    if value & STOP:
        n.isr |= ISR_RESET
        n.command = value & ~TRANSMIT
        return
    if value & START:
        n.isr &= ~ISR_RESET
    if (value >> 3 & 7 == 1 or value >> 3 & 7 == 2) and n.remote_count == 0:
        n.isr |= ISR_REMOTE
    if value & TRANSMIT and value & START:
        send(n)


cdef void nic_write(nic_t *n, int register, int size, uint32_t value) noexcept nogil:
    cdef uint8_t byte = value & 0xFF
    cdef int page = n.command >> 6
    if register >= 0x18:
        return                                  # the end of the reset's pulse
    if register >= 0x10:
        data_write(n, size, value)
    elif register == 0:
        set_command(n, byte)
    elif page == 1:
        if register <= 6:
            n.physical[register - 1] = byte
        elif register == 7:
            n.current = byte
        else:
            n.multicast[register - 8] = byte
    elif page != 0:
        return
    elif register == 1:
        n.start = byte
    elif register == 2:
        n.stop = byte
    elif register == 3:
        n.boundary = byte
    elif register == 4:
        n.transmit_page = byte
    elif register == 5:
        n.transmit_count = n.transmit_count & 0xFF00 | byte
    elif register == 6:
        n.transmit_count = n.transmit_count & 0xFF | <uint16_t>byte << 8
    elif register == 7:
        n.isr &= ~(byte & 0x7F)                 # the reset's bit cannot be taken back
    elif register == 8:
        n.remote_address = n.remote_address & 0xFF00 | byte
    elif register == 9:
        n.remote_address = n.remote_address & 0xFF | <uint16_t>byte << 8
    elif register == 10:
        n.remote_count = n.remote_count & 0xFF00 | byte
    elif register == 11:
        n.remote_count = n.remote_count & 0xFF | <uint16_t>byte << 8
    elif register == 12:
        n.receive = byte
    elif register == 13:
        n.transmit = byte
    elif register == 14:
        n.data = byte
    elif register == 15:
        n.imr = byte & 0x7F
