"""A guest kernel's processor as the guest knows it, and as a monitor makes it.

All of them run the same instructions over the same memory, 256 KiB of it:

======== ===========================================================================
address  what is there
======== ===========================================================================
0x1000   the guest's GDT, IDT, TSS and LDT
0x2000   its data, stack and handlers
0x3000   the monitor's GDT, IDT, TSS and LDT: copies with the guest's ring 0 in ring 1
0x10000  code, one instruction each 16 bytes
======== ===========================================================================
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CODE", "GUEST_MEMORY", "MEMORY", "PAIRS", "SCENES", "Pair", "Scene", "native"]

MEMORY = 1 << 18
CODE = 0x10000
#: What belongs to the guest and is compared: its tables, data and stack.
GUEST_MEMORY = slice(0x1000, 0x3000)
_GDT, _IDT, _TSS, _LDT = 0x1000, 0x1400, 0x1C00, 0x1D00
_DATA, _TARGET, _OUTER, _HANDLER, _STACK, _STACK0 = 0x2000, 0x2A80, 0x2B00, 0x2C00, 0x2D00, 0x2F00
_HOST = 0x2000  # the monitor's tables lie so much higher
_HOST_HANDLER, _HOST_STACK = 0x3F00, 0x3F00
_VECTORS = 0x81
_FLAT = 0xFFFFFFFF
_IF = 0x200
#: What POPF and IRET would like to set: IF, IOPL 3, ZF, OF.
_FLAGS = 0x3A42


def _segment(access: int, base: int = 0) -> bytes:
    """Encode a flat 32-bit segment."""
    return struct.pack(
        "<HHBBBB", 0xFFFF, base & 0xFFFF, base >> 16 & 0xFF, access, 0xCF, base >> 24
    )


def _system(access: int, base: int, limit: int) -> bytes:
    return struct.pack("<HHBBBB", limit, base & 0xFFFF, base >> 16 & 0xFF, access, 0, base >> 24)


def _gate(access: int, selector: int, offset: int) -> bytes:
    return struct.pack("<HHBBH", offset & 0xFFFF, selector, 0, access, offset >> 16)


#: Code and data of rings 0 and 3 and of ring 1, which a guest may use too; conforming code; data
#: that no one has loaded yet; a TSS and an LDT to load, and the TSS that is in TR; call gates for
#: all rings, to ring 0 and to conforming code.
_GUEST_GDT = (
    bytes(8), _segment(0x9B), _segment(0x93), _segment(0xFB), _segment(0xF3),
    _system(0x89, _TSS, 0x67), _system(0x82, _LDT, 0x1F), _system(0x8B, _TSS, 0x67),
    _segment(0x9F), _segment(0xBB), _segment(0xB3),
    _gate(0xEC, 0x08, _HANDLER), _segment(0x92), _gate(0xEC, 0x40, _HANDLER),
)  # fmt: skip
_GUEST_LDT = (bytes(8), _segment(0x93), _segment(0xF3), _segment(0x9B))
#: Beyond the guest's: the monitor's code and data in ring 0, its TSS and LDT, data in ring 1.
_HOST_GDT = (
    _segment(0x9B), _segment(0x93), _system(0x8B, _TSS + _HOST, 0x67),
    _system(0x82, _LDT + _HOST, 0x1F), _segment(0xB3, _GDT + _HOST),
)  # fmt: skip
_HOST_CODE, _HOST_DATA, _HOST_TSS, _HOST_LDT = (8 * (len(_GUEST_GDT) + i) for i in range(4))
_IN_HOST_ONLY = 8 * (len(_GUEST_GDT) + 4) | 1

#: Selectors that operands, pointers and stacks hold: null; ring 0 with RPL 0 and 1; ring 3; TSS and
#: LDT; conforming code; ring 1; call gates; data never loaded; in the LDT; beyond the guest's GDT.
_SELECTORS = (
    0, 0x08, 0x10, 0x09, 0x11, 0x1B, 0x23, 0x28, 0x30, 0x40, 0x49, 0x51, 0x5B, 0x6B, 0x60, 0x0C,
    0x1C, _IN_HOST_ONLY,
)  # fmt: skip
_OUTER_STACKS = {0: 0x10, 1: 0x51, 2: 0x10, 3: 0x23}


def compressed(memory: bytes | bytearray) -> bytes:
    """Put ring 0 into ring 1 in the guest's GDT, IDT and LDT; a TSS and an LDT stay as they are."""
    changed = bytearray(memory)
    ranges = ((_GDT, len(_GUEST_GDT)), (_LDT, len(_GUEST_LDT)), (_IDT, _VECTORS))
    for start, number in ranges:
        for at in range(start + 5, start + 8 * number, 8):
            access = changed[at]
            movable = access & 0x10 or access & 0x07 in (4, 6, 7)
            if access & 0x80 and movable and not access & 0x60:
                changed[at] = access | 0x20
    return bytes(changed)


def _memory() -> bytes:
    """Give all memory below the code, as the guest has it."""
    memory = bytearray(0x4000)

    def put(at: int, data: bytes) -> None:
        memory[at : at + len(data)] = data

    put(_GDT, b"".join(_GUEST_GDT))
    put(_LDT, b"".join(_GUEST_LDT))
    for vector in range(_VECTORS):
        access = 0xEF if vector == _VECTORS - 1 else 0xEE if vector in (3, 4) else 0x8E
        put(_IDT + 8 * vector, _gate(access, 0x08, _HANDLER))
    put(_TSS, struct.pack("<5I", 0, _STACK0, 0x10, _STACK0, 0x11))
    put(_TSS + 0x64, struct.pack("<HH", 0, 0x68))
    # the monitor's own
    shadow = compressed(memory)
    put(_GDT + _HOST, shadow[_GDT : _GDT + 8 * len(_GUEST_GDT)] + b"".join(_HOST_GDT))
    put(_LDT + _HOST, shadow[_LDT : _LDT + 8 * len(_GUEST_LDT)])
    for vector in range(_VECTORS):
        put(_IDT + _HOST + 8 * vector, _gate(0x8E, _HOST_CODE, _HOST_HANDLER))
    put(_TSS + _HOST, struct.pack("<3I", 0, _HOST_STACK, _HOST_DATA))
    put(_TSS + _HOST + 0x64, struct.pack("<HH", 0, 0x68))
    return bytes(memory)


#: The registers of the guest's kernel: CPL 0, IF clear, IOPL 0, OF and CF set.
native: dict[str, Any] = {
    "cr0": 0x11, "cr3": 0, "cr4": 0, "eflags": 0x803, "cpl": 0,
    "gdt_base": _GDT, "gdt_limit": 8 * len(_GUEST_GDT) - 1,
    "idt_base": _IDT, "idt_limit": 8 * _VECTORS - 1,
    "ldtr": (0x30, _LDT, 0x1F, 0x82), "tr": (0x38, _TSS, 0x67, 0x8B),
    "cs": (0x08, 0, _FLAT, 0xC09B), "ss": (0x10, 0, _FLAT, 0xC093),
    **dict.fromkeys(("ds", "es", "fs", "gs"), (0x10, 0, _FLAT, 0xC093)),
    "ecx": 0x10, "edx": 0x60, "ebx": 0x5A5A1234, "esp": _STACK, "ebp": _STACK + 0x40,
    "esi": _DATA + 0x80, "edi": _DATA + 0xC0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pair:
    """How the processor that the guest really has differs from the one it thinks it has.

    Attributes
    ----------
    name : str
    meaning : str
        In a few words.
    registers : dict
        What is set otherwise than in `native`.
    compressed : bool
        Whether the guest's own tables have ring 1 in place of ring 0.
    monitored : bool
        Whether the IDT is the monitor's, so that whatever arrives in ring 0 has trapped.
    """

    name: str
    meaning: str
    registers: dict[str, Any] = field(default_factory=dict)
    compressed: bool = False
    monitored: bool = False

    def memory(self, guest: bytes) -> bytes:
        """Give memory as it is under the monitor."""
        return compressed(guest) if self.compressed else guest


_RING_1 = {"cpl": 1, "cs": (0x09, 0, _FLAT, 0xC0BB), "ss": (0x11, 0, _FLAT, 0xC0B3)}
_DATA_1 = dict.fromkeys(("ds", "es", "fs", "gs"), (0x10, 0, _FLAT, 0xC0B3))
#: The monitor keeps TS set: it saves the FPU when a guest uses it.
_HOST_CR0 = native["cr0"] | 0x2A

PAIRS = {
    "ring": Pair("ring", "the same tables, CPL 1", _RING_1),
    "compressed": Pair(
        "compressed", "ring 0 is ring 1 in the guest's tables", _RING_1 | _DATA_1, compressed=True
    ),
    "relocated": Pair(
        "relocated",
        "CPL 1; tables, IF and CR0 are the monitor's",
        _RING_1 | _DATA_1 | {
            "gdt_base": _GDT + _HOST, "gdt_limit": 8 * len(_GUEST_GDT + _HOST_GDT) - 1,
            "idt_base": _IDT + _HOST, "cr0": _HOST_CR0, "eflags": native["eflags"] | _IF,
            "ldtr": (_HOST_LDT, _LDT + _HOST, 0x1F, 0x82),
            "tr": (_HOST_TSS, _TSS + _HOST, 0x67, 0x8B),
        },
        monitored=True,
    ),
    "assisted": Pair(
        "assisted",
        "CPL 0 and the guest's tables; control registers are the monitor's",
        {"cr0": _HOST_CR0, "cr3": 0x5000, "cr4": 0x10},
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scene:
    """What operands hold.

    Attributes
    ----------
    selector : int
        In EAX, in pointers, and on the stack.
    wide : bool
        For operands of 32 bits; else of 16.
    tail : bytes
        What follows the addressing bytes: an immediate, or a far pointer.
    memory : bytes
        All memory below the code, in the guest's form.
    """

    selector: int
    wide: bool
    tail: bytes
    memory: bytes

    def code(self, opcode: int, modrm: int | None) -> bytes:
        """Give an instruction; where it addresses memory, that is the guest's data."""
        head = b"" if self.wide else b"\x66"
        head += opcode.to_bytes(2 if opcode > 0xFF else 1, "big")
        if modrm is not None:
            head += bytes((modrm,))
            if modrm < 0xC0:
                head += struct.pack("<I", _DATA)
        return head + self.tail


def _scene(selector: int, wide: bool, frame: str) -> Scene:
    """Fill data and stack: with the selector alone, or with what RET or IRET takes."""
    size, flags = ("<I", _FLAGS) if wide else ("<H", _FLAGS)
    pointer = struct.pack("<IH" if wide else "<HH", _TARGET, selector)
    if frame == "words":
        data = stack = struct.pack("<H", selector) * 16
        tail = data[:6]
    else:
        outer = [_OUTER, _OUTER_STACKS[selector & 3]]
        values = [_TARGET, selector, *([flags] if frame == "interrupt" else []), *outer]
        stack = b"".join(struct.pack(size, value) for value in values)
        data, tail = pointer, pointer
    memory = bytearray(_memory())
    memory[_DATA : _DATA + len(data)] = data
    memory[_STACK : _STACK + len(stack)] = stack
    return Scene(selector, wide, tail, bytes(memory))


SCENES = tuple(
    _scene(selector, wide, frame)
    for wide in (True, False)
    for frame in ("words", "far", "interrupt")
    for selector in _SELECTORS
)
