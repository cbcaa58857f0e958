"""Overhead memory: the documented table, the logged parts, and what a table builder allocates."""

import numpy as np
import pytest

import pyvirt as pv
from pyvirt.errors import InvalidTypeError, InvalidValueError
from pyvirt.hostmem import monitor_pages, nested_table_pages, overhead_pages

DOCUMENTED = {
    (256, 1): 20.29, (256, 2): 24.28, (256, 4): 32.23, (256, 8): 48.16,
    (1024, 1): 25.90, (1024, 2): 29.91, (1024, 4): 37.86, (1024, 8): 53.82,
    (4096, 1): 48.64, (4096, 2): 52.72, (4096, 4): 60.67, (4096, 8): 76.78,
    (16384, 1): 139.62, (16384, 2): 143.98, (16384, 4): 151.93, (16384, 8): 168.60,
}  # fmt: skip


def test_the_documented_table():
    memory, vcpus = np.array(list(DOCUMENTED)).T
    made = overhead_pages(memory * 256, vcpus) / 256
    assert np.abs(made - list(DOCUMENTED.values())).max() <= 0.5 / 256 + 1e-9


def test_more_memory_and_more_vcpus_take_more():
    memory = np.array([4, 100, 256, 1000, 5000, 16384, 100_000, 1 << 20]) * 256
    for mode in ("hwmmu", "hv", "bt"):
        for vcpus in (1, 3, 8, 64):
            made = overhead_pages(memory, vcpus, mode)
            assert (np.diff(made) >= 0).all()
            assert (overhead_pages(memory, vcpus + 1, mode) > made).all()
            assert (made > 0).all()


def test_binary_translation_holds_translated_code_and_no_nested_tables():
    bt, hwmmu = monitor_pages(8192, 1, "bt"), monitor_pages(8192, 1)
    assert bt["TC"] == 4609
    assert bt["GPhysHWMMU"] == 0
    assert hwmmu["GPhysHWMMU"] == 16 + 1 + 216
    assert overhead_pages(8192, 1, "bt") - overhead_pages(8192) == (
        sum(bt.values()) - sum(hwmmu.values())
    )


@pytest.mark.parametrize("mib", [1, 2, 3, 32, 1023, 1024, 1025])
def test_nested_tables_are_those_of_the_table_builder(mib):
    tables = pv.PageTables(pv.PhysicalMemory(8 << 20), format="ept", frames=(0, 8 << 20))
    tables.map_range(0, 1 << 32, mib << 20, page_shift=12, rights="rwx")
    # the builder has a root and one table of the third level above
    assert int(nested_table_pages(mib * 256)) == tables.tables_used - 2


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((0,), InvalidValueError, "memory_pages.*got 0"),
        ((1.5,), InvalidValueError, "memory_pages"),
        (("4GiB",), InvalidTypeError, "memory_pages must be integers"),
        ((256, 0), InvalidValueError, "vcpus.*got 0"),
        ((256, 1, "ept"), InvalidValueError, 'mode must be "hwmmu", "hv" or "bt"'),
    ],
)
def test_bad_input(arguments, error, words):
    with pytest.raises(error, match=words):
        overhead_pages(*arguments)
