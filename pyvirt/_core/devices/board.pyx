"""The devices of a PC around one processor, behind its bus.

Ports are those of the PC/AT: 8259A pair 0x20 and 0xA0, 8254 0x40 and its gate at 0x61, PS/2 controller
0x60 and 0x64, CMOS 0x70, first IDE channel 0x1F0 and 0x3F6 (interrupt 14), first serial port 0x3F8
(interrupt 4), NE2000 0x300, colour text screen 0x3D4 and 0x3DA; the paravirtual
front end 0x540, where there is one; QEMU's exit port 0xF4. An access that is wider than a port's register
is one access for each byte, at ports that follow, as on the ISA bus.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from pyvirt._core.devices.ata cimport ata_advance, ata_line, ata_read, ata_reset, ata_write
from pyvirt._core.devices.channel cimport channel_read, channel_reset, channel_write
from pyvirt._core.devices.clock cimport NEVER, cycle_of, ticks_at
from pyvirt._core.devices.cmos cimport cmos_read, cmos_reset, cmos_write
from pyvirt._core.devices.ne2000 cimport nic_line, nic_read, nic_reset, nic_write
from pyvirt._core.devices.pic cimport (
    pic_acknowledge,
    pic_input,
    pic_line,
    pic_read,
    pic_reset,
    pic_write,
)
from pyvirt._core.devices.pit cimport (
    PIT_RATE,
    pit_gate,
    pit_next_rise,
    pit_out,
    pit_read,
    pit_reset,
    pit_rose,
    pit_write,
)
from pyvirt._core.devices.ps2 cimport ps2_line, ps2_read, ps2_reset, ps2_write
from pyvirt._core.devices.uart cimport uart_line, uart_read, uart_reset, uart_write
from pyvirt._core.devices.vga cimport vga_read, vga_reset, vga_write

cdef enum:
    IRQ_TIMER = 0
    IRQ_KEYBOARD = 1
    IRQ_SERIAL = 4
    IRQ_DISK = 14
    NIC_PORT = 0x300
    CHANNEL_PORT = 0x540


cdef void claim(board_t *b, uint16_t port, int count, device_t device, int first) noexcept nogil:
    cdef int i
    for i in range(count):
        b.slots[b.slot_count].device = device
        b.slots[b.slot_count].register = <uint8_t>(first + i)
        b.slots[b.slot_count].port = <uint16_t>(port + i)
        b.slot_of[port + i] = <uint8_t>b.slot_count
        b.slot_count += 1


cdef void board_wire(board_t *b) noexcept nogil:
    """Who has which port. A disk without sectors, and a card without interrupt, are not there."""
    memset(b.slot_of, 0, 65536)
    memset(b.slots, 0, sizeof(b.slots))
    b.slot_count = 1
    claim(b, 0x20, 2, DEV_PIC, 0)
    claim(b, 0xA0, 2, DEV_PIC, 2)
    claim(b, 0x40, 4, DEV_PIT, 0)
    claim(b, 0x60, 1, DEV_PS2, 0)
    claim(b, 0x61, 1, DEV_SPEAKER, 0)
    claim(b, 0x64, 1, DEV_PS2, 1)
    claim(b, 0x70, 2, DEV_CMOS, 0)
    claim(b, 0x80, 1, DEV_POST, 0)
    claim(b, 0xF4, 4, DEV_EXIT, 0)
    claim(b, 0x3D4, 2, DEV_VGA, 0)
    claim(b, 0x3DA, 1, DEV_VGA, 2)
    claim(b, 0x3F8, 8, DEV_UART, 0)
    if b.ata.sectors:
        claim(b, 0x1F0, 8, DEV_ATA, 0)
        claim(b, 0x3F6, 1, DEV_ATA, 8)
    if b.nic_irq:
        claim(b, NIC_PORT, 32, DEV_NIC, 0)
    if b.paravirtual:
        claim(b, CHANNEL_PORT, 8, DEV_CHANNEL, 0)
    b.bus.board = b
    b.bus.port_in = board_in
    b.bus.port_out = board_out
    b.bus.acknowledge = board_acknowledge
    b.bus.advance = board_advance


cdef void board_reset(board_t *b) noexcept nogil:
    """All devices as after power on, at the present cycle; counts of accesses stay."""
    pic_reset(&b.pic)
    pit_reset(&b.pit)
    uart_reset(&b.uart)
    cmos_reset(&b.cmos, b.memory)
    ps2_reset(&b.ps2)
    vga_reset(&b.vga)
    ata_reset(&b.ata)
    nic_reset(&b.nic)
    channel_reset(&b.channel)
    b.speaker = b.exited = 0
    b.exit_value = 0
    b.pit_tick = ticks_at(b.bus.now, PIT_RATE, b.frequency)
    board_lines(b)


cdef void board_lines(board_t *b) noexcept nogil:
    """Levels of all devices, to the controllers and on to the processor; and what is due when."""
    cdef uint64_t rise = pit_next_rise(&b.pit, 0, b.pit_tick)
    pic_input(&b.pic, IRQ_TIMER, pit_out(&b.pit, 0, b.pit_tick))
    pic_input(&b.pic, IRQ_KEYBOARD, ps2_line(&b.ps2))
    pic_input(&b.pic, IRQ_SERIAL, uart_line(&b.uart))
    if b.ata.fell:
        pic_input(&b.pic, IRQ_DISK, False)      # for an edge, if it is high again
        b.ata.fell = 0
    pic_input(&b.pic, IRQ_DISK, ata_line(&b.ata))
    if b.nic_irq:
        pic_input(&b.pic, b.nic_irq, nic_line(&b.nic))
    b.bus.line = pic_line(&b.pic)
    b.bus.stop = b.exited or b.ps2.reset
    b.bus.next_event = NEVER if rise == NEVER else cycle_of(rise, PIT_RATE, b.frequency)
    if b.ata.due < b.bus.next_event:
        b.bus.next_event = b.ata.due


cdef void board_advance(void *board, uint64_t now) noexcept nogil:
    """Do what is due up to `now`; a time before the last one changes nothing.

    Edges of the timer that nobody saw between two calls are one request, as they are for a
    controller whose request was not taken in time.
    """
    cdef board_t *b = <board_t *>board
    cdef uint64_t tick = ticks_at(now, PIT_RATE, b.frequency)
    if now > b.bus.now:
        b.bus.now = now
    if tick <= b.pit_tick and b.ata.due > b.bus.now:
        return
    if tick > b.pit_tick:
        if pit_rose(&b.pit, 0, b.pit_tick, tick):
            pic_input(&b.pic, IRQ_TIMER, False)
            pic_input(&b.pic, IRQ_TIMER, True)
        b.pit_tick = tick
    ata_advance(&b.ata, b.bus.now)
    board_lines(b)


cdef void device_line(board_t *b, int device) noexcept nogil:
    """After an access of `device`: the levels that it may have changed."""
    if device == DEV_VGA:
        return
    if device == DEV_UART:
        pic_input(&b.pic, IRQ_SERIAL, uart_line(&b.uart))
    elif device == DEV_PS2:
        pic_input(&b.pic, IRQ_KEYBOARD, ps2_line(&b.ps2))
    elif device == DEV_NIC:
        pic_input(&b.pic, b.nic_irq, nic_line(&b.nic))
    elif device != DEV_PIC:
        board_lines(b)
        return
    b.bus.line = pic_line(&b.pic)


cdef int board_acknowledge(void *board) noexcept nogil:
    cdef board_t *b = <board_t *>board
    cdef int vector
    if b.bus.now >= b.bus.next_event:
        board_advance(b, b.bus.now)
    vector = pic_acknowledge(&b.pic)
    b.bus.line = pic_line(&b.pic)
    return vector


cdef inline bint whole(int device, int register) noexcept nogil:
    """Does the register take an access of any width as one?"""
    if device == DEV_ATA:
        return register == 0
    if device == DEV_NIC:
        return 0x10 <= register < 0x18
    return device == DEV_EXIT or device == DEV_NONE or device == DEV_CHANNEL


cdef uint8_t speaker_read(board_t *b) noexcept nogil:
    """Bit 4 changes with each refresh of memory, every 15 microseconds; bit 5 is counter 2's OUT."""
    return <uint8_t>(b.speaker | (b.pit_tick / 18 & 1) << 4 | pit_out(&b.pit, 2, b.pit_tick) << 5)


cdef uint32_t read_register(board_t *b, int device, int register, int size) noexcept nogil:
    if device == DEV_PIC:
        return pic_read(&b.pic, register >> 1, register & 1)
    if device == DEV_PIT:
        return pit_read(&b.pit, register, b.pit_tick)
    if device == DEV_SPEAKER:
        return speaker_read(b)
    if device == DEV_UART:
        return uart_read(&b.uart, register)
    if device == DEV_CMOS:
        return cmos_read(&b.cmos, register, b.bus.now, b.frequency)
    if device == DEV_PS2:
        return ps2_read(&b.ps2, register)
    if device == DEV_VGA:
        return vga_read(&b.vga, register, b.bus.now, b.frequency)
    if device == DEV_ATA:
        return ata_read(&b.ata, register, size)
    if device == DEV_NIC:
        return nic_read(&b.nic, register, size)
    if device == DEV_CHANNEL:
        return channel_read(&b.channel, &b.ata, register)
    if device == DEV_EXIT:
        return 0
    return 0xFFFFFFFF


cdef void write_register(
        board_t *b, int device, int register, int size, uint32_t value) noexcept nogil:
    cdef uint8_t byte = value & 0xFF
    if device == DEV_PIC:
        pic_write(&b.pic, register >> 1, register & 1, byte)
    elif device == DEV_PIT:
        pit_write(&b.pit, register, byte, b.pit_tick)
    elif device == DEV_SPEAKER:
        b.speaker = byte & 3
        pit_gate(&b.pit, 2, byte & 1, b.pit_tick)
    elif device == DEV_UART:
        uart_write(&b.uart, register, byte)
    elif device == DEV_CMOS:
        cmos_write(&b.cmos, register, byte)
    elif device == DEV_PS2:
        ps2_write(&b.ps2, register, byte)
        b.bus.stop = b.exited or b.ps2.reset
    elif device == DEV_VGA:
        vga_write(&b.vga, register, byte)
    elif device == DEV_ATA:
        ata_write(&b.ata, register, size, value, b.bus.now)
    elif device == DEV_NIC:
        nic_write(&b.nic, register, size, value)
    elif device == DEV_CHANNEL:
        channel_write(&b.channel, &b.ata, &b.nic, register, value)
    elif device == DEV_EXIT and not b.exited:
        b.exited = 1
        b.exit_value = value
        b.bus.stop = 1


cdef void note(board_t *b, uint16_t port, int size, uint32_t value, bint out) noexcept nogil:
    cdef access_t *entry
    if b.log != NULL:
        entry = &b.log[b.log_count % b.log_size]
        entry.cycle = b.bus.now
        entry.value = value
        entry.port = port
        entry.size = <uint8_t>size
        entry.out = out
    b.log_count += 1


cdef inline uint32_t mask_of(int size) noexcept nogil:
    return 0xFFFFFFFF if size == 4 else (<uint32_t>1 << 8 * size) - 1


cdef uint32_t board_in(void *board, uint16_t port, int size) noexcept nogil:
    cdef board_t *b = <board_t *>board
    cdef slot_t *s
    cdef uint8_t index
    cdef uint32_t value = 0
    cdef int i
    board_advance(b, b.bus.now)
    index = b.slot_of[port]
    s = &b.slots[index]
    if size == 1 or whole(s.device, s.register):
        b.reads[index] += 1
        value = read_register(b, s.device, s.register, size) & mask_of(size)
        device_line(b, s.device)
    else:
        for i in range(size):
            index = b.slot_of[<uint16_t>(port + i)]
            s = &b.slots[index]
            b.reads[index] += 1
            value |= (read_register(b, s.device, s.register, 1) & 0xFF) << 8 * i
        board_lines(b)
    note(b, port, size, value, False)
    return value


cdef void board_out(void *board, uint16_t port, int size, uint32_t value) noexcept nogil:
    cdef board_t *b = <board_t *>board
    cdef slot_t *s
    cdef uint8_t index
    cdef int i
    board_advance(b, b.bus.now)
    index = b.slot_of[port]
    s = &b.slots[index]
    value &= mask_of(size)
    note(b, port, size, value, True)
    if size == 1 or whole(s.device, s.register):
        b.writes[index] += 1
        write_register(b, s.device, s.register, size, value)
        device_line(b, s.device)
    else:
        for i in range(size):
            index = b.slot_of[<uint16_t>(port + i)]
            s = &b.slots[index]
            b.writes[index] += 1
            write_register(b, s.device, s.register, 1, value >> 8 * i & 0xFF)
        board_lines(b)
