"""Objects made without their constructor say so, and never crash."""

import numpy as np
import pytest

from pyvirt import AddressSpace, PageTables, PhysicalMemory, Walker
from pyvirt._core.physmem import PhysMem
from pyvirt.errors import InvalidTypeError, PyvirtError


@pytest.mark.parametrize(
    "make",
    [
        lambda: Walker(PhysMem.__new__(PhysMem), 0),
        lambda: AddressSpace(PhysicalMemory.__new__(PhysicalMemory), 0),
        lambda: PageTables(PhysMem.__new__(PhysMem), frames=(0x1000, 0x1000)),
        lambda: Walker.__new__(Walker).translate_one(0),
        lambda: Walker.__new__(Walker).references(0),
        lambda: AddressSpace.__new__(AddressSpace).translate(np.zeros(3, np.uint64)),
        lambda: AddressSpace.__new__(AddressSpace).leaves(),
        lambda: Walker.__new__(Walker).read(0, 1),
        lambda: PageTables.__new__(PageTables).map([0], [0]),
        lambda: PageTables.__new__(PageTables).unmap(0, 4096),
        lambda: PageTables.__new__(PageTables).protect(0, 4096, "r"),
        lambda: PageTables.__new__(PageTables).walker(),
    ],
)
def test_what_was_never_initialised_says_so(make):
    with pytest.raises(InvalidTypeError, match="initialised"):
        make()


@pytest.mark.parametrize(
    "use",
    [
        lambda mem: mem.read(0, 1),
        lambda mem: mem.write_u8(0, 1),
        lambda mem: mem.load(0, b"x"),
        lambda mem: mem.attach(0, bytes(4096)),
        lambda mem: mem.read_batch([0]),
        lambda mem: mem.copy(),
    ],
)
def test_a_memory_without_ram_has_nothing_to_give(use):
    with pytest.raises(PyvirtError):
        use(PhysMem.__new__(PhysMem))


def test_a_memory_without_ram_can_be_looked_at():
    mem = PhysMem.__new__(PhysMem)
    assert (mem.size, mem.end, mem.nbytes, mem.regions) == (0, 0, 0, [])
    assert mem.frames().tolist() == []
