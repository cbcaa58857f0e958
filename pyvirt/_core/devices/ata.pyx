"""One ATA disk on a channel, by programmed input and output.

Commands and registers are those of ATA-4 (T13/1153D, sections 7, 8 and 9.5 to 9.8): IDENTIFY DEVICE,
READ SECTORS, WRITE SECTORS, READ VERIFY, SEEK, FLUSH CACHE, EXECUTE DEVICE DIAGNOSTIC, INITIALIZE
DEVICE PARAMETERS, SET FEATURES (the common ones accepted), the power commands (accepted); others are aborted. LBA28
and CHS addresses. Registers are 0 to 7 of the command block and 8, the control block's device control
and alternate status. Device 1 is absent.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from pyvirt._core.devices.clock cimport NEVER

cdef enum:
    BSY = 0x80
    DRDY = 0x40
    DSC = 0x10
    DRQ = 0x08
    ERR = 0x01
    ABORTED = 0x04
    NOT_FOUND = 0x10
    IDENTIFY = 0xEC
    READ = 0x20
    WRITE = 0x30
    FLUSH = 0xE7


cdef void signature(ata_t *a) noexcept nogil:
    a.error = 1
    a.count = a.low = 1
    a.middle = a.high = 0
    a.device = 0
    a.status = DRDY | DSC
    a.command = 0
    a.left = 0
    a.due = NEVER


cdef void ata_reset(ata_t *a) noexcept nogil:
    """As after power on; the disk stays."""
    a.feature = a.control = a.requested = a.fell = 0
    a.at = 0
    a.heads = 16
    a.per_track = 63
    a.reads = a.writes = 0
    signature(a)


cdef bint ata_line(const ata_t *a) noexcept nogil:
    """INTRQ as it leaves the device: only while device 0 is selected."""
    return a.requested != 0 and not a.control & 2 and not a.device & 0x10


cdef void word(ata_t *a, int index, uint32_t value) noexcept nogil:
    a.buffer[2 * index] = value & 0xFF
    a.buffer[2 * index + 1] = value >> 8 & 0xFF


cdef void text(ata_t *a, int index, int words, const char *value) noexcept nogil:
    """ASCII of an identification: the first character in the upper byte, blanks at the end."""
    cdef int i
    cdef bint ended = False
    for i in range(2 * words):
        ended = ended or value[i] == 0
        a.buffer[2 * index + (i ^ 1)] = c' ' if ended else value[i]


cdef void identify(ata_t *a) noexcept nogil:
    cdef uint32_t cylinders = a.sectors / (16 * 63)
    if cylinders > 16383:
        cylinders = 16383
    memset(a.buffer, 0, SECTOR)
    word(a, 0, 0x0040)
    word(a, 1, cylinders)
    word(a, 3, 16)
    word(a, 6, 63)
    text(a, 10, 10, "1")
    text(a, 23, 4, "1")
    text(a, 27, 20, "pyvirt disk")
    word(a, 49, 0x0200)                 # LBA
    word(a, 53, 1)                      # words 54 to 58 hold
    word(a, 54, a.sectors / (a.heads * a.per_track))
    word(a, 55, a.heads)
    word(a, 56, a.per_track)
    cylinders = a.sectors / (a.heads * a.per_track) * a.heads * a.per_track
    word(a, 57, cylinders)
    word(a, 58, cylinders >> 16)
    word(a, 60, a.sectors)
    word(a, 61, a.sectors >> 16)
    word(a, 80, 0x001E)                 # ATA-1 to ATA-4
    word(a, 82, 0x4000)                 # NOP
    word(a, 83, 0x4000)
    word(a, 84, 0x4000)
    word(a, 85, 0x4000)
    word(a, 87, 0x4000)


cdef uint32_t address(const ata_t *a) noexcept nogil:
    """The sector that the registers name; one past all for what CHS cannot name."""
    cdef uint32_t cylinder, head
    if a.device & 0x40:
        return (<uint32_t>(a.device & 15) << 24 | <uint32_t>a.high << 16
                | <uint32_t>a.middle << 8 | a.low)
    cylinder = <uint32_t>a.high << 8 | a.middle
    head = a.device & 15
    if a.low == 0 or a.low > a.per_track or head >= a.heads:
        return <uint32_t>-1
    return (cylinder * a.heads + head) * a.per_track + a.low - 1


cdef void show_address(ata_t *a, uint32_t lba) noexcept nogil:
    """Into the registers: where a transfer ended, or the sector that failed."""
    cdef uint32_t track
    if a.device & 0x40:
        a.low = lba & 0xFF
        a.middle = lba >> 8 & 0xFF
        a.high = lba >> 16 & 0xFF
        a.device = (a.device & 0xF0) | (lba >> 24 & 15)
        return
    track = lba / a.per_track
    a.low = <uint8_t>(lba % a.per_track + 1)
    a.device = (a.device & 0xF0) | <uint8_t>(track % a.heads)
    a.middle = track / a.heads & 0xFF
    a.high = track / a.heads >> 8 & 0xFF


cdef void finish(ata_t *a, uint8_t error) noexcept nogil:
    a.command = 0
    a.left = 0
    a.error = error
    a.status = DRDY | DSC | (ERR if error else 0)
    a.requested = 1


cdef void offer(ata_t *a) noexcept nogil:
    """The next sector for the guest to read."""
    if a.lba >= a.sectors:
        show_address(a, a.lba)
        finish(a, NOT_FOUND)
        return
    memcpy(a.buffer, a.disk + <uint64_t>a.lba * SECTOR, SECTOR)
    show_address(a, a.lba)
    a.at = 0
    a.status = DRDY | DSC | DRQ
    a.requested = 1


cdef void store(ata_t *a) noexcept nogil:
    """The buffer that the guest filled, onto the disk; then the next, if one is wanted."""
    memcpy(a.disk + <uint64_t>a.lba * SECTOR, a.buffer, SECTOR)
    a.dirty[a.lba] = 1
    a.writes += 1
    show_address(a, a.lba)
    a.lba += 1
    a.left -= 1
    a.count -= 1
    if a.left == 0:
        finish(a, 0)
    elif a.lba >= a.sectors:
        show_address(a, a.lba)
        finish(a, NOT_FOUND)
    else:
        a.at = 0
        a.status = DRDY | DSC | DRQ
        a.requested = 1


cdef void work(ata_t *a) noexcept nogil:
    """What the device does at the end of its busy time."""
    a.due = NEVER
    if a.command == READ:
        offer(a)
    elif a.command == WRITE:
        store(a)
    elif a.command == IDENTIFY:
        a.at = 0
        a.status = DRDY | DSC | DRQ
        a.requested = 1
    else:
        finish(a, 0)


cdef void begin(ata_t *a, uint64_t now) noexcept nogil:
    a.status = BSY
    if a.delay == 0:
        work(a)
    else:
        a.due = now + a.delay if now < NEVER - a.delay else NEVER - 1


cdef void ata_advance(ata_t *a, uint64_t now) noexcept nogil:
    if a.due <= now and a.due != NEVER:
        work(a)


cdef inline bint feature_known(uint8_t feature) noexcept nogil:
    """Transfer modes, write cache, look-ahead, defaults: accepted, since nothing depends on them."""
    return (feature == 0x02 or feature == 0x03 or feature == 0x55 or feature == 0x66
            or feature == 0x82 or feature == 0xAA or feature == 0xCC)


cdef void execute(ata_t *a, uint8_t value, uint64_t now) noexcept nogil:
    cdef uint32_t lba
    a.requested = 0
    a.fell = 1
    a.error = 0
    a.at = 0
    if value == 0x90:
        # EXECUTE DEVICE DIAGNOSTIC is for both devices: 1, device 0 passed and 1 is not there.
        signature(a)
        a.requested = 1
        return
    if a.device & 0x10:
        return                                  # nobody is there
    if value == 0x20 or value == 0x21 or value == 0x30 or value == 0x31 or value == 0x40 \
            or value == 0x41 or value >> 4 == 7:
        lba = address(a)
        a.left = a.count if a.count else 256
        a.lba = lba
        if lba >= a.sectors:
            finish(a, NOT_FOUND)
            return
        if value >> 4 == 2:
            a.command = READ
        elif value >> 4 == 3:
            a.command = WRITE
            a.status = DRDY | DSC | DRQ         # the first sector is asked for without INTRQ
            return
        elif value >> 4 == 4 and lba + a.left > a.sectors:
            show_address(a, a.sectors)
            finish(a, NOT_FOUND)
            return
        else:
            a.command = value
        begin(a, now)
    elif value == IDENTIFY:
        identify(a)
        a.command = IDENTIFY
        a.left = 1
        begin(a, now)
    elif value == 0x91:
        # INITIALIZE DEVICE PARAMETERS: the translation that later CHS addresses go through.
        if a.count == 0:
            finish(a, ABORTED)
            return
        a.per_track = a.count
        a.heads = (a.device & 15) + 1
        a.command = value
        begin(a, now)
    elif value == FLUSH or value >> 4 == 1 or 0xE0 <= value <= 0xE3 \
            or (value == 0xEF and feature_known(a.feature)):
        a.command = value
        begin(a, now)
    elif value == 0xE5:
        a.count = 0xFF                          # CHECK POWER MODE: active
        a.command = value
        begin(a, now)
    else:
        finish(a, ABORTED)


cdef uint32_t read_data(ata_t *a, int size) noexcept nogil:
    cdef uint32_t value = 0
    cdef int i, bytes = 4 if size == 4 else 2
    if not a.status & DRQ or a.command == WRITE or a.device & 0x10:
        return 0
    for i in range(bytes):
        if a.at < SECTOR:
            value |= <uint32_t>a.buffer[a.at] << 8 * i
            a.at += 1
    if a.at < SECTOR:
        return value
    if a.command == READ:
        a.reads += 1
        a.left -= 1
        a.count -= 1
        if a.left:
            a.lba += 1
            # Without a delay here: the next sector comes from the device's cache.
            offer(a)
            return value
    a.command = 0
    a.left = 0
    a.status = DRDY | DSC                       # no INTRQ at the end of reads
    return value


cdef void write_data(ata_t *a, int size, uint32_t value, uint64_t now) noexcept nogil:
    cdef int i, bytes = 4 if size == 4 else 2
    if not a.status & DRQ or a.command != WRITE or a.device & 0x10:
        return
    for i in range(bytes):
        if a.at < SECTOR:
            a.buffer[a.at] = value >> 8 * i & 0xFF
            a.at += 1
    if a.at == SECTOR:
        begin(a, now)


cdef uint32_t ata_read(ata_t *a, int register, int size) noexcept nogil:
    """A register; one wider than 8 bits only for data."""
    if register == 0:
        return read_data(a, size)
    if register == 7 or register == 8:
        if a.device & 0x10:
            return 0
        if register == 7:
            a.requested = 0
            a.fell = 1
        return a.status
    if register == 1:
        return a.error
    if a.status & BSY:
        return a.status                         # the command block is the device's own now
    if register == 2:
        return a.count
    if register == 3:
        return a.low
    if register == 4:
        return a.middle
    if register == 5:
        return a.high
    return a.device | 0xA0


cdef void ata_write(ata_t *a, int register, int size, uint32_t value, uint64_t now) noexcept nogil:
    cdef uint8_t byte = value & 0xFF
    if register == 8:
        if a.control & 4 and not byte & 4:
            signature(a)                        # the end of a software reset
        elif byte & 4 and not a.control & 4:
            signature(a)
            a.status = BSY
            a.requested = 0
        a.control = byte & 6
    elif a.status & BSY or a.control & 4:
        return
    elif register == 0:
        write_data(a, size, value, now)
    elif a.status & DRQ and register != 7:
        return                                  # not while data is asked for
    elif register == 1:
        a.feature = byte
    elif register == 2:
        a.count = byte
    elif register == 3:
        a.low = byte
    elif register == 4:
        a.middle = byte
    elif register == 5:
        a.high = byte
    elif register == 6:
        a.device = byte
    elif register == 7:
        execute(a, byte, now)
