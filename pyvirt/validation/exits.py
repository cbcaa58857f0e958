"""A9, A9b: exits of guests that KVM ran, from the same guests under our hypervisor."""

from __future__ import annotations

import csv
import gzip
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt._core.digest import hash_words
from pyvirt.errors import ImageFormatError, PyvirtError
from pyvirt.mmu.memory import PhysicalMemory
from pyvirt.mmu.shadow import Hypervisor, ShadowRules
from pyvirt.traces.events import Events
from pyvirt.validation.datasets import Table, nothing
from pyvirt.validation.guests import RAM, TABLES, WORKLOADS, Guest, Workload, exit_guest
from pyvirt.validation.programs import (
    DATA,
    LIST,
    data_frames,
    program_events,
    program_words,
)
from pyvirt.validation.registry import Context, Outcome, experiment
from pyvirt.validation.tally import Tally

__all__ = ["event_programs", "exit_counts", "find_programs", "find_workloads"]

U64 = npt.NDArray[np.uint64]

#: What the data call our kinds of tables.
TABLES_OF = {"npt_tdp_mmu": "tdp", "npt_legacy_mmu": "legacy", "shadow": "shadow"}
EXITS = ("x_pf", "x_npf", "x_invlpg", "x_cr3_write")
#: Columns that have a counter of their name. What depends on L1's timer, and `insn_emulation`,
#: which counts how a hypervisor decodes, are not compared.
COUNTED = (
    *EXITS,
    *("x_cr0", "x_cr4", "x_io", "x_other", "invlpg", "guest_faults"),
    *("pf_taken", "pf_fixed", "pf_guest", "pf_emulate", "pf_spurious"),
    *("pages_4k", "pages_2m", "mmu_cache_miss", "mmu_unsync"),
    *("mmu_shadow_zapped", "mmu_pte_write", "mmu_pde_zapped", "mmu_flooded", "mmu_recycled"),
    *("tlb_flush", "remote_tlb_flush_requests"),
)
#: Not looked at in the modes with nested tables, of which only shadow mode has the rules.
SHADOW_ONLY = {"tlb_flush", "remote_tlb_flush_requests"}
HASHES = {
    "hash_tables": (0x100000, 0x200000, (1 << 64) - 1 & ~0x60),
    "hash_tables_ad": (0x100000, 0x200000, (1 << 64) - 1),
    "hash_data": (*DATA, (1 << 64) - 1),
}
PARAMETERS = ("workload", "N", "R", "K", "W", "warm", "huge_backing", "cow")
SUFFIXES = (".csv", ".csv.xz", ".csv.gz")


def _csv_files(context: Context) -> list[Path]:
    if context.data is None:
        return []
    return sorted(
        path
        for path in (context.data / "guest-images").rglob("*.csv*")
        if path.name.endswith(SUFFIXES)
    )


def _header(path: Path) -> list[str]:
    openers: dict[str, Any] = {".xz": lzma.open, ".gz": gzip.open}
    try:
        with openers.get(path.suffix, open)(path, "rt", newline="") as stream:
            return next(csv.reader(stream), [])
    except (ValueError, EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise ImageFormatError(f"{path.name}: {error}") from None


def find_workloads(context: Context) -> list[Path]:
    """Give the files of exit workloads under the data folder: those with their columns."""
    needed = {*PARAMETERS, "mode"}
    return [path for path in _csv_files(context) if needed <= set(_header(path))]


def _memory(words: dict[int, U64], shared: bytes = b"") -> PhysicalMemory:
    """Make a machine's memory; `shared` is the read-only first content of its data."""
    memory = PhysicalMemory(RAM)
    if shared:
        memory.attach(DATA[0], shared)
    for address, content in words.items():
        memory.write(address, content.tobytes())
    return memory


def _deltas(machine: Hypervisor, start: npt.NDArray[Any]) -> dict[str, int]:
    """Give what was counted since `start`."""
    return {name: int(machine.counters[name][0]) - int(start[name][0]) for name in COUNTED}


# --- A9 ---------------------------------------------------------------------------------------


def run_workload(
    guest: Guest, tables: str, huge: bool, rules: ShadowRules | None = None, **options: Any
) -> dict[str, int]:
    """Run one exit workload and give its counts by column.

    Parameters
    ----------
    guest : Guest
        From `exit_guest`.
    tables : {"shadow", "tdp", "legacy"}
        Of the hypervisor.
    huge : bool
        Whether the host keeps the guest's memory in pages of 2 MiB.
    rules : ShadowRules, optional
        Other rules than KVM's.
    **options
        More of `Hypervisor`.

    Returns
    -------
    dict of str to int
        By the names of the data's columns.
    """
    machine = Hypervisor(
        _memory(guest.words),
        tables=tables,  # type: ignore[arg-type]
        rules=rules,
        backing="2M" if huge else "4K",
        cr3=guest.cr3,
        **options,
    )
    machine.run(guest.before)
    start = machine.counters.copy()
    machine.run(guest.counted)
    counts = _deltas(machine, start)
    # the handler is entered once for each page fault of the guest
    counts["guest_pf_handled"] = counts.pop("guest_faults")
    return counts


def _workloads(table: Table) -> Iterator[tuple[Workload, str, npt.NDArray[np.int64]]]:
    """Give each workload and mode with the rows that measured it."""
    columns = [table.text(name) for name in (*PARAMETERS, "mode")]
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, key in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        groups.setdefault(key, []).append(i)
    for (name, *numbers, mode), rows in groups.items():
        n, r, k, w, warm, huge, cow = (int(text or 0) for text in numbers)
        yield (
            Workload(name, n, r, k, w, bool(warm), bool(huge), bool(cow)),
            mode,
            np.array(rows, np.int64),
        )


@experiment("A9", "exit counts of controlled guests under KVM: shadow and both nested MMUs")
def exit_counts(context: Context) -> Outcome:
    """Run the guest's program under each kind of tables; compare what was counted, by column."""
    tally = Tally()
    guest_of = cache(exit_guest)
    for path in find_workloads(context):
        context.report(path.name)
        table = Table(path)
        names = [n for n in (*COUNTED, "guest_pf_handled") if n in set(_header(path))]
        wanted = {name: table.numbers(name, 10, signed=True) for name in names}
        for workload, mode, rows in _workloads(table):
            if workload.workload not in WORKLOADS or mode not in TABLES_OF:
                tally.missing(f"{path.name}: workload {workload.workload} in mode {mode}")
                continue
            where = f"{path.name}: {mode}, {workload}"
            try:
                counts = run_workload(guest_of(workload), TABLES_OF[mode], workload.huge_backing)
            except PyvirtError as error:
                tally.check(np.zeros(len(rows), bool), f"{where}: {error}")
                continue
            _compare(tally, where, rows, wanted, counts)
    return tally.outcome("A9", skip=nothing(context))


def _compare(
    tally: Tally,
    where: str,
    rows: npt.NDArray[np.int64],
    wanted: dict[str, npt.NDArray[np.int64]],
    counts: dict[str, int],
) -> None:
    """Count a case for each row: right if every column is."""
    right = np.ones(len(rows), bool)
    for name, column in wanted.items():
        right &= column[rows] == counts[name]
    for name in EXITS:
        if name in wanted:
            tally.figure(name, wanted[name][rows].sum(), counts[name] * len(rows))

    def describe(i: int) -> str:
        wrong = (
            f"{name} {counts[name]} for {column[rows[i]]}"
            for name, column in wanted.items()
            if column[rows[i]] != counts[name]
        )
        return f"{where}: {', '.join(wrong)}"

    tally.check(right, describe)


# --- A9b --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Program:
    """One event program: the machine at its start, its events, and what the real one did.

    Attributes
    ----------
    name : str
        Of the program.
    huge_backing : bool
        Whether the host keeps the guest's memory in pages of 2 MiB.
    page_limit : int
        Shadow pages that may exist.
    words : dict of int to ndarray of uint64
        Initial content of memory by physical address, but for the data frames.
    before, counted : ndarray of EVENT_DTYPE
        What runs before the count begins, and while it lasts.
    results : dict of str to ndarray of uint64
        For each kind of tables, the second words of the list at the end.
    counts : list of (str, dict of str to str)
        Mode and columns of each row.
    """

    name: str
    huge_backing: bool
    page_limit: int
    words: dict[int, U64]
    before: Events
    counted: Events
    results: dict[str, U64]
    counts: list[tuple[str, dict[str, str]]]


def find_programs(context: Context) -> list[tuple[Path, str]]:
    """Give the sets of programs under the data folder, each as a folder and a prefix of names."""
    found = []
    for path in _csv_files(context):
        stem = path.name[: path.name.index(".csv")]
        if stem.endswith("programs") and {"program", "begin"} <= set(_header(path)):
            found.append((path.parent, stem.removesuffix("programs")))
    return found


def _part(folder: Path, prefix: str, kind: str, tally: Tally) -> Table | None:
    for suffix in SUFFIXES:
        path = folder / f"{prefix}{kind}{suffix}"
        if path.exists():
            return Table(path)
    tally.missing(f"{folder.name} has no {prefix}{kind} table")
    return None


def _rows_by_program(table: Table) -> dict[str, npt.NDArray[np.int64]]:
    names, inverse = np.unique(table.text("program"), return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(inverse))[:-1])
    return dict(zip(names.tolist(), parts, strict=True))


def read_programs(folder: Path, prefix: str, tally: Tally) -> Iterator[Program]:
    """Read a set of programs; note what is missing in the tally."""
    kinds = ("programs", "ops", "init", "counts", "results")
    tables = [_part(folder, prefix, kind, tally) for kind in kinds]
    programs, ops, init, counts, results = tables
    if programs is None or ops is None or init is None or counts is None:
        return
    op_rows, init_rows, count_rows = map(_rows_by_program, (ops, init, counts))
    known = None if results is None else _Results(results)
    names, address, value = ops.text("op"), ops.numbers("address"), ops.numbers("value")
    gpa, word = init.numbers("gpa"), init.numbers("value")
    columns = {name: counts.text(name).tolist() for name in _header(counts.path)}
    facts = zip(
        *(programs.text(key).tolist() for key in ("program", "huge_backing", "mmu_page_limit")),
        strict=True,
    )
    nothing_here = np.zeros(0, np.int64)
    for name, huge, limit in facts:
        rows, first = op_rows.get(name, nothing_here), init_rows.get(name, nothing_here)
        listed = names[rows].tolist()
        if "BEGIN" not in listed:
            raise ImageFormatError(f"program {name} has no BEGIN")
        words = program_words(listed, address[rows], value[rows])
        words |= _stretches(gpa[first], word[first])
        events, start = program_events(listed, address[rows], value[rows])
        cut = int(np.append(start, len(events))[listed.index("BEGIN") + 1])
        yield Program(
            name,
            huge == "1",
            int(limit),
            words,
            events[:cut],
            events[cut:],
            {} if known is None else known.of(name, value[rows]),
            [
                (columns["mode"][row], {key: columns[key][row] for key in columns})
                for row in count_rows.get(name, nothing_here).tolist()
            ],
        )


def _stretches(address: U64, word: U64) -> dict[int, U64]:
    """Give single words as stretches of consecutive ones."""
    order = np.argsort(address, kind="stable")
    address, word = address[order], word[order]
    breaks = np.flatnonzero(np.diff(address) != 8) + 1
    parts = zip(np.split(address, breaks), np.split(word, breaks), strict=True)
    return {int(a[0]): w for a, w in parts if len(a)}


class _Results:
    """What operations left in the list, for all programs of a set."""

    def __init__(self, table: Table) -> None:
        self.rows = _rows_by_program(table)
        self.index = table.numbers("i", 10).astype(np.int64)
        self.value = table.numbers("value")
        self.other = table.text("shadow_value") != ""
        self.shadow_value = table.numbers("shadow_value")

    def of(self, program: str, value: U64) -> dict[str, U64]:
        """Give the second words of the list at the end, where `value` was there at the start."""
        native, shadow = value.copy(), value.copy()
        rows = self.rows.get(program, np.zeros(0, np.int64))
        native[self.index[rows]] = shadow[self.index[rows]] = self.value[rows]
        rows = rows[self.other[rows]]
        shadow[self.index[rows]] = self.shadow_value[rows]
        return {"shadow": shadow, "tdp": native, "legacy": native}


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """What one run of a program left."""

    counts: dict[str, int]
    listed: U64
    machine: Hypervisor


def run_program(
    program: Program,
    tables: str,
    shared: bytes,
    rules: ShadowRules | None = None,
    **options: Any,
) -> ProgramRun:
    """Run one event program.

    Parameters
    ----------
    program : Program
        From `read_programs`.
    tables : {"shadow", "tdp", "legacy"}
        Of the hypervisor.
    shared : bytes
        The first content of the data frames.
    rules : ShadowRules, optional
        Other rules than KVM's.
    **options
        More of `Hypervisor`.

    Returns
    -------
    ProgramRun
        Counts and hashes by column, and the second words of the list.
    """
    memory = _memory(program.words, shared)
    machine = Hypervisor(
        memory,
        tables=tables,  # type: ignore[arg-type]
        rules=rules,
        backing="2M" if program.huge_backing else "4K",
        page_limit=program.page_limit,
        cr3=TABLES,
        **options,
    )
    machine.run(program.before)
    before = machine.counters.copy()
    machine.run(program.counted)
    counts = _deltas(machine, before)
    for name, (first, last, mask) in HASHES.items():
        counts[name] = hash_words(memory, first, last, mask)
    size = len(program.results.get(tables, ()))
    listed = np.frombuffer(memory.read(LIST, 16 * size), "<u8").reshape(-1, 2)[:, 1]
    return ProgramRun(counts, listed, machine)


@experiment("A9b", "event programs under KVM: counts, values read, hashes of memory")
def event_programs(context: Context) -> Outcome:
    """Replay each program under each kind of tables; compare every column, result and hash."""
    tally = Tally()
    shared = data_frames().tobytes()
    for folder, prefix in find_programs(context):
        context.report(folder.name)
        for program in read_programs(folder, prefix, tally):
            for mode, row in program.counts:
                where = f"{folder.name}: {program.name}, {mode}"
                if mode not in TABLES_OF:
                    tally.missing(where)
                    continue
                try:
                    result = run_program(program, TABLES_OF[mode], shared)
                except PyvirtError as error:
                    tally.check(False, f"{where}: {error}")
                    continue
                _compare_program(tally, where, mode, program, row, result)
    return tally.outcome("A9b", skip=nothing(context))


def _compare_program(
    tally: Tally, where: str, mode: str, program: Program, row: dict[str, str], run: ProgramRun
) -> None:
    """Count a case for the row's counts and hashes, and one for each result."""
    wrong = []
    for name, text in row.items():
        if name not in run.counts or (mode != "shadow" and name in SHADOW_ONLY):
            continue
        want = int(text, 16 if name in HASHES else 10)
        if run.counts[name] != want:
            wrong.append(f"{name} {run.counts[name]} for {want}")
        if name in EXITS:
            tally.figure(name, want, run.counts[name])
    tally.check(not wrong, f"{where}: {', '.join(wrong)}")
    wanted = program.results.get(TABLES_OF[mode])
    if wanted is None:
        return
    right = run.listed == wanted
    tally.figure("results", len(wanted), np.count_nonzero(right))
    tally.check(
        right,
        lambda i: f"{where}: operation {i} left {run.listed[i]:#x} for {wanted[i]:#x}",
    )
