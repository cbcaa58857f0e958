"""Ranges are edited table by table: the same tables as page by page, and little memory for undo."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from core.strategies import GIB, MIB
from pyvirt import (
    FrameExhaustedError,
    InvalidValueError,
    LimitError,
    MappingError,
    PageTables,
    PhysicalMemory,
)

PAGE = 4096
FORMATS = ["x86-64", "ept", "npt", "pae", "x86-32"]


def build(kind: str = "x86-64", frames: int = 4 * MIB, **options) -> PageTables:
    return PageTables(PhysicalMemory(64 * MIB), format=kind, frames=(MIB, frames), **options)


def content(tables: PageTables) -> dict[int, bytes]:
    """All frames that are not empty."""
    memory = tables.mem
    frames = {int(pa): bytes(memory.read(int(pa), PAGE)) for pa in memory.frames()}
    return {pa: data for pa, data in frames.items() if any(data)}


def leaves(tables: PageTables) -> list[tuple[int, ...]]:
    from pyvirt._core.leaves import enumerate_leaves

    rows = enumerate_leaves(tables.walker(), 1 << 20, 1 << 20)
    return [(int(r["va"]), int(r["page_shift"]), int(r["entry"])) for r in rows]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_range_is_its_pages(kind):
    """In one call, in one array, and page by page; it starts and ends within a table."""
    first, pages = 5 * MIB + 3 * PAGE, 2600
    vas = np.arange(first, first + pages * PAGE, PAGE, dtype=np.uint64)
    pas = vas + np.uint64(7 * MIB)
    by_range, by_array, by_page = (build(kind) for _ in range(3))
    by_range.map_range(first, first + 7 * MIB, pages * PAGE)
    by_array.map(vas, pas)
    for va, pa in zip(vas, pas, strict=True):
        by_page.map([va], [pa])
    assert content(by_range) == content(by_array) == content(by_page)
    assert len(leaves(by_range)) == pages

    assert by_range.protect(first + PAGE, 1500 * PAGE, "rx") == 1500 * PAGE
    for va in vas[1:1501]:
        by_page.protect(int(va), PAGE, "rx")
    assert content(by_range) == content(by_page)

    assert by_range.unmap(first + 700 * PAGE, 1500 * PAGE) == 1500 * PAGE
    for va in vas[700:2200]:
        by_page.unmap(int(va), PAGE)
    assert content(by_range) == content(by_page)


def test_large_pages_of_32_bit_tables_keep_their_high_address():
    tables = build("x86-32", pa_width=40, cr4=0x10)
    tables.map_range(0, 4 * GIB - 8 * MIB, 16 * MIB, page_shift=22)
    walker = tables.walker()
    for va in range(0, 16 * MIB, 4 * MIB):
        assert walker.translate_one(va + 5).pa == 4 * GIB - 8 * MIB + va + 5


def test_a_range_over_frames_in_reverse():
    """The tables of a guest lie in host pages in any order: a run never crosses one."""
    memory = PhysicalMemory(64 * MIB)
    host = PageTables(memory, format="ept", frames=(32 * MIB, 4 * MIB))
    gpas = np.arange(MIB, 5 * MIB, PAGE, dtype=np.uint64)
    host.map(gpas, gpas[::-1] + np.uint64(8 * MIB))
    guest = PageTables(memory, frames=(MIB, 4 * MIB), outer=host.walker())
    guest.map_range(3 * MIB, 0, 9 * MIB)
    plain = build()
    plain.map_range(3 * MIB, 0, 9 * MIB)
    vas = range(3 * MIB, 12 * MIB, PAGE)
    host_of = dict(zip(gpas.tolist(), (gpas[::-1] + np.uint64(8 * MIB)).tolist(), strict=True))
    assert guest.tables_used == plain.tables_used
    for gpa in range(MIB, MIB + plain.tables_used * PAGE, PAGE):
        assert memory.read(host_of[gpa], PAGE) == plain.mem.read(gpa, PAGE)
    assert len(leaves(plain)) == len(vas)


def spotted(tables: PageTables) -> None:
    """Map pages that are no progression, and words in absent entries."""
    rng = np.random.default_rng(5)
    vas = np.unique(rng.integers(0, 4 * MIB // PAGE, 700)).astype(np.uint64) * np.uint64(PAGE)
    tables.map(vas, rng.permutation(len(vas)).astype(np.uint64) << np.uint64(12))
    level_1 = int(tables.mem.frames()[-1])
    words = np.frombuffer(tables.mem.read(level_1, PAGE), "<u8")
    for i in np.flatnonzero(words & 1 == 0)[::3]:
        tables.mem.write_u64(level_1 + 8 * int(i), 0xABC0 + 16 * int(i))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failed_range_is_undone(overwrite):
    """Whatever the tables held, absent entries with software's bits in them too."""
    tables = build()
    spotted(tables)
    tables.map_range(6 * MIB, 0, 2 * MIB, page_shift=21, attrs=0)
    tables.map([8 * MIB], [0])
    before = content(tables), leaves(tables)
    if overwrite:
        # a table in use is in the way of the last large page
        with pytest.raises(MappingError, match="0x800000"):
            tables.map_range(6 * MIB, 0, 4 * MIB, page_shift=21, overwrite=True)
    else:
        with pytest.raises(MappingError, match=r"\b0x[0-9a-f]+ is mapped already"):
            tables.map_range(0, 0, 16 * MIB)
    assert (content(tables), leaves(tables)) == before
    with pytest.raises(LimitError):
        tables.unmap(0, 16 * MIB, limit=900)
    with pytest.raises(LimitError):
        tables.protect(0, 16 * MIB, "r", limit=900)
    assert (content(tables), leaves(tables)) == before


def test_the_page_that_is_in_the_way_is_named():
    tables = build()
    tables.map([0x7FF000], [0])
    with pytest.raises(MappingError, match="0x7ff000 is mapped"):
        tables.map_range(0x10000, 0, 16 * MIB)
    assert [va for va, *_ in leaves(tables)] == [0x7FF000]
    tables.map_range(0x10000, 0, 16 * MIB, overwrite=True)
    assert len(leaves(tables)) == 4096


def test_out_of_frames_in_the_middle():
    tables = build(frames=8 * PAGE)
    with pytest.raises(FrameExhaustedError):
        tables.map_range(0, 0, 64 * MIB)
    assert leaves(tables) == []


def test_limits_count_leaves_and_holes():
    tables = build()
    tables.map_range(0, 0, 4 * MIB)
    assert tables.protect(0, 4 * MIB, "rx", limit=1024) == 4 * MIB
    with pytest.raises(LimitError):
        tables.protect(0, 4 * MIB, "rx", limit=1023)
    with pytest.raises(LimitError):
        tables.unmap(0, 6 * MIB, limit=1024)
    assert tables.unmap(0, 6 * MIB, limit=1025) == 4 * MIB


def test_a_recursive_mapping_is_edited_entry_by_entry():
    """A table that is on the way to itself: unmapping its own entry cuts the way to the rest."""
    tables = build()
    root, slot, later = tables.root, 0x100, 0x180
    tables.map([0, 0xFFFF << 48 | later << 39], [0, 0])
    tables.mem.write_u64(root + 8 * slot, root | 7)
    # the addresses whose level 1 table is the root
    itself = 0xFFFF << 48 | slot << 39 | slot << 30 | slot << 21
    assert tables.unmap(itself + slot * PAGE, 512 * PAGE - slot * PAGE) == PAGE
    assert tables.mem.read_u64(root + 8 * slot) == 0
    assert tables.mem.read_u64(root + 8 * later) != 0
    assert len(leaves(tables)) == 2


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((0x1001, 0, PAGE), "va=0x1001"),
        ((0x7FFF_FFFF_F000, 0, 2 * PAGE), "not canonical"),
        ((0x7FFF_FFFF_F000, 0, 1 << 56), "not canonical"),
        ((0xFFFF_FFFF_FFFF_F000, 0, 2 * PAGE), "64-bit space"),
        ((0, 0xFFFF_FFFF_FFFF_F000, 2 * PAGE), "64-bit space"),
        ((0, (1 << 52) - PAGE, 2 * PAGE), "too wide"),
        ((0, 7, PAGE), "pa=0x7"),
        ((0, 0, 17), "multiple of 0x1000"),
    ],
)
def test_bad_ranges(arguments, match):
    tables = build()
    with pytest.raises(InvalidValueError, match=match):
        tables.map_range(*arguments)
    assert leaves(tables) == []


def test_the_last_page_of_the_space():
    tables = build()
    tables.map_range(0xFFFF_FFFF_FFFF_E000, 0, 2 * PAGE)
    assert [va for va, *_ in leaves(tables)] == [0xFFFF_FFFF_FFFF_E000, 0xFFFF_FFFF_FFFF_F000]
    tables.map_range(0x4000, 0, 0)
    assert len(leaves(tables)) == 2


PROGRAM = """
import resource, sys
import pyvirt as pv
UNIT = 1 if sys.platform == "darwin" else 1024
def peak():
    if sys.platform == "linux":     # where ru_maxrss outlives an exec: the parent's is in it
        with open("/proc/self/status") as status:
            return next(int(s.split()[1]) for s in status if s.startswith("VmHWM")) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
size = int(sys.argv[1])
before = peak()
tables = pv.PageTables(pv.PhysicalMemory(4 << 40), frames=(3 << 40, 4 << 30))
tables.map_range(0x100000000000, 0, size)
tables.protect(0x100000000000, size, "rx", limit=1 << 30)
mapped = peak() - before
assert tables.unmap(0x100000000000, size, limit=1 << 30) == size
print(tables.tables_used * 4096, mapped, peak() - before)
"""


def memory_of(size: int) -> tuple[int, int, int]:
    """Bytes of the tables, and what the process grew by, until mapped and until unmapped."""
    pytest.importorskip("resource")
    if "asan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("a sanitizer adds memory of its own")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(size)], capture_output=True, text=True, check=True
    )
    tables, mapped, unmapped = map(int, done.stdout.split())
    return tables, mapped, unmapped


def test_memory_is_that_of_the_tables():
    tables, mapped, unmapped = memory_of(64 * GIB)
    assert mapped < 1.1 * tables + 16 * MIB
    assert unmapped < 1.1 * tables + 16 * MIB


@pytest.mark.slow
def test_a_tebibyte():
    """In 4K pages: 268 M entries in 2 GiB."""
    tables, mapped, unmapped = memory_of(1024 * GIB)
    assert tables > 2 * GIB
    assert mapped < 1.03 * tables
    assert unmapped < 1.03 * tables
