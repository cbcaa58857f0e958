"""Arguments that make no sense: each is refused by an exception that says so, or does no harm.

A value out of range, and an array that does not fit, is the package's own exception; an object
of a class that has no place there may be Python's own TypeError.
"""

from __future__ import annotations

import re
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from core.compare import dirty, fast_memory, fast_space, pair, values_of, words_of
from core.strategies import MIB, Tape, cases, garbage, quick_and_slow
from oracle.slowwalk import SlowWalk
from pyvirt import (
    AddressSpace,
    InvalidTypeError,
    InvalidValueError,
    NestedAddressSpace,
    PageTables,
    PhysicalMemory,
    PyvirtError,
    Translations,
    Walker,
)

N = 4
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.sampled_from([-1, 0, 1, 2, 1 << 52, 1 << 63, (1 << 64) - 1, 1 << 64]),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=9),
    st.complex_numbers(),
    st.lists(st.integers(-1, 1 << 65), max_size=3),
    st.sampled_from(
        [
            np.float64(3.0),
            np.uint64(5),
            np.int8(-1),
            np.array(7),
            np.array([], np.float32),
            np.zeros((2, 2), np.uint64),
            np.zeros(3, "S4"),
            np.zeros(3, object),
            np.zeros(3, ">u8"),
            np.zeros(3, "datetime64[s]"),
            np.zeros(2, [("a", "u8")]),
            object(),
            dict,
            {},
            range(3),
            "x86-64",
            memoryview(b"12345678"),
        ]
    ),
)


def shown(value: object) -> str:
    """Name a case without the addresses of its objects: each worker must find the same names."""
    return re.sub(r" at 0x\w+", "", repr(value))


@pytest.fixture(scope="module")
def mem():
    return PhysicalMemory(16 * MIB)


@pytest.fixture(scope="module")
def space(mem):
    tables = PageTables(mem, frames=(MIB, MIB))
    tables.map([0x1000, 0x2000], [0x5000, 0x6000])
    return AddressSpace(mem, tables.root)


VAS = np.arange(N, dtype=np.uint64) << np.uint64(12)


@pytest.mark.parametrize(
    "vas",
    [
        VAS.astype(float),
        -VAS.astype(np.int64) - 1,
        VAS.astype(object),
        VAS.reshape(2, 2),
        np.array(["1", "2"]),
        VAS.astype(complex),
        VAS.view("datetime64[ns]"),
        np.zeros(3, bool),
        None,
        "0x1000",
        b"12345678",
        1.0,
        -1,
        1 << 64,
        [1, -2],
        [1, 1 << 64],
        [1.5],
        [[1, 2], [3, 4]],
        [None],
        object(),
    ],
    ids=shown,
)
def test_addresses(space, vas):
    out = dirty(N, True)
    with pytest.raises((TypeError, InvalidValueError)):
        space.translate(vas)
    with pytest.raises((TypeError, InvalidValueError)):
        space.translate(vas, out=out)
    assert set(out.pa.tobytes()) == {0xFF}


@pytest.mark.parametrize(
    "vas", [VAS.astype(np.uint32), VAS.astype(np.int64), VAS.astype(">u8"), VAS.tolist(), VAS[::2]]
)
def test_addresses_of_other_kinds(space, vas):
    """Whatever holds whole numbers is as good as a contiguous uint64 array."""
    assert space.translate(vas).pa.tolist() == [
        space.translate(int(va)).pa for va in np.asarray(vas).tolist()
    ]


def read_only() -> np.ndarray:
    array = np.zeros(N, np.uint64)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("field", "array"),
    [
        ("pa", read_only()),
        ("pa", np.zeros(2 * N, np.uint64)[::2]),
        ("pa", np.zeros(N + 1, np.uint64)),
        ("pa", np.zeros(N - 1, np.uint64)),
        ("pa", np.zeros(0, np.uint64)),
        ("pa", np.zeros((N, 1), np.uint64)),
        ("pa", np.zeros(N, np.int64)),
        ("pa", np.zeros(N, ">u8")),
        ("pa", np.zeros(N, float)),
        ("pa", [0] * N),
        ("pa", b"\0" * 8 * N),
        ("code", np.zeros(N, np.uint8)),
        ("code", np.zeros(N - 1, np.uint16)),
        ("page_shift", np.zeros(N, np.int8)),
        ("page_shift", np.zeros(N, bool)),
        ("flags", np.zeros(N, np.uint64)),
        ("flags", np.zeros(2 * N, np.uint16)[::-2]),
        ("detail", np.zeros(N, np.uint64)),
        ("detail", np.zeros(N, [("entry", "<u8")])),
    ],
)
def test_outputs(space, field, array):
    out = dirty(N, True)
    setattr(out, field, array)
    with pytest.raises((InvalidTypeError, InvalidValueError)):
        space.translate(VAS, out=out)
    for name in ("pa", "code", "page_shift", "flags", "detail"):
        if name != field:
            assert set(getattr(out, name).tobytes()) == {0xFF}, "nothing may be written"


def test_unaligned_arrays(space):
    """They are refused, or work."""
    vas, pas = (np.zeros(8 * N + 1, np.uint8)[1:].view(np.uint64) for _ in range(2))
    vas[:] = VAS
    out = dirty(N, False)
    out.pa = pas
    try:
        space.translate(vas, out=out)
    except InvalidTypeError:
        return
    assert pas.tolist() == space.translate(VAS).pa.tolist()


def test_outputs_that_overlap(space):
    """Results may replace the addresses; two results in one place are refused or both written."""
    vas = VAS.copy()
    expected = space.translate(VAS)
    out = Translations(vas, *(getattr(dirty(N, False), n) for n in ("code", "page_shift", "flags")))
    space.translate(vas, out=out)
    assert out.pa.tolist() == expected.pa.tolist()
    assert out.code.tolist() == expected.code.tolist()


@pytest.mark.parametrize(
    "options",
    [
        {"access": ""},
        {"access": "rw"},
        {"access": None},
        {"access": 0},
        {"access": b"r"},
        {"on_fault": "ignore"},
        {"on_fault": None},
        {"out": object()},
        {"out": np.zeros(N, np.uint64)},
        {"out": (1, 2, 3, 4)},
    ],
    ids=shown,
)
def test_options(space, options):
    with pytest.raises((InvalidTypeError, InvalidValueError)):
        space.translate(VAS, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"cr3": -1},
        {"cr3": 1 << 64},
        {"cr3": None},
        {"cr3": 1.5},
        {"cr3": "0x1000"},
        {"levels": 3},
        {"levels": 6},
        {"levels": "4"},
        {"format": "x86"},
        {"format": None},
        {"format": "pae", "levels": 4},
        {"format": "x86-32", "levels": 3},
        {"pa_width": 0},
        {"pa_width": 53},
        {"pa_width": -1},
        {"pa_width": None},
        {"cr0": -1},
        {"cr4": 1 << 64},
        {"efer": "nxe"},
        {"pkru": 1 << 32},
        {"pkrs": -1},
        {"vendor": "via"},
        {"vendor": None},
        {"outer": object()},
        {"outer": 5},
        {"mem": None},
        {"mem": b"memory"},
    ],
    ids=shown,
)
def test_constructors(mem, options):
    with pytest.raises((TypeError, InvalidValueError)):
        AddressSpace(**{"mem": mem, "cr3": 0x1000} | options)


def test_outer_dimensions(mem):
    """Only nested tables over the same memory can be further out, and at most three in all."""
    other = PhysicalMemory(MIB)
    nested = Walker(mem, 0, format="npt")
    for outer in (AddressSpace(mem, 0), Walker(other, 0, format="npt")):
        with pytest.raises((InvalidTypeError, InvalidValueError)):
            AddressSpace(mem, 0, outer=outer)
    for bad in ({"nested_format": "x86-64"}, {"guest_format": "z80"}, {"nested_levels": 3}):
        with pytest.raises((InvalidTypeError, InvalidValueError)):
            NestedAddressSpace(mem, guest_cr3=0, nested_root=0, **bad)
    for _ in range(8):  # either refused, or every dimension works
        try:
            nested = Walker(mem, 0, format="ept", outer=nested)
        except InvalidValueError:
            break
        assert nested.translate_one(0).code


@pytest.mark.parametrize(
    "call",
    [
        lambda space: space.read(-1, 4),
        lambda space: space.read(0x1000, -1),
        lambda space: space.read(0x1000, 1.0),
        lambda space: space.read(0x1000, 1 << 64),
        lambda space: space.read(1 << 64, 1),
        lambda space: space.read("0", 1),
        lambda space: space.write(0x1000, "text"),
        lambda space: space.write(0x1000, 7),
        lambda space: space.write(0x1000, None),
        lambda space: space.write(-5, b"x"),
        lambda space: space.references(-1),
        lambda space: space.references(None),
        lambda space: space.references(0x1000, "q"),
        lambda space: space.leaves(limit=-1),
        lambda space: space.leaves(limit=1.5),
        lambda space: space.leaves(limit=None),
        lambda space: space.leaves(table_limit=-1),
        lambda space: space.translate_one(1 << 64),
        lambda space: space.translate_one(0, "rx"),
    ],
)
def test_calls(space, call):
    with pytest.raises((PyvirtError, TypeError)):
        call(space)


@pytest.mark.parametrize(
    "options",
    [
        {"frames": None},
        {"frames": (1, 0x1000)},
        {"frames": (0x1000, 0)},
        {"frames": (0x1000, -0x1000)},
        {"frames": (0x1000,)},
        {"frames": 5},
        {"frames": (16 * MIB, 0x1000)},
        {"frames": (1 << 52, 0x1000)},
        {"frames": (-0x1000, 0x1000)},
        {"frames": ("a", "b")},
        {"format": "arm"},
        {"levels": 7},
        {"root": -1},
        {"root": 1 << 64},
        {"outer": "ept"},
    ],
    ids=shown,
)
def test_builder_constructor(mem, options):
    with pytest.raises((PyvirtError, TypeError)):
        PageTables(mem, **{"frames": (8 * MIB, MIB)} | options)


@pytest.mark.parametrize(
    "options",
    [
        {"vas": [0x1001]},
        {"vas": [1 << 47]},
        {"vas": [-4096]},
        {"vas": [1.0]},
        {"vas": None},
        {"vas": [[0x1000]]},
        {"vas": [0x1000, 0x2000]},
        {"pas": [0x1001]},
        {"pas": [1 << 52]},
        {"pas": [-4096]},
        {"pas": "x"},
        {"page_shift": 13},
        {"page_shift": 22},
        {"page_shift": 39},
        {"page_shift": -1},
        {"page_shift": None},
        {"page_shift": 21, "pas": [0x1000]},
        {"rights": ""},
        {"rights": "w"},
        {"rights": "rwz"},
        {"rights": 7},
        {"attrs": -1},
        {"attrs": 1 << 64},
        {"attrs": "G"},
        {"attrs": 1 << 13},
    ],
    ids=shown,
)
def test_builder_map(mem, options):
    tables = PageTables(mem, frames=(8 * MIB, MIB))
    before = words_of(mem)
    arguments = {"vas": [0x200000], "pas": [0x200000]} | options
    with pytest.raises(PyvirtError):
        tables.map(arguments.pop("vas"), arguments.pop("pas"), **arguments)
    assert words_of(mem) == before


@given(data=st.data())
@settings(max_examples=300, deadline=None, database=None, derandomize=True)
def test_junk_anywhere(data):
    """Any value in any place: a result, or an exception of the package."""
    mem = PhysicalMemory(MIB)
    space = AddressSpace(mem, 0x1000)
    junk = lambda: data.draw(JUNK)  # noqa: E731
    calls = [
        lambda: space.translate(junk()),
        lambda: space.translate(junk(), junk(), junk(), on_fault=junk()),
        lambda: space.translate(VAS, out=junk()),
        lambda: space.translate_into(junk(), "r", False, junk(), junk(), junk(), junk(), junk()),
        lambda: space.references(junk(), "r", junk()),
        lambda: space.read(junk(), data.draw(st.integers(-2, 9000)) if junk() else None),
        lambda: space.write(junk(), junk()),
        lambda: space.leaves(limit=junk(), table_limit=junk()),
        lambda: AddressSpace(junk(), junk()),
        lambda: AddressSpace(mem, 0, outer=junk(), format=junk()),
        lambda: AddressSpace(mem, 0, levels=junk(), pa_width=junk()),
        lambda: AddressSpace(mem, 0, cr0=junk(), cr4=junk(), efer=junk(), pkru=junk()),
        lambda: AddressSpace(mem, 0, vendor=junk(), ac=junk(), memo=junk()),
        lambda: NestedAddressSpace(mem, guest_cr3=junk(), nested_root=junk(), pa_width=junk()),
        lambda: PageTables(junk(), frames=junk()),
        lambda: PageTables(mem, frames=(0x1000, 0x1000), root=junk(), levels=junk()),
        lambda: tables(mem).map(junk(), junk(), page_shift=junk(), rights=junk()),
        lambda: tables(mem).map([0x1000], [0x1000], attrs=junk(), overwrite=junk()),
        lambda: tables(mem).map_range(junk(), junk(), junk()),
        lambda: tables(mem).unmap(junk(), junk()),
        lambda: tables(mem).protect(junk(), junk(), junk()),
    ]
    call = data.draw(st.sampled_from(calls))
    try:
        call()
    except (PyvirtError, TypeError, ValueError):
        pass


def tables(mem):
    """A builder with few frames."""
    return PageTables(mem, frames=(0x10000, 0x8000))


def check_roots(data: bytes) -> None:
    """A wrong root is a fault code, never a crash: data as tables, no memory, wild bits."""
    tape = Tape(data)
    case = garbage(tape, 1 + tape.below(3))
    wild = [tape.number() for _ in case.dims]
    masks = (0xFFF, 0xFFFFFFFF, (1 << 52) - 1, (1 << 64) - 1)
    roots = [value & tape.pick(masks) for value in wild]
    case.dims = tuple(replace(dim, root=root) for dim, root in zip(case.dims, roots, strict=True))
    # outside long mode the upper half of CR3 is ignored
    wide = [dim for dim in case.dims if dim.format not in ("pae", "x86-32")]
    if any(dim.root >> dim.pa_width for dim in wide):
        with pytest.raises(InvalidValueError, match="root"):
            pair(case)
        return
    slow, fast, memory = pair(case)
    for trial in case.trials(6):
        assert values_of(fast.translate(*trial)) == values_of(slow.translate(*trial))
    fast.references(case.addresses[0])
    assert words_of(memory) == slow.memory.nonzero()


ROOTS = st.binary(min_size=4096, max_size=4096)
test_roots, test_roots_slow = quick_and_slow(check_roots, ROOTS, 100, 1500)


def check_raw(case) -> None:
    """Frames full of random words, with no thought of entries."""
    source = np.random.default_rng(case.tape.number())
    for pa in [frame for frame, _ in case.memory.regions]:
        words = source.integers(0, 1 << 64, 512, np.uint64, endpoint=False)
        case.memory.words.update({pa + 8 * i: int(word) for i, word in enumerate(words)})
    slow = SlowWalk(case.memory.copy(), *case.dims)
    fast = fast_space(fast_memory(case.memory), case.dims)
    for trial in case.trials(10):
        assert values_of(fast.translate(*trial)) == values_of(slow.translate(*trial))
    assert words_of(fast.mem) == slow.memory.nonzero()


test_raw, test_raw_slow = quick_and_slow(check_raw, cases(1, "garbage"), 100, 1500)
