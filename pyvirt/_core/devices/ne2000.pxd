# An NE2000 network card: a DP8390 with 16 KiB of memory.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyvirt._core.devices.bytebuf cimport bytebuf_t

cdef enum:
    NIC_START = 0x4000          # where the card's memory begins
    NIC_MEMORY = 0x4000

cdef struct nic_t:
    bytebuf_t sent              # frames, each after two bytes of its length, lower first
    uint64_t frames_out
    uint64_t frames_in
    uint64_t frames_dropped     # not for this card, or without room
    uint8_t station[6]          # the address in the card's PROM
    uint8_t memory[NIC_MEMORY]
    uint8_t command
    uint8_t start               # the receive ring's first page
    uint8_t stop                # the page after its last
    uint8_t boundary            # the first page not yet read by the guest
    uint8_t current             # the page of the next frame
    uint8_t transmit_page
    uint8_t transmit_status
    uint8_t isr
    uint8_t imr
    uint8_t receive             # RCR
    uint8_t transmit            # TCR
    uint8_t data                # DCR
    uint8_t receive_status
    uint8_t physical[6]
    uint8_t multicast[8]
    uint16_t transmit_count
    uint16_t remote_address
    uint16_t remote_count

cdef void nic_reset(nic_t *n) noexcept nogil
cdef bint nic_line(const nic_t *n) noexcept nogil
cdef uint32_t nic_read(nic_t *n, int register, int size) noexcept nogil
cdef void nic_write(nic_t *n, int register, int size, uint32_t value) noexcept nogil
cdef bint nic_receive(nic_t *n, const uint8_t *frame, uint32_t length) noexcept nogil
