"""H4 and H5: admission and overhead as the logs of real VMs have them."""

from __future__ import annotations

import csv
from pathlib import Path

from pyvirt.errors import AdmissionError
from pyvirt.hostmem import HostMemory, nested_table_pages
from pyvirt.validation.registry import Context, Outcome, experiment
from pyvirt.validation.tally import Tally

__all__ = ["admission", "nested_tables"]

LEAST_REST, MOST_REST = 160, 340


def _rows(context: Context, name: str, tally: Tally) -> list[dict[str, str]]:
    """Read a table of the logs, or note that it is missing."""
    if context.data is None:
        tally.missing(context.missing)
        return []
    path = Path(context.data) / "vmware-files" / "logs" / name
    if not path.is_file():
        tally.missing(f"no vmware-files/logs/{name}")
        return []
    context.report(f"reading {name}")
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@experiment("H4", "admission of real VMs: shares, minimum, maximum and target in their logs")
def admission(context: Context) -> Outcome:
    """Admit each VM that a log describes to hosts of its logged minimum, and of ample memory."""
    tally = Tally()
    for row in _rows(context, "memsched.csv", tally):
        number = {key: int(row[key]) for key in ("min", "max", "shares", "target")}
        where = f"{row['repo']} {row['file']} {row['time']}"
        guest = number["shares"]  # a share for each page
        overhead = int(row["nonpaged"]) + int(row["anonymous"])
        tally.check(guest + overhead == number["max"], f"{where}: maximum")
        tally.figure("pages at most", number["max"], guest + overhead)
        reservations = [guest // 2, guest]
        fits = [r for r in reservations if _least_host(guest, r, overhead) == number["min"]]
        tally.check(len(fits) == 1, f"{where}: no reservation of 50 or 100 % is admitted by min")
        least = _least_host(guest, fits[0], overhead) if fits else 0
        tally.figure("pages at least", number["min"], least)
        ample = HostMemory(4 * number["max"])
        vm = ample.add(
            0, memory=guest, used=guest, shares=guest, reservation=guest // 2, overhead=overhead
        )
        for _ in range(3):
            ample.step(10**9)
        tally.check(vm.target + vm.overhead == number["target"], f"{where}: target")
        tally.figure("pages as target", number["target"], vm.target + vm.overhead)
    return tally.outcome("H4", skip="no MemSched lines")


def _least_host(guest: int, reservation: int, overhead: int) -> int:
    """Find the smallest host that admits such a VM, by trying."""
    low, high = 1, 4 * (guest + overhead)
    while low < high:
        middle = (low + high) // 2
        try:
            HostMemory(middle).add(0, memory=guest, reservation=reservation, overhead=overhead)
        except AdmissionError:
            low = middle + 1
        else:
            high = middle
    return low


@experiment("H5", "nested page tables of real VMs: what their logs say beside our count")
def nested_tables(context: Context) -> Outcome:
    """Subtract our tables from the logged pages; the rest is small and steady."""
    tally = Tally()
    rests: dict[tuple[str, str], list[int]] = {}
    software = 0
    for row in _rows(context, "monitor-and-overhead.csv", tally):
        where = f"{row['repo']} {row['file']}"
        if not row["OvhdMon_GPhysHWMMU"]:
            continue
        logged = int(row["OvhdMon_GPhysHWMMU"])
        if row["virtual_mmu"] == "software":
            software += 1
            tally.check(logged == 0, f"{where}: {logged} pages without nested paging")
            continue
        rest = logged - int(nested_table_pages(int(row["memsize_mb"]) * 256))
        tally.check(LEAST_REST <= rest <= MOST_REST, f"{where}: {rest} pages beside tables")
        rests.setdefault((row["repo"], row["version"]), []).append(rest)
    for (repo, version), found in rests.items():
        for rest in found:
            apart = rest - min(found)
            tally.check(apart == 0 or 62 <= apart <= 64, f"{repo} {version}: {found}")
    every = sorted(rest for found in rests.values() for rest in found)
    said = (
        f"{LEAST_REST} to {MOST_REST} pages beside tables, 0 in software mode; 0 or 62 to 64 apart"
    )
    measured = (
        f"{every[0]} to {every[-1]} pages beside tables, {software} logs in software mode with 0"
        if every
        else ""
    )
    return tally.outcome("H5", skip="no overhead tables", sentences=(said, measured))
