"""The owner of a board: memory, lifetime, and Python."""

import os

import numpy as np

from cpython.pycapsule cimport (
    PyCapsule_GetContext,
    PyCapsule_New,
    PyCapsule_SetContext,
)
from cpython.ref cimport Py_DECREF, Py_INCREF

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from pyvirt._core.devices.ata cimport SECTOR
from pyvirt._core.devices.board cimport (
    access_t,
    board_acknowledge,
    board_advance,
    board_in,
    board_lines,
    board_out,
    board_reset,
    board_t,
    board_wire,
)
from pyvirt._core.devices.bytebuf cimport buffer_free, buffer_put, bytebuf_t
from pyvirt._core.devices.channel cimport CHANNEL_READS
from pyvirt._core.devices.clock cimport MOST_FREQUENCY
from pyvirt._core.devices.ne2000 cimport nic_receive
from pyvirt._core.devices.ps2 cimport PS2_QUEUE, ps2_key
from pyvirt._core.devices.uart cimport UART_FIFO, uart_receive
from pyvirt._core.interp.bus cimport bus_t

from pyvirt.errors import InvalidTypeError, InvalidValueError

#: The records of `Board.log`: cycle, value, port, size in bytes, and 1 in `out` for a write.
ACCESS = np.dtype([
    ("cycle", "<u8"), ("value", "<u4"), ("port", "<u2"), ("size", "u1"), ("out", "u1")])

cdef enum:
    MOST_SECTORS = 1 << 28              # that 28 bits address
    MOST_FRAME = 1514
    VERSION = 3


def _whole(name, value, least, most):
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InvalidTypeError(f"{name} must be an integer, got {value!r}")
    value = value.__index__()
    if not least <= value <= most:
        raise InvalidValueError(f"{name} must be {least} to {most}, got {value}")
    return value


def _bytes(name, value):
    try:
        return bytes(memoryview(value).cast("B"))
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(f"{name} must be bytes, got {type(value).__name__}") from error


cdef class Board:
    """The devices of a PC around one processor.

    A pair of 8259A, an 8254, a 16550A, the CMOS and its clock, a PS/2 controller, an ATA disk, an
    NE2000 network card, the CRT controller of a VGA in text mode and QEMU's exit port 0xF4, at the
    PC/AT's ports. Time is the processor's: it
    passes by `advance`.

    Parameters
    ----------
    disk : bytes-like or path, optional
        1 to 2**28 sectors of 512 bytes. A file is mapped, and what is written stays in memory.
        Without it nobody answers at the disk's ports.
    frequency : int, default 100_000_000
        Cycles of the processor a second, 1 to 2**40. The timer's 1,193,182 Hz are counted exactly.
    memory : int, default 16 MiB
        Bytes of memory, which the CMOS tells.
    disk_delay : int, default 0
        Cycles from a command, or from the last word of a sector, to the disk's interrupt.
    station : bytes, default 52:54:00:12:34:56
        The network card's address, 6 bytes.
    network : bool, default True
        Is there a network card (interrupt 9)?
    epoch : int, default 946_684_800
        The second since 1970 that cycle 0 is; the default is the start of 2000.
    log : int, default 0
        Accesses that the log keeps, up to 2**28; 0: none.
    output_limit : int, default 16 MiB
        Bytes of the serial port, and of frames, that wait to be taken; more are lost and counted.
    paravirtual : bool, default False
        Is there a paravirtual front end for disk and network, at port 0x540
        (`pyvirt._core.devices.channel`)?

    Attributes
    ----------
    disk : numpy.ndarray of uint8 or None
        The disk's bytes as they are now; read-only.
    """

    def __cinit__(self):
        memset(&self.b, 0, sizeof(board_t))
        self.b.slot_of = <uint8_t *>calloc(65536, 1)
        if self.b.slot_of == NULL:
            raise MemoryError
        # Whole already, for a subclass that does not call __init__.
        self.b.frequency = 1
        board_wire(&self.b)
        board_reset(&self.b)

    def __init__(self, disk=None, *, frequency=100_000_000, memory=1 << 24, disk_delay=0,
                 station=b"\x52\x54\x00\x12\x34\x56", network=True, epoch=946_684_800, log=0,
                 output_limit=1 << 24, paravirtual=False):
        cdef board_t *b = &self.b
        cdef bytes address = _bytes("station", station)
        if self.settings is not None:
            raise InvalidValueError("a board is initialised once, got a second call")
        b.frequency = _whole("frequency", frequency, 1, MOST_FREQUENCY)
        b.memory = _whole("memory", memory, 0, 1 << 52)
        delay = _whole("disk_delay", disk_delay, 0, 1 << 62)
        b.cmos.epoch = _whole("epoch", epoch, 0, 1 << 40)
        b.log_size = _whole("log", log, 0, 1 << 28)
        limit = _whole("output_limit", output_limit, 0, 1 << 40)
        if len(address) != 6:
            raise InvalidValueError(f"station must be 6 bytes, got {len(address)}")
        if not isinstance(network, bool):
            raise InvalidTypeError(f"network must be True or False, got {network!r}")
        if not isinstance(paravirtual, bool):
            raise InvalidTypeError(f"paravirtual must be True or False, got {paravirtual!r}")
        b.paravirtual = paravirtual
        memcpy(b.nic.station, <const char *>address, 6)
        b.nic_irq = 9 if network else 0
        b.uart.sent.most = b.uart.waiting.most = b.nic.sent.most = limit
        self._open(disk)
        b.ata.delay = delay
        if b.log_size:
            b.log = <access_t *>calloc(b.log_size, sizeof(access_t))
            if b.log == NULL:
                raise MemoryError
        self.settings = {
            "frequency": b.frequency, "memory": b.memory, "disk_delay": delay,
            "station": address, "network": network, "epoch": b.cmos.epoch, "log": b.log_size,
            "output_limit": limit, "paravirtual": paravirtual}
        board_wire(b)
        board_reset(b)

    def _open(self, disk):
        cdef board_t *b = &self.b
        if disk is None:
            return
        if isinstance(disk, (str, os.PathLike)):
            self.source = os.fspath(disk)
            size = os.stat(self.source).st_size
        else:
            disk = _bytes("disk", disk)
            size = len(disk)
        if size % SECTOR or not 1 <= size // SECTOR <= MOST_SECTORS:
            raise InvalidValueError(
                f"disk must be 1 to {MOST_SECTORS} sectors of {SECTOR} bytes, got {size} bytes")
        if self.source is not None:
            self.base = np.memmap(self.source, np.uint8, mode="r")
            current = np.memmap(self.source, np.uint8, mode="c")
        else:
            self.base = np.frombuffer(disk, np.uint8)
            current = self.base.copy()
        self.dirty = np.zeros(size // SECTOR, np.uint8)
        self.disk_view = current
        self.dirty_view = self.dirty
        self.disk = current.view()
        self.disk.flags.writeable = False
        b.ata.disk = &self.disk_view[0]
        b.ata.dirty = &self.dirty_view[0]
        b.ata.sectors = size // SECTOR

    def __dealloc__(self):
        free(self.b.slot_of)
        free(self.b.log)
        buffer_free(&self.b.uart.sent)
        buffer_free(&self.b.uart.waiting)
        buffer_free(&self.b.nic.sent)

    cdef bus_t *bus(self) noexcept:
        """What a processor is handed; it lives as long as the board."""
        return &self.b.bus

    @property
    def bus_capsule(self):
        """A capsule ``pyvirt.bus_t`` for a processor; it keeps the board alive."""
        capsule = PyCapsule_New(&self.b.bus, b"pyvirt.bus_t", let_go)
        PyCapsule_SetContext(capsule, <void *>self)
        Py_INCREF(self)
        return capsule

    # --- what a processor does ---------------------------------------------------------------

    def read_port(self, port, size=1):
        """Read `size` (1, 2 or 4) bytes of a port, 0 to 65,535; nobody's ports give ones."""
        cdef uint16_t where = _whole("port", port, 0, 0xFFFF)
        if size not in (1, 2, 4):
            raise InvalidValueError(f"size must be 1, 2 or 4, got {size!r}")
        return board_in(&self.b, where, size)

    def write_port(self, port, value, size=1):
        """Write `size` (1, 2 or 4) bytes to a port."""
        cdef uint16_t where = _whole("port", port, 0, 0xFFFF)
        if size not in (1, 2, 4):
            raise InvalidValueError(f"size must be 1, 2 or 4, got {size!r}")
        board_out(&self.b, where, size, _whole("value", value, 0, (1 << 8 * size) - 1))

    def acknowledge(self):
        """Take the interrupt: its vector, or None before the controllers were initialised.

        Without a request it is the vector of input 7, the spurious one.
        """
        vector = board_acknowledge(&self.b)
        return None if vector < 0 else vector

    def advance(self, now):
        """Let time pass until cycle `now`: not before the present one, at most 120,000 years on."""
        cdef object frequency = self.b.frequency    # a product of Python's integers
        cdef uint64_t to = _whole(
            "now", now, self.b.bus.now, min((1 << 64) - 1, (1 << 42) * frequency))
        board_advance(&self.b, to)

    @property
    def now(self):
        """The cycle."""
        return self.b.bus.now

    @property
    def line(self):
        """The level of the processor's INTR."""
        return self.b.bus.line != 0

    @property
    def next_event(self):
        """The cycle at which something happens next without the guest's doing, or None."""
        return None if self.b.bus.next_event == <uint64_t>-1 else self.b.bus.next_event

    def reset(self):
        """All devices as after power on; the disk, counts, and what waits outside, stay."""
        board_reset(&self.b)

    # --- what is outside ---------------------------------------------------------------------

    @property
    def output(self):
        """Bytes that the serial port has sent and `take_output` has not taken."""
        return held_by(&self.b.uart.sent)

    def take_output(self):
        """The bytes of `output`, which is empty afterwards."""
        sent = held_by(&self.b.uart.sent)
        self.b.uart.sent.length = 0
        return sent

    @property
    def lost(self):
        """Bytes of the serial port and of frames that found no room below `output_limit`."""
        return self.b.uart.sent.lost + self.b.nic.sent.lost

    def send(self, data):
        """Bytes for the serial port; they wait until its receiver has room."""
        cdef bytes sent = _bytes("data", data)
        if not uart_receive(&self.b.uart, <const uint8_t *><const char *>sent, len(sent)):
            raise InvalidValueError(f"{len(sent)} bytes do not fit: output_limit are waiting")
        board_lines(&self.b)

    def press(self, codes):
        """Scan codes of the keyboard; how many of them its queue took."""
        taken = 0
        for code in _bytes("codes", codes):
            if not ps2_key(&self.b.ps2, code):
                break
            taken += 1
        board_lines(&self.b)
        return taken

    def take_frames(self):
        """The frames that the network card has sent since the last call, a list of bytes."""
        sent = held_by(&self.b.nic.sent)
        self.b.nic.sent.length = 0
        frames, at = [], 0
        while at < len(sent):
            end = at + 2 + int.from_bytes(sent[at:at + 2], "little")
            frames.append(sent[at + 2:end])
            at = end
        return frames

    def receive(self, frame):
        """A frame of 14 to 1,514 bytes, without checksum, from the wire.

        Returns
        -------
        bool
            Whether the card took it: it is started, has room, and the frame is for it.
        """
        cdef bytes data = _bytes("frame", frame)
        if not 14 <= len(data) <= MOST_FRAME:
            raise InvalidValueError(f"frame must have 14 to {MOST_FRAME} bytes, got {len(data)}")
        if not self.b.nic_irq:
            return False
        taken = nic_receive(&self.b.nic, <const uint8_t *><const char *>data, len(data))
        board_lines(&self.b)
        return bool(taken)

    @property
    def screen_start(self):
        """Where the screen begins in text memory, in characters (CRT controller, 0x0C)."""
        return self.b.vga.crtc[0x0C] << 8 | self.b.vga.crtc[0x0D]

    @property
    def cursor(self):
        """Where the cursor is in text memory, in characters (0x0E), or None if it is off."""
        if self.b.vga.crtc[0x0A] & 0x20:
            return None
        return self.b.vga.crtc[0x0E] << 8 | self.b.vga.crtc[0x0F]

    @property
    def exit_value(self):
        """What the guest wrote to port 0xF4, or None; QEMU's status is twice that and one."""
        return self.b.exit_value if self.b.exited else None

    @property
    def reset_requested(self):
        """Did the guest pulse the reset line, at port 0x64?"""
        return self.b.ps2.reset != 0

    @property
    def disk_sectors(self):
        """Sectors that the guest read, and that it wrote."""
        return self.b.ata.reads, self.b.ata.writes

    @property
    def requests(self):
        """Requests that came through the paravirtual front end."""
        return self.b.channel.requests

    @property
    def frames(self):
        """Frames that were sent, received, and dropped."""
        return self.b.nic.frames_out, self.b.nic.frames_in, self.b.nic.frames_dropped

    def counts(self):
        """Accesses of each port that was accessed: port to (reads, writes); -1: nobody's ports.

        An access that is wider than its register counts once for each byte, at each port.
        """
        cdef uint32_t i
        found = {}
        for i in range(self.b.slot_count):
            if self.b.reads[i] or self.b.writes[i]:
                found[self.b.slots[i].port if i else -1] = (self.b.reads[i], self.b.writes[i])
        return found

    @property
    def accesses(self):
        """All accesses of ports, whether or not the log still has them."""
        return self.b.log_count

    def log(self):
        """The last accesses, oldest first: an array of dtype `ACCESS`."""
        cdef board_t *b = &self.b
        if b.log == NULL or b.log_count == 0:
            return np.zeros(0, ACCESS)
        held = <size_t>min(b.log_count, b.log_size)
        ring = np.frombuffer((<char *>b.log)[:held * sizeof(access_t)], ACCESS)
        return np.roll(ring, -(b.log_count % held) if held == b.log_size else 0)

    # --- states ------------------------------------------------------------------------------

    def snapshot(self):
        """The state as a value for `restore`: of the disk, the sectors that were written.

        Equal states give equal values.
        """
        cdef board_t *b = &self.b
        cdef board_t plain
        memcpy(&plain, b, sizeof(board_t))
        memset(&plain.bus, 0, sizeof(bus_t))
        plain.bus.now = b.bus.now
        plain.slot_of = NULL
        plain.log = NULL
        plain.ata.disk = plain.ata.dirty = NULL
        for buffer_state in (0, 1, 2):
            hide(&plain, buffer_state)
        if self.disk is None:
            sectors, content = b"", b""
        else:
            index = np.flatnonzero(self.dirty).astype("<u4")
            sectors = index.tobytes()
            content = self.disk.reshape(-1, SECTOR)[index].tobytes()
        return (
            VERSION,
            (<char *>&plain)[:sizeof(board_t)],
            held_by(&b.uart.sent), held_by(&b.uart.waiting), held_by(&b.nic.sent),
            sectors, content, self.log().tobytes())

    def restore(self, state):
        """Take a state of a board with the same settings and the same disk.

        Raises
        ------
        InvalidValueError
            If it is not one; the board is as it was then.
        """
        cdef board_t *b = &self.b
        cdef board_t kept, new
        cdef bytes raw, held
        cdef bytebuf_t sent, waiting, frames
        if (not isinstance(state, tuple) or len(state) != 8 or state[0] != VERSION
                or not all(isinstance(part, bytes) for part in state[1:])):
            raise InvalidValueError("not a state of a board of this version")
        raw, held = state[1], state[7]
        if len(raw) != sizeof(board_t):
            raise InvalidValueError("not a state of a board of this version")
        memcpy(&new, <const char *>raw, sizeof(board_t))
        index = np.frombuffer(state[5], "<u4")
        if not sane(b, &new) or len(held) != min(new.log_count, b.log_size) * sizeof(access_t) \
                or len(state[6]) != len(index) * SECTOR \
                or (len(index) and index.max() >= b.ata.sectors) \
                or new.uart.waiting_first > len(state[3]) \
                or max(len(part) for part in state[2:5]) > b.uart.sent.most:
            raise InvalidValueError("the state is of a board with other settings, or damaged")
        memset(&sent, 0, sizeof(bytebuf_t))
        memset(&waiting, 0, sizeof(bytebuf_t))
        memset(&frames, 0, sizeof(bytebuf_t))
        sent.most = waiting.most = frames.most = b.uart.sent.most
        sent.lost, waiting.lost, frames.lost = (
            new.uart.sent.lost, new.uart.waiting.lost, new.nic.sent.lost)
        if not (fill(&sent, state[2]) and fill(&waiting, state[3]) and fill(&frames, state[4])):
            buffer_free(&sent)
            buffer_free(&waiting)
            buffer_free(&frames)
            raise MemoryError
        buffer_free(&b.uart.sent)
        buffer_free(&b.uart.waiting)
        buffer_free(&b.nic.sent)
        memcpy(&kept, b, sizeof(board_t))
        memcpy(b, &new, sizeof(board_t))
        b.uart.sent, b.uart.waiting, b.nic.sent = sent, waiting, frames
        b.slot_of, b.log, b.log_size = kept.slot_of, kept.log, kept.log_size
        b.ata.disk, b.ata.dirty = kept.ata.disk, kept.ata.dirty
        b.nic_irq = kept.nic_irq
        if self.disk is not None:
            disk = np.asarray(self.disk_view).reshape(-1, SECTOR)
            back = np.flatnonzero(self.dirty)
            disk[back] = self.base.reshape(-1, SECTOR)[back]
            disk[index] = np.frombuffer(state[6], np.uint8).reshape(-1, SECTOR)
            self.dirty[:] = 0
            self.dirty[index] = 1
        if b.log != NULL:
            entries = np.frombuffer(held, ACCESS)
            if len(entries) == b.log_size:
                entries = np.roll(entries, b.log_count % b.log_size)
            entries = entries.tobytes()
            memcpy(b.log, <const char *>entries, len(entries))
        board_wire(b)
        board_lines(b)

    def copy(self):
        """A board of its own in the same state."""
        other = self._fresh()
        other.restore(self.snapshot())
        return other

    __copy__ = copy

    def __deepcopy__(self, memo):
        return self.copy()

    def _fresh(self):
        disk = self.base.tobytes() if self.source is None and self.base is not None else self.source
        return type(self)(disk=disk, **self.settings)

    def __reduce__(self):
        disk = self.base.tobytes() if self.source is None and self.base is not None else self.source
        return _rebuilt, (dict(self.settings, disk=disk), self.snapshot())


cdef void let_go(object capsule) noexcept:
    Py_DECREF(<object>PyCapsule_GetContext(capsule))


def _rebuilt(settings, state):
    """A pickled board."""
    board = Board(**settings)
    board.restore(state)
    return board


cdef bytes held_by(const bytebuf_t *buffer):
    return b"" if buffer.length == 0 else (<const char *>buffer.data)[:buffer.length]


cdef bint fill(bytebuf_t *buffer, bytes data) noexcept:
    return buffer_put(buffer, <const uint8_t *><const char *>data, len(data))


cdef void hide(board_t *plain, int which) noexcept:
    """Without what is an address, or depends on how the buffer grew."""
    cdef bytebuf_t *buffer = &plain.uart.sent
    if which == 1:
        buffer = &plain.uart.waiting
    elif which == 2:
        buffer = &plain.nic.sent
    buffer.data = NULL
    buffer.capacity = buffer.length = 0


cdef bint sane(const board_t *own, const board_t *new) noexcept:
    """Is `new` of a board like `own`, with nothing that would lead outside of an array?"""
    cdef int i
    for i in range(2):
        if new.pic.chip[i].lowest > 7 or new.pic.chip[i].step > 4:
            return False
    for i in range(3):
        if new.pit.counter[i].mode > 5 or new.pit.counter[i].count > 65536 \
                or (new.pit.counter[i].loaded and new.pit.counter[i].count == 0):
            return False
    return (
        new.frequency == own.frequency and new.memory == own.memory
        and new.log_size == own.log_size and new.nic_irq == own.nic_irq
        and new.ata.sectors == own.ata.sectors and new.ata.delay == own.ata.delay
        and new.ata.at <= SECTOR and new.ata.heads > 0 and new.ata.per_track > 0
        and new.paravirtual == own.paravirtual and new.channel.queued <= CHANNEL_READS
        and new.channel.head < CHANNEL_READS and new.channel.count <= 0xFFFFFF
        and new.uart.count <= UART_FIFO and new.ps2.count <= PS2_QUEUE
        and (new.ata.command != 0x30 or new.ata.lba < new.ata.sectors))
