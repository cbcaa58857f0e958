"""Wrong arguments to the MMU: named in the error, and nothing has happened."""

import copy
import pickle
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from pyvirt import MMU, Access, Accesses, AddressSpace, PageTables, PhysicalMemory, PyvirtError
from pyvirt._core.dtypes import EVENT_DTYPE, RECORD_DTYPE
from pyvirt.errors import InvalidTypeError, InvalidValueError, OutsideMemoryError, PageFaultError
from pyvirt.mmu.geometry import Cache, Geometry, TlbArray

VA = 0x40_0000
ALL = (1 << 64) - 1


def machine(**options):
    """A native MMU over sixteen pages, with something in its caches."""
    memory = PhysicalMemory(1 << 24)
    tables = PageTables(memory, frames=(0x10_0000, 0x10_0000))
    tables.map_range(VA, 0x20_0000, 0x10000, rights="rw")
    mmu = MMU("native", memory, cr3=tables.root, **options)
    mmu.translate(VA + np.arange(16) * 4096)
    return mmu


def state(mmu):
    """What an error must not change."""
    cores, vcpus = range(mmu.cores), range(mmu.vcpus)
    return (
        [mmu.entries(core).tolist() for core in cores],
        [mmu.registers(vcpu) for vcpu in vcpus],
        mmu.counters.tobytes(),
    )


@pytest.fixture(scope="module")
def mmu():
    return machine(vcpus=2)


@pytest.fixture
def unchanged(mmu):
    """The MMU is as before, and works."""
    before = state(mmu)
    yield mmu
    assert state(mmu) == before
    assert copy.deepcopy(mmu).load(VA + 5) == 0x20_0005


# ----------------------------------------------------------------------------- integers

_CALLS = {
    # (method, argument that is wrong, other arguments, least, most)
    "translate_one-va": ("translate_one", "va", {}, 0, ALL),
    "translate_one-vcpu": ("translate_one", "vcpu", {"va": VA}, 0, 1),
    "load": ("load", "va", {}, 0, ALL),
    "store": ("store", "va", {}, 0, ALL),
    "fetch": ("fetch", "va", {}, 0, ALL),
    "count-vcpu": ("count", "vcpu", {"vas": [VA]}, 0, 1),
    "translate-vcpu": ("translate", "vcpu", {"vas": [VA]}, 0, 1),
    "invlpg-va": ("invlpg", "va", {}, 0, ALL),
    "invlpg-vcpu": ("invlpg", "vcpu", {"va": 0}, 0, 1),
    "mov_cr3-value": ("mov_cr3", "value", {}, 0, ALL),
    "mov_cr3-vcpu": ("mov_cr3", "vcpu", {"value": 0}, 0, 1),
    "mov_cr0-value": ("mov_cr0", "value", {}, 0, ALL),
    "mov_cr0-vcpu": ("mov_cr0", "vcpu", {"value": 0}, 0, 1),
    "mov_cr4-value": ("mov_cr4", "value", {}, 0, ALL),
    "mov_cr4-vcpu": ("mov_cr4", "vcpu", {"value": 0}, 0, 1),
    "invpcid-type": ("invpcid", "type", {}, 0, 3),
    "invpcid-pcid": ("invpcid", "pcid", {"type": 0}, 0, 4095),
    "invpcid-va": ("invpcid", "va", {"type": 0}, 0, ALL),
    "invpcid-vcpu": ("invpcid", "vcpu", {"type": 0}, 0, 1),
    "invvpid-type": ("invvpid", "type", {}, 0, 3),
    "invvpid-vpid": ("invvpid", "vpid", {"type": 0}, 0, 0xFFFF),
    "invvpid-va": ("invvpid", "va", {"type": 0}, 0, ALL),
    "invept-type": ("invept", "type", {}, 1, 2),
    "invept-eptp": ("invept", "eptp", {"type": 1}, 0, ALL),
    "invlpga-va": ("invlpga", "va", {"asid": 1}, 0, ALL),
    "invlpga-asid": ("invlpga", "asid", {"va": 0}, 0, 0xFFFF),
    "tlb_control": ("tlb_control", "control", {}, 0, 7),
    "vm_entry": ("vm_entry", "vcpu", {}, 0, 1),
    "vm_exit": ("vm_exit", "vcpu", {}, 0, 1),
    "vcpu_switch-core": ("vcpu_switch", "core", {}, 0, 1),
    "vcpu_switch-vcpu": ("vcpu_switch", "vcpu", {"core": 0}, 0, 1),
    "vm_switch-vpid": ("vm_switch", "vpid", {"cr3": 0}, 0, 0xFFFF),
    "vm_switch-cr3": ("vm_switch", "cr3", {"vpid": 0}, 0, ALL),
    "vm_switch-root": ("vm_switch", "nested_root", {"vpid": 0, "cr3": 0}, 0, ALL),
    "registers": ("registers", "vcpu", {}, 0, 1),
    "pml_log": ("pml_log", "vcpu", {}, 0, 1),
    "entries": ("entries", "core", {}, 0, 1),
}


@pytest.mark.parametrize("name", _CALLS)
@pytest.mark.parametrize(
    "value", [1.5, float("nan"), "1", None, 1j, [1], (), b"1", np.float64(1), np.zeros(2), object()]
)
def test_integers_of_other_types(unchanged, name, value):
    method, wrong, others, _, _ = _CALLS[name]
    with pytest.raises(InvalidTypeError, match=wrong):
        getattr(unchanged, method)(**others, **{wrong: value})


@pytest.mark.parametrize("name", _CALLS)
def test_integers_out_of_range(unchanged, name):
    method, wrong, others, least, most = _CALLS[name]
    for value in (least - 1, most + 1, -1 << 63, 1 << 64, 1 << 200):
        with pytest.raises(InvalidValueError, match=wrong) as caught:
            getattr(unchanged, method)(**others, **{wrong: value})
        assert f"{value:#x}" in str(caught.value)
        assert f"{most:#x}" in str(caught.value)


@pytest.mark.parametrize("name", _CALLS)
def test_an_index_that_fails(unchanged, name):
    class Index:
        def __index__(self):
            raise KeyError("no index")

    method, wrong, others, _, _ = _CALLS[name]
    with pytest.raises(KeyError, match="no index"):
        getattr(unchanged, method)(**others, **{wrong: Index()})


def test_numpy_integers_and_indices_are_taken(mmu):
    class Index:
        def __index__(self):
            return VA

    twin = copy.deepcopy(mmu)
    for value in (np.uint64(VA), np.int32(VA), Index()):
        assert twin.load(value) == 0x20_0000
        one = twin.translate_one(value)
        assert one.pa == 0x20_0000
        assert f"{VA:#x}" in repr(one)


def test_controls_that_do_not_exist(unchanged):
    for control in (2, 4, 5, 6):
        with pytest.raises(InvalidValueError):
            unchanged.tlb_control(control)


def test_roots_too_wide(unchanged):
    for call in (unchanged.mov_cr3, lambda root: unchanged.vm_switch(0, root)):
        with pytest.raises(InvalidValueError, match="root"):
            call(1 << 62)


# ----------------------------------------------------------------------------- batches

_ADDRESSES = {
    "float": [1.0],
    "float array": np.zeros(3),
    "nan": [float("nan")],
    "none": [None],
    "text": "abc",
    "texts": ["1"],
    "bytes": b"12345678",
    "none at all": None,
    "bools": [True, False],
    "bool array": np.zeros(3, bool),
    "two dimensions": [[1, 2]],
    "matrix": np.zeros((2, 2), np.uint64),
    "complex": np.zeros(2, np.complex128),
    "dates": np.zeros(2, "M8[s]"),
    "structured": np.zeros(2, EVENT_DTYPE),
    "objects": np.array([object()]),
    "a scalar of floats": 1.5,
    "a set": {1, 2},
}


@pytest.mark.parametrize("vas", _ADDRESSES.values(), ids=_ADDRESSES)
def test_addresses_of_other_types(unchanged, vas):
    for call in (unchanged.translate, unchanged.count):
        with pytest.raises(InvalidTypeError, match="vas"):
            call(vas)


@pytest.mark.parametrize("vas", [[-1], [0, 1 << 64], np.array([5, -5]), [-1 << 70]], ids=str)
def test_addresses_out_of_range(unchanged, vas):
    for call in (unchanged.translate, unchanged.count):
        with pytest.raises(InvalidValueError, match="vas"):
            call(vas)


def test_one_address_out_of_range(unchanged):
    for va in (-1, 1 << 64):
        with pytest.raises(InvalidValueError, match="va"):
            unchanged.translate(va)


def test_addresses_in_any_layout(mmu):
    want = 0x20_0000 + np.arange(4) * 4096
    vas = VA + np.arange(4) * 4096
    spaced = np.zeros(8, np.uint64)
    spaced[::2] = vas
    readonly = vas.astype(np.uint64)
    readonly.flags.writeable = False
    unaligned = np.frombuffer(b"x" + vas.astype("<u8").tobytes(), np.uint8)[1:].view("<u8")
    twin = copy.deepcopy(mmu)
    layouts = [vas.tolist(), tuple(vas.tolist()), vas, spaced[::2], readonly, unaligned]
    layouts += [vas.astype(">u8"), vas.astype(np.uint32), vas.astype(np.int32), vas[::-1][::-1]]
    for layout in layouts:
        assert twin.translate(layout).pa.tolist() == want.tolist()
    assert len(twin.translate([])) == 0
    assert twin.count(np.zeros(0, np.uint64)) == 0


_RESULTS = {
    "other dtype": lambda n, dtype: np.zeros(n, np.float64),
    "signed": lambda n, dtype: np.zeros(n, f"i{dtype.itemsize}"),
    "big-endian": lambda n, dtype: np.zeros(n, dtype.newbyteorder(">")),
    "too long": lambda n, dtype: np.zeros(n + 1, dtype),
    "too short": lambda n, dtype: np.zeros(n - 1, dtype),
    "two dimensions": lambda n, dtype: np.zeros((n, 1), dtype),
    "spaced": lambda n, dtype: np.zeros(2 * n, dtype)[::2],
    "backwards": lambda n, dtype: np.zeros(n, dtype)[::-1],
    "read-only": lambda n, dtype: np.frombuffer(bytes(n * dtype.itemsize), dtype),
    "unaligned": lambda n, dtype: np.zeros(n * dtype.itemsize + 1, np.uint8)[1:].view(dtype),
    "a list": lambda n, dtype: [0] * n,
    "bytes": lambda n, dtype: bytearray(n * dtype.itemsize),
    "a number": lambda n, dtype: 5,
}


@pytest.mark.parametrize("field", ["pa", "code"])
@pytest.mark.parametrize("make", _RESULTS.values(), ids=_RESULTS)
def test_results_that_do_not_fit(unchanged, make, field):
    events = np.zeros(3, EVENT_DTYPE)
    events["op"], events["addr"] = 1, VA
    for call in (
        lambda out: unchanged.translate([VA] * 3, out=out),
        lambda out: unchanged.run(events, out=out),
    ):
        out = Accesses.empty(3)
        setattr(out, field, make(3, getattr(out, field).dtype))
        with pytest.raises(InvalidTypeError, match=field):
            call(out)


@pytest.mark.parametrize("out", [5, (1, 2), np.zeros(3), "pa", {}], ids=str)
def test_out_that_is_no_accesses(unchanged, out):
    with pytest.raises(InvalidTypeError, match="out"):
        unchanged.translate([VA] * 3, out=out)
    with pytest.raises(InvalidTypeError, match="out"):
        unchanged.run(np.zeros(3, EVENT_DTYPE), out=out)


def test_out_where_it_cannot_be(unchanged):
    with pytest.raises(InvalidTypeError, match="out"):
        unchanged.translate(VA, out=Accesses.empty(1))
    with pytest.raises(InvalidTypeError, match="out"):
        unchanged.run([np.zeros(1, EVENT_DTYPE)], out=Accesses.empty(1))


def test_results_in_the_place_of_the_addresses(mmu):
    twin = copy.deepcopy(mmu)
    vas = (VA + np.arange(5000) % 16 * 4096).astype(np.uint64)
    want = twin.translate(vas).pa
    twin.translate(vas, out=Accesses(vas, np.zeros(5000, np.uint16)))
    assert np.array_equal(vas, want)


@pytest.mark.parametrize("access", ["", "q", "rw", "R", b"r", None, 1, ["r"], np.zeros(2)], ids=str)
def test_kinds_of_access(unchanged, access):
    for call in (unchanged.translate, unchanged.count, unchanged.translate_one):
        with pytest.raises(InvalidValueError, match="access"):
            call(VA if call == unchanged.translate_one else [VA], access)


@pytest.mark.parametrize("on_fault", ["", "halt", None, 1, ["mark"], np.zeros(2), {}], ids=str)
def test_on_fault(unchanged, on_fault):
    with pytest.raises((InvalidValueError, InvalidTypeError), match="on_fault"):
        unchanged.translate([VA], on_fault=on_fault)
    with pytest.raises((InvalidValueError, InvalidTypeError), match="on_fault"):
        unchanged.run(np.zeros(1, EVENT_DTYPE), on_fault=on_fault)


# ------------------------------------------------------------------------------ events


@pytest.mark.parametrize(
    "events",
    [
        5,
        None,
        "ab",
        [1],
        [None],
        np.zeros(3),
        np.zeros((), EVENT_DTYPE),
        np.zeros((2, 2), EVENT_DTYPE),
        np.zeros(2, RECORD_DTYPE),
        np.zeros(2, EVENT_DTYPE.newbyteorder(">")),
        [np.zeros((), EVENT_DTYPE)],
    ],
    ids=lambda value: repr(value)[:30],
)
@pytest.mark.parametrize("on_fault", ["mark", "stop"])
def test_events_of_other_types(unchanged, events, on_fault):
    with pytest.raises(InvalidTypeError, match="events"):
        unchanged.run(events, on_fault=on_fault)


_EVENTS = {
    "no such operation": ((200, 0, 0, 0, 0, 0), InvalidValueError),
    "no such vCPU": ((1, 0, 7, 0, VA, 0), InvalidValueError),
    "no such core": ((40, 0, 0, 9, 0, 0), InvalidValueError),
    "type of INVPCID": ((20, 0, 0, 4, 0, 0), InvalidValueError),
    "type of INVVPID": ((21, 0, 0, 4, 0, 0), InvalidValueError),
    "type of INVEPT": ((22, 0, 0, 0, 0, 0), InvalidValueError),
    "TLB_CONTROL": ((24, 0, 0, 2, 0, 0), InvalidValueError),
    "root": ((16, 0, 0, 0, 0, 1 << 60), InvalidValueError),
    "VPID": ((41, 0, 0, 1 << 16, 0, 0), InvalidValueError),
    "size": ((32, 3, 0, 0, 0, 0), InvalidValueError),
    "alignment": ((32, 8, 0, 0, 4, 0), InvalidValueError),
    "outside memory": ((32, 8, 0, 0, 1 << 40, 0), OutsideMemoryError),
    "without tables": ((33, 12, 0, 3, VA, 0), InvalidValueError),
}


@pytest.mark.parametrize(("row", "error"), _EVENTS.values(), ids=_EVENTS)
def test_an_event_that_cannot_be_is_named(row, error):
    mmu = machine()
    events = np.zeros(5, EVENT_DTYPE)
    events["op"], events["addr"] = 1, VA
    before = mmu.stats()["accesses"].sum()
    events[3] = row
    registers = mmu.registers()
    with pytest.raises(error, match=rf"event 3 \(op {row[0]}"):
        mmu.run(events)
    assert mmu.stats()["accesses"].sum() == before + 3
    assert mmu.registers() == registers
    mmu.run(events[:3])


def test_a_reader_that_fails():
    mmu = machine()
    before = int(mmu.stats()["accesses"].sum())

    def chunks():
        yield np.array([(1, 8, 0, 0, VA, 0)], EVENT_DTYPE)
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        mmu.run(chunks())
    assert mmu.stats()["accesses"].sum() == before + 1


# ---------------------------------------------------------------------------- construction

_MEMORY = PhysicalMemory(1 << 20)
_OPTIONS = {
    "mode": [{"mode": "host"}, {"mode": 5}, {"mode": []}, {"mode": None}],
    "memory": [{"memory": None}, {"memory": 5}, {"memory": b"1"}, {"memory": PhysicalMemory}],
    "cr3": [{"cr3": value} for value in (-1, 1 << 64, 1.5, None, "0")],
    "nested_root": [{"mode": "nested", "nested_root": value} for value in (-1, 1 << 64, None)],
    "nested_format": [{"nested_format": value} for value in ("x86-64", None, [])],
    "guest_format": [{"guest_format": value} for value in ("ept", None, [], 4)],
    "levels": [{"guest_levels": value} for value in (3, 6, 2.0, "4")]
    + [{"mode": "nested", "nested_levels": value} for value in (3, 6, None)],
    "tlb": [{"tlb": value} for value in (None, 5, Cache(4), [])],
    "preset": [{"tlb": "refrence"}, {"tlb": ""}],
    "vcpus": [{"vcpus": value} for value in (0, -1, 4097, 1 << 70, 1.5, None, "1")],
    "cores": [{"cores": value} for value in (0, -1, 4097, 1 << 70, 1.5, "1")],
    "precision": [{"precision": value} for value in ("high", None, [], np.zeros(2))],
    "prefetch": [{"prefetch": value} for value in ("never", None, 2, np.zeros(2))],
    "rng": [{"rng": value} for value in ("a", -1, 1.5, object())],
    "data_cache": [{"data_cache": value} for value in (5, None, [5], [Cache(4)] * 4)],
    "records": [
        {"records": value}
        for value in (5, np.zeros(3), np.zeros(0, RECORD_DTYPE), np.zeros((2, 2), RECORD_DTYPE))
    ]
    + [{"records": np.zeros(4, RECORD_DTYPE)[::2]}],
    "tables": [
        {"tables": 5},
        {"tables": PageTables(PhysicalMemory(1 << 20), frames=(0x1000, 0x1000))},
    ],
    "pml": [{"pml": True}, {"mode": "nested", "pml": True}],
    "pa_width": [{"pa_width": value} for value in (31, 53, None, "48")],
    "cr0": [{"cr0": value} for value in (-1, 1 << 64, None)],
    "cr4": [{"cr4": value} for value in (-1, 1 << 64, None)],
    "efer": [{"efer": value} for value in (-1, 1 << 64, None)],
    "pkru": [{"pkru": value} for value in (-1, 1 << 32, None)],
    "vendor": [{"vendor": value} for value in ("arm", None, 5)],
    "unknown option": [{"bogus": 1}, {"format": "pae"}, {"memo": True}],
}


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, options) for name, cases in _OPTIONS.items() for options in cases],
    ids=lambda value: re.sub(r" at 0x\w+|\s+", " ", str(value))[:40],
)
def test_options_that_cannot_be(name, options):
    with pytest.raises((InvalidTypeError, InvalidValueError), match=name):
        MMU(**{"mode": "native", "memory": _MEMORY, **options})


def test_a_root_too_wide_is_named():
    for name in ("cr3", "nested_root"):
        with pytest.raises(InvalidValueError, match=rf"{name}|root"):
            MMU("nested", _MEMORY, **{name: 1 << 60})


@pytest.mark.parametrize(
    "space", [5, None, MMU("tlb-only"), _MEMORY], ids=lambda v: type(v).__name__
)
def test_over_something_else(space):
    with pytest.raises(InvalidTypeError, match="space"):
        MMU.over(space)


def test_snapshots_of_others():
    one = machine()
    for other in (machine(vcpus=2), machine(guest_levels=5), machine(pa_width=40)):
        snapshot = other.snapshot()
        before = state(one)
        with pytest.raises(InvalidValueError, match="snapshot"):
            one.restore(snapshot)
        assert state(one) == before
    for wrong in (None, 5, {}, one):
        with pytest.raises(InvalidTypeError, match="snapshot"):
            one.restore(wrong)


def test_snapshots_of_other_data_caches():
    """Arrays of one size may be laid out in other ways."""
    memory = PhysicalMemory(1 << 20)
    options = {"mode": "native", "memory": memory}
    one = MMU(**options, data_cache=[Cache(16, 16, "tree-plru")])
    other = MMU(**options, data_cache=[Cache(16, 16, "lru")])
    with pytest.raises(InvalidValueError, match="snapshot"):
        other.restore(one.snapshot())


def test_attributes_are_read_only(mmu):
    for name in ("mem", "geometry", "counters", "mode", "vcpus", "cores", "records_written"):
        with pytest.raises(AttributeError):
            setattr(mmu, name, None)
    with pytest.raises(ValueError, match="read-only"):
        mmu.counters["splits"] = 5


# ------------------------------------------------------------------- never made, or made twice

_UNMADE = {
    "translate": lambda m: m.translate([1]),
    "translate one": lambda m: m.translate(1),
    "translate_one": lambda m: m.translate_one(1),
    "count": lambda m: m.count([1]),
    "load": lambda m: m.load(1),
    "run": lambda m: m.run(np.zeros(1, EVENT_DTYPE)),
    "run of none": lambda m: m.run(np.zeros(0, EVENT_DTYPE)),
    "run into": lambda m: m.run_into(np.zeros(1, EVENT_DTYPE)),
    "entries": lambda m: m.entries(),
    "reset": lambda m: m.reset(),
    "stats": lambda m: m.stats(),
    "snapshot": lambda m: m.snapshot(),
    "restore": lambda m: m.restore(MMU("tlb-only").snapshot()),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "registers": lambda m: m.registers(),
    "pml_log": lambda m: m.pml_log(),
    "mov_cr0": lambda m: m.mov_cr0(0),
    "mov_cr3": lambda m: m.mov_cr3(0),
    "mov_cr4": lambda m: m.mov_cr4(0),
    "invlpg": lambda m: m.invlpg(0),
    "invpcid": lambda m: m.invpcid(0),
    "invvpid": lambda m: m.invvpid(0),
    "invept": lambda m: m.invept(1),
    "invlpga": lambda m: m.invlpga(0, 0),
    "tlb_control": lambda m: m.tlb_control(0),
    "vm_entry": lambda m: m.vm_entry(),
    "vm_exit": lambda m: m.vm_exit(),
    "vcpu_switch": lambda m: m.vcpu_switch(0),
    "vm_switch": lambda m: m.vm_switch(0, 0),
}


@pytest.mark.parametrize("call", _UNMADE.values(), ids=_UNMADE)
def test_never_initialised(call):
    with pytest.raises(InvalidTypeError, match="not initialised"):
        call(MMU.__new__(MMU))


def test_what_one_that_was_never_initialised_can_say():
    blank = MMU.__new__(MMU)
    assert "not initialised" in repr(blank)
    assert (blank.vcpus, blank.cores, blank.mode, blank.records_written) == (0, 0, None, 0)
    assert repr(Access.__new__(Access))


def test_initialised_twice(unchanged):
    with pytest.raises(InvalidTypeError, match="initialised already"):
        unchanged.__init__("tlb-only")


def test_initialised_after_a_failure():
    """The second try makes what a first one would, or is refused; many tries are no harm."""
    shape = Geometry("wide", tuple(TlbArray(f"a{i}", 1, Cache(4, 4)) for i in range(16)))
    made = MMU.__new__(MMU)
    with pytest.raises(PyvirtError):
        made.__init__("native", _MEMORY, cr3=1 << 60, tlb=shape)
    try:
        made.__init__("native", _MEMORY, tlb=shape)
    except InvalidTypeError:
        return
    plain = MMU("native", _MEMORY, tlb=shape)
    vas = np.arange(300) % 70 * 4096
    assert np.array_equal(made.translate(vas).code, plain.translate(vas).code)
    assert made.stats() == plain.stats()
    assert np.array_equal(made.entries(), plain.entries())


def test_no_memory_for_the_arrays():
    shape = Geometry("huge", tuple(TlbArray(f"a{i}", 1, Cache(1 << 20, 1)) for i in range(16)))
    with pytest.raises(InvalidValueError, match="MiB"):
        MMU("tlb-only", vcpus=4096, tlb=shape)


# --------------------------------------------------------------------------------- re-entry

_REENTRY = {
    "a finaliser during a snapshot": """
        import gc

        class Cycle:
            def __init__(self):
                self.own = self

            def __del__(self):
                mmu.translate(0x1000)
                memory.write_u64(0x5000, 1)

        gc.set_threshold(1)
        for _ in range(300):
            Cycle()
            mmu.snapshot()
            mmu.mov_cr4(0xB0)
            mmu.entries()
            mmu.reset()
        """,
    "an index that calls back": """
        class Index:
            def __index__(self):
                if made:
                    mmu.translate(0x1000)
                return 0

        made = []
        mmu = MMU("native", memory, pkru=Index(), cr3=0, vcpus=2)
        made.append(mmu)
        mmu.mov_cr4(0xB0)
        mmu.mov_cr0(0x80010033)
        mmu.invlpg(Index(), vcpu=Index())
        mmu.mov_cr3(Index())
        """,
    "a reader that uses the MMU": """
        import numpy as np
        from pyvirt._core.dtypes import EVENT_DTYPE

        def chunks():
            for _ in range(3):
                mmu.translate([0x1000, 0x2000])
                mmu.mov_cr3(0)
                yield np.array([(1, 8, 0, 0, 0x1000, 0)], EVENT_DTYPE)

        assert mmu.run(chunks()) == 3
        """,
}


@pytest.mark.parametrize("code", _REENTRY.values(), ids=_REENTRY)
def test_calls_from_within_calls_do_not_hang(code):
    """In a process of its own, which can be ended."""
    prologue = """
    from pyvirt import MMU, PhysicalMemory
    memory = PhysicalMemory(1 << 20)
    mmu = MMU("native", memory, vcpus=20)
    """
    source = textwrap.dedent(prologue) + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_errors_are_the_usual_ones():
    """A fault tells where; the space of a walker and the MMU agree on it."""
    mmu = machine()
    space = AddressSpace(mmu.mem, mmu.registers()["cr3"])
    with pytest.raises(PageFaultError) as caught:
        mmu.load(VA + 0x10000)
    assert caught.value.va == VA + 0x10000
    assert caught.value.code == space.translate(VA + 0x10000).code
