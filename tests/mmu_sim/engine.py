"""The compiled engine and the plain model side by side, in the same words."""

from __future__ import annotations

from typing import Any

import numpy as np

import pyvirt as pv
from oracle.mmu_caches import NONE
from oracle.slowmmu import COUNTERS, SlowMMU
from pyvirt.traces.events import EVENT_DTYPE

LOAD, STORE, FETCH = 1, 2, 3
MOV_CR3, MOV_CR0, MOV_CR4, INVLPG, INVPCID, INVVPID, INVEPT, INVLPGA = range(16, 24)
TLB_CONTROL, VM_ENTRY, VM_EXIT = 24, 25, 26
STORE_TABLE, MAP, UNMAP, PROTECT, VCPU_SWITCH, VM_SWITCH = 32, 33, 34, 35, 40, 41


def events_of(rows: list[tuple[int, int, int, int, int, int]]) -> Any:
    """Rows of (op, size, vcpu, arg, addr, value) as an array of events."""
    return np.array(rows, dtype=EVENT_DTYPE)


def pair(build: Any, **options: Any) -> tuple[SlowMMU, Any]:
    """The model and the engine over equal machines; `build` gives (memory, keywords)."""
    memory, keywords = build()
    slow = SlowMMU(memory=memory, **keywords, **options)
    memory, keywords = build()
    return slow, pv.MMU(memory=memory, **keywords, **options)


def counters_of(mmu: Any) -> dict[str, list]:
    """The counters of all cores together, without those that count nothing."""
    record = mmu.stats()
    return {name: np.asarray(record[name]).astype(int).tolist() for name in COUNTERS}


def entries_of(mmu: Any, core: int = 0) -> set[tuple]:
    """Valid entries of either implementation in one form, without order.

    Tuples of (structure, set, way, key, kind, vpid, pcid, global, ep4ta, value): the PCID of a
    global entry is 0, and so is the EP4TA of a linear one.
    """
    if type(mmu) is SlowMMU:
        rows = mmu.entries(core)
    else:
        found = mmu.entries(core)
        names = ("structure", "set", "way", "page", "size", "vpid", "pcid", "global", "ep4ta")
        columns = [found[name].tolist() for name in (*names, "value")]
        rows = set(zip(*columns, strict=True))
    return {_plain(row, mmu.mode) for row in rows}


def _plain(entry: tuple, mode: str) -> tuple:
    name, at, way, key, kind, vpid, pcid, is_global, ep4ta, value = entry
    linear = mode != "nested" or ep4ta == NONE
    return (
        str(name),
        at,
        way,
        key,
        kind,
        vpid,
        0 if is_global else pcid,
        bool(is_global),
        0 if linear else ep4ta,
        value,
    )


def same_state(slow: SlowMMU, fast: Any) -> None:
    """Counters and contents of all cores agree."""
    assert counters_of(fast) == counters_of(slow)
    for core in range(len(slow.cores)):
        assert entries_of(fast, core) == entries_of(slow, core)
