"""Random guest programs in two forms: for the machine itself, and ported to a paravirtual monitor.

They are those of `system_programs`, of fewer kinds and without a timer. The port does what its
kernel's authors would: hypercalls in place of privileged instructions, the flag of the shared page
in place of EFLAGS.IF, handlers that know both. What is not the kernel's own business is the same
bytes at the same places, since each operation has a slot of its own; so what exceptions are told,
and where, can be compared.
"""

from __future__ import annotations

import numpy as np

from pyvirt._core.devices.owner import Board
from pyvirt.validation.system_programs import (
    BACK,
    CODED,
    DATA,
    DIRECTORY,
    EXIT_PORT,
    GDT,
    HANDLERS,
    IDT,
    KERNEL,
    KERNEL_OPERATIONS,
    LOG,
    LOG_AT,
    LOG_END,
    OTHER,
    RESUME,
    RETURN_TO_KERNEL,
    SAVED_ESP,
    TABLE,
    TASK,
    USER,
    USER_OPERATIONS,
    WINDOW,
    WINDOW_PAGES,
    Program,
    initial_memory,
    operation,
    place,
    resume_at,
    starting_point,
    to_user,
    u32,
)
from pyvirt.x86.machine import Machine

__all__ = ["left_behind", "make_pair", "prepare_port"]

CALLS, ENABLED, FAULT_ADDRESS = 0xFF000, 0xFE000, 0xFE008
EXIT, SET_GDT, SET_IDT, SET_TASK, PAGING, SET_CR3, PTE, INVLPG = range(3, 11)
IN, OUT, IRET = 11, 12, 15
SLOT, SLOTS = 128, 120
FINAL = 0x13040  # where a program leaves its registers
#: Vectors whose gates the port's processor goes through without the monitor.
SOFTWARE = (1, 3, 4, 0x20, 0x21, RETURN_TO_KERNEL, 0x3F)
TRAP_GATE = 0x21

SAME = (
    "compute",
    "loop",
    "call",
    "string",
    "window",
    "software",
    "fault",
    "change-code",
    "identify",
)
PORTED = ("entry", "cr3", "interrupts", "flags-in", "flags-out", "port")
AT_USER = (
    *(
        "compute",
        "loop",
        "call",
        "string",
        "window",
        "interrupts",
        "flags-out",
        "software",
        "fault",
    ),
    *("port", "identify", "cr0", "load-table", "flat"),
)

Pair = tuple[bytes, bytes]


def _keep(code: bytes) -> bytes:
    """PUSHA, code, POPA: the registers stay as they are."""
    return b"\x60" + code + b"\x61"


def _call(at: int, number: int, first: int = 0, second: int = 0, third: int = 0) -> bytes:
    """MOV EBX, ECX, EDX; CALL of a hypercall, from code that begins at `at`."""
    operands = b"\xbb" + u32(first) + b"\xb9" + u32(second) + b"\xba" + u32(third)
    return operands + b"\xe8" + u32(CALLS + 32 * number - (at + 20))


def _entry(rng: np.random.Generator, at: int) -> Pair:
    """Write an entry of the page table, and forget its translation, or all."""
    i = int(rng.integers(WINDOW_PAGES))
    frame = int(rng.choice([DATA, OTHER])) + int(rng.integers(4)) * 0x1000
    value = frame | int(rng.choice([0, 1, 3, 5, 7, 7, 0x67]))
    entry, page = TABLE + 4 * ((WINDOW >> 12) + i), WINDOW + i * 0x1000
    native = b"\xc7\x05" + u32(entry) + u32(value)
    write = _call(at + 2, PTE, entry, value)
    if rng.random() < 0.85:
        forget = b"\x0f\x01\x3d" + u32(page), _call(at + 22, INVLPG, page)
    else:
        forget = b"\x0f\x20\xd8\x0f\x22\xd8", _call(at + 22, SET_CR3, DIRECTORY)
    return _keep(native + forget[0]), b"\x9c" + _keep(write + forget[1]) + b"\x9d"


def _cr3(rng: np.random.Generator, at: int) -> Pair:
    port = b"\x9c" + _keep(_call(at + 2, SET_CR3, DIRECTORY)) + b"\x9d"
    return _keep(b"\x0f\x20\xd8\x0f\x22\xd8"), port


def _interrupts(rng: np.random.Generator, at: int) -> Pair:
    on = int(rng.integers(2))
    return (b"\xfb" if on else b"\xfa"), b"\x36\xc7\x05" + u32(ENABLED) + u32(on)


def _flags_in(rng: np.random.Generator, at: int) -> Pair:
    """PUSHF: the port puts the flag of the shared page into what it stores."""
    target = place(rng)
    port = b"\x8b\x44\x24\x20\x25" + u32(~0x200) + b"\x8b\x1d" + u32(ENABLED)
    port += b"\xc1\xe3\x09\x09\xd8\xa3" + target
    return b"\x9c\x8f\x05" + target, b"\x9c" + _keep(port) + b"\x9d"


def _flags_out(rng: np.random.Generator, at: int) -> Pair:
    """POPF of anything but TF, NT and IOPL."""
    flags = int(rng.integers(1 << 32)) & 0x0ED7 | 2
    store = b"\x36\xc7\x05" + u32(ENABLED) + u32(flags >> 9 & 1)
    return b"\x68" + u32(flags) + b"\x9d", b"\x68" + u32(flags & ~0x200) + b"\x9d" + store


def _port(rng: np.random.Generator, at: int) -> Pair:
    """A character to the serial port, its scratch register, the CMOS, a port that nobody has."""
    which, value, target = int(rng.integers(4)), int(rng.integers(32, 127)), place(rng)
    at += 2
    if which == 0:
        native = b"\x66\xba\xf8\x03\xb0" + bytes([value]) + b"\xee"
        port = _call(at, OUT, 0x3F8, 1, value)
    elif which == 1:
        native = b"\x66\xba\xff\x03\xb0" + bytes([value]) + b"\xee\xec\xa2" + target
        port = _call(at, OUT, 0x3FF, 1, value) + _call(at + 20, IN, 0x3FF, 1) + b"\xa2" + target
    elif which == 2:
        index = 10 + value % 30
        native = b"\xb0" + bytes([index]) + b"\xe6\x70\xe4\x71\xa2" + target
        port = _call(at, OUT, 0x70, 1, index) + _call(at + 20, IN, 0x71, 1) + b"\xa2" + target
    else:
        native = b"\xe5\x80\xa3" + target
        port = _call(at, IN, 0x80, 4) + b"\xa3" + target
    return _keep(native), b"\x9c" + _keep(port) + b"\x9d"


_PAIRS = {
    "entry": _entry, "cr3": _cr3, "interrupts": _interrupts, "flags-in": _flags_in,
    "flags-out": _flags_out, "port": _port,
}  # fmt: skip


def _begin() -> Pair:
    """Descriptor tables and paging; the machine has them already."""
    at, port = KERNEL, b""
    for operands in (
        (SET_GDT, GDT, 80), (SET_IDT, IDT, 512), (SET_TASK, TASK), (PAGING, DIRECTORY),
    ):  # fmt: skip
        port += _call(at + len(port), *operands)
    return b"", port


def _known() -> bytes:
    """All registers and flags, as both forms begin with them."""
    loads = b"".join(bytes([0xB8 | r]) + u32(0x01010101 * r) for r in (0, 1, 2, 3, 5, 6, 7))
    return loads + b"\x6a\x02\x9d"


def _end(at: int) -> Pair:
    """Leave the registers in memory, and stop."""
    stores = b"\x36\xa3" + u32(FINAL)
    for i, r in enumerate((1, 2, 3, 4, 5, 6, 7)):
        stores += bytes([0x36, 0x89, 5 | r << 3]) + u32(FINAL + 4 + 4 * i)
    native = b"\xb0\x10\xe6" + bytes([EXIT_PORT]) + b"\xf4"
    return stores + native, stores + _call(at + len(stores), EXIT, 0x10)


def _ported_to_user(at: int, native: bytes) -> bytes:
    """IRET is a jump to the page of hypercalls."""
    jump = at + len(native) - 1
    # the place to come back to is after the jump, four bytes later than after IRET
    back = native.index(u32(at + len(native)))
    code = native[:back] + u32(at + len(native) + 4) + native[back + 4 : -1]
    return code + b"\xe9" + u32(CALLS + 32 * IRET - (jump + 5))


def _slot(at: int, code: bytes) -> bytes:
    """Code, and a jump to the next slot."""
    if len(code) > SLOT - 5:
        raise AssertionError(f"an operation of {len(code)} bytes does not fit its slot")
    jump = b"\xe9" + u32(at + SLOT - (at + len(code) + 5))
    return (code + jump).ljust(SLOT, b"\xf4")


def make_pair(rng: np.random.Generator, length: int = 12) -> tuple[Program, Program]:
    """Make a random program for the machine, and its port.

    Parameters
    ----------
    rng : numpy.random.Generator
    length : int, default 12
        Operations in the kernel, at most 100.
    """
    kernels = [bytearray(), bytearray()]
    user, names = bytearray(), []

    def add(pair: Pair) -> None:
        for kernel, code in zip(kernels, pair, strict=True):
            kernel += _slot(KERNEL + len(kernel), code)

    add(_begin())
    add((_known(), _known()))
    for _ in range(length):
        at = KERNEL + len(kernels[0])
        if rng.random() < 0.15:
            flags = 2 | (0x200 if rng.random() < 0.8 else 0)
            native = to_user(at, USER + len(user), flags)
            flat = b"\x16\x1f\x16\x07"
            add((native + flat, _ported_to_user(at, native) + flat))
            for _ in range(int(rng.integers(1, 7))):
                name = str(rng.choice(AT_USER))
                names.append(f"user-{name}")
                user += operation(USER_OPERATIONS[name], rng, USER + len(user))
            user += bytes([0xCD, RETURN_TO_KERNEL])
            continue
        name = str(rng.choice(SAME + PORTED))
        names.append(name)
        if name in SAME:
            code = operation(KERNEL_OPERATIONS[name], rng, at)
            add((code, code))
        else:
            mark = resume_at(at + SLOT)
            native, port = _PAIRS[name](rng, at + len(mark))
            add((mark + native, mark + port))
    add(_end(KERNEL + len(kernels[0])))
    operations = tuple(names)
    native_program, port_program = (Program(bytes(k), bytes(user), operations) for k in kernels)
    return native_program, port_program


def _handlers() -> bytes:
    """As those of `system_programs`, for a kernel that knows where it runs."""
    code = bytearray(0x1000)
    common, back, software = HANDLERS + 0x800, HANDLERS + 0x900, HANDLERS + 0xA00

    def put(at: int, data: bytes) -> None:
        code[at - HANDLERS : at - HANDLERS + len(data)] = data

    for vector in range(64):
        at = HANDLERS + 16 * vector
        entry = b"" if vector in CODED else b"\x6a\x00"
        entry += bytes([0x6A, vector])
        target = software if vector in SOFTWARE else common
        put(at, entry + b"\xe9" + u32(target - at - len(entry) - 5))
    # the flag as it was into the frame, and cleared but for the trap gate
    fix = b"\x50\x36\xa1" + u32(ENABLED) + bytes.fromhex("c1e009 81642414") + u32(~0x200)
    fix += bytes.fromhex("09442414 837c2404") + bytes([TRAP_GATE]) + b"\x74\x0b"
    fix += b"\x36\xc7\x05" + u32(ENABLED) + u32(0) + b"\x58"
    fix += bytes.fromhex("833c24") + bytes([RETURN_TO_KERNEL])
    for opcode, target in ((b"\x0f\x84", back), (b"\xe9", common)):
        fix += opcode + u32(target - (software + len(fix) + len(opcode) + 4))
    put(software, fix)
    flat = bytes.fromhex("60 1e 06 b810000000 8ed8 8ec0 fc")
    log = bytes.fromhex("8b3d") + u32(LOG_AT) + bytes.fromhex("8d742428 b905000000 f3a5")
    log += bytes.fromhex("f647f802 7504 8067f8fc")  # level 1 is what level 0 is on the machine
    cr2 = bytes.fromhex("837c24280e 7506 a1") + u32(FAULT_ADDRESS) + b"\xab"
    wrap = bytes.fromhex("81e7ff3f0000 81cf") + u32(LOG) + bytes.fromhex("893d") + u32(LOG_AT)
    resume = bytes.fromhex("a1") + u32(RESUME) + bytes.fromhex("89442430")
    leave = bytes.fromhex("07 1f 61 83c408 e9")
    body = flat + log + cr2 + wrap + resume + leave
    put(common, body + u32(CALLS + 32 * IRET - (common + len(body) + 4)))
    load = b"\x8b\x25" + u32(SAVED_ESP) + b"\xff\x25" + u32(BACK)
    put(back, flat + log + wrap + load)
    return bytes(code)


_HANDLERS = _handlers()


def prepare_port(machine: Machine, board: Board, program: Program, *, port: bool) -> None:
    """Put one of the two forms into a machine, in place of what was there."""
    board.reset()
    machine.reset()
    machine.load(initial_memory(program), 0)
    start = starting_point()
    if port:
        machine.load(_HANDLERS, HANDLERS)
        start |= {"cr0": 0x11, "cr3": 0}
    machine.set(**start)


def left_behind(machine: Machine) -> tuple[bytes, ...]:
    """Give the memory that both forms leave alike: data, log, registers, entries of the window."""
    entries = TABLE + 4 * (WINDOW >> 12)
    parts = ((DATA, LOG_END - DATA), (FINAL, 32), (RESUME, 4), (entries, 4 * WINDOW_PAGES))
    return tuple(bytes(machine.memory.read(at, size)) for at, size in (*parts, (LOG_AT, 4)))
