# One ATA disk on a channel, by programmed input and output.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    SECTOR = 512

cdef struct ata_t:
    uint8_t *disk               # its bytes, which belong to the owner
    uint8_t *dirty              # a byte for each sector: written since the owner gave the disk
    uint32_t sectors
    uint64_t delay              # cycles from a command, or a sector written, to its end
    uint64_t due                # when the device is no longer busy; NEVER: it is not
    uint64_t reads              # sectors that the guest read
    uint64_t writes
    uint32_t lba                # the sector that the buffer stands for
    uint32_t left               # sectors of the command still to come, with the buffer's
    uint16_t at                 # the next byte of the buffer
    uint8_t buffer[SECTOR]
    uint8_t command             # the one in progress; 0: none
    uint8_t feature
    uint8_t count
    uint8_t low
    uint8_t middle
    uint8_t high
    uint8_t device
    uint8_t status
    uint8_t error
    uint8_t control             # bit 1 nIEN, bit 2 SRST
    uint8_t requested           # INTRQ, whether or not nIEN holds it back
    uint8_t fell                # INTRQ went low since the board looked; it may be high again
    uint8_t heads               # of the translation that CHS addresses go through
    uint8_t per_track

cdef void ata_reset(ata_t *a) noexcept nogil
cdef bint ata_line(const ata_t *a) noexcept nogil
cdef uint32_t ata_read(ata_t *a, int register, int size) noexcept nogil
cdef void ata_write(ata_t *a, int register, int size, uint32_t value, uint64_t now) noexcept nogil
cdef void ata_advance(ata_t *a, uint64_t now) noexcept nogil
