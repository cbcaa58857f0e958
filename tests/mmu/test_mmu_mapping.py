"""`MMU("tlb-only", mapping=...)`: pages lie where a function says, and the TLBs do not care."""

import copy
import pickle
import re

import numpy as np
import pytest

from pyvirt import MMU, Accesses, PhysicalMemory
from pyvirt.errors import Fault, InvalidTypeError, InvalidValueError, PageFaultError
from pyvirt.mmu.geometry import Cache, Geometry, TlbArray
from pyvirt.traces import EVENT_DTYPE

SMALL = Geometry(
    "small", (TlbArray("L1", 1, Cache(16, 4)), TlbArray("L2", 2, Cache(64, 4, "random")))
)
BAD = 1 << 60  # not canonical with 57 bits
UPPER = 0xFF80_0000_0000_0000
LOAD, STORE, FETCH, MODIFY, MOV_CR3, MOV_CR4, INVLPG = 1, 2, 3, 4, 16, 18, 19


def scatter(pages):
    """A one-to-one function of 40 bits: odd factors and shifts can be undone."""
    return (pages * np.uint64(0x9E3779B97F4A7C15) ^ pages >> np.uint64(7)) & np.uint64(
        (1 << 40) - 1
    )


def frame(page: int) -> int:
    """`scatter` of one page, in plain integers."""
    return (page * 0x9E3779B97F4A7C15 ^ page >> 7) % (1 << 40)


def address(va: int) -> int:
    return frame(va >> 12) << 12 | va & 0xFFF


class Table:
    """Frames by page, from a list."""

    def __init__(self, frames):
        self.frames = np.array(frames)

    def __call__(self, pages):
        return self.frames[pages]


def some(seed, count=5000, pages=200):
    draw = np.random.default_rng(seed)
    vas = draw.integers(0, pages << 12, count).astype(np.uint64)
    vas[draw.random(count) < 0.2] |= np.uint64(UPPER)
    return vas


def made(mapping=scatter, **options):
    return MMU("tlb-only", tlb=SMALL, mapping=mapping, **options)


def both(**options):
    return made(**options), made(None, **options)


def test_a_batch():
    mapped, plain = both()
    vas = some(1)
    found, want = mapped.translate(vas), plain.translate(vas)
    assert found.pa.tolist() == [address(va) for va in vas.tolist()]
    assert want.pa.tolist() == [va & (1 << 52) - 1 for va in vas.tolist()]
    assert np.array_equal(found.code, want.code)
    assert mapped.stats() == plain.stats()
    assert mapped.mapping is scatter
    assert plain.mapping is None


def test_one_address_at_a_time():
    mapped, plain = both()
    calls = (mapped.load, mapped.store, mapped.fetch)
    for i, va in enumerate(some(2, 400).tolist()):
        if i & 1:
            one = mapped.translate(va)
            assert (one.va, one.pa, one.code) == (va, address(va), plain.translate(va).code)
        else:
            assert calls[i % 3](va) == address(va)
            plain.translate(va, "rwx"[i % 3])
    assert mapped.stats() == plain.stats()


def test_faults_have_no_address():
    vas = some(3, 300)
    vas[[5, 77, 299]] = BAD
    asked = []

    def noted(pages):
        asked.append(pages)
        return scatter(pages)

    result = made(noted).translate(vas)
    want = [0 if va == BAD else address(va) for va in vas.tolist()]
    assert result.pa.tolist() == want
    assert np.flatnonzero(result.fault == Fault.NON_CANONICAL).tolist() == [5, 77, 299]
    assert BAD >> 12 not in np.concatenate(asked)
    asked.clear()
    mmu = made(noted)
    assert mmu.translate(BAD).pa == 0
    with pytest.raises(PageFaultError):
        mmu.load(BAD)
    assert mmu.translate([BAD, BAD]).pa.tolist() == [0, 0]
    assert mmu.translate([]).pa.tolist() == []
    assert asked == []


@pytest.mark.parametrize("on_fault", ["stop", "raise"])
def test_a_batch_that_ends_at_a_fault(on_fault):
    vas = [0x1000, BAD, 0x2000]
    out = Accesses(np.full(3, 9, np.uint64), np.full(3, 9, np.uint16))
    if on_fault == "raise":
        with pytest.raises(PageFaultError):
            made().translate(vas, out=out, on_fault="raise")
    else:
        made().translate(vas, out=out, on_fault="stop")
    assert out.pa.tolist() == [address(0x1000), 0, 0]
    assert out.code.tolist() == [0, Fault.NON_CANONICAL, Fault.SKIPPED]


def test_results_in_the_place_of_the_addresses():
    vas = some(4)
    want = made().translate(vas)
    out = Accesses(vas.copy(), np.empty(len(vas), np.uint16))
    made().translate(out.pa, out=out)
    assert np.array_equal(out.pa, want.pa)
    assert np.array_equal(out.code, want.code)


def test_addresses_without_codes():
    vas = some(5)
    vas[3] = BAD
    pas = np.empty(len(vas), np.uint64)
    assert made().translate_into(vas, "r", False, 0, pas) == len(vas)
    assert np.array_equal(pas, made().translate(vas).pa)
    events = np.zeros(len(vas), EVENT_DTYPE)
    events["op"], events["addr"], events["size"] = LOAD, vas, 1
    again = np.empty_like(pas)
    assert made().run_into(events, again) == (len(vas), False)
    assert np.array_equal(again, pas)


def test_counts_need_no_addresses():
    def refused(pages):
        raise AssertionError("nobody asked for addresses")

    vas = some(6)
    mmu, plain = made(refused), made(None)
    assert mmu.count(vas) == len(vas)
    plain.count(vas)
    events = np.zeros(len(vas), EVENT_DTYPE)
    events["op"], events["addr"], events["size"] = STORE, vas, 1
    mmu.run(iter([events, events]))
    plain.run(iter([events, events]))
    assert mmu.stats() == plain.stats()


def test_events():
    """Only accesses have an address; one that crosses a page has that of its first part."""
    rows = [
        (LOAD, 8, 0, 0, 0x1FFC, 0),
        (MOV_CR3, 0, 0, 0, 0x9999, 0),
        (STORE, 8, 1, 0, 0x2FF8, 0),
        (INVLPG, 0, 0, 0, 0x1000, 0),
        (MOV_CR4, 0, 0, 0, 0x7777, 0xB0),
        (MODIFY, 1, 1, 0, UPPER | 0x5123, 0),
        (FETCH, 1, 0, 0, BAD, 0),
        (FETCH, 1, 0, 0, 0, 0),
    ]
    events = np.array(rows, EVENT_DTYPE)
    results = []
    for mmu in both(vcpus=2):
        out = Accesses.empty(len(events))
        assert mmu.run(events, out=out) == len(events)
        results.append((out, mmu))
    (found, mapped), (plain_out, plain) = results
    vas = [0x1FFC, None, 0x2FF8, None, None, UPPER | 0x5123, None, 0]
    assert found.pa.tolist() == [0 if va is None else address(va) for va in vas]
    assert np.array_equal(found.code, plain_out.code)
    assert mapped.stats() == plain.stats()


def test_a_long_batch_is_asked_for_in_parts():
    """What is asked for at a time has a bound, and the parts join without a seam."""
    lengths = []

    def noted(pages):
        lengths.append(len(pages))
        return scatter(pages)

    vas = some(7, 200_001)
    result = made(noted).translate(vas)
    assert result.pa.tolist() == [address(va) for va in vas.tolist()]
    assert sum(lengths) == len(vas)
    assert max(lengths) <= 1 << 16


def test_entries():
    mapped, plain = both()
    vas = some(8)
    mapped.translate(vas)
    plain.translate(vas)
    found, want = mapped.entries(), plain.entries()
    for name in ("structure", "set", "way", "page", "size"):
        assert np.array_equal(found[name], want[name])
    assert len(found) > 50
    assert (found["page"] > 1 << 45).any()
    assert found["value"].tolist() == [frame(page) << 12 for page in found["page"].tolist()]
    assert len(made().entries()) == 0


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "i8", ">u4", "u8"])
def test_frames_of_any_integer_type(dtype):
    mmu = made(Table(np.arange(50, 60).astype(dtype)))
    assert mmu.translate([0x3004, 0x9FFF]).pa.tolist() == [53 << 12 | 4, 59 << 12 | 0xFFF]


def test_a_function_that_works_in_place():
    def next_one(pages):
        pages += np.uint64(1)
        return pages

    mmu = made(next_one)
    vas = np.array([0x1008, 0x5000], np.uint64)
    assert mmu.translate(vas).pa.tolist() == [0x2008, 0x6000]
    assert vas.tolist() == [0x1008, 0x5000]
    assert mmu.entries()["page"].tolist() == [1, 5, 1, 5]


def test_functions_of_numba():
    import numba

    @numba.vectorize(["uint64(uint64)"])
    def ufunc(page):
        return page ^ np.uint64(5)

    @numba.njit
    def loop(pages):
        frames = np.empty_like(pages)
        for i in range(len(pages)):
            frames[i] = pages[i] ^ np.uint64(5)
        return frames

    vas = some(9) & np.uint64((1 << 50) - 1)
    for function in (ufunc, loop):
        assert np.array_equal(made(function).translate(vas).pa, vas ^ np.uint64(5 << 12))


def test_a_function_may_use_the_mmu():
    """It runs outside the lock of the MMU."""
    mmu = made(lambda pages: pages + np.uint64(len(mmu.counters)))
    assert mmu.load(0x3000) == 0x4000
    assert mmu.translate([0x3000]).pa.tolist() == [0x4000]


# --------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("mapping", [5, "identity", np.arange(4), {0: 1}])
def test_what_is_no_function(mapping):
    with pytest.raises(InvalidTypeError, match="mapping must be None or a function from an array"):
        made(mapping)


@pytest.mark.parametrize("mode", ["native", "nested"])
def test_tables_and_a_function(mode):
    with pytest.raises(
        InvalidValueError, match=f"mapping needs mode='tlb-only', got mode='{mode}'"
    ):
        MMU(mode, PhysicalMemory(1 << 20), mapping=scatter)


@pytest.mark.parametrize(
    ("returned", "error", "words"),
    [
        (
            lambda p: p[:-1],
            InvalidTypeError,
            "integer array of shape (3,) .*, got uint64 of shape (2,)",
        ),
        (lambda p: p[:, None], InvalidTypeError, "got uint64 of shape (3, 1)"),
        (lambda p: p[0], InvalidTypeError, "shape (3,) for these pages, got"),
        (lambda p: p.tolist(), InvalidTypeError, "got [1, 2, 7]"),
        (lambda p: None, InvalidTypeError, "got None"),
        (lambda p: p / 2, InvalidTypeError, "got float64 of shape (3,)"),
        (lambda p: p > 1, InvalidTypeError, "got bool"),
        (lambda p: p.astype(object), InvalidTypeError, "got object"),
        (
            lambda p: p.astype(np.int64) - 2,
            InvalidValueError,
            "frame numbers in [0, 0xffffffffff], got -0x1 for page 0x1",
        ),
        (
            lambda p: np.where(p == 7, 1 << 40, p),
            InvalidValueError,
            "got 0x10000000000 for page 0x7",
        ),
        (lambda p: ~p, InvalidValueError, "got 0xfffffffffffffffe for page 0x1"),
    ],
)
def test_what_a_function_must_not_return(returned, error, words):
    """The MMU stays usable, and has made the accesses."""
    words = re.escape(words).replace(r"\.\*", ".*")
    wrong = True
    mmu = made(lambda pages: returned(pages) if wrong else pages)
    events = np.zeros(3, EVENT_DTYPE)
    events["op"], events["addr"], events["size"] = LOAD, [0x1000, 0x2000, 0x7000], 1
    for call in (
        lambda: mmu.translate([0x1000, 0x2000, 0x7000]),
        lambda: mmu.run(events, out=Accesses.empty(3)),
        lambda: mmu.entries(),
    ):
        with pytest.raises(error, match="mapping must return"):
            call()
    with pytest.raises(error, match=words):
        mmu.translate([0x1000, 0x2000, 0x7000])
    assert mmu.stats()["accesses"].sum() == 9
    wrong = False
    assert mmu.translate([0x1000, 0x2000, 0x7000]).pa.tolist() == [0x1000, 0x2000, 0x7000]


def test_the_largest_frame():
    mmu = made(lambda pages: np.full_like(pages, (1 << 40) - 1))
    assert mmu.load(0x123) == (1 << 52) - 4096 + 0x123


def test_errors_of_the_function_pass():
    mmu = made(Table([7, 8, 9]))
    with pytest.raises(IndexError):
        mmu.load(0x3000)
    assert mmu.load(0x1000) == 0x8000


# --------------------------------------------------------------------------- state


@pytest.mark.parametrize("mapping", [scatter, Table(np.arange(300)[::-1])])
def test_copies_and_pickles(mapping):
    mmu = made(mapping)
    first, second = (some(seed) & np.uint64((1 << 50) - 1) for seed in (10, 11))
    mmu.translate(first)
    twins = [copy.copy(mmu), copy.deepcopy(mmu), pickle.loads(pickle.dumps(mmu))]
    want = mmu.translate(second)
    for twin in twins:
        found = twin.translate(second)
        assert np.array_equal(found.pa, want.pa)
        assert np.array_equal(found.code, want.code)
        assert twin.stats() == mmu.stats()
        assert type(twin.mapping) is type(mapping)


def test_a_function_that_cannot_be_pickled():
    mmu = made(lambda pages: pages + np.uint64(1))
    mmu.load(0x1000)
    words = "mapping of this MMU cannot be pickled, got <function .*<lambda>.*top level of a module"
    with pytest.raises(InvalidTypeError, match=words):
        pickle.dumps(mmu)
    for twin in (copy.copy(mmu), copy.deepcopy(mmu)):
        assert twin.load(0x1000) == 0x2000
        assert twin.stats()["tlb_hits"].sum() == 1


def test_snapshots_go_without_it():
    """What a snapshot holds does not depend on the function: pickled, and between MMUs."""
    mmu = made(lambda pages: pages + np.uint64(1))
    vas = some(12) & np.uint64((1 << 50) - 1)
    mmu.translate(vas)
    snapshot = pickle.loads(pickle.dumps(mmu.snapshot()))
    plain = made(None)
    plain.restore(snapshot)
    assert plain.stats() == mmu.stats()
    assert np.array_equal(plain.translate(vas).code, mmu.translate(vas).code)
    mmu.restore(snapshot)
    assert mmu.load(0x5000) == 0x6000
