"""Decode x86 code: one instruction, or a linear sweep over all of a buffer.

Operands are given as encoded; there is no text of instructions. What is undefined is decided by
map, opcode, mandatory prefix, ModRM and LOCK. Not looked at are the fields vvvv, W and L of VEX,
EVEX and XOP, and which extensions a processor has.

References
----------
.. [1] Intel SDM vol. 2, chapter 2 and appendix A.
.. [2] AMD APM vol. 3, chapter 1 and appendix A.
.. [3] J. S. Robin, C. E. Irvine, "Analysis of the Intel Pentium's ability to support a secure
   virtual machine monitor", USENIX Security 2000: the sensitive instructions that do not trap.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pyvirt._core.decode.sweep import decode_one, sweep_arrays

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Class", "Flow", "Instruction", "Status", "Sweep", "decode", "sweep"]

_KINDS = np.arange(5 * 18 * 2)
_CLASS_OF = (_KINDS // 36).astype(np.uint8)
_FLOW_OF = (_KINDS // 2 % 18).astype(np.uint8)


class Status(IntEnum):
    """How decoding ended."""

    DECODED = 0
    TRUNCATED = 1
    """The bytes end within the instruction."""
    UNDEFINED = 2
    """A reserved encoding: #UD."""
    TOO_LONG = 3
    """More than 15 bytes: #GP(0)."""


class Class(IntEnum):
    """What a monitor makes of an instruction."""

    INNOCUOUS = 0
    PRIVILEGED = 1
    """Traps outside ring 0, or above IOPL (CLI, STI)."""
    SENSITIVE = 2
    """Reads or changes privileged state and does not trap: the 18 mnemonics of [3]."""
    IO = 3
    """IN, OUT, INS, OUTS."""
    NOTHING = 4
    """No instruction: a byte that a sweep skips."""


class Flow(IntEnum):
    """How control leaves an instruction."""

    NONE = 0
    JUMP = 1
    JUMP_INDIRECT = 2
    JUMP_FAR = 3
    CONDITIONAL = 4
    CALL = 5
    CALL_INDIRECT = 6
    CALL_FAR = 7
    RETURN = 8
    RETURN_FAR = 9
    INTERRUPT = 10
    IRET = 11
    SYSCALL = 12
    SYSRET = 13
    HALT = 14
    UNDEFINED = 15
    """UD0, UD1, UD2."""
    TRANSACTION = 16
    """XBEGIN, XABORT."""
    MONITOR = 17
    """VMCALL, VMLAUNCH, VMRUN and their like."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One decoded instruction.

    Attributes
    ----------
    status : Status
        Of what is not decoded only `length` counts: the bytes that a processor would have read
        where it is undefined, else 0.
    length : int
        Bytes of all of it, 1 to 15.
    mode : int
        16, 32 or 64.
    prefixes : int
        Bits: 1 LOCK, 2 REPNE, 4 REP, 8 operand size, 16 address size, 32 VEX, 64 EVEX, 128 XOP. Of
        REPNE and REP the last counts.
    operand_size, address_size : int
        In bytes.
    segment : int
        Override: 0 to 5 for ES, CS, SS, DS, FS, GS, or 255. 64-bit code has FS and GS only.
    rex : int
        0x40 to 0x4f, or 0; what VEX, EVEX and XOP say of it, too.
    map, opcode : int
        0 to 3 for one byte, 0F, 0F 38 and 0F 3A; the encoded map of VEX, EVEX and XOP.
    has_modrm, modrm, has_sib, sib : int
        The addressing bytes.
    disp, disp_size : int
        Displacement, sign-extended, and its bytes. EVEX's is not scaled. The address of MOV with
        a memory offset, too.
    imm, imm_size : int
        Immediate, as encoded, and its bytes. Of far pointers the offset.
    selector : int
        Of a far pointer; second immediate of ENTER, EXTRQ and INSERTQ.
    relative : bool
        An operand counts from the next instruction: a branch's target or RIP-relative memory.
    klass : Class
    flow : Flow
    """

    status: Status
    length: int
    mode: int
    prefixes: int
    operand_size: int
    address_size: int
    segment: int
    rex: int
    map: int
    opcode: int
    has_modrm: int
    modrm: int
    has_sib: int
    sib: int
    disp_size: int
    disp: int
    imm_size: int
    imm: int
    selector: int
    relative: bool
    klass: Class
    flow: Flow


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a linear sweep met, one entry an instruction or skipped byte.

    Attributes
    ----------
    offsets : ndarray of int64
        Where each begins.
    lengths : ndarray of uint8
        In bytes.
    classes : ndarray of uint8
        `Class`.
    flows : ndarray of uint8
        `Flow`.
    relative : ndarray of bool
        Whether an operand counts from the next instruction.
    end : int
        Where the next one begins: beyond `stop` if the last one crosses it.
    """

    offsets: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.uint8]
    flows: npt.NDArray[np.uint8]
    relative: npt.NDArray[np.bool_]
    end: int

    def __len__(self) -> int:
        return len(self.lengths)


def decode(code: Buffer, mode: int = 64, offset: int = 0) -> Instruction:
    """Decode the instruction at an offset.

    Parameters
    ----------
    code : bytes-like
        Machine code.
    mode : {64, 32, 16}
        Of the code segment.
    offset : int
        Where the instruction begins, in [0, len(code)].

    Returns
    -------
    Instruction

    Raises
    ------
    InvalidTypeError, InvalidValueError
        If `code` is no contiguous buffer of bytes, or another argument is not as said.

    Examples
    --------
    >>> from pyvirt.x86.decode import decode
    >>> found = decode(bytes.fromhex("0f01142500100000"))      # LGDT [0x1000]
    >>> found.length, found.klass.name, hex(found.disp)
    (8, 'PRIVILEGED', '0x1000')
    """
    status, fields = decode_one(code, mode, offset)
    if fields is None:
        fields = (0, mode, *([0] * 19))
    length, mode_, prefixes, osize, asize, segment, rex, map_, opcode = fields[:9]
    has_modrm, modrm, has_sib, sib, disp_size, disp, imm_size, imm, selector = fields[9:18]
    return Instruction(
        *(Status(status), length, mode_, prefixes, osize, asize, segment, rex, map_, opcode),
        *(has_modrm, modrm, has_sib, sib, disp_size, disp, imm_size, imm, selector),
        *(bool(fields[18]), Class(fields[19]), Flow(fields[20])),
    )


def sweep(code: Buffer, mode: int = 64, start: int = 0, stop: int | None = None) -> Sweep:
    """Decode one instruction after the other.

    A byte at which nothing decodes (it is undefined, too long, or cut off by the end of `code`) is
    an entry of class `Class.NOTHING` and length 1; the sweep goes on with the next byte. Splitting
    a sweep where an instruction begins gives the same entries.

    Parameters
    ----------
    code : bytes-like
        Machine code.
    mode : {64, 32, 16}
        Of the code segment.
    start, stop : int
        Entries begin in [start, stop); the last one may reach beyond `stop`, which is the length of
        `code` if not given.

    Returns
    -------
    Sweep

    Raises
    ------
    InvalidTypeError, InvalidValueError
        If `code` is no contiguous buffer of bytes, or another argument is not as said.
    """
    lengths, kinds, end = sweep_arrays(code, mode, start, stop)
    offsets = np.zeros(len(lengths), dtype=np.int64)
    if len(lengths):
        np.cumsum(lengths[:-1], out=offsets[1:])
        offsets += start
    relative = (kinds & 1).astype(np.bool_)
    return Sweep(offsets, lengths, _CLASS_OF[kinds], _FLOW_OF[kinds], relative, end)
