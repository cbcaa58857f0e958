"""Event programs (programs/README.md): their files, and the interpreter that runs them."""

from __future__ import annotations

import csv
import lzma
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from oracle.slowshadow.guestwalk import GuestFault
from oracle.slowshadow.machine import MMU, STACK_TOP, Guest, build_mmu, write_identity_map
from oracle.slowshadow.memory import DATA, TABLES, A, D, Memory
from oracle.slowshadow.rules import KVM, Rules

OPCODES = ("END", "READ", "WRITE", "AND", "OR", "EXEC", "INVLPG", "CR3", "CR0", "CR4", "BEGIN")
LIST = 0x400000
"""Where the operations lie, 16 bytes each."""
REFUSED = 0xFA << 56
RET = 0xC3


class Op(NamedTuple):
    op: str
    address: int
    value: int


@dataclass(frozen=True)
class Program:
    """One row of programs.csv, with its operations and its initial tables."""

    name: str
    ops: tuple[Op, ...]
    init: dict[int, int]
    huge_backing: bool = False
    mmu_page_limit: int = 327
    spaces: int = 1
    begin: int = 0
    list_pages: int = 1


@dataclass(frozen=True)
class Replay:
    """What a run of a program gives: one row of counts.csv, and its rows of results.csv."""

    counts: dict[str, int]
    results: dict[int, int]
    hashes: dict[str, int]


def read_rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV file, compressed or not."""
    with lzma.open(path, "rt") if path.suffix == ".xz" else path.open() as lines:
        yield from csv.DictReader(lines)


def load_programs(folder: Path) -> dict[str, Program]:
    """All programs of a folder with programs.csv, ops.csv.xz and init.csv.xz."""
    ops: dict[str, list[Op]] = {}
    for row in read_rows(folder / "ops.csv.xz"):
        op = Op(row["op"], int(row["address"], 16), int(row["value"], 16))
        ops.setdefault(row["program"], []).append(op)
    init: dict[str, dict[int, int]] = {}
    for row in read_rows(folder / "init.csv.xz"):
        init.setdefault(row["program"], {})[int(row["gpa"], 16)] = int(row["value"], 16)
    return {
        row["program"]: Program(
            name=row["program"],
            ops=tuple(ops[row["program"]]),
            init=init[row["program"]],
            huge_backing=row["huge_backing"] == "1",
            mmu_page_limit=int(row["mmu_page_limit"]),
            spaces=int(row["spaces"]),
            begin=int(row["begin"]),
            list_pages=int(row["list_pages"]),
        )
        for row in read_rows(folder / "programs.csv")
    }


def save_programs(folder: Path, programs: Iterable[Program]) -> None:
    """Write programs in the data's own files and columns."""
    header = "program,huge_backing,mmu_page_limit,spaces,ops,begin,list_pages"
    listed, ops, init = [header], ["program,i,op,address,value"], ["program,gpa,value"]
    for p in programs:
        numbers = (p.huge_backing, p.mmu_page_limit, p.spaces, len(p.ops), p.begin, p.list_pages)
        listed.append(",".join([p.name, *(str(int(n)) for n in numbers)]))
        for i, op in enumerate(p.ops):
            ops.append(f"{p.name},{i},{op.op},{op.address:x},{op.value:x}")
        init += [f"{p.name},{gpa:x},{value:x}" for gpa, value in sorted(p.init.items())]
    (folder / "programs.csv").write_text("\n".join(listed) + "\n")
    for name, lines in (("ops", ops), ("init", init)):
        with lzma.open(folder / f"{name}.csv.xz", "wt") as out:
            out.write("\n".join(lines) + "\n")


def initial_memory(program: Program) -> Memory:
    """programs: "0x800000-0xffffff: data; each 4K frame has its own gpa in its first u64, and
    0xc3 (RET) in byte 0xff8 (u64 0xc3)".
    """
    unknown = {op.op for op in program.ops} - set(OPCODES)
    if unknown:
        raise ValueError(f"operations {sorted(unknown)}: only {OPCODES}")
    memory = Memory()
    write_identity_map(memory)
    for gpa, value in program.init.items():
        memory.write(gpa, value)
    for i, op in enumerate(program.ops):
        opcode = OPCODES.index(op.op)
        memory.write(LIST + 16 * i, opcode << 56 | op.address & (1 << 56) - 1)
        memory.write(LIST + 16 * i + 8, op.value)
    for gpa in range(DATA.start, DATA.stop, 0x1000):
        memory.write(gpa, gpa)
        memory.write(gpa + 0xFF8, RET)
    return memory


def replay(program: Program, mode: str, rules: Rules = KVM) -> Replay:
    """Run a program in one of three modes."""
    mmu = build_mmu(
        mode,
        initial_memory(program),
        huge_backing=program.huge_backing,
        page_limit=program.mmu_page_limit,
        rules=rules,
    )
    return replay_on(program, mmu)


def replay_on(program: Program, mmu: MMU, before: Callable[[int], None] | None = None) -> Replay:
    """Run a program on its initial memory; "Counts cover from BEGIN (excluded) to END".

    ``before`` is called with the number of each operation before it runs.
    """
    memory, guest = mmu.memory, Guest(mmu)
    start, faults = dict(mmu.counters), 0
    results: dict[int, int] = {}
    for i, op in enumerate(program.ops):
        if before is not None:
            before(i)
        guest.load(LIST + 16 * i)
        guest.load(LIST + 16 * i + 8)
        if op.op == "BEGIN":
            start, faults = dict(mmu.counters), 0
        elif op.op == "END":
            break
        else:
            refused = _execute(guest, op, LIST + 16 * i + 8)
            faults += refused
            if refused or op.op == "READ":
                results[i] = memory.read(LIST + 16 * i + 8)
    counts = mmu.counters.since(start)
    counts["guest_faults"] = faults
    hashes = {
        "hash_tables": memory.hash(TABLES, cleared=A | D),
        "hash_tables_ad": memory.hash(TABLES),
        "hash_data": memory.hash(DATA),
    }
    return Replay(counts, results, hashes)


def _execute(guest: Guest, op: Op, result: int) -> bool:
    """Run one operation; True if the guest's tables refused it.

    programs: the handler "pops the error code, stores `0xfa<<56 | code` to 0x400000+16i+8, and
    goes on with operation i+1: the rest of the operation is skipped".
    """
    rsp = STACK_TOP
    try:
        match op.op:
            case "READ":
                guest.store(result, guest.load(op.address))
            case "WRITE":
                guest.store(op.address, op.value)
            case "AND":
                guest.store(op.address, guest.load(op.address) & op.value)
            case "OR":
                guest.store(op.address, guest.load(op.address) | op.value)
            case "EXEC":
                rsp -= 8
                guest.call(op.address)
            case "INVLPG":
                guest.invlpg(op.address)
            case "CR3":
                guest.mov_cr3(op.value)
            case "CR0":
                guest.mov_cr0(op.value)
            case "CR4":
                guest.mov_cr4(op.value)
    except GuestFault as fault:
        rsp = guest.deliver(fault, rsp)
        code = guest.load(rsp)
        guest.store(result, REFUSED | code)
        return True
    return False
