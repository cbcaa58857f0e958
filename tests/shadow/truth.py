"""Real counts of exits, carried with the tests, and how a run is compared with them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from oracle.slowshadow.programs import Replay, read_rows

CARRIED = Path(__file__).parents[1] / "data" / "guest-images"

FLUSHES = {"tlb_flush", "remote_tlb_flush_requests"}
PROGRAM_COLUMNS = (
    *("x_pf", "x_npf", "x_invlpg", "x_cr3_write", "x_cr0", "x_cr4", "guest_faults"),
    *("pf_taken", "pf_fixed", "pf_guest", "pf_emulate", "pf_spurious", "pages_4k", "pages_2m"),
    *("mmu_cache_miss", "mmu_shadow_zapped", "mmu_pte_write", "mmu_pde_zapped", "mmu_flooded"),
    *("mmu_recycled", "mmu_unsync", "tlb_flush", "remote_tlb_flush_requests"),
)
HASHES = ("hash_tables", "hash_tables_ad", "hash_data")

EXIT_PARAMETERS = ("workload", "mode", "N", "R", "K", "W", "warm", "huge_backing", "cow")
EXIT_COLUMNS = (
    *("guest_pf_handled", "x_pf", "x_npf", "x_invlpg", "x_cr3_write", "invlpg", "tlb_flush"),
    *("pf_taken", "pf_fixed", "pf_guest", "pf_emulate", "pf_spurious", "pages_4k", "pages_2m"),
    *("mmu_cache_miss", "mmu_shadow_zapped", "mmu_pte_write", "mmu_pde_zapped", "mmu_flooded"),
    *("mmu_unsync", "remote_tlb_flush_requests"),
)


def differences(
    row: dict[str, str], counts: dict[str, int], columns: Iterable[str]
) -> dict[str, tuple[int, int]]:
    """Columns where a run differs from the real machine: (real, run)."""
    real = {name: int(row[name]) for name in columns}
    return {name: (real[name], counts[name]) for name in real if counts[name] != real[name]}


# -- programs/


def program_rows(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    """(program, mode) to its row of counts.csv."""
    return {(row["program"], row["mode"]): row for row in read_rows(folder / "counts.csv")}


def program_results(folder: Path) -> dict[str, dict[int, int]]:
    """Program to what each operation of results.csv read, or the code that refused it."""
    results: dict[str, dict[int, int]] = {}
    for row in read_rows(folder / "results.csv.xz"):
        assert not row["shadow_value"]
        results.setdefault(row["program"], {})[int(row["i"])] = int(row["value"], 16)
    return results


def program_differences(
    row: dict[str, str], results: dict[int, int], run: Replay
) -> dict[str, tuple[int, int]]:
    """programs: the NPT modes' flush columns are "not looked at", nor is `insn_emulation`."""
    columns = [name for name in PROGRAM_COLUMNS if row["mode"] == "shadow" or name not in FLUSHES]
    wrong = differences(row, run.counts, columns)
    for name in HASHES:
        if int(row[name], 16) != run.hashes[name]:
            wrong[name] = int(row[name], 16), run.hashes[name]
    for i in sorted(results.keys() | run.results.keys()):
        if results.get(i) != run.results.get(i):
            wrong[f"operation {i}"] = results.get(i, -1), run.results.get(i, -1)
    return wrong


# -- kvm_exits.csv


def exit_groups(folder: Path) -> dict[tuple[str, ...], list[dict[str, str]]]:
    """Parameters to the rows of the repetitions."""
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in read_rows(folder / "kvm_exits.csv"):
        groups.setdefault(tuple(row[name] for name in EXIT_PARAMETERS), []).append(row)
    return groups
