"""A8: which cached translations each operation drops, cell by cell.

The MMU is filled by real accesses from several VPIDs, PCIDs and EPT pointers, one operation
runs, and what is gone and what is left is compared with the table below. The table says what
the operations are required to drop and nothing more; a processor may drop more, which the
``conservative`` precision does. Sources: Intel SDM vol. 3, 5.10.4 (linear mappings) and 30.4
(guest-physical and combined mappings, VMX operations); AMD APM vol. 2, 15.16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyvirt._core.builder import PageTables
from pyvirt.mmu.geometry import Cache, Geometry, TlbArray, WalkCache
from pyvirt.mmu.memory import PhysicalMemory
from pyvirt.mmu.mmu import MMU
from pyvirt.traces.events import EVENT_DTYPE, Op
from pyvirt.validation.registry import Context, Outcome, experiment
from pyvirt.validation.tally import Tally

__all__ = ["OPERATIONS", "Bench", "Cell", "Operation", "cells", "invalidation"]

MIB, GIB = 1 << 20, 1 << 30
REGION = 512 * GIB

CR0, CR0_PG = 0x8001_0033, 1 << 31
CR4, PGE, PAE, PCIDE, SMEP = 0xB0, 1 << 7, 1 << 5, 1 << 17, 1 << 20
KEEP = 1 << 63
"""Bit 63 of a value for CR3: invalidate nothing."""

OWN_VPID, OTHER_VPID = 1, 2
OWN_PCID, OTHER_PCID = 1, 2

#: The pages, each in a region of its own at every level: the one operated on and another one,
#: not global and global. Guest-physical addresses are the same numbers.
PAGE, AWAY, GLOBAL, GLOBAL_AWAY = (i * REGION + 0x1234_5000 for i in (1, 2, 3, 4))

# ------------------------------------------------------------------------------- the table

#: What the letters of a row stand for. "Pages" are TLB entries, "tables" are entries of
#: paging-structure caches; each differs in one thing from the vCPU that operates.
COLUMNS: tuple[tuple[str, str], ...] = (
    ("page", "same"),
    ("page", "other address"),
    ("page", "other PCID"),
    ("page", "other VPID"),
    ("page", "other EP4TA"),
    ("global page", "same"),
    ("global page", "other address"),
    ("global page", "other VPID"),
    ("global page", "other EP4TA"),
    ("table", "same"),
    ("table", "other address"),
    ("table", "other PCID"),
    ("table", "other VPID"),
    ("table", "other EP4TA"),
)
#: The same for guest-physical mappings.
PHYSICAL: tuple[tuple[str, str], ...] = (
    ("page", "same"),
    ("page", "other address"),
    ("page", "other EP4TA"),
    ("table", "same"),
    ("table", "other address"),
    ("table", "other EP4TA"),
)


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the table.

    Attributes
    ----------
    name : str
        What is executed.
    row : str
        For each of `COLUMNS`: ``x`` dropped, ``.`` left, ``-`` cannot be there. Linear mappings
        have the same row without the EP4TA columns, unless `linear` says otherwise.
    physical : str
        For each of `PHYSICAL`.
    run : callable
        Executes it, given the `Bench` and the address operated on.
    amd : bool
        Of AMD's: runs with NPT, and VPID stands for ASID.
    vpid : int
        Of the vCPU that operates.
    cr4 : int
        Before the operation.
    linear : bool
        Whether linear mappings follow the row; False: they all stay.
    """

    name: str
    row: str
    run: Callable[[Bench, int], object]
    physical: str = "... ..."
    amd: bool = False
    vpid: int = OWN_VPID
    cr4: int = CR4 | PCIDE
    linear: bool = True


def _store(bench: Bench, va: int) -> None:
    bench.mmu.translate_one(va, "w", False)


def _fetch(bench: Bench, va: int) -> None:
    bench.mmu.translate_one(va, "x", False)


def _cr4(flip: int) -> Callable[[Bench, int], object]:
    return lambda bench, va: bench.mmu.mov_cr4(bench.cr4 ^ flip)


def _cr3(pcid: int, keep: int = 0) -> Callable[[Bench, int], object]:
    return lambda bench, va: bench.mmu.mov_cr3(bench.root | pcid | keep)


def _invpcid(kind: int, pcid: int = OWN_PCID) -> Callable[[Bench, int], object]:
    return lambda bench, va: bench.mmu.invpcid(kind, pcid, va)


def _invvpid(kind: int, vpid: int = OWN_VPID) -> Callable[[Bench, int], object]:
    return lambda bench, va: bench.mmu.invvpid(kind, vpid, va)


def _invept(kind: int) -> Callable[[Bench, int], object]:
    return lambda bench, va: bench.mmu.invept(kind, bench.nested_roots[0])


def _control(n: int) -> Callable[[Bench, int], object]:
    return lambda bench, va: bench.mmu.tlb_control(n)


NOTHING, EVERYTHING = "..... .... .....", "xxxxx xxxx xxxxx"
OWN_CONTEXT = "xx..x .... xx..x"
OWN_VPID_ALL = "xxx.x xx.x xxx.x"
OWN_VPID_KEEPING = "xxx.x .... xxx.x"
USED = "x.... x... x...."

OPERATIONS = (
    Operation("INVLPG", "x...x x..x xx..x", lambda b, va: b.mmu.invlpg(va)),
    Operation("MOV CR3, PCIDE=0", "xx-.x .... xx-.x", _cr3(0), cr4=CR4),
    Operation("MOV CR3, bit 63 = 0", OWN_CONTEXT, _cr3(OWN_PCID)),
    Operation("MOV CR3, bit 63 = 0, other PCID", "..x.. .... ..x..", _cr3(OTHER_PCID)),
    Operation("MOV CR3, bit 63 = 1", NOTHING, _cr3(OWN_PCID, KEEP)),
    Operation("MOV CR3, bit 63 = 1, other PCID", NOTHING, _cr3(OTHER_PCID, KEEP)),
    Operation("MOV CR4, PGE 1->0", OWN_VPID_ALL, _cr4(PGE)),
    Operation("MOV CR4, PCIDE 1->0", OWN_VPID_ALL, _cr4(PCIDE)),
    Operation("MOV CR4, PCIDE 0->1", "..-.. .... ..-..", _cr4(PCIDE), cr4=CR4),
    Operation("MOV CR4, PAE changes", "xx..x xx.x xx..x", _cr4(PAE)),
    Operation("MOV CR4, SMEP 0->1", "xx..x xx.x xx..x", _cr4(SMEP)),
    Operation("MOV CR4, SMEP 1->0", NOTHING, _cr4(SMEP), cr4=CR4 | PCIDE | SMEP),
    Operation("MOV CR0, PG 1->0", OWN_VPID_ALL, lambda b, va: b.mmu.mov_cr0(CR0 & ~CR0_PG)),
    Operation("MOV CR0, WP 1->0", NOTHING, lambda b, va: b.mmu.mov_cr0(CR0 & ~(1 << 16))),
    Operation("INVPCID 0", "x...x .... x...x", _invpcid(0)),
    Operation("INVPCID 0, other PCID", "..x.. .... ..x..", _invpcid(0, OTHER_PCID)),
    Operation("INVPCID 1", OWN_CONTEXT, _invpcid(1)),
    Operation("INVPCID 1, other PCID", "..x.. .... ..x..", _invpcid(1, OTHER_PCID)),
    Operation("INVPCID 2", OWN_VPID_ALL, _invpcid(2)),
    Operation("INVPCID 3", OWN_VPID_KEEPING, _invpcid(3)),
    Operation("INVVPID 0", "x.x.x x..x x.x.x", _invvpid(0)),
    Operation("INVVPID 0, other VPID", "...x. ..x. ...x.", _invvpid(0, OTHER_VPID)),
    Operation("INVVPID 1", OWN_VPID_ALL, _invvpid(1)),
    Operation("INVVPID 1, other VPID", "...x. ..x. ...x.", _invvpid(1, OTHER_VPID)),
    Operation("INVVPID 2", EVERYTHING, _invvpid(2)),
    Operation("INVVPID 3", OWN_VPID_KEEPING, _invvpid(3)),
    Operation("INVVPID 3, other VPID", "...x. .... ...x.", _invvpid(3, OTHER_VPID)),
    Operation("INVEPT 1", "xxxx. xxx. xxxx.", _invept(1), "xx. xx.", linear=False),
    Operation("INVEPT 2", EVERYTHING, _invept(2), "xxx xxx", linear=False),
    Operation("VM entry, VPID", NOTHING, lambda b, va: b.mmu.vm_entry()),
    Operation("VM exit, VPID", NOTHING, lambda b, va: b.mmu.vm_exit()),
    Operation("VM entry, no VPID", OWN_VPID_ALL, lambda b, va: b.mmu.vm_entry(), vpid=0),
    Operation("VM exit, no VPID", OWN_VPID_ALL, lambda b, va: b.mmu.vm_exit(), vpid=0),
    Operation("INVVPID 2 of VPID 0", "...x. ..x. ...x.", _invvpid(2), vpid=0),
    Operation("page fault", USED, _fetch),
    # The page is writable for the guest and not in the EPT; natively the store succeeds.
    Operation("EPT violation", USED, _store, "x.. x..", linear=False),
    Operation("INVLPGA", "x.x.x x..x x.x.x", lambda b, va: b.mmu.invlpga(va, 1), amd=True),
    Operation(
        "INVLPGA, other ASID", "...x. ..x. ...x.", lambda b, va: b.mmu.invlpga(va, 2), amd=True
    ),
    Operation("TLB_CONTROL 0", NOTHING, _control(0), amd=True),
    Operation("TLB_CONTROL 1", EVERYTHING, _control(1), "xxx xxx", amd=True),
    Operation("TLB_CONTROL 3", OWN_VPID_ALL, _control(3), "xx. xx.", amd=True),
    Operation("TLB_CONTROL 7", OWN_VPID_KEEPING, _control(7), amd=True),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: an operation, a kind of entry, and how the entry differs.

    Attributes
    ----------
    operation : Operation
    kind : {"linear", "combined", "guest-physical"}
    part : {"page", "global page", "table"}
    relation : str
        What the entry's tag has in common with the vCPU that operates.
    dropped : bool
        What the manuals say.
    """

    operation: Operation
    kind: str
    part: str
    relation: str
    dropped: bool

    def __str__(self) -> str:
        return f"{self.operation.name}: {self.kind} {self.part}, {self.relation}"


def cells() -> Iterator[Cell]:
    """Give every cell of the table, the kinds of one operation after each other."""
    for operation in OPERATIONS:
        row = operation.row.replace(" ", "")
        for (part, relation), letter in zip(COLUMNS, row, strict=True):
            if letter == "-":
                continue
            if not operation.amd and relation != "other EP4TA":
                dropped = letter == "x" and operation.linear
                yield Cell(operation, "linear", part, relation, dropped)
            yield Cell(operation, "combined", part, relation, letter == "x")
        row = operation.physical.replace(" ", "")
        for (part, relation), letter in zip(PHYSICAL, row, strict=True):
            yield Cell(operation, "guest-physical", part, relation, letter == "x")


# ------------------------------------------------------------------------------- the bench

#: Roomy enough that nothing is ever driven out.
ROOMY = Geometry(
    "roomy",
    (TlbArray("l1", 1, Cache(64), ("4K",)), TlbArray("l2", 2, Cache(256, 8), ("4K", "2M", "1G"))),
    WalkCache("split", {level: Cache(64) for level in (2, 3, 4)}),
    "host",
    WalkCache("split", {level: Cache(64) for level in (2, 3, 4)}),
    Cache(256),
)


class Bench:
    """An MMU that has entries of every column, and what is in it.

    Parameters
    ----------
    operation : Operation
        What is going to run: it decides the registers.
    nested : bool
        Combined and guest-physical mappings, or linear ones.
    precision : {"exact", "conservative"}
        Of the MMU.
    make : callable, default `MMU`
        What to make it with.
    """

    def __init__(
        self,
        operation: Operation,
        nested: bool,
        precision: str = "exact",
        make: Callable[..., Any] = MMU,
    ) -> None:
        self.nested, self.operation = nested, operation
        self.vpid, self.cr4 = operation.vpid, operation.cr4
        self.pcid = OWN_PCID if self.cr4 & PCIDE else 0
        memory = PhysicalMemory(64 * MIB)
        options: dict[str, Any] = {"mode": "native"}
        self.nested_roots = [0, 0]
        outer = None
        if nested:
            format = "npt" if operation.amd else "ept"
            for i in (0, 1):
                frames = ((8 + 8 * i) * MIB, 8 * MIB)
                host = PageTables(memory, format=format, frames=frames)
                every, read = ("rwxu", "rxu") if operation.amd else ("rwx", "rx")
                host.map_range(MIB, MIB, MIB, rights=every)
                for va in (PAGE, AWAY, GLOBAL, GLOBAL_AWAY):
                    host.map([va], [va], rights=read)
                self.nested_roots[i] = host.root
                outer = outer or host.walker()
            options = {
                "mode": "nested",
                "nested_root": self.nested_roots[0],
                "nested_format": format,
            }
        guest = PageTables(memory, frames=(MIB, MIB), outer=outer)
        for va, attrs in ((PAGE, 0), (AWAY, 0), (GLOBAL, 0x100), (GLOBAL_AWAY, 0x100)):
            guest.map([va], [va], rights="rw", attrs=attrs)
        self.root = guest.root
        self.mmu: Any = make(
            memory=memory,
            cr3=self.root,
            cr0=CR0,
            cr4=self.cr4,
            tlb=ROOMY,
            precision=precision,
            **options,
        )
        self._fill()

    def _become(self, vpid: int, root: int, pcid: int) -> None:
        """Let the vCPU be one of another machine, which drops nothing in either precision."""
        event = np.zeros(1, EVENT_DTYPE)
        event["op"], event["arg"] = Op.VM_SWITCH, vpid
        event["addr"], event["value"] = self.root | pcid, self.nested_roots[root]
        self.mmu.run(event)

    def _read(self, *addresses: int) -> None:
        for va in addresses:
            code = self.mmu.translate_one(va, "r", False).code
            assert not code & 15, hex(code)

    def _fill(self) -> None:
        """Make an entry of every column, those of the vCPU that will operate last."""
        self._become(OTHER_VPID, 0, self.pcid)
        self._read(PAGE, GLOBAL)
        if self.nested:
            self._become(self.vpid, 1, self.pcid)
            self._read(PAGE, GLOBAL)
        if self.pcid:
            self._become(self.vpid, 0, OTHER_PCID)
            self._read(PAGE)
        self._become(self.vpid, 0, self.pcid)
        self._read(PAGE, AWAY, GLOBAL, GLOBAL_AWAY)

    def entries(self, cell: Cell) -> set[tuple[Any, ...]]:
        """Give what the MMU holds of a cell."""
        found = self.mmu.entries()
        structure = np.char.array(found["structure"])
        far = cell.relation == "other EP4TA"
        ep4ta = self.nested_roots[far]
        address = {
            ("page", False): PAGE,
            ("page", True): AWAY,
            ("global page", False): GLOBAL,
            ("global page", True): GLOBAL_AWAY,
            ("table", False): PAGE,
            ("table", True): AWAY,
        }[cell.part, cell.relation == "other address"]
        physical = cell.kind == "guest-physical"
        prefix = "host" if physical else "guest"
        if cell.part == "table":
            right = structure.startswith(prefix)
            shift = 12 + 9 * (found["size"].astype(np.uint64) - np.uint64(1))
        else:
            names = ["nested-tlb"] if physical else [array.name for array in ROOMY.tlbs]
            right = np.isin(found["structure"], names)
            shift = 12 + 9 * found["size"].astype(np.uint64)
        right = right & (found["page"] == np.uint64(address) >> shift)
        if self.nested:
            right = right & (found["ep4ta"] == ep4ta)
        if not physical:
            vpid = OTHER_VPID if cell.relation == "other VPID" else self.vpid
            pcid = OTHER_PCID if cell.relation == "other PCID" else self.pcid
            is_global = cell.part == "global page"
            right = right & (found["vpid"] == vpid) & (found["global"] == is_global)
            if not is_global:
                right = right & (found["pcid"] == pcid)
        return {tuple(row) for row in found[right].tolist()}


def target(cell: Cell) -> int:
    """Give the address to operate on: a global page where the column is about these."""
    return GLOBAL if cell.part == "global page" else PAGE


def examine(
    some: list[Cell], precision: str = "exact", make: Callable[..., Any] = MMU
) -> list[tuple[Cell, bool]]:
    """Run the operation of some cells that share bench and address; tell which are dropped.

    Raises
    ------
    ValueError
        If a cell had no entry before, or only a part of its entries was dropped.
    """
    first = some[0]
    bench = Bench(first.operation, first.kind != "linear", precision, make)
    before = [bench.entries(cell) for cell in some]
    first.operation.run(bench, target(first))
    result = []
    for cell, held in zip(some, before, strict=True):
        left = bench.entries(cell)
        if not held:
            raise ValueError(f"{cell}: no entry to begin with")
        if left and left != held:
            raise ValueError(f"{cell}: {len(held)} entries became {len(left)}")
        result.append((cell, not left))
    return result


def groups() -> Iterator[list[Cell]]:
    """Give the cells in groups that one run of the operation answers."""
    grouped: dict[tuple[str, bool, int], list[Cell]] = {}
    for cell in cells():
        key = (cell.operation.name, cell.kind == "linear", target(cell))
        grouped.setdefault(key, []).append(cell)
    yield from grouped.values()


@experiment("A8", "what each operation invalidates")
def invalidation(context: Context) -> Outcome:
    """Run every operation on a filled MMU, in both precisions, and look what is left."""
    tally = Tally()
    lost = 0
    for some in groups():
        context.report(some[0].operation.name)
        for cell, dropped in examine(some):
            verb = "dropped" if dropped else "left"
            tally.check(dropped == cell.dropped, f"{cell}: {verb}")
            tally.figure("cells dropped", cell.dropped, dropped)
            tally.figure("left", not cell.dropped, not dropped)
        for cell, dropped in examine(some, "conservative"):
            kept = cell.dropped and not dropped
            lost += kept
            tally.check(not kept, f"{cell}: left in conservative precision")
    tally.figure("left in conservative precision that must be dropped", 0, lost)
    return tally.outcome("A8")
