"""What an MMU counted, as tables of plain rows.

Counters are those of `pyvirt.MMU`: the record that `stats` gives, or the array `counters`, whose
cores are added up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pyvirt.errors import Fault, InvalidTypeError
from pyvirt.mmu.compare import Comparison
from pyvirt.mmu.geometry import PAGES
from pyvirt.mmu.prices import Cycles

__all__ = [
    "Summary",
    "Table",
    "comparison_table",
    "cycle_table",
    "event_table",
    "reference_table",
    "summarise",
    "tlb_table",
]

Counters: TypeAlias = np.void | npt.NDArray[Any]
Cell: TypeAlias = int | float | str

#: The elements of `invalidations`: what operations are called in tables.
OPERATIONS = (
    "INVLPG",
    "MOV CR3",
    "MOV CR4",
    "MOV CR0",
    "INVPCID",
    "INVVPID",
    "INVEPT",
    "INVLPGA",
    "TLB_CONTROL",
    "VM entry",
    "VM exit",
    "by page faults",
    "by nested faults",
)
STRUCTURES = ("TLB entries", "guest table entries", "nested TLB entries", "host table entries")
SINGLE = {
    "splits": "accesses that cross a page",
    "rights_rewalks": "hits without the right",
    "dirty_assists": "hits without D",
    "page_faults": "page faults",
    "ept_violations": "nested page faults",
    "ept_misconfigurations": "EPT misconfigurations",
    "guest_a_set": "A bits set, guest",
    "guest_d_set": "D bits set, guest",
    "host_a_set": "A bits set, host",
    "host_d_set": "D bits set, host",
    "pml_entries": "PML entries",
    "pml_full": "PML log full",
    "shootdowns": "shoot-downs",
    "ipis": "interrupts of shoot-downs",
}


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of data under headings.

    Attributes
    ----------
    columns : tuple of str
        The headings.
    rows : tuple of tuple
        Numbers and text, one for each column.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Cell]]:
        """Give each row as a dict."""
        return (dict(zip(self.columns, row, strict=True)) for row in self.rows)


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures that most runs are made for.

    Attributes
    ----------
    accesses : int
        Those that the TLBs were asked for; one that crosses a page is two.
    misses : int
        Those that no TLB served: walks, and the ones that faulted.
    miss_ratio : float
        Their share; 0 without accesses.
    walks : int
        Walks that succeeded.
    guest_references, host_references : int
        Table entries read, in the vCPU's own tables and in the nested ones, by all walks.
    references_per_walk : float
        Both over the walks that succeeded; 0 without any. Where walks fault, what those read is
        in it.
    faults : int
        Accesses that faulted, of any kind.
    """

    accesses: int
    misses: int
    miss_ratio: float
    walks: int
    guest_references: int
    host_references: int
    references_per_walk: float
    faults: int


def summarise(counters: Counters) -> Summary:
    """Give the figures that most runs are made for.

    Parameters
    ----------
    counters : record or structured array
        Of `pyvirt.MMU`.

    Examples
    --------
    >>> import pyvirt as pv
    >>> from pyvirt.report import summarise
    >>> mmu = pv.MMU("tlb-only")
    >>> _ = mmu.count([0x1000, 0x2000, 0x1008, 0x1010])
    >>> summarise(mmu.stats()).miss_ratio
    0.5
    """
    c = _Sum(counters)
    accesses, walks = c.total("accesses"), c.total("walks")
    misses = accesses - c.total("tlb_hits")
    guest, host = c.total("guest_refs"), c.total("host_refs")
    return Summary(
        accesses=accesses,
        misses=misses,
        miss_ratio=misses / accesses if accesses else 0.0,
        walks=walks,
        guest_references=guest,
        host_references=host,
        references_per_walk=(guest + host) / walks if walks else 0.0,
        faults=c.total("faults"),
    )


def tlb_table(counters: Counters) -> Table:
    """Hits by level of TLB and page size, then walks.

    Parameters
    ----------
    counters : record or structured array
        Of `pyvirt.MMU`.

    Returns
    -------
    Table
        ``served by``, the accesses by size of the mapping, their ``total``, and ``miss ratio``:
        of those that came to a level, the share that it did not serve. An access whose entry
        lacks a right or D is one that was not served. The last rows are walks that succeeded and,
        if there are any, faults.
    """
    c = _Sum(counters)
    hits = c["tlb_hits"]
    left = c.total("accesses")
    rows: list[tuple[Cell, ...]] = []
    for level in range(hits.shape[0]):
        if level and not hits[level:].any():
            break
        served = _ints(hits[level])
        came, left = left, left - sum(served)
        rows.append((f"L{level + 1} TLB", *served, sum(served), left / came if came else 0.0))
    rows.append(("walk", *_ints(c["walks"]), c.total("walks"), ""))
    if c.total("faults"):
        rows.append(("fault", "", "", "", c.total("faults"), ""))
    return Table(("served by", *PAGES, "total", "miss ratio"), tuple(rows))


def reference_table(counters: Counters) -> Table:
    """What walks read, and what walk caches saved them.

    Parameters
    ----------
    counters : record or structured array
        Of `pyvirt.MMU`.

    Returns
    -------
    Table
        A row for each dimension (``guest``: the vCPU's own tables; ``host``: the nested ones) and
        level of table that was met: ``references`` to entries of that level, the same ``per
        walk`` that succeeded, and ``cache hits``: entries of that level that a walk cache had.
        The row ``nested TLB`` has the guest-physical addresses that needed no nested walk.
    """
    c = _Sum(counters)
    walks = c.total("walks")
    rows: list[tuple[Cell, ...]] = []
    for side in ("guest", "host"):
        read, saved = _ints(c[f"{side}_refs"]), _ints(c[f"{side}_cache_hits"])
        for level in range(len(read) - 1, 0, -1):
            if read[level] or saved[level]:
                per_walk = read[level] / walks if walks else 0.0
                rows.append((side, level, read[level], per_walk, saved[level]))
    if c.total("nested_tlb_hits") or c.total("nested_walks"):
        rows.append(("nested TLB", "", "", "", c.total("nested_tlb_hits")))
    return Table(("tables", "level", "references", "per walk", "cache hits"), tuple(rows))


def event_table(counters: Counters) -> Table:
    """Everything else that happened: faults, invalidations, A and D bits, shoot-downs.

    Parameters
    ----------
    counters : record or structured array
        Of `pyvirt.MMU`.

    Returns
    -------
    Table
        ``event`` and ``count``; what did not happen is left out.
    """
    c = _Sum(counters)
    found: list[tuple[Cell, ...]] = [(text, c.total(name)) for name, text in SINGLE.items()]
    for fault in Fault:
        text = f"faults: {fault.name.lower().replace('_', ' ')}"
        found.append((text, int(c["faults"][fault])))
    operations = _ints(c["invalidations"])[: len(OPERATIONS)]
    found += [(f"invalidations: {name}", n) for name, n in zip(OPERATIONS, operations, strict=True)]
    dropped = _ints(c["dropped"])
    found += [(f"dropped: {name}", n) for name, n in zip(STRUCTURES, dropped, strict=True)]
    served = zip(("L1", "L2", "L3", "memory"), _ints(c["data_cache_hits"]), strict=True)
    found += [(f"references served by {name}", n) for name, n in served]
    return Table(("event", "count"), tuple(row for row in found if row[1]))


def cycle_table(cycles: Cycles) -> Table:
    """Cycles by class of events.

    Parameters
    ----------
    cycles : Cycles
        What `pyvirt.CostModel.cycles` gives.

    Returns
    -------
    Table
        ``class``, how often it happened (``events``), its ``cycles`` and their ``share``, largest
        first; the last row is the total.
    """
    largest = sorted(cycles.breakdown.items(), key=lambda item: -item[1])
    rows: list[tuple[Cell, ...]] = [
        (name, cycles.events[name], spent, spent / cycles.total) for name, spent in largest
    ]
    rows.append(("total", "", cycles.total, 1.0 if cycles.total else 0.0))
    return Table(("class", "events", "cycles", "share"), tuple(rows))


def comparison_table(comparison: Comparison) -> Table:
    """What each mode counted and cost, with the modes side by side.

    Parameters
    ----------
    comparison : Comparison
        What `pyvirt.compare` gave.

    Returns
    -------
    Table
        A column for each mode; rows of counts, exits by reason, cycles by group, and the
        ``overhead`` against native if that ran. What is zero in all modes is left out.
    """
    columns, rows = comparison.rows()
    return Table(columns, tuple(rows))


class _Sum:
    """Counters, added up over cores."""

    def __init__(self, counters: Counters) -> None:
        names = getattr(getattr(counters, "dtype", None), "names", None)
        if not names or "tlb_hits" not in names:
            raise InvalidTypeError(f"counters must be those of an MMU, got {counters!r:.80}")
        self._cores = np.atleast_1d(np.asarray(counters))

    def __getitem__(self, name: str) -> npt.NDArray[np.uint64]:
        return self._cores[name].sum(axis=0, dtype=np.uint64)

    def total(self, name: str) -> int:
        return int(np.sum(self[name], dtype=np.uint64))


def _ints(values: npt.NDArray[np.uint64]) -> list[int]:
    return [int(value) for value in values]
