"""Checks against the privilege rules, in both forms: what `pyvirt.x86.protection` offers."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum, IntFlag
from typing import Any, NamedTuple, SupportsIndex, TypeVar, cast

import numpy as np
import numpy.typing as npt

from pyvirt._core.protection import batch
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.x86.descriptors import within

__all__ = [
    "Effect",
    "Instruction",
    "Mode",
    "Operation",
    "Verdict",
    "arpl",
    "check",
    "check_instruction",
    "flags_mask",
    "ports_permitted",
]

Integers = SupportsIndex | npt.ArrayLike


class Operation(IntEnum):
    """What `check` judges."""

    LOAD = 0
    """DS, ES, FS or GS gets a selector."""
    LOAD_SS = 1
    """SS gets a selector."""
    JMP = 2
    """Far JMP to a segment, gate or TSS."""
    CALL = 3
    """Far CALL to a segment, gate or TSS."""
    RETF = 4
    """Far RET."""
    IRET = 5
    """IRET without NT, not to virtual-8086 mode."""
    INT = 6
    """INT n, INT3 or INTO; the selector is the number."""
    EVENT = 7
    """An external interrupt or an exception; the selector is the number."""
    LAR = 8
    LSL = 9
    VERR = 10
    VERW = 11


class Mode(IntEnum):
    """The processor's mode, as far as the rules differ by it."""

    PROTECTED = 0
    COMPATIBILITY = 1
    """16- and 32-bit code of IA-32e mode."""
    LONG = 2
    """64-bit code of IA-32e mode."""


class Effect(IntFlag):
    """What an allowed operation does beside."""

    NULL_LOADED = 1
    """The segment register holds a null selector."""
    STACK_SWITCHED = 2
    """SS and (E)SP are new: those of the TSS inward, of the old stack in returns."""
    TASK_SWITCHED = 4
    """Another task runs; its TSS says at which CPL."""
    OUTWARD = 8
    """A return to less privilege: DS, ES, FS, GS of more privilege become null."""
    VISIBLE = 16
    """LAR, LSL, VERR or VERW sets ZF."""
    VIRTUAL_IF = 32
    """CLI or STI changes VIF in place of IF."""
    BY_BITMAP = 64
    """The TSS's I/O bitmap decides: see `ports_permitted`."""


class Instruction(IntEnum):
    """Instructions that depend on privilege; ``MOV_CR`` and ``MOV_DR`` in both directions."""

    LGDT = 0
    LIDT = 1
    LLDT = 2
    LTR = 3
    MOV_CR = 4
    MOV_DR = 5
    LMSW = 6
    CLTS = 7
    INVD = 8
    WBINVD = 9
    INVLPG = 10
    INVPCID = 11
    HLT = 12
    RDMSR = 13
    WRMSR = 14
    SYSEXIT = 15
    SWAPGS = 16
    SYSRET = 17
    XSETBV = 18
    VMXON = 19
    CLAC = 20
    STAC = 21
    MONITOR = 22
    MWAIT = 23
    RDTSC = 24
    RDTSCP = 25
    RDPMC = 26
    SGDT = 27
    SIDT = 28
    SLDT = 29
    STR = 30
    SMSW = 31
    CLI = 32
    STI = 33
    IN = 34
    OUT = 35
    INS = 36
    OUTS = 37
    PUSHF = 38
    POPF = 39
    INT = 40
    IRET = 41


class Verdict(NamedTuple):
    """What one check says.

    Attributes
    ----------
    vector : int
        Of the exception: 6 #UD, 10 #TS, 11 #NP, 12 #SS, 13 #GP; -1: allowed.
    error : int
        Its error code; 0 for #UD, which has none.
    cpl : int
        Current privilege level afterwards; that before, if there is an exception.
    effects : Effect
        None, if there is an exception.
    """

    vector: int
    error: int
    cpl: int
    effects: Effect

    @property
    def allowed(self) -> bool:
        """Whether there is no exception."""
        return self.vector < 0


E = TypeVar("E", bound=IntEnum)


def member(value: object, kind: type[E], name: str) -> E:
    """Give the member of an enumeration that a name or a number stands for."""
    accepted = ", ".join(m.name.lower() for m in kind)
    if isinstance(value, str):
        try:
            return kind[value.upper()]
        except KeyError:
            raise InvalidValueError(f"{name} must be one of {accepted}; got {value!r}") from None
    number = within(cast("SupportsIndex", value), name, max(kind))
    return kind(number)


def column(
    values: object, name: str, dtype: str, high: int, kind: type[IntEnum] | None = None
) -> npt.NDArray[Any]:
    """Give an array of integers from 0 to `high`; objects with an index, names of `kind` too."""
    if kind is not None and isinstance(values, str):
        return np.asarray(member(values, kind, name), dtype=dtype)
    if hasattr(values, "__index__") and not isinstance(values, np.ndarray):
        return np.asarray(within(values, name, high), dtype=dtype)
    if isinstance(values, np.ndarray):
        array = values
    else:
        try:
            array = np.asarray(values, dtype=object)
            flat = [
                member(v, kind, name) if kind is not None else within(v, name, high)
                for v in array.flat
            ]
            return np.array([int(v) for v in flat], dtype=dtype).reshape(array.shape)
        except ValueError as error:
            if isinstance(error, InvalidValueError):
                raise
            raise InvalidTypeError(
                f"{name} must be an array of integers, not {values!r:.80}"
            ) from error
    if array.dtype.kind not in "iub":
        raise InvalidTypeError(f"{name} must have an integer dtype, got {array.dtype}")
    if array.dtype == np.dtype(dtype) and high == np.iinfo(array.dtype).max:
        return array
    if array.size:
        low, most = int(array.min()), int(array.max())
        if low < 0 or most > high:
            raise InvalidValueError(
                f"{name} must be in [0, {high:#x}], got {low if low < 0 else most:#x}"
            )
    return array.astype(dtype, copy=False)


def together(
    columns: list[npt.NDArray[Any]], out: object, judge: Callable[..., int]
) -> npt.NDArray[np.void]:
    """Broadcast arrays and call the core; single values are not repeated in memory."""
    try:
        shape = np.broadcast_shapes(*(c.shape for c in columns))
    except ValueError:
        shapes = ", ".join(str(c.shape) for c in columns if c.shape)
        raise InvalidTypeError(f"shapes {shapes} do not go together") from None
    if out is None:
        out = np.empty(shape, batch.VERDICT)
    elif not isinstance(out, np.ndarray) or out.dtype != batch.VERDICT:
        raise InvalidTypeError(
            f"out must be an ndarray of dtype {batch.VERDICT}, "
            f"got {getattr(out, 'dtype', type(out).__name__)}"
        )
    elif out.shape != shape:
        raise InvalidTypeError(f"out must have shape {shape}, got {out.shape}")
    elif not (out.flags.c_contiguous and out.flags.aligned and out.flags.writeable):
        raise InvalidTypeError("out must be C-contiguous, aligned and writable")
    flat = [
        np.require(
            c if c.size == 1 else np.broadcast_to(c, shape), requirements=["C", "A"]
        ).reshape(-1)
        for c in columns
    ]
    bad = judge(*flat, out.reshape(-1).view(np.uint8))
    if bad >= 0:
        raise InvalidValueError(
            f"case {bad} is not in virtual-8086 mode: that has CPL 3 and mode protected"
        )
    return out


def verdict(found: npt.NDArray[np.void]) -> Verdict:
    """Take one verdict out of an array without dimensions."""
    one = found[()]
    return Verdict(
        int(one["vector"]), int(one["error"]), int(one["cpl"]), Effect(int(one["effects"]))
    )


def check(
    operation: Operation | str | Integers,
    cpl: Integers,
    selector: Integers,
    descriptor: Integers,
    *,
    target: Integers = 0,
    stack_selector: Integers = 0,
    stack: Integers = 0,
    mode: Mode | str | Integers = Mode.PROTECTED,
    out: npt.NDArray[np.void] | None = None,
) -> Any:
    """Judge one operation, or arrays of them, which are broadcast against each other.

    What needs more than descriptors comes afterwards and is not judged: the new instruction pointer
    against its segment's limit, room on stacks, faults of pages, alignment.

    Parameters
    ----------
    operation : Operation, str or array_like of int
        What is done.
    cpl : int or array_like of int
        Current privilege level, 0 to 3.
    selector : int, Selector or array_like of int
        The selector, with its RPL; of ``INT`` and ``EVENT`` the number, 0 to 255 (of more bits, the
        lower eight count).
    descriptor : int, Descriptor, Gate or array_like of int
        The eight bytes that the selector (of ``INT`` and ``EVENT``: the number) stands for, as a
        little-endian number; 0 where its table does not reach. Not looked at where the selector is
        null.
    target : int, Descriptor or array_like of int
        Of gates: the eight bytes of the code segment or TSS that they name.
    stack_selector, stack : int, Descriptor or array_like of int
        Where the stack switches: the new SS and its eight bytes. Inward they come from the TSS (not
        looked at in IA-32e mode, which loads a null selector), in returns from the stack.
    mode : Mode, str or array_like of int, default "protected"
        The mode that the operation meets.
    out : ndarray of the result's dtype, optional
        Where to put the verdicts; C-contiguous.

    Returns
    -------
    Verdict or ndarray
        A `Verdict` where all arguments are single values and there is no `out`, else a structured
        array with the fields ``vector`` (int16), ``cpl``, ``effects`` (uint8) and ``error``
        (uint32).

    Raises
    ------
    InvalidTypeError
        Arguments that are no integers, or whose shapes do not go together; an `out` of another
        dtype, shape or layout.
    InvalidValueError
        An integer that is out of range, an operation or mode that there is not.

    Notes
    -----
    Intel SDM vol. 3, chapter 5 (segments, gates), 6.11 to 6.14 (interrupts), 7.2, 7.3 (tasks);
    vol. 2 for the order within each instruction.

    Examples
    --------
    >>> from pyvirt.x86.protection import Descriptor, check
    >>> check("load", 3, 0x10, Descriptor.data(0))
    Verdict(vector=13, error=16, cpl=3, effects=<Effect: 0>)
    >>> check("load", [0, 3], 0x10, Descriptor.data(0))["vector"]
    array([-1, 13], dtype=int16)
    """
    columns = [
        column(operation, "operation", "u1", max(Operation), Operation),
        column(cpl, "cpl", "u1", 3),
        column(selector, "selector", "u2", 0xFFFF),
        column(descriptor, "descriptor", "u8", 2**64 - 1),
        column(target, "target", "u8", 2**64 - 1),
        column(stack_selector, "stack_selector", "u2", 0xFFFF),
        column(stack, "stack", "u8", 2**64 - 1),
        column(mode, "mode", "u1", max(Mode), Mode),
    ]
    if out is None and not any(c.ndim for c in columns):
        vector, error, after, effects = batch.check_one(*(int(c) for c in columns))
        return Verdict(vector, error, after, Effect(effects))
    return together(columns, out, batch.check)


def check_instruction(
    instruction: Instruction | str | Integers,
    cpl: Integers,
    *,
    iopl: Integers = 0,
    cr4: Integers = 0,
    mode: Mode | str | Integers = Mode.PROTECTED,
    vm: Integers = False,
    vip: Integers = False,
    out: npt.NDArray[np.void] | None = None,
) -> Any:
    """Judge whether instructions may be executed at a privilege.

    Parameters
    ----------
    instruction : Instruction, str or array_like of int
        Which one.
    cpl, iopl : int or array_like of int
        Current privilege level, and the I/O privilege level of EFLAGS, 0 to 3.
    cr4 : int or array_like of int
        CR4: of its bits VME (0), PVI (1), TSD (2), PCE (8), UMIP (11), VMXE (13) and OSXSAVE (18)
        count.
    mode : Mode, str or array_like of int, default "protected"
        The mode.
    vm : bool or array_like of bool, default False
        In virtual-8086 mode, whose CPL is 3 and whose mode is protected.
    vip : bool or array_like of bool, default False
        A virtual interrupt is pending (EFLAGS.VIP).
    out : ndarray of the result's dtype, optional
        Where to put the verdicts; C-contiguous.

    Returns
    -------
    Verdict or ndarray
        As of `check`. IN, OUT, INS and OUTS that IOPL does not admit are allowed with
        ``Effect.BY_BITMAP``.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        As of `check`; also virtual-8086 mode with another CPL or mode.

    Notes
    -----
    Intel SDM vol. 3, 5.9; vol. 2 for each instruction; vol. 3, chapter 20 (virtual-8086 mode).
    Other conditions of an instruction, on its operands and on what CPUID reports, are not judged.
    With CR4.VME the redirection bitmap decides about INT in virtual-8086 mode; this says "allowed".

    Examples
    --------
    >>> from pyvirt.x86.protection import check_instruction
    >>> check_instruction("sgdt", 3).allowed, check_instruction("sgdt", 3, cr4=1 << 11).vector
    (True, 13)
    """
    columns = [
        column(instruction, "instruction", "u1", max(Instruction), Instruction),
        column(cpl, "cpl", "u1", 3),
        column(iopl, "iopl", "u1", 3),
        column(cr4, "cr4", "u4", 0xFFFFFFFF),
        column(mode, "mode", "u1", max(Mode), Mode),
        column(vm, "vm", "u1", 1),
        column(vip, "vip", "u1", 1),
    ]
    found = together(columns, out, batch.check_instruction)
    return verdict(found) if out is None and not found.ndim else found


def ports_permitted(
    port: Integers,
    size: int,
    tss: bytes,
    *,
    cpl: int,
    iopl: int = 0,
    vm: bool = False,
) -> Any:
    """Whether accesses to I/O ports are permitted; if not, the exception is #GP(0).

    Parameters
    ----------
    port : int or array_like of int
        The first port of each access, 0 to 65535.
    size : {1, 2, 4}
        Bytes of each access.
    tss : bytes
        The 32- or 64-bit TSS, from its first byte to its limit; the bitmap's place is in it.
    cpl, iopl : int
        0 to 3.
    vm : bool, default False
        In virtual-8086 mode, where the bitmap decides whatever IOPL is.

    Returns
    -------
    bool or ndarray of bool
        In the shape of `port`.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        Arguments of another type, or out of range.

    Notes
    -----
    Intel SDM vol. 1, 18.5.2: a bit of 0 permits a byte; two bytes of the bitmap are read for each
    access, and both must lie inside the limit.
    """
    ports = column(port, "port", "u2", 0xFFFF)
    if within(size, "size", 4) not in (1, 2, 4):
        raise InvalidValueError(f"size must be 1, 2 or 4, got {size}")
    if not isinstance(tss, (bytes, bytearray, memoryview)):
        raise InvalidTypeError(f"tss must be bytes, not {tss!r:.80}")
    result = np.empty(ports.shape, np.uint8)
    batch.ports_permitted(
        within(cpl, "cpl", 3),
        within(iopl, "iopl", 3),
        bool(vm),
        np.frombuffer(tss, np.uint8),
        np.ascontiguousarray(ports).reshape(-1),
        size,
        result.reshape(-1),
    )
    return result.view(np.bool_) if ports.ndim else bool(result)


def flags_mask(instruction: str, cpl: int, iopl: int, size: int = 4) -> int:
    """Give the bits of EFLAGS that POPF or IRET takes from the stack; the others stay, silently.

    Parameters
    ----------
    instruction : {"popf", "iret"}
        Which one.
    cpl, iopl : int
        0 to 3, before the instruction.
    size : {2, 4, 8}, default 4
        Bytes of the operand.

    Returns
    -------
    int
        A mask. VM, which IRET of protected mode takes at privilege 0, is not in it.

    Raises
    ------
    InvalidValueError
        Another instruction, or a number out of range.

    Notes
    -----
    Intel SDM vol. 2, POPF and IRET. POPF of 4 and 8 bytes clears RF.

    Examples
    --------
    >>> from pyvirt.x86.protection import flags_mask
    >>> bool(flags_mask("popf", 0, 0) & 0x200), bool(flags_mask("popf", 1, 0) & 0x200)
    (True, False)
    """
    if instruction not in ("popf", "iret"):
        raise InvalidValueError(f"instruction must be 'popf' or 'iret', got {instruction!r}")
    if within(size, "size", 8) not in (2, 4, 8):
        raise InvalidValueError(f"size must be 2, 4 or 8, got {size}")
    return batch.flags_mask(
        instruction == "iret", within(cpl, "cpl", 3), within(iopl, "iopl", 3), size
    )


def arpl(selector: SupportsIndex, asker: SupportsIndex) -> tuple[int, bool]:
    """Raise the RPL of a selector to that of another, as ARPL does.

    Parameters
    ----------
    selector, asker : int or Selector
        What is passed on, and who asks (its RPL counts).

    Returns
    -------
    tuple of int and bool
        The selector afterwards; ZF, whether it was changed.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        No integer of 16 bits.

    Notes
    -----
    Intel SDM vol. 3, 5.10.4; 64-bit mode has no ARPL.

    Examples
    --------
    >>> from pyvirt.x86.protection import arpl
    >>> arpl(0x10, 0x1B)
    (19, True)
    """
    return batch.raise_rpl(within(selector, "selector", 0xFFFF), within(asker, "asker", 0xFFFF))
