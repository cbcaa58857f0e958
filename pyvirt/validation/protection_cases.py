"""The protection matrix: 4,816 operations, and what an emulator said of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from pyvirt.x86.descriptors import Descriptor, Gate, SystemType

__all__ = ["DESCRIPTORS", "Case", "answer_text", "cases", "differs_by_manual", "stored"]


def _system(kind: SystemType) -> int:
    return Descriptor(kind, 3, s=False, base=0x8000, limit=0xFFF, db=False, g=False).pack()


def _each(type: int) -> list[int]:
    """Give flat segments of one kind, one for each DPL."""
    return [Descriptor(type, dpl).pack() for dpl in range(4)]


#: Entries 0 to 29 of the GDT.
DESCRIPTORS: list[int] = [
    0,
    *_each(0b1010),  # 1: code
    *_each(0b0010),  # 5: data
    *_each(0b1110),  # 9: conforming code
    *_each(0b1000),  # 13: code that may not be read
    *_each(0b0000),  # 17: data that may not be written
    *_each(0b1100),  # 21: conforming code that may not be read
    Descriptor.code(3, present=False).pack(),
    Descriptor.data(3, present=False).pack(),
    _system(SystemType.TSS32),
    _system(SystemType.LDT),
    Gate(SystemType.CALL32, 1 << 3, 3, offset=0x3000).pack(),
]
CODE, DATA, CONFORMING, TSS, GATE = 1, 5, 9, 27, 29
#: The gate of each case with a gate has a place of its own.
GATE_UNDER_TEST = 48
ENTRY = 0x3000


class Case(NamedTuple):
    """One operation; the fields are arguments of `pyvirt.x86.protection.check`."""

    operation: str
    cpl: int
    selector: int
    descriptor: int
    target: int = 0
    stack_selector: int = 0
    stack: int = 0


#: The rows of the matrix: what is done, and to which entries.
PLAIN = {
    "load": range(30),
    "load_ss": range(30),
    "jmp": [i for i in range(30) if i not in (TSS, GATE)],
    "retf": range(1, 30),
    "lar": range(30),
    "lsl": range(30),
    "verr": range(30),
    "verw": range(30),
}
GATES = ("call gate", "jmp gate")


def _row(name: str, cpl: int) -> Iterator[Case]:
    if name in PLAIN:
        for entry, rpl in itertools.product(PLAIN[name], range(4)):
            stack = (DATA + rpl << 3 | rpl, DESCRIPTORS[DATA + rpl]) if name == "retf" else (0, 0)
            yield Case(name, cpl, entry << 3 | rpl, DESCRIPTORS[entry], 0, *stack)
        return
    for dpl, rpl, first, inner in itertools.product(
        range(4), range(4), (CODE, CONFORMING), range(4)
    ):
        gate = Gate(SystemType.CALL32, first + inner << 3, dpl, offset=ENTRY)
        yield Case(
            name.split()[0],
            cpl,
            GATE_UNDER_TEST << 3 | rpl,
            gate.pack(),
            DESCRIPTORS[first + inner],
            DATA + inner << 3 | inner,
            DESCRIPTORS[DATA + inner],
        )


@cache
def cases() -> dict[tuple[str, int], list[Case]]:
    """Give all cases by what is done and at which privilege, in the order of the stored answers."""
    return {(name, cpl): list(_row(name, cpl)) for name in (*PLAIN, *GATES) for cpl in range(4)}


def answer_text(vector: int, cpl: int, zf: bool | None = None) -> str:
    """Write one answer as one letter: t n s g for #TS #NP #SS #GP, + or - for ZF, else the CPL."""
    if vector >= 0:
        return {6: "u", 8: "d", 10: "t", 11: "n", 12: "s", 13: "g", 14: "p"}.get(vector, "?")
    return str(cpl) if zf is None else "-+"[zf]


def differs_by_manual(case: Case) -> bool:
    """Whether the emulator is known to err: CALL through a gate to conforming code further in.

    It lowers the CPL to the DPL of that code; the manual keeps it (SDM vol. 3, 5.8.4, 5.8.5).
    """
    if case.operation != "call" or not case.target:
        return False
    target = Descriptor.unpack(case.target)
    gate = Gate.unpack(case.descriptor)
    open_to = max(case.cpl, case.selector & 3) <= gate.dpl
    return open_to and target.conforming and target.dpl < case.cpl


@cache
def stored() -> dict[tuple[str, int], str]:
    """Give what unicorn 2.1.4 answered, one letter for each case of `cases`."""
    text = files("pyvirt.validation").joinpath("protection_answers.csv").read_text("ascii")
    lines = [line.split(",") for line in text.splitlines()[1:]]
    return {(name, int(cpl)): answers for name, cpl, answers in lines}
