# The devices of a PC around one processor, behind its bus.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyvirt._core.devices.ata cimport ata_t
from pyvirt._core.devices.channel cimport channel_t
from pyvirt._core.devices.cmos cimport cmos_t
from pyvirt._core.devices.ne2000 cimport nic_t
from pyvirt._core.devices.pic cimport pic_t
from pyvirt._core.devices.pit cimport pit_t
from pyvirt._core.devices.ps2 cimport ps2_t
from pyvirt._core.devices.uart cimport uart_t
from pyvirt._core.devices.vga cimport vga_t
from pyvirt._core.interp.bus cimport bus_t

cdef enum device_t:
    DEV_NONE
    DEV_PIC
    DEV_PIT
    DEV_SPEAKER             # port 0x61
    DEV_UART
    DEV_CMOS
    DEV_PS2
    DEV_ATA
    DEV_NIC
    DEV_POST                # port 0x80: a write that costs time and does nothing
    DEV_CHANNEL             # a paravirtual front end for disk and network
    DEV_EXIT
    DEV_VGA

cdef enum:
    SLOTS = 128             # ports that somebody has, and slot 0 for all others

cdef struct slot_t:
    uint8_t device
    uint8_t register
    uint16_t port

cdef packed struct access_t:
    uint64_t cycle
    uint32_t value
    uint16_t port
    uint8_t size
    uint8_t out             # 1 for a write

cdef struct board_t:
    bus_t bus               # the first member: what a processor is handed
    uint64_t frequency      # cycles a second
    uint64_t memory         # bytes, for the CMOS
    uint64_t pit_tick       # up to which the timer's edges were seen
    pic_t pic
    pit_t pit
    uart_t uart
    cmos_t cmos
    ps2_t ps2
    vga_t vga
    ata_t ata
    nic_t nic
    channel_t channel
    uint8_t paravirtual     # whether that is there
    uint8_t speaker         # bits 0 and 1 of port 0x61
    uint8_t nic_irq
    uint8_t exited
    uint32_t exit_value     # what was written to the exit port first
    uint32_t slot_count
    uint8_t *slot_of        # for each port
    slot_t slots[SLOTS]
    uint64_t reads[SLOTS]
    uint64_t writes[SLOTS]
    access_t *log           # a ring; NULL: accesses are not logged
    uint64_t log_size
    uint64_t log_count      # of all accesses, also those that the ring no longer holds

cdef void board_reset(board_t *b) noexcept nogil
cdef void board_wire(board_t *b) noexcept nogil
cdef uint32_t board_in(void *board, uint16_t port, int size) noexcept nogil
cdef void board_out(void *board, uint16_t port, int size, uint32_t value) noexcept nogil
cdef int board_acknowledge(void *board) noexcept nogil
cdef void board_advance(void *board, uint64_t now) noexcept nogil
cdef void board_lines(board_t *b) noexcept nogil
