"""A4, A5: guests that KVM ran, by nested tables and by shadow tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyvirt.errors import Fault
from pyvirt.mmu.memory import PhysicalMemory
from pyvirt.mmu.results import Translations
from pyvirt.mmu.spaces import AddressSpace, NestedAddressSpace
from pyvirt.validation.datasets import ImageSet, Table, find_sets, images, nothing
from pyvirt.validation.registry import Context, Outcome, experiment
from pyvirt.validation.tally import Tally, hexadecimal

__all__ = ["translate", "vmcbs"]

#: KVM marks MMIO by bit 51, which is reserved up to this physical width.
PA_WIDTH = 48
PAGE = 4096
OFFSET = np.uint64(PAGE - 1)
WRITE, EXECUTE, USER = 1 << 1, 1 << 2, 1 << 3
U64 = npt.NDArray[np.uint64]


def _detailed(space: AddressSpace | NestedAddressSpace, va: U64) -> tuple[Translations, Any]:
    """Translate and give the details as an array of their own."""
    t = space.translate(va, detail=True)
    assert t.detail is not None
    return t, t.detail


class Backing:
    """Where guest frames lie in host memory: what the owner of the guest's memory saw."""

    def __init__(self, table: Table) -> None:
        order = np.argsort(table.numbers("gpa"))
        self.gpa = table.numbers("gpa")[order]
        self.hpa = table.numbers("hpa")[order]

    def locate(self, gpa: U64) -> tuple[U64, npt.NDArray[np.bool_]]:
        """Give the host addresses, and for which guest addresses there is one."""
        if not len(self.gpa):
            return np.zeros_like(gpa), np.zeros(len(gpa), dtype=bool)
        at = np.minimum(np.searchsorted(self.gpa, gpa & ~OFFSET), len(self.gpa) - 1)
        known = self.gpa[at] == gpa & ~OFFSET
        return np.where(known, self.hpa[at] | gpa & OFFSET, np.uint64(0)), known

    def guest_memory(self, host: PhysicalMemory, size: int) -> PhysicalMemory:
        """Copy what the host image holds of the guest's memory to where the guest sees it."""
        guest = PhysicalMemory(size)
        held = np.isin(self.hpa, host.frames())
        for gpa, hpa in zip(self.gpa[held].tolist(), self.hpa[held].tolist(), strict=True):
            guest.load(gpa, host.read(hpa, PAGE))
        return guest


@experiment("A4", "nested guests made by KVM: NPT and shadow, 4K and huge backing")
def translate(context: Context) -> Outcome:
    """Compose both dimensions for every guest page, and check each against its author."""
    tally = Tally()
    for image_set in find_sets(context):
        if not image_set.nested:
            continue
        rows = image_set.table("translate", tally)
        guestmap = image_set.table("guestmap", tally)
        backing = image_set.table("backing", tally)
        if rows is None:
            continue
        for name, memory in images(image_set, context, tally):
            context.report(name)
            known = None if backing is None else Backing(backing)
            if image_set.shadow:
                _shadow(image_set, name, memory, rows, known, tally)
            else:
                _nested(image_set, name, memory, rows, guestmap, known, tally)
            if known is not None and guestmap is not None:
                _guest_tables(image_set, name, memory, guestmap, rows, known, tally)
    return tally.outcome("A4", skip=nothing(context))


def _nested_space(image_set: ImageSet, memory: PhysicalMemory, cr3: int) -> NestedAddressSpace:
    return NestedAddressSpace(
        memory,
        guest_cr3=cr3,
        nested_root=image_set.number("host_root"),
        nested_format="ept" if image_set.facts.get("mode") == "ept" else "npt",
        guest_levels=image_set.number("guest_levels", 4),
        nested_levels=image_set.number("host_levels", 4),
        pa_width=PA_WIDTH,
    )


def _compare(name: str, rows: Table, columns: dict[str, tuple[Any, Any]], tally: Tally) -> None:
    """Count a case for each row of the composed table: right if every column is."""
    right = np.ones(len(rows), dtype=bool)
    for got, want in columns.values():
        right &= got == want
    result, wanted = columns["result"]
    for kind in np.unique(wanted).tolist():
        tally.figure(kind, np.count_nonzero(wanted == kind), np.count_nonzero(result == kind))
    va = rows.numbers("l2_va")

    def describe(i: int) -> str:
        wrong = [
            f"{column} {_show(got[i])} for {_show(want[i])}"
            for column, (got, want) in columns.items()
            if got[i] != want[i]
        ]
        return f"{name}: {va[i]:#x}: {', '.join(wrong)}"

    tally.check(right, describe)


def _show(value: Any) -> str:
    return str(value) if isinstance(value, str) else hexadecimal(value)


def _nested(
    image_set: ImageSet,
    name: str,
    memory: PhysicalMemory,
    rows: Table,
    guestmap: Table | None,
    backing: Backing | None,
    tally: Tally,
) -> None:
    """Walk the guest's tables through the nested ones."""
    space = _nested_space(image_set, memory, image_set.number("guest_cr3"))
    va = rows.numbers("l2_va")
    t, detail = _detailed(space, va)
    outside = t.dimension == 1  # the nested dimension failed ...
    on_table = t.code >> 10 & 7 != 0  # ... for the guest's table rather than the final address
    result = np.full(len(va), "guest_fault", dtype="U16")
    result[t.ok] = "ok"
    absent, reserved = t.fault == Fault.NOT_PRESENT, t.fault == Fault.RESERVED
    result[outside & absent & ~on_table] = "npf"
    result[outside & absent & on_table] = "npf_table"
    # EPT says misconfigured where NPT says reserved.
    result[outside & (reserved | (t.fault == Fault.MISCONFIGURED))] = "reserved"

    failed = result != "ok"
    known = (result == "ok") | (result == "reserved")
    level = t.level.astype(np.uint64)
    shift = np.where(failed, np.uint64(3) + np.uint64(9) * level, detail["nested_shift"])
    entry = detail["nested_entry"]
    zero = np.uint64(0)
    columns = {
        "result": (result, rows.text("result")),
        "gpa": (detail["gpa"], rows.numbers("l2_gpa")),
        "hpa": (t.pa, rows.numbers("l1_hpa")),
        "host_shift": (np.where(known, shift, zero), rows.numbers("host_shift", 10)),
        "host_entry": (np.where(known, entry, zero), rows.numbers("host_entry")),
    }
    _compare(name, rows, columns, tally)

    # The same from the other side: enumerating the composed mappings must give the pages that
    # translate, and besides them only what the guest's own fault handler mapped (to gpa 0).
    pieces = space.leaves()
    pages, hpa, gpa = _pages(pieces["va"], pieces["size"], pieces["pa"], pieces["gpa"])
    ok = rows.text("result") == "ok"
    at = np.minimum(np.searchsorted(pages, va[ok]), max(len(pages) - 1, 0))
    same = (
        (pages[at] == va[ok]) & (hpa[at] == rows.numbers("l1_hpa")[ok])
        if len(pages)
        else np.zeros(np.count_nonzero(ok), dtype=bool)
    )
    tally.check(same, lambda i: f"{name}: {va[ok][i]:#x} is not among the composed leaves")
    extra = ~np.isin(pages, va[ok])
    tally.check(
        gpa[extra] == 0, lambda i: f"{name}: composed leaf {pages[extra][i]:#x} is not in the table"
    )
    if backing is not None:
        _backed(name, gpa, hpa, backing, tally)
    if guestmap is not None and "guest_cr3_second" in image_set.facts:
        _second(image_set, name, memory, guestmap, backing, tally)


def _second(
    image_set: ImageSet,
    name: str,
    memory: PhysicalMemory,
    guestmap: Table,
    backing: Backing | None,
    tally: Tally,
) -> None:
    """Walk the address space that was never loaded: right, or not in the nested tables."""
    root = image_set.number("guest_cr3_second")
    space = _nested_space(image_set, memory, root)
    mine = guestmap.numbers("guest_cr3") == root
    va, gpa = guestmap.numbers("l2_va")[mine], guestmap.numbers("l2_gpa")[mine]
    t, detail = _detailed(space, va)
    outside = (t.dimension == 1) & (t.fault == Fault.NOT_PRESENT)
    right = np.where(t.ok, detail["gpa"] == gpa, outside)
    tally.check(
        right,
        lambda i: f"{name} guest CR3 {root:#x}: {va[i]:#x}: {t.describe(i)}",
    )
    if backing is not None:
        pieces = space.leaves()
        _, hpa, gpas = _pages(pieces["va"], pieces["size"], pieces["pa"], pieces["gpa"])
        _backed(name, gpas, hpa, backing, tally)


def _pages(va: U64, size: U64, *addresses: U64) -> tuple[U64, ...]:
    """Cut pieces into 4 KiB pages, in address order."""
    count = (size >> np.uint64(12)).astype(np.intp)
    start = np.cumsum(count) - count
    offset = (np.arange(count.sum()) - np.repeat(start, count)).astype(np.uint64) << np.uint64(12)
    pages = [np.repeat(column, count) + offset for column in (va, *addresses)]
    order = np.argsort(pages[0])
    return tuple(column[order] for column in pages)


def _backed(name: str, gpa: U64, hpa: U64, backing: Backing, tally: Tally) -> None:
    """Our guest and host addresses of a page must be a pair that the memory's owner saw."""
    expected, known = backing.locate(gpa)
    right = (hpa == expected)[known]
    tally.figure("pages where they are backed", len(right), np.count_nonzero(right))
    tally.check(
        right,
        lambda i: (
            f"{name}: gpa {gpa[known][i]:#x} is at {hpa[known][i]:#x}, not where it is backed"
        ),
    )


def _shadow(
    image_set: ImageSet,
    name: str,
    memory: PhysicalMemory,
    rows: Table,
    backing: Backing | None,
    tally: Tally,
) -> None:
    """Walk the shadow tables, which map guest-virtual addresses to host frames at once."""
    space = AddressSpace(
        memory,
        image_set.number("host_root"),
        levels=image_set.number("host_levels", 4),
        pa_width=PA_WIDTH,
    )
    t, detail = _detailed(space, rows.numbers("l2_va"))
    result = np.full(len(rows), "fault", dtype="U16")
    result[t.ok] = "ok"
    result[t.fault == Fault.NOT_PRESENT] = "shadow_absent"
    result[t.fault == Fault.RESERVED] = "reserved"
    level = t.level.astype(np.uint64)
    shift = np.where(t.ok, t.page_shift, np.uint64(3) + np.uint64(9) * level)
    known = (result == "ok") | (result == "reserved")
    zero = np.uint64(0)
    columns = {
        "result": (result, rows.text("result")),
        "hpa": (t.pa, rows.numbers("l1_hpa")),
        "host_shift": (np.where(known, shift, zero), rows.numbers("host_shift", 10)),
        "host_entry": (np.where(known, detail["entry"], zero), rows.numbers("host_entry")),
    }
    _compare(name, rows, columns, tally)
    if backing is not None:
        ok = t.ok
        _backed(name, rows.numbers("l2_gpa")[ok], t.pa[ok], backing, tally)


def _guest_tables(
    image_set: ImageSet,
    name: str,
    memory: PhysicalMemory,
    guestmap: Table,
    rows: Table,
    backing: Backing,
    tally: Tally,
) -> None:
    """Walk the guest's own tables, found in the host image through the backing.

    This gives the guest-physical address whatever the host's tables hold, for the address
    space that ran and for the second one, which was never loaded.
    """
    guest = backing.guest_memory(memory, image_set.number("guest_memory_bytes"))
    levels = image_set.number("guest_levels", 4)
    first = image_set.number("guest_cr3")
    roots = guestmap.numbers("guest_cr3")
    for root in np.unique(roots).tolist():
        space = AddressSpace(guest, root, levels=levels, pa_width=PA_WIDTH)
        _authored(f"{name} guest CR3 {root:#x}", space, guestmap, roots == root, tally)
        if root == first:
            # Where the nested tables lack the guest's table, the composed table's gpa is that
            # of the table.
            final = rows.text("result") != "npf_table"
            va, gpa = rows.numbers("l2_va")[final], rows.numbers("l2_gpa")[final]
            _same_gpa(name, va, space.translate(va).pa, gpa, tally)


def _same_gpa(name: str, va: U64, pa: U64, gpa: U64, tally: Tally) -> None:
    tally.check(pa == gpa, lambda i: f"{name}: {va[i]:#x} is gpa {pa[i]:#x} in the guest")


def _authored(
    name: str, space: AddressSpace, guestmap: Table, mine: npt.NDArray[np.bool_], tally: Tally
) -> None:
    """Compare the guest's leaves with the mappings that its author made."""
    found = np.sort(space.leaves(), order="va")
    va = guestmap.numbers("l2_va")[mine]
    tally.figure("guest mappings", len(va), np.count_nonzero(np.isin(va, found["va"])))
    if not len(found):
        tally.check(np.zeros(len(va), dtype=bool), f"{name}: no leaves")
        return
    ours = found[np.minimum(np.searchsorted(found["va"], va), len(found) - 1)]
    rights = np.zeros(len(ours), dtype="U3")
    for bit, letter in ((WRITE, "w"), (USER, "u"), (EXECUTE, "x")):
        rights = np.char.add(rights, np.where(ours["flags"] & bit, letter, "-"))
    tally.check(
        (ours["va"] == va)
        & (ours["pa"] == guestmap.numbers("l2_gpa")[mine])
        & (ours["page_shift"] == guestmap.numbers("page_shift", 10)[mine])
        & (rights == guestmap.text("guest_flags")[mine]),
        lambda i: f"{name}: {va[i]:#x} maps otherwise",
    )
    # What the author did not list for this root is what the guest's fault handler mapped, to
    # gpa 0, or lies in tables that the address spaces share.
    extra = found[~np.isin(found["va"], va)]
    listed = set(zip(guestmap.numbers("l2_va"), guestmap.numbers("l2_gpa"), strict=True))
    known = [pa == 0 or (va, pa) in listed for va, pa in zip(extra["va"], extra["pa"], strict=True)]
    tally.check(
        np.array(known, dtype=bool),
        lambda i: f"{name}: leaf {extra['va'][i]:#x} is not in the table",
    )


@experiment("A5", "VMCB discovery in nested images")
def vmcbs(context: Context) -> Outcome:
    """Find the one VMCB and the roots in it, by what it holds and not by where it is."""
    tally = Tally()
    for image_set in find_sets(context):
        if not image_set.nested:
            continue
        if "vmcb_pa" not in image_set.facts:
            tally.missing(f"{image_set.name}: the JSON says nothing of a VMCB")
            continue
        where = image_set.number("vmcb_pa")
        for name, memory in images(image_set, context, tally):
            if not any(memory.read(where, PAGE)):
                tally.missing(f"{name} leaves the VMCB's frame out")
                continue
            found = memory.find_vmcbs()
            tally.figure("VMCBs found", 1, len(found))
            tally.check(len(found) == 1, f"{name}: {len(found)} VMCBs found")
            # Without nested paging the field for CR3 holds the shadow root.
            root = image_set.number("host_root")
            expected = (
                {"np_enable": 0, "guest_cr3": root}
                if image_set.shadow
                else {
                    "np_enable": 1,
                    "n_cr3": root,
                    "guest_cr3": image_set.number("guest_cr3"),
                }
            )
            expected["pa"] = where
            for field, value in expected.items():
                got = [int(v) for v in found[field]]
                tally.figure("fields equal", 1, int(got == [value]))
                tally.check(
                    got == [value], f"{name}: {field} is {[hex(v) for v in got]}, not {value:#x}"
                )
    return tally.outcome("A5", skip=nothing(context))
