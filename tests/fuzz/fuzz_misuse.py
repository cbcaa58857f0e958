"""Calls that make no sense, chosen by bytes: any value in any place, in any state of the objects.

Wrong dtypes, shapes, strides, byte orders, read-only and overlapping outputs, objects that were
never initialised or twice, states that no pickle holds. A result or an exception of the usual
kinds, and the memory stays whole.
"""

from __future__ import annotations

import copy
import mmap
import pickle
from collections.abc import Hashable
from typing import Any

import numpy as np

from core.strategies import OUTER, SHAPES, Tape
from pyvirt import (
    AddressSpace,
    NestedAddressSpace,
    PageTables,
    PhysicalMemory,
    PyvirtError,
    Translations,
    Walker,
)
from pyvirt._core.leaves import enumerate_leaves
from pyvirt._core.physmem import PhysMem
from pyvirt._core.walker import DETAIL_DTYPE, Translation

TRACE = False
MIB = 1 << 20
PAGE = 4096
ALLOWED = (PyvirtError, TypeError, ValueError, BufferError, MemoryError)
_NUMBERS = (0, 1, -1, 2, 7, 8, PAGE, PAGE - 1, PAGE + 1, 2 * PAGE, MIB, 2 * MIB, 1 << 32, 1 << 47)
_NUMBERS += (1 << 48, 1 << 51, (1 << 52) - PAGE, 1 << 52, 1 << 57, 1 << 62, (1 << 63) - 1, 1 << 63)
_NUMBERS += ((1 << 64) - 1, (1 << 64) - PAGE, 1 << 64, 1 << 70, -(1 << 63), 16 * PAGE, 12, 21, 30)
_DTYPES = ("<u8", "<u8", ">u8", "<i8", "<u4", "<u2", "u1", "i1", "?", "<f8", "O", "S4", "<c16")
_DTYPES += ("<M8[s]", DETAIL_DTYPE, [("a", "<u8")], "<u8", "V8")
_TEXTS = ("r", "w", "x", "", "rw", "rwx", "rwxu", "mark", "stop", "raise", "x86-64", "pae", "ept")
_TEXTS += ("npt", "x86-32", "amd", "intel", "raw", "\0", "1MiB", "z" * 100)


class Index:
    """An integer by `__index__`, which may fail or change its mind."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def __index__(self) -> int:
        value = self.values.pop(0) if len(self.values) > 1 else self.values[0]
        if value is None:
            raise ValueError("no index")
        return value


def _array(tape: Tape) -> np.ndarray:
    """An array of some dtype, shape and layout."""
    dtype = np.dtype(tape.pick(_DTYPES))
    n = tape.pick((4, 4, 4, 0, 1, 3, 5, 64))
    shape: Any = tape.pick((n, n, n, (n, 1), (n, 8), (), (1, n), (2, 2, 2), (n, 0)))
    array = np.zeros(shape, dtype)
    if dtype.kind in "iu" and array.size:
        values = [tape.pick(_NUMBERS) & (1 << 8 * dtype.itemsize - 1) - 1 for _ in range(4)]
        array.reshape(-1)[:4] = values[: min(4, array.size)]
    how = tape.below(12)
    if how == 1 and array.ndim:
        array = np.repeat(array, 2, axis=0)[::2]
    elif how == 2 and array.ndim:
        array = array[::-1]
    elif how == 3:
        array.flags.writeable = False
    elif how == 4 and array.nbytes and dtype.kind in "iuf":
        array = np.zeros(array.nbytes + 1, np.uint8)[1:].view(dtype)
    elif how == 5 and array.ndim == 1:
        array = np.broadcast_to(array[:1], (4,)) if n else array
    elif how == 6:
        array = np.asfortranarray(array)
    elif how == 7:
        array = array.view(np.matrix) if array.ndim == 2 and dtype.kind in "iuf" else array
    elif how == 8:
        array = np.ma.masked_array(array) if dtype.kind in "iuf" else array
    return array


def _value(tape: Tape, memory: Any, depth: int = 0) -> Any:
    """Anything."""
    how = tape.below(20)
    if how < 5:
        return tape.pick(_NUMBERS)
    if how < 9:
        return _array(tape)
    if how == 9:
        return tape.pick(_TEXTS)
    if how == 10:
        return bytes(tape.pick((0, 1, 8, PAGE, 3 * PAGE + 5)))
    if how == 11:
        return tape.pick((None, True, 1.5, float("nan"), 1j, object(), int, ..., NotImplemented))
    if how == 12 and depth < 3:
        return [_value(tape, memory, depth + 1) for _ in range(tape.below(4))]
    if how == 13 and depth < 3:
        return tuple(_value(tape, memory, depth + 1) for _ in range(tape.below(4)))
    if how == 14:
        return Index([tape.pick((*_NUMBERS, None)) for _ in range(1 + tape.below(3))])
    if how == 15:
        return tape.pick((memory, memory.__class__, memoryview(b"12345678"), range(4), {}, set()))
    if how == 16:
        return np.array(tape.pick(_NUMBERS[:10])).astype(tape.pick(_DTYPES[:8]))[()]
    if how == 17:
        return memoryview(bytearray(2 * PAGE))[:: tape.pick((1, 2, -1))]
    if how == 18:
        return _walker(tape, memory)
    return tape.number()


def _walker(tape: Tape, memory: PhysicalMemory) -> Any:
    how = tape.below(6)
    if how == 0:
        return Walker.__new__(Walker)
    if how == 1:
        return AddressSpace(PhysicalMemory(MIB), 0, format="npt")
    kind, levels = tape.pick(OUTER if how < 4 else SHAPES)
    return Walker(memory, tape.below(16) << 12, format=kind, levels=levels)


def _out(tape: Tape, n: int) -> Translations:
    """Arrays for results, with perhaps one that does not fit, or that overlaps another."""
    out = Translations.empty(n, detail=tape.chance(50))
    name = tape.pick(("pa", "code", "page_shift", "flags", "detail"))
    if tape.chance(60):
        setattr(out, name, _array(tape))
    elif tape.chance(50):
        shared = np.zeros(8 * n + 64, np.uint8)
        out.pa = shared[: 8 * n].view(np.uint64)
        out.code = shared[8 : 8 + 2 * n].view(np.uint16)
    return out


def one_input(data: bytes) -> set[Hashable]:
    """Call things with arguments that the bytes choose."""
    tape = Tape(data)
    memory = _memory(tape)
    labels: set[Hashable] = set()
    for _ in range(1 + tape.below(6)):
        calls = tape.pick((_memory_calls, _walker_calls, _builder_calls, _state_calls))
        call = tape.pick(calls(tape, memory, lambda: _value(tape, memory)))
        name = (calls.__name__, call.__code__.co_firstlineno)
        try:
            call()
        except ALLOWED as error:
            labels.add((*name, type(error).__name__))
        else:
            labels.add(name)
        assert memory.read(0, PAGE) is not None
        memory.frames()
    space = AddressSpace(memory, 0x1000)
    space.translate(np.arange(4, dtype=np.uint64) << np.uint64(12), detail=True)
    return labels


def _memory(tape: Tape) -> PhysicalMemory:
    memory = PhysicalMemory(MIB)
    if tape.chance(50):
        PageTables(memory, frames=(0x1000, 0x8000)).map([0, 0x1000], [0x9000, 0xA000])
    if tape.chance(30):
        memory.attach(0x40000, bytes(range(256)) * 32)
    if tape.chance(20):
        mapping = mmap.mmap(-1, 4 * PAGE)
        memory.attach(0x50000, mapping, 1, 2 * PAGE)
    return memory


def _memory_calls(tape: Tape, mem: PhysicalMemory, v: Any) -> list:
    return [
        lambda: mem.read(v(), v()),
        lambda: mem.write(v(), v()),
        lambda: mem.load(v(), v()),
        lambda: mem.attach(v(), v(), v(), v()),
        lambda: mem.attach(tape.below(64) << 12, v()),
        lambda: mem.match_u64(v(), v(), v()),
        lambda: mem.is_ram(v()),
        lambda: (mem.read_u8(v()), mem.read_u16(v()), mem.read_u32(v()), mem.read_u64(v())),
        lambda: mem.read_u64(tape.number(3)),
        lambda: mem.write_u64(tape.number(3), v()),
        lambda: mem.write_u16(v(), v()),
        lambda: mem.read_batch(v()),
        lambda: mem.read_batch(v(), v(), out=v(), ok=v()),
        lambda: mem.read_batch(_array(tape), np.uint32, out=_array(tape), ok=_array(tape)),
        lambda: mem.read_batch([0, 8, 1, 1 << 40], out=_array(tape), ok=np.zeros(4, bool)),
        lambda: mem.read_batch([0, 8, 1, 1 << 40], ok=_array(tape)),
        lambda: mem.read_blocks(v(), v(), out=v(), ok=v()),
        lambda: mem.read_blocks(_array(tape), tape.below(9), ok=_array(tape)),
        lambda: mem.read_blocks(np.zeros(0, np.uint64), tape.pick(_NUMBERS)),
        lambda: mem.write_batch(_array(tape), _array(tape)),
        lambda: mem.write_batch(v(), v()),
        lambda: mem.write_blocks(v(), v()),
        lambda: mem.write_blocks([0, 16, 8, MIB - 4], np.zeros((4, tape.below(9)), np.uint8)),
        lambda: PhysicalMemory(v(), regions=v()),
        lambda: PhysicalMemory(regions=[(v(), v()), (v(), v())], huge_pages=v()),
        lambda: PhysMem(v()),
        lambda: mem.find_vmcbs(),
    ]


def _walker_calls(tape: Tape, mem: PhysicalMemory, v: Any) -> list:
    n = tape.pick((4, 0, 1, 64))
    vas = np.arange(n, dtype=np.uint64) << np.uint64(12)
    space = AddressSpace(mem, 0x1000, set_ad=tape.chance(20))
    return [
        lambda: space.translate(vas, out=_out(tape, n)),
        lambda: space.translate(vas, detail=tape.chance(50), out=_out(tape, n), on_fault=v()),
        lambda: space.translate(_array(tape), tape.pick("rwx"), on_fault=tape.pick(_TEXTS[7:10])),
        lambda: space.translate(v(), v(), v(), out=v(), on_fault=v(), detail=v(), require_ram=v()),
        lambda: space.translate(vas, out=Translations(v(), v(), v(), v(), v())),
        lambda: space.translate(vas, out=Translations(vas, *_out(tape, n).__getstate__()[1:])),
        lambda: space.translate_into(v(), v(), v(), v(), v(), v(), v(), v(), v(), v()),
        lambda: space.translate_into(
            vas, "r", False, *(_array(tape) for _ in range(4)), stop=tape.chance(50)
        ),
        lambda: space.translate_one(v(), v(), v(), v()),
        lambda: space.references(v(), v(), v()),
        lambda: space.read(v(), tape.pick((0, 1, 5000, -1, None, 1.5))),
        lambda: space.read(tape.number(2), v()),
        lambda: space.write(v(), v()),
        lambda: space.write(tape.number(2), v()),
        lambda: space.leaves(merge=v(), limit=v(), table_limit=v()),
        lambda: enumerate_leaves(v(), v(), v(), faults=v()),
        lambda: enumerate_leaves(_walker(tape, mem), 100, 100, faults=tape.chance(50)),
        lambda: Walker(v(), v()),
        lambda: Walker(mem, v(), outer=v(), format=v(), levels=v()),
        lambda: Walker(mem, 0, outer=_walker(tape, mem), levels=tape.below(9)),
        lambda: Walker(mem, 0, pa_width=v(), cr0=v(), cr4=v(), efer=v(), pkru=v(), pkrs=v()),
        lambda: NestedAddressSpace(mem, guest_cr3=v(), nested_root=v(), outer=v(), pa_width=v()),
        lambda: Walker.__new__(Walker).translate_one(0),
        lambda: Walker.__new__(Walker).references(0),
        lambda: Walker.__new__(Walker).read(0, 8),
        lambda: Walker.__new__(Walker).write(0, b"12345678"),
        lambda: AddressSpace.__new__(AddressSpace).translate(vas),
        lambda: AddressSpace.__new__(AddressSpace).leaves(),
        lambda: NestedAddressSpace.__new__(NestedAddressSpace).leaves(),
        lambda: space.__init__(mem, 0),  # type: ignore[misc]
        lambda: repr((Walker.__new__(Walker), space, Translation.__new__(Translation))),
        lambda: (Walker.__new__(Walker).format, Walker.__new__(Walker).dimensions),
        lambda: pickle.dumps(Walker.__new__(Walker)),
    ]


def _builder_calls(tape: Tape, mem: PhysicalMemory, v: Any) -> list:
    kind, levels = tape.pick(SHAPES)
    frames = (0x10000, tape.pick((0x8000, 0x1000)))
    tables = PageTables(mem, format=kind, levels=levels, frames=frames)
    blank = PageTables.__new__(PageTables)
    return [
        lambda: PageTables(v(), frames=v()),
        lambda: PageTables(mem, frames=v(), root=v(), levels=v(), format=v()),
        lambda: PageTables(mem, frames=(v(), v()), outer=v(), pa_width=v()),
        lambda: PageTables(mem, frames=frames, outer=_walker(tape, mem)),
        lambda: PageTables(mem, root=tape.number(4)).map([0], [0], overwrite=True),
        lambda: tables.map(v(), v(), page_shift=v(), rights=v(), attrs=v(), overwrite=v()),
        lambda: tables.map(_array(tape), _array(tape), overwrite=tape.chance(50)),
        lambda: tables.map([0x1000], [0x1000], attrs=v(), rights=v()),
        lambda: tables.map_range(v(), v(), tape.below(64) << 12),
        lambda: tables.map_range(v(), v(), tape.below(4) << 21, page_shift=21),
        lambda: tables.unmap(v(), tape.number(3)),
        lambda: tables.unmap(tape.number(4) << 12, tape.below(64) << 12),
        lambda: tables.protect(v(), tape.below(64) << 12, v()),
        lambda: tables.walker(memo=v(), levels=v(), outer=v()),
        lambda: tables.__init__(mem, frames=frames),  # type: ignore[misc]
        lambda: blank.map([0x1000], [0x1000]),
        lambda: blank.map_range(0, 0, 0x1000),
        lambda: blank.unmap(0, 0x1000),
        lambda: blank.protect(0, 0x1000, "r"),
        lambda: blank.walker(),
        lambda: repr(blank),
        lambda: pickle.dumps(blank),
        lambda: (blank.root, blank.levels, blank.tables_used),
        lambda: copy.deepcopy(tables).map(v(), v()),
    ]


def _state_calls(tape: Tape, mem: PhysicalMemory, v: Any) -> list:
    blank = PhysMem.__new__(PhysMem)
    empty = PhysicalMemory.__new__(PhysicalMemory)
    fresh = PhysicalMemory(MIB)
    return [
        lambda: blank.read(v(), v()),
        lambda: blank.write(0, b"1"),
        lambda: blank.load(0, bytes(PAGE)),
        lambda: blank.attach(0, bytes(PAGE)),
        lambda: (blank.frames(), blank.match_u64(0, 0, 0), blank.nbytes, blank.end, blank.size),
        lambda: (blank.read_batch([0], ok=np.zeros(1, bool)), blank.read_batch([v()])),
        lambda: blank.write_batch([0], np.zeros(1, np.uint64)),
        lambda: (blank.copy(), blank._get_owned()),
        lambda: pickle.loads(pickle.dumps(empty)),
        lambda: AddressSpace(empty, 0).translate([0, 1, 2]),
        lambda: AddressSpace(empty, 0, set_ad=True).write(0, b"1"),
        lambda: PageTables(empty, frames=(0x1000, 0x1000)),
        lambda: PageTables(empty, root=0, frames=(0x1000, 0x1000)).map([0], [0]),
        lambda: empty.find_vmcbs(),
        lambda: empty._narrow([(0, MIB)]),
        lambda: fresh._narrow(v()),
        lambda: fresh._set_owned(v(), v()),
        lambda: fresh._set_owned(_array(tape), np.zeros((4, PAGE), np.uint8)),
        lambda: fresh.__setstate__({"owned": (v(), v()), "version": v(), "attributes": {}}),
        lambda: fresh.__init__(MIB),  # type: ignore[misc]
        lambda: (copy.copy(mem), copy.deepcopy(mem), pickle.dumps(mem)),
        lambda: copy.deepcopy(AddressSpace(mem, 0x1000)).translate([0, 0x1000]),
        lambda: pickle.loads(pickle.dumps(AddressSpace(mem, 0x1000))).translate([0, 0x1000]),
        lambda: hash(AddressSpace(mem, 0).translate(0)) == v(),
        lambda: pickle.loads(pickle.dumps(AddressSpace(mem, 0).translate(0))) == v(),
    ]
