"""The interpreter of the event programs (``programs/``), as a stream of events.

The operations are the data; what the interpreter does for each is told by the README beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pyvirt.errors import ImageFormatError
from pyvirt.traces.events import EVENT_DTYPE, Arg, Events, Op
from pyvirt.validation.guests import (
    STACK,
    START_PORT,
    STOP_PORT,
    Number,
    Step,
    delivery,
    identity_map,
    in_handler,
    instruction,
    repeat,
)

__all__ = ["DATA", "LIST", "OPCODES", "data_frames", "program_events", "program_words"]

U64 = npt.NDArray[np.uint64]
LIST = 0x400000
DATA = (0x800000, 0x1000000)
RETURN_ADDRESS = STACK - 8
HANDLER = 0x10080
#: Of the list in the guest's memory.
OPCODES = {
    "END": 0,
    "READ": 1,
    "WRITE": 2,
    "AND": 3,
    "OR": 4,
    "EXEC": 5,
    "INVLPG": 6,
    "CR3": 7,
    "CR0": 8,
    "CR4": 9,
    "BEGIN": 10,
}
MARK = 0xFA << 56


@dataclass(frozen=True, slots=True)
class _Operation:
    """The operands of operations of one kind, one element each."""

    at: U64
    address: U64
    value: U64


def _part(*accesses: Step, at: Number = 0x10000) -> list[Step]:
    """An instruction that is not the first of its operation."""
    return instruction(*accesses, at=at, arg=Arg.CONTINUES)


def _dispatch(o: _Operation) -> list[Step]:
    """Load both words of the operation."""
    second = _part(Step(Op.LOAD, o.at + np.uint64(8)))
    return [*instruction(Step(Op.LOAD, o.at)), *second]


def _fault(o: _Operation, lower: int = 0) -> list[Step]:
    """Delivery, and the handler: the error code goes to the list in place of the value."""
    stack = STACK - lower
    handler = instruction(Step(Op.LOAD, stack - 48, arg=Arg.KEEP), at=HANDLER)
    handler += instruction(Step(Op.STORE, o.at + np.uint64(8), MARK, int(Arg.ERROR)), at=HANDLER)
    return [*delivery(stack), *in_handler(handler)]


def _read(o: _Operation) -> list[Step]:
    keep = Step(Op.STORE, o.at + np.uint64(8), arg=int(Arg.LOADED))
    return [*_part(Step(Op.LOAD, o.address)), *_part(keep), *_fault(o)]


def _write(o: _Operation) -> list[Step]:
    return [*_part(Step(Op.STORE, o.address, o.value, int(Arg.GIVEN))), *_fault(o)]


def _and(o: _Operation) -> list[Step]:
    change = _part(Step(Op.STORE, o.address, o.value, int(Arg.AND)))
    return [*_part(Step(Op.LOAD, o.address)), *change, *_fault(o)]


def _or(o: _Operation) -> list[Step]:
    change = _part(Step(Op.STORE, o.address, o.value, int(Arg.OR)))
    return [*_part(Step(Op.LOAD, o.address)), *change, *_fault(o)]


def _exec(o: _Operation) -> list[Step]:
    call = _part(Step(Op.STORE, RETURN_ADDRESS))
    ret = _part(Step(Op.LOAD, RETURN_ADDRESS), at=o.address)
    return [*call, *ret, *_fault(o, 16)]


def _plain(op: Op, value: bool) -> object:
    def steps(o: _Operation) -> list[Step]:
        return _part(Step(op, 0, o.value) if value else Step(op, o.address))

    return steps


def _port(port: int) -> object:
    def steps(o: _Operation) -> list[Step]:
        return _part(Step(Op.IO, 0, port))

    return steps


_STEPS = {
    "END": _port(STOP_PORT),
    "BEGIN": _port(START_PORT),
    "READ": _read,
    "WRITE": _write,
    "AND": _and,
    "OR": _or,
    "EXEC": _exec,
    "INVLPG": _plain(Op.INVLPG, False),
    "CR3": _plain(Op.MOV_CR3, True),
    "CR0": _plain(Op.MOV_CR0, True),
    "CR4": _plain(Op.MOV_CR4, True),
}


def program_events(
    ops: Sequence[str], address: U64, value: U64
) -> tuple[Events, npt.NDArray[np.int64]]:
    """Make the events of a program.

    Parameters
    ----------
    ops : sequence of str
        Names of the operations.
    address, value : ndarray of uint64
        Their operands.

    Returns
    -------
    events : ndarray of EVENT_DTYPE
        All of it.
    start : ndarray of int64
        Where the events of each operation begin.
    """
    names = np.asarray(ops)
    unknown = set(names.tolist()) - _STEPS.keys()
    if unknown:
        raise ImageFormatError(f"no operation of the programs is called {min(unknown)!r}")
    at = np.uint64(LIST) + np.arange(len(names), dtype=np.uint64) * np.uint64(16)
    chosen, blocks = {}, {}
    length = np.zeros(len(names), np.int64)
    for name in sorted(set(names.tolist())):
        where = np.flatnonzero(names == name)
        o = _Operation(at[where], address[where], value[where])
        steps = [*_dispatch(o), *_STEPS[name](o)]  # type: ignore[operator]
        chosen[name] = where
        blocks[name] = _block(len(where), steps)
        length[where] = len(steps)
    start = np.cumsum(length) - length
    events = np.zeros(int(length.sum()), EVENT_DTYPE)
    for name, where in chosen.items():
        events[start[where][:, None] + np.arange(blocks[name].shape[1])] = blocks[name]
    return events, start


def _block(count: int, steps: Sequence[Step]) -> Events:
    return repeat(count, steps).reshape(count, len(steps))


def program_words(ops: Sequence[str], address: U64, value: U64) -> dict[int, U64]:
    """Make the initial memory that all programs share, and the list of one.

    Parameters
    ----------
    ops, address, value
        As in `program_events`.

    Returns
    -------
    dict of int to ndarray of uint64
        Words by physical address: the identity map and the list.
    """
    words = identity_map()
    codes = np.array([OPCODES[name] for name in ops], np.uint64)
    listed = np.empty((len(codes), 2), np.uint64)
    listed[:, 0] = codes << np.uint64(56) | address & np.uint64((1 << 56) - 1)
    listed[:, 1] = value
    words[LIST] = listed.reshape(-1)
    return words


def data_frames() -> U64:
    """Make the data: each frame has its own address in front, and a RET at 0xff8."""
    start, end = DATA
    words = np.zeros((end - start) // 8, np.uint64).reshape(-1, 512)
    words[:, 0] = np.arange(start, end, 4096, dtype=np.uint64)
    words[:, 511] = 0xC3
    return words.reshape(-1)
