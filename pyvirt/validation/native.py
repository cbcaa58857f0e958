"""A1, A2, A3: the page tables that real kernels wrote, without virtualisation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.errors import Fault
from pyvirt.mmu.spaces import AddressSpace
from pyvirt.validation.datasets import ImageContext, Table, find_sets, images, nothing
from pyvirt.validation.registry import Context, Outcome, experiment
from pyvirt.validation.tally import Tally, hexadecimal

__all__ = ["leaves", "pagemap", "probes", "qemu_flags"]

WRITE, EXECUTE, USER = 1 << 1, 1 << 2, 1 << 3  # effective rights, in the flags of a result
FORMATS = {2: "x86-32", 3: "pae", 4: "x86-64", 5: "x86-64"}
FRAME = np.uint64(0x000F_FFFF_FFFF_F000)  # bits 51:12 of an entry
PAGE = np.uint64(0xFFF)

#: QEMU's ``info tlb`` prints these bits of the leaf entry, in this order.
_QEMU_BITS = tuple(zip((63, 8, 7, 6, 5, 4, 3, 2, 1), "XGPDACTUW", strict=True))


def qemu_flags(entries: npt.NDArray[np.uint64]) -> npt.NDArray[np.str_]:
    """Write the flags of leaf entries as QEMU's monitor does, such as ``"X---A--U-"``."""
    names = np.array(
        [
            "".join(c if index >> i & 1 else "-" for i, (_, c) in enumerate(_QEMU_BITS))
            for index in range(1 << len(_QEMU_BITS))
        ]
    )
    index = np.zeros(entries.shape, dtype=np.uint64)
    for i, (bit, _) in enumerate(_QEMU_BITS):
        index |= (entries >> np.uint64(bit) & np.uint64(1)) << np.uint64(i)
    return names[index.astype(np.intp)]


def _spaces(
    kind: str, context: Context, tally: Tally
) -> Iterator[tuple[str, ImageContext, AddressSpace, Table, npt.NDArray[np.intp]]]:
    """Give each address space of each native image with its rows of a table."""
    for image_set in find_sets(context):
        if not image_set.contexts:
            continue
        table = image_set.table(kind, tally)
        if table is None:
            continue
        cpus = table.text("cpu")
        known = np.isin(cpus, [entry.cpu for entry in image_set.contexts])
        for name, memory in images(image_set, context, tally):
            if not known.all():
                tally.check(known, f"{table.path.name} has rows of a CPU that the JSON lacks")
            for entry in image_set.contexts:
                context.report(f"{name}: CPU {entry.cpu}")
                # CR4 is left at its default. SMAP would stop supervisor reads of user pages,
                # which none of these oracles knows: they show mappings.
                space = AddressSpace(
                    memory,
                    entry.cr3,
                    levels=entry.levels,
                    format=FORMATS[entry.levels],
                    **entry.registers,  # type: ignore[arg-type]
                )
                yield (
                    f"{name} CPU {entry.cpu}",
                    entry,
                    space,
                    table,
                    np.flatnonzero(cpus == entry.cpu),
                )


@experiment("A1", "every leaf of the native images")
def leaves(context: Context) -> Outcome:
    """Enumerate every mapping; translate each; the rights must be those of accesses, too."""
    tally = Tally()
    for name, entry, space, table, rows in _spaces("leaves", context, tally):
        found = np.sort(space.leaves(), order="va")
        va = table.numbers("va")[rows]
        tally.figure("leaves", entry.leaves_total or len(rows), len(found))
        if entry.leaves_by_shift:
            counted = dict(zip(*np.unique(found["page_shift"], return_counts=True), strict=True))
            for shift in entry.leaves_by_shift.keys() | counted.keys():
                tally.check(
                    entry.leaves_by_shift.get(shift, 0) == counted.get(shift, 0),
                    f"{name}: {counted.get(shift, 0)} leaves of {1 << shift} bytes",
                )
        listed = len(rows) if entry.leaves_listed is None else entry.leaves_listed
        tally.check(listed == len(rows), f"{name}: {len(rows)} rows, not {listed}")

        # A row is right if there is a leaf at its address and every column agrees.
        at = np.minimum(np.searchsorted(found["va"], va), max(len(found) - 1, 0))
        if not len(found):
            tally.check(np.zeros(len(rows), dtype=bool), f"{name}: no leaves")
            continue
        ours = found[at]
        flags = ours["flags"]
        columns: dict[str, tuple[Any, Any]] = {
            "va": (ours["va"], va),
            "pa": (ours["pa"], table.numbers("pa")[rows]),
            "page_shift": (ours["page_shift"], table.numbers("page_shift", 10)[rows]),
            "flags": (qemu_flags(ours["entry"]), table.text("flags")[rows]),
            "eff_w": (flags & WRITE != 0, table.numbers("eff_w", 10)[rows] != 0),
            "eff_u": (flags & USER != 0, table.numbers("eff_u", 10)[rows] != 0),
            "eff_nx": (flags & EXECUTE == 0, table.numbers("eff_nx", 10)[rows] != 0),
        }
        right = np.ones(len(rows), dtype=bool)
        for got, want in columns.values():
            right &= got == want
        _translate_each(space, ours, right)
        tally.figure("rows equal", len(rows), int(np.count_nonzero(right)))

        def describe(i: int, name: str = name, va: Any = va, columns: Any = columns) -> str:
            wrong = [f"{c} {g[i]} for {w[i]}" for c, (g, w) in columns.items() if g[i] != w[i]]
            return f"{name}: leaf {va[i]:#x}: {', '.join(wrong) or 'translates otherwise'}"

        tally.check(right, describe)
        if len(np.unique(va)) != len(va):
            tally.check(False, f"{name}: the table lists an address twice")
        total = len(rows) if entry.leaves_total is None else entry.leaves_total
        if listed >= total:  # a full list: what it lacks must not be there
            extra = found["va"][~np.isin(found["va"], va)]
            if extra.size:
                tally.check(
                    np.zeros(extra.size, dtype=bool),
                    f"{name}: leaf {hexadecimal(extra[0])} is not in the table",
                )
    return tally.outcome("A1", skip=nothing(context))


def _translate_each(space: AddressSpace, found: Any, right: npt.NDArray[np.bool_]) -> None:
    """Clear `right` where translating a leaf's first or last byte disagrees with the leaf."""
    flags = found["flags"]
    user, write = flags & USER != 0, flags & WRITE != 0
    execute = flags & EXECUTE != 0
    for offset in (np.uint64(0), found["size"] - np.uint64(1)):
        t = space.translate(found["va"] + offset)
        right &= t.ok & (t.pa == found["pa"] + offset)
    va = found["va"]
    right &= space.translate(va, "r", True).ok == user
    right &= space.translate(va, "w", True).ok == user & write
    right &= space.translate(va, "x", True).ok == user & execute


@experiment("A2", "probes of the native images")
def probes(context: Context) -> Outcome:
    """Translate addresses that are mapped, unmapped, in gaps or not canonical."""
    tally = Tally()
    for name, _, space, table, rows in _spaces("probes", context, tally):
        va = table.numbers("va")[rows]
        answer = table.text("pa")[rows]
        unmapped, wild = answer == "unmapped", answer == "noncanonical"
        mapped = ~(unmapped | wild)
        pa = np.zeros(len(rows), dtype=np.uint64)
        pa[mapped] = [int(text, 16) for text in answer[mapped]]
        t = space.translate(va)
        tally.figure("mapped", mapped.sum(), np.count_nonzero(t.ok))
        for kind, listed, fault in (
            ("unmapped", unmapped, Fault.NOT_PRESENT),
            ("non-canonical", wild, Fault.NON_CANONICAL),
        ):
            tally.figure(kind, listed.sum(), np.count_nonzero(t.fault == fault))
        right = np.where(
            mapped,
            t.ok & (t.pa == pa),
            t.fault == np.where(wild, Fault.NON_CANONICAL, Fault.NOT_PRESENT),
        )

        def describe(
            i: int, name: str = name, va: Any = va, answer: Any = answer, t: Any = t
        ) -> str:
            got = hexadecimal(t.pa[i]) if t.ok[i] else t.describe(i)
            return f"{name}: {va[i]:#x} gives {got} for {answer[i]}"

        tally.check(right, describe)
    return tally.outcome("A2", skip=nothing(context))


@experiment("A3", "the kernel's own view of its pages")
def pagemap(context: Context) -> Outcome:
    """Compare with ``/proc/self/pagemap``.

    Linux reports pages under PROT_NONE as present; their hardware entry has P = 0 and a
    frame that is stored inverted (or as it is, in kernels before the L1TF mitigation). So a
    page that the kernel has and we do not map must have such an entry, of that very frame.
    """
    tally = Tally()
    for name, _, space, table, rows in _spaces("pagemap", context, tally):
        va = table.numbers("va")[rows]
        present = table.numbers("pagemap_present", 10)[rows] != 0
        frame = table.numbers("pfn")[rows] << np.uint64(12)
        t = space.translate(va, detail=True)
        hidden = present & (t.fault == Fault.NOT_PRESENT)
        right = np.where(present, t.ok & (t.pa == frame), t.fault == Fault.NOT_PRESENT)
        for i in np.flatnonzero(hidden):
            right[i] = _prot_none(space, int(va[i]), int(frame[i]))
        tally.figure("pages present", np.count_nonzero(present & ~hidden), np.count_nonzero(t.ok))
        tally.figure("present but PROT_NONE", hidden.sum(), np.count_nonzero(hidden & right))
        tally.figure("absent", np.count_nonzero(~present), np.count_nonzero(~t.ok & ~hidden))

        def describe(i: int, name: str = name, va: Any = va, frame: Any = frame, t: Any = t) -> str:
            got = hexadecimal(t.pa[i]) if t.ok[i] else t.describe(i)
            return f"{name}: {va[i]:#x} gives {got} for frame {frame[i]:#x}"

        tally.check(right, describe)
    return tally.outcome("A3", skip=nothing(context))


def _prot_none(space: AddressSpace, va: int, frame: int) -> bool:
    """Tell whether the walk of `va` ends at an absent entry that hides this frame."""
    last = space.references(va)[-1]
    entry, level = int(last["entry"]), int(last["level"])
    size = 1 << 12 + 9 * (level - 1)
    if entry & 1 or not entry:
        return False
    base = frame & ~(size - 1)
    return any(value & int(FRAME) & ~(size - 1) == base for value in (entry, ~entry))
