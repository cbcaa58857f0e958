"""One walker and one memory in many threads: the same answers, and nothing torn."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pyvirt import NestedAddressSpace, PageTables, PhysicalMemory

PAGES = 4096
THREADS = 4


@pytest.fixture
def nested():
    """A guest with 4,096 pages in a nested dimension, A and D not yet set."""
    mem = PhysicalMemory(1 << 28)
    outer = PageTables(mem, format="npt", frames=(0x1000, 0x400000))
    outer.map_range(0, 0x8000000, 0x4000000)
    guest = PageTables(mem, frames=(0x2000000, 0x400000), outer=outer.walker())
    guest.map_range(0x400000000, 0, PAGES << 12, rights="rw")
    return mem, guest, outer


def in_threads(work):
    """Run `work(number)` in some threads at once; its results in order."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, range(4 * THREADS)))


def test_batches_share_a_walker(nested):
    mem, guest, outer = nested
    space = NestedAddressSpace(mem, guest_cr3=guest.root, nested_root=outer.root)
    vas = np.random.default_rng(3).integers(0, PAGES << 12, 200_000).astype(np.uint64)
    want = vas + np.uint64(0x8000000)
    vas += np.uint64(0x400000000)
    for result in in_threads(lambda number: space.translate(vas)):
        assert np.array_equal(result.pa, want)
        assert not result.code.any()


def test_marks_from_many_threads_are_all_there(nested):
    mem, guest, outer = nested
    space = NestedAddressSpace(
        mem, guest_cr3=guest.root, nested_root=outer.root, set_ad=True, nested_format="npt"
    )
    vas = np.arange(PAGES, dtype=np.uint64) * np.uint64(4096) + np.uint64(0x400000000)

    def touch(number):
        mine = vas[number::16]
        return space.translate(mine, access="w").code.any()

    assert not any(in_threads(touch))
    reader = NestedAddressSpace(mem, guest_cr3=guest.root, nested_root=outer.root)
    flags = reader.translate(vas).flags
    assert np.all(flags & 0x30 == 0x30)


def test_writes_from_many_threads_are_all_there():
    mem = PhysicalMemory(1 << 26)

    def write(number):
        pas = np.arange(number * 8, 1 << 26, 4096, dtype=np.uint64)
        mem.write_batch(pas, np.full(len(pas), number + 1, np.uint64))

    in_threads(write)
    assert mem.frames_held == 1 << 14
    first = mem.read_blocks(np.arange(0, 1 << 26, 4096, dtype=np.uint64), 128).view(np.uint64)
    assert np.all(first == np.arange(1, 17, dtype=np.uint64))


def test_a_write_between_batches_is_seen(nested):
    mem, guest, outer = nested
    space = NestedAddressSpace(mem, guest_cr3=guest.root, nested_root=outer.root)
    vas = np.full(3000, 0x400000000, np.uint64)
    assert np.all(space.translate(vas).pa == 0x8000000)
    outer.map([0], [0x9000000], overwrite=True)
    assert np.all(space.translate(vas).pa == 0x9000000)
    guest.map([0x400000000], [0x5000], rights="rw", overwrite=True)
    assert np.all(space.translate(vas).pa == 0x8005000)
