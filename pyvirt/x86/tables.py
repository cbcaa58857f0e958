"""Descriptors in the bytes of a GDT and an LDT, and the stacks that a TSS holds."""

from __future__ import annotations

from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from pyvirt._core.protection import parts
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.x86.checks import Mode, member
from pyvirt.x86.descriptors import within

__all__ = ["find_descriptor", "nulled_on_return", "stack_slot"]


def _table(value: bytes, name: str) -> npt.NDArray[np.uint8]:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise InvalidTypeError(f"{name} must be bytes, not {value!r:.80}")
    table = np.frombuffer(value, np.uint8)
    if table.size > 1 << 16:
        raise InvalidValueError(f"{name} must have at most 65536 bytes, got {table.size}")
    return table


def find_descriptor(selector: SupportsIndex, gdt: bytes, ldt: bytes = b"") -> int | None:
    """Give the eight bytes that a selector names, as a little-endian number.

    Parameters
    ----------
    selector : int or Selector
        16 bits; its TI bit chooses the table, its RPL does not matter.
    gdt, ldt : bytes
        The tables, from their first byte to their limit. No LDT: LDTR is null.

    Returns
    -------
    int or None
        None where the table does not hold all eight bytes. A null selector gives entry 0 of the
        GDT, which processors do not use: `check` looks at the selector itself first.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        No selector of 16 bits, or no tables of up to 65536 bytes.

    Notes
    -----
    Intel SDM vol. 3, 3.4.2 and 3.5.1.

    Examples
    --------
    >>> from pyvirt.x86.protection import Descriptor, find_descriptor
    >>> gdt = bytes(8) + Descriptor.code().pack().to_bytes(8, "little")
    >>> hex(find_descriptor(0x8, gdt)), find_descriptor(0x10, gdt)
    ('0xcf9a000000ffff', None)
    """
    return parts.find(within(selector, "selector", 0xFFFF), _table(gdt, "gdt"), _table(ldt, "ldt"))


def nulled_on_return(cpl: SupportsIndex, descriptor: SupportsIndex) -> bool:
    """Whether an outward RET or IRET to `cpl` makes DS, ES, FS or GS null.

    Parameters
    ----------
    cpl : int
        The new privilege, 0 to 3.
    descriptor : int or Descriptor
        What the register holds.

    Returns
    -------
    bool
        True for data and non-conforming code whose DPL is less than `cpl`.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        Arguments that are no integers, or out of range.

    Notes
    -----
    Intel SDM vol. 3, 5.8.6; vol. 2, RET and IRET.
    """
    return parts.nulled(within(cpl, "cpl", 3), within(descriptor, "descriptor", 2**64 - 1))


def stack_slot(
    cpl: SupportsIndex,
    tss_type: SupportsIndex,
    limit: SupportsIndex,
    mode: Mode | str | int = Mode.PROTECTED,
) -> int | None:
    """Give the offset in a TSS of the stack pointer for a privilege.

    Parameters
    ----------
    cpl : int
        The new privilege, 0 to 2.
    tss_type : int or SystemType
        ``TSS16`` or ``TSS32``, busy or not.
    limit : int
        The last offset inside the TSS.
    mode : Mode, str or int, default "protected"
        In IA-32e mode the pointer has 8 bytes, and no SS stands after it.

    Returns
    -------
    int or None
        None if it, or its SS, is beyond the limit: #TS with the selector of the TSS.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        Arguments that are no integers, or out of range.

    Notes
    -----
    Intel SDM vol. 3, 7.2.1, 7.6 and 7.7; vol. 2, CALL.
    """
    kind, at = within(tss_type, "tss_type", 11), member(mode, Mode, "mode")
    accepted = (1, 3, 9, 11) if at == Mode.PROTECTED else (9, 11)
    if kind not in accepted:
        raise InvalidValueError(f"tss_type must be one of {accepted}, got {kind}")
    return parts.stack_slot(within(cpl, "cpl", 2), kind, within(limit, "limit", 0xFFFFFFFF), at)
