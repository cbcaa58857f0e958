"""What a trace is made of: records of 24 bytes, each an access or something the system did."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, IntFlag

import numpy as np
import numpy.typing as npt

from pyvirt.errors import InvalidTypeError, InvalidValueError

__all__ = ["EVENT_DTYPE", "Arg", "Events", "Op", "accesses", "as_events", "is_access"]

EVENT_DTYPE = np.dtype(
    [
        ("op", "u1"),
        ("size", "u1"),
        ("vcpu", "<u2"),
        ("arg", "<u4"),
        ("addr", "<u8"),
        ("value", "<u8"),
    ]
)
"""One event, packed; `Op` says what the fields mean for each kind."""

Events = npt.NDArray[np.void]


class Op(IntEnum):
    """What happened: the `op` of an event.

    Accesses have the address in `addr`, the bytes in `size` (0: not known, within one page) and
    in bit 0 of `arg` whether they ran at CPL 3. An access that crosses a 4 KiB boundary is two
    translations.
    """

    NOP = 0
    LOAD = 1
    STORE = 2
    FETCH = 3
    MODIFY = 4
    """A load and a store as one access, checked as a store."""
    MOV_CR3 = 16
    """`value` is loaded; likewise for the two that follow."""
    MOV_CR0 = 17
    MOV_CR4 = 18
    INVLPG = 19
    """Of `addr`; with `arg` 1 on all other vCPUs, too (a shoot-down)."""
    INVPCID = 20
    """Type `arg`, PCID `value`, linear address `addr`."""
    INVVPID = 21
    """Type `arg`, VPID `value`, linear address `addr`."""
    INVEPT = 22
    """Type `arg`, EPT pointer `value`."""
    INVLPGA = 23
    """Of `addr` in the address space (ASID) `value`."""
    TLB_CONTROL = 24
    """AMD's TLB_CONTROL field, `arg`, at the next VMRUN."""
    VM_ENTRY = 25
    VM_EXIT = 26
    IO = 27
    """Access to an I/O port; the hypervisor sees it."""
    STORE_TABLE = 32
    """A page-table entry of `size` bytes at the vCPU's physical `addr` becomes `value`."""
    MAP = 33
    """`addr` to physical `value`, page size 2**`size`; `arg`: 1 R, 2 W, 4 X, 8 user, 16 global."""
    UNMAP = 34
    """`value` bytes from `addr`."""
    PROTECT = 35
    """`value` bytes from `addr` get the rights `arg`, as in `MAP`."""
    VCPU_SWITCH = 40
    """The vCPU goes to core `arg`."""
    VM_SWITCH = 41
    """The vCPU is another machine's: VPID `arg`, guest CR3 `addr`, nested root `value`."""


class Arg(IntFlag):
    """Bits of `arg` that `pyvirt.Hypervisor` understands, and others ignore.

    An event without `CONTINUES`, `SAME` and `HANDLER` begins an operation; what follows with one
    of these belongs to it.
    """

    USER = 1
    """The access runs at CPL 3."""
    GIVEN = 1 << 4
    """The store writes `value`. Without one of these six, memory keeps what it has."""
    LOADED = 2 << 4
    """It writes what the vCPU loaded last."""
    AND = 3 << 4
    """It writes what was loaded, and-ed with `value`."""
    OR = 4 << 4
    """It writes what was loaded, or-ed with `value`."""
    MOVE = 5 << 4
    """As `OR`, after bits 51:12 of what was loaded are cleared: a page-table entry moves."""
    ERROR = 6 << 4
    """It writes the error code of the page fault, or-ed with `value`."""
    CONTINUES = 1 << 8
    """Part of the operation before: not run after a page fault of it."""
    SAME = 1 << 9
    """Part of the instruction before, which an exit starts again from its first access."""
    HANDLER = 1 << 10
    """Run only after a page fault of its operation."""
    KEEP = 1 << 11
    """The load does not count as one for `LOADED`, `AND`, `OR`, `MOVE`."""


KNOWN = np.isin(np.arange(256), [int(op) for op in Op])
"""Which numbers are operations."""


def is_access(events: Events) -> npt.NDArray[np.bool_]:
    """Tell which events are loads, stores, fetches or both.

    Parameters
    ----------
    events : ndarray of EVENT_DTYPE
        Any events.

    Returns
    -------
    ndarray of bool
        True for accesses.
    """
    op = events["op"]
    return (op >= Op.LOAD) & (op <= Op.MODIFY)


def accesses(
    addresses: npt.ArrayLike,
    op: npt.ArrayLike = Op.LOAD,
    size: npt.ArrayLike = 0,
    *,
    vcpu: npt.ArrayLike = 0,
    user: npt.ArrayLike = False,
) -> Events:
    """Make events of addresses.

    Parameters
    ----------
    addresses : array_like of int
        Virtual addresses.
    op, size, vcpu, user : scalar or array_like
        For all or for each: operation, bytes, vCPU, whether at CPL 3.

    Returns
    -------
    ndarray of EVENT_DTYPE
        As many events as addresses.

    Examples
    --------
    >>> from pyvirt.traces import Op, accesses
    >>> accesses([0x1000, 0x2000], Op.STORE, 8)["size"].tolist()
    [8, 8]
    """
    from pyvirt._core.arrays import addresses as as_u64

    addr = as_u64(addresses, "addresses")
    events = np.zeros(len(addr), EVENT_DTYPE)
    events["addr"] = addr
    for name, given in (("op", op), ("size", size), ("vcpu", vcpu), ("arg", user)):
        values = np.asarray(given)
        if values.dtype.kind not in "iub":
            raise InvalidTypeError(f"{name} must be integers, not {values.dtype}")
        limit = np.iinfo(EVENT_DTYPE[name]).max
        if values.size and not 0 <= int(values.min()) <= int(values.max()) <= limit:
            raise InvalidValueError(f"{name} must be in [0, {limit}]")
        events[name] = values
    return events


def as_events(values: npt.NDArray[np.generic] | Iterable[object], name: str = "events") -> Events:
    """Check that an array holds events.

    Parameters
    ----------
    values : ndarray
        Of EVENT_DTYPE, or of unsigned 64-bit addresses, which become loads.
    name : str
        What messages call it.

    Returns
    -------
    ndarray of EVENT_DTYPE
        One-dimensional and contiguous; the same array where it is that already.

    Raises
    ------
    InvalidTypeError
        For anything else.
    """
    if isinstance(values, np.ndarray) and values.ndim == 1:
        if values.dtype == EVENT_DTYPE:
            return np.ascontiguousarray(values)
        if values.dtype == np.uint64:
            return accesses(values)
    raise InvalidTypeError(
        f"{name} must be a one-dimensional array of EVENT_DTYPE or uint64, not "
        f"{getattr(values, 'dtype', type(values).__name__)}"
    )
