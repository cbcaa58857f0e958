"""One pass over the addresses counts what each TLB alone would."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import hypothesis.strategies as st
import numpy as np
import pytest

import pyvirt as pv
from core.strategies import quick_and_slow
from pyvirt import InvalidTypeError, InvalidValueError
from pyvirt._core.reuse import KERNELS, SETS, ReuseProfile
from pyvirt._core.stack import StackProfile
from pyvirt.mmu.sweep import Sweep, sweep

EVENT_DTYPE = np.dtype(
    [
        ("op", "u1"),
        ("size", "u1"),
        ("vcpu", "<u2"),
        ("arg", "<u4"),
        ("addr", "<u8"),
        ("value", "<u8"),
    ]
)


def available(kernel: str) -> bool:
    try:
        ReuseProfile(kernel=kernel)
    except InvalidValueError:
        return False
    return True


HERE = [kernel for kernel in KERNELS if available(kernel)]


def misses_of(pages: list[int], sets: int, ways: int) -> int:
    """One LRU TLB, plainly."""
    tlb: list[list[int]] = [[] for _ in range(sets)]
    misses = 0
    for page in pages:
        entries = tlb[page % sets]
        if page in entries:
            entries.remove(page)
        else:
            misses += 1
        entries.insert(0, page)
        del entries[ways:]
    return misses


def table_of(profile: ReuseProfile) -> list[int]:
    return profile.table()["misses"].tolist()


# Streams: repeats, loops, strides, a few hot pages, and addresses from anywhere.
PIECES = st.one_of(
    st.lists(st.integers(0, 40), min_size=1, max_size=60),
    st.builds(lambda a, n: [a] * n, st.integers(0, 2**40), st.integers(1, 30)),
    st.builds(
        lambda a, step, n, times: [(a + step * i) % 2**51 for i in range(n)] * times,
        st.integers(0, 2**51 - 1),
        st.sampled_from([1, 2, 8, 16, 4096, 1 << 20, 1 << 33]),
        st.integers(1, 40),
        st.integers(1, 3),
    ),
    st.lists(st.integers(0, 2**52 - 1), min_size=1, max_size=20),
)
STREAMS = st.lists(PIECES, min_size=1, max_size=8).map(lambda parts: [*chain(*parts)])
SHAPES = st.sampled_from(
    [
        ((1, 2, 4, 8), 16),
        ((1,), 40),
        ((4, 32), (3, 17)),
        ((1, 16, 1024), (64, 4, 1)),
        ((2, 4), 8),
        ((1, 2, 4, 16), (16, 3, 16, 1)),
        ((2, 8, 64, 512, 2048), 16),
        ((1, 2, 4, 8, 1024), (40, 17, 16, 5, 16)),
    ]
)


@st.composite
def cases(draw):
    pages = draw(STREAMS)
    cuts = sorted(draw(st.lists(st.integers(0, len(pages)), max_size=4)))
    return pages, cuts, *draw(SHAPES), draw(st.sampled_from([1, 6, 12]))


def check(case):
    """Every size and associativity, with every kernel, however the stream is fed."""
    pages, cuts, sets, ways, shift = case
    vas = np.array(pages, np.uint64) << np.uint64(shift)
    vas += np.arange(len(vas), dtype=np.uint64) % np.uint64(1 << shift)
    whole = ReuseProfile(sets, ways, page_shift=shift)
    whole.feed(vas)
    rows = whole.table()
    probe = np.random.default_rng(len(pages)).permutation(len(rows))[:12]
    for i in {0, len(rows) - 1, *probe.tolist()}:
        row = rows[i]
        n_sets, n_ways = int(row["sets"]), int(row["ways"])
        expected = misses_of(pages, n_sets, n_ways)
        assert row["misses"] == whole.misses(n_sets, n_ways) == expected
        assert row["entries"] == n_sets * n_ways
        assert row["miss_ratio"] == expected / len(pages)
    for kernel in HERE:
        parts = ReuseProfile(sets, ways, page_shift=shift, kernel=kernel)
        for part in np.split(vas, cuts):
            parts.feed(part)
            parts._number_times_anew()
            # what is unpickled has the kernel "auto": lists of pages go on in it, too
            parts = pickle.loads(pickle.dumps(parts)) if len(part) & 1 else parts
        assert table_of(parts) == table_of(whole)
        assert parts.accesses == len(pages)
    check_stack(pages, vas, cuts, shift)


def check_stack(pages, vas, cuts, shift):
    """The curve of all sizes is that of the lists, as far as these go, and then ends."""
    stack = StackProfile(page_shift=shift)
    for part in np.split(vas, cuts):
        stack.feed(part)
        stack = copy.copy(stack)
    lists = ReuseProfile((1,), 400, page_shift=shift)
    lists.feed(vas)
    curve = stack.curve()
    assert stack.pages == len(curve) == len(set(pages)) <= 400
    assert curve["misses"].tolist() == table_of(lists)[: len(curve)]
    assert curve["misses"][-1] == stack.pages
    assert stack.curve(3)["misses"].tolist() == curve["misses"][:3].tolist()


test_profile, test_profile_slow = quick_and_slow(check, cases(), 60, 2000)


def test_many_regions_change_to_whole_page_numbers():
    """255 regions of 2**24 pages have short numbers; in the middle of a block there are more."""
    rng = np.random.default_rng(1)
    few = rng.integers(0, 300, 20_000) << 12
    many = rng.integers(0, 1 << 52, 9_000)
    again = np.repeat(many[-40:], 3)
    vas = np.concatenate([few, many, few, again, many[::-1], few]).astype(np.uint64)
    profiles = [ReuseProfile((1, 2, 64), (40, 16, 16), kernel=kernel) for kernel in HERE]
    for profile in profiles:
        profile.feed(vas[:25_001])
        profile.feed(vas[25_001:])
    pages = (vas >> np.uint64(12)).tolist()
    for sets, ways in [(1, 1), (1, 40), (2, 16), (64, 3), (64, 16)]:
        assert profiles[0].misses(sets, ways) == misses_of(pages, sets, ways)
    assert len({tuple(table_of(profile)) for profile in profiles}) == 1
    thawed = pickle.loads(pickle.dumps(profiles[0]))
    thawed.feed(vas)
    profiles[0].feed(vas)
    assert table_of(thawed) == table_of(profiles[0])


LISTS = ((1, 2, 4, 8, 16), 16), ((1, 4, 64, 256), (50, 16, 7, 16))


@pytest.mark.parametrize(("sets", "ways"), LISTS)
@pytest.mark.parametrize("spread", [30, 300, 5000])
def test_long_streams(sets, ways, spread):
    """Many blocks; pages that leave the lists and come again, hot ones, and runs of one page."""
    rng = np.random.default_rng(spread)
    vas = (rng.zipf(1.15, 60_000) % spread).astype(np.uint64) << np.uint64(12)
    vas[20_000:30_000] = np.repeat(vas[20_000:22_500], 4)
    vas[40_000:50_000] = np.tile(np.arange(40, dtype=np.uint64) << np.uint64(12), 250)
    tables = []
    for kernel in HERE:
        profile = ReuseProfile(sets, ways, kernel=kernel)
        for i, part in enumerate(np.array_split(vas, 7)):
            profile.feed(part)
            if i == 3:
                profile._number_times_anew()
            if i == 5:
                profile = copy.copy(profile)
        tables.append(table_of(profile))
    assert all(table == tables[0] for table in tables)
    pages = (vas >> np.uint64(12)).tolist()
    for row in profile.table()[:: len(profile.table()) // 6]:
        assert row["misses"] == misses_of(pages, int(row["sets"]), int(row["ways"]))


@pytest.mark.slow
def test_more_accesses_than_there_are_times():
    """Times are numbers of 31 bits: after 2**31 accesses they are numbered anew."""
    profile = ReuseProfile((1, 2, 4), 16)
    if not profile._number_times_anew():
        pytest.skip("this processor's kernel has lists of pages")
    rounds = 1 << 17
    vas = np.tile(np.arange(20, dtype=np.uint64) << np.uint64(12), rounds)
    for _ in range(830):
        profile.feed(vas)
    assert profile.accesses == 830 * 20 * rounds > 1 << 31
    # 20 pages in turn: 20 of one set, 10 of each of two, 5 of each of four
    for sets, pages in ((1, 20), (2, 10), (4, 5)):
        assert profile.misses(sets, min(16, pages)) == (20 if pages <= 16 else profile.accesses)
        assert profile.misses(sets, pages - 5 or 1) == profile.accesses


def test_stack_of_many_pages():
    """Tables grow and times run out, several times."""
    rng = np.random.default_rng(2)
    pages = np.concatenate(
        [rng.integers(0, 50_000, 60_000), rng.integers(0, 900, 90_000), np.arange(30_000)]
    )
    stack = StackProfile()
    stack.feed(pages << 12)
    curve = stack.curve()
    profile = ReuseProfile((1,), 1024)
    profile.feed(pages << 12)
    assert curve["misses"][:1024].tolist() == table_of(profile)
    assert len(curve) == len(np.unique(pages)) == curve["misses"][-1]
    for entries in (5_000, 25_000):
        assert curve["misses"][entries - 1] == lru_misses(pages.tolist(), entries)


def lru_misses(pages, entries):
    """As `misses_of` for one large set."""
    tlb: dict[int, None] = {}
    misses = 0
    for page in pages:
        if page in tlb:
            del tlb[page]
        else:
            misses += 1
            if len(tlb) == entries:
                del tlb[next(iter(tlb))]
        tlb[page] = None
    return misses


def zipf_streams(count: int = 10_000_000):
    """The streams whose counts pycachesim, DynamoRIO's TLB simulator and a C loop agree on."""
    rng = np.random.default_rng(12345)
    for pages in (48, 1024, 1 << 16, 1 << 24):
        weights = 1 / np.arange(1, pages + 1) ** 1.0
        uniform = rng.random(count)
        order = rng.permutation(pages)
        words = rng.integers(0, 512, count)
        if pages < 1 << 24:
            rank = np.searchsorted(np.cumsum(weights) / weights.sum(), uniform)
            yield (order[rank].astype(np.uint64) << np.uint64(12)) + (words.astype(np.uint64) << 3)
    pages = rng.integers(0, 1 << 24, count).astype(np.uint64)
    yield (pages << np.uint64(12)) + (rng.integers(0, 512, count).astype(np.uint64) << np.uint64(3))


@pytest.mark.slow
def test_counts_of_other_simulators():
    hits = []
    for vas in zipf_streams():
        profile = ReuseProfile()
        profile.feed(vas)
        hits.append(len(vas) - profile.misses(16, 4))
    assert hits == [10_000_000 - 48, 4_772_522, 2_597_235, 34]


def test_equals_the_simulator_of_one_configuration():
    """`MMU` in tlb-only mode, for some geometries."""
    try:
        from pyvirt.mmu.geometry import Cache, Geometry, TlbArray

        mmu = pv.MMU
    except (ImportError, AttributeError):
        pytest.skip("pyvirt.MMU is not there yet")
    rng = np.random.default_rng(4)
    vas = (rng.zipf(1.2, 50_000) % 5000).astype(np.uint64) << np.uint64(12)
    result = sweep(vas)
    for sets, ways in [(1, 16), (1, 64), (16, 4), (16, 6), (128, 12), (4096, 2)]:
        array = TlbArray(
            name="tlb",
            level=1,
            cache=Cache(entries=sets * ways, ways=ways),
            pages=("4K",),
            serves=("fetch", "load", "store"),
        )
        geometry = Geometry(name="one", tlbs=(array,), guest=None, host=None, nested_tlb=None)
        codes = mmu(mode="tlb-only", tlb=geometry).translate(vas).code
        assert np.count_nonzero(codes & 0x70 == 0) == result.misses(sets, ways)


# --- threads, state, bad input ----------------------------------------------------------------


def test_threads():
    """Each call is taken in whole; the misses of a stream of one page do not depend on order."""
    profile, stack = ReuseProfile(), StackProfile()
    vas = np.zeros(50_000, np.uint64)

    def work(number):
        profile.feed(vas + np.uint64(number % 2 << 40))
        stack.feed(vas)
        return profile.table()["misses"].max() + len(stack.curve())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(24)))
    assert profile.accesses == stack.accesses == 24 * 50_000
    assert profile.misses(1, 2) == 2
    assert stack.curve()["misses"].tolist() == [1]


def test_a_copy_goes_on_by_itself():
    profile = ReuseProfile((1, 4), 2)
    profile.feed([0x1000, 0x2000])
    twin = copy.deepcopy(profile)
    twin.feed([0x1000])
    assert (profile.accesses, twin.accesses) == (2, 3)
    assert (profile.misses(1, 2), twin.misses(1, 2)) == (2, 2)
    assert repr(twin) == "<ReuseProfile sets=(1, 4) max_ways=(2, 2) page_shift=12, 3 accesses>"


def test_nothing_fed():
    profile = ReuseProfile()
    profile.feed([])
    assert profile.sets == SETS
    assert len(profile.table()) == 208
    assert not profile.table()["misses"].any()
    assert not profile.table()["miss_ratio"].any()
    assert len(StackProfile().curve()) == 0
    assert "0 accesses" in repr(StackProfile())


@pytest.mark.parametrize(
    ("arguments", "options", "error", "match"),
    [
        (([],), {}, InvalidValueError, "sets"),
        (([3],), {}, InvalidValueError, "powers of two"),
        (([2, 1],), {}, InvalidValueError, "ascending"),
        (([1, 1],), {}, InvalidValueError, "ascending"),
        (([1 << 21],), {}, InvalidValueError, "sets"),
        ((4,), {}, InvalidTypeError, "sets"),
        ((["a"],), {}, InvalidTypeError, "sets"),
        (([1], 0), {}, InvalidValueError, "max_ways"),
        (([1], 1025), {}, InvalidValueError, "max_ways"),
        (([1], None), {}, InvalidTypeError, "max_ways"),
        (([1, 2], [4]), {}, InvalidValueError, "one number for each"),
        (([1 << 20], 17), {}, InvalidValueError, "at most"),
        ((), {"page_shift": 0}, InvalidValueError, "page_shift"),
        ((), {"page_shift": "x"}, InvalidTypeError, "page_shift"),
        ((), {"kernel": "sse"}, InvalidValueError, "kernel"),
        ((), {"kernel": []}, InvalidValueError, "kernel"),
    ],
)
def test_bad_profiles(arguments, options, error, match):
    with pytest.raises(error, match=match):
        ReuseProfile(*arguments, **options)


def test_bad_questions():
    profile = ReuseProfile((1, 2), 4)
    for sets, ways in [(4, 1), (1, 0), (1, 5), ("x", 1)]:
        with pytest.raises(InvalidValueError):
            profile.misses(sets, ways)
    with pytest.raises(InvalidTypeError):
        profile.misses(1, 1.5)
    for bad in (1.5, [1.5], "ab", [[1]], None):
        with pytest.raises(InvalidTypeError):
            profile.feed(bad)
        with pytest.raises(InvalidTypeError):
            StackProfile().feed(bad)
    with pytest.raises(InvalidValueError):
        profile.feed([-1])
    with pytest.raises(InvalidValueError):
        StackProfile(page_shift=49)
    with pytest.raises(InvalidValueError):
        StackProfile().curve(0)
    assert profile.accesses == 0


# --- sweep ------------------------------------------------------------------------------------


def events(*rows) -> np.ndarray:
    found = np.zeros(len(rows), EVENT_DTYPE)
    for i, (op, addr, size) in enumerate(rows):
        found[i] = op, size, 0, 0, addr, 0
    return found


def test_sweep_takes_arrays_lists_and_chunks():
    rng = np.random.default_rng(8)
    vas = rng.integers(0, 200, 5000).astype(np.uint64) << np.uint64(12)
    whole = sweep(vas)
    assert len(whole.table) == 128 + 12 * 16
    records = np.zeros(len(vas), EVENT_DTYPE)
    records["op"], records["addr"] = 1, vas
    for trace in (vas.tolist(), iter(np.array_split(vas, 7)), records, [records[:99], vas[99:]]):
        other = sweep(trace)
        assert other.accesses == len(vas)
        assert np.array_equal(other.table, whole.table)


def test_sweep_counts_the_kinds_asked_for():
    trace = events(
        (3, 0x1000, 4), (1, 0x2000, 8), (16, 0x9000, 0), (2, 0x3000, 8), (4, 0x4000, 8), (0, 0, 0)
    )
    wanted = {"load": 2, "store": 2, "fetch": 1}
    for kind, count in wanted.items():
        assert sweep(trace, kinds=[kind]).accesses == count
        assert sweep(trace, kinds=kind).accesses == count
    assert sweep(trace, kinds=("load", "store")).accesses == 3
    assert sweep(trace).accesses == 4


def test_sweep_looks_up_both_pages_of_a_crossing_access():
    trace = events((1, 0x1FFC, 8), (1, 0x1FF8, 8), (1, 0x2FFF, 1), (1, 0x2FFF, 0))
    result = sweep(trace)
    assert result.accesses == 5
    assert result.misses(1, 1) == 4  # pages 1 2 1 2 2
    assert result.misses(1, 2) == 2
    assert sweep(trace, page_shift=21).misses(1, 1) == 1


def test_sweep_events_are_those_of_traces():
    try:
        from pyvirt.traces.events import EVENT_DTYPE as THEIRS
        from pyvirt.traces.events import Op
    except ImportError:
        pytest.skip("pyvirt.traces is not there yet")
    assert THEIRS == EVENT_DTYPE
    assert (Op.LOAD, Op.STORE, Op.FETCH, Op.MODIFY) == (1, 2, 3, 4)


def test_miss_ratio_curve():
    vas = np.tile(np.arange(150, dtype=np.uint64) << np.uint64(12), 4)
    result, full = sweep(vas), sweep(vas, full=True)
    short, long = result.miss_ratio_curve(), full.miss_ratio_curve()
    assert len(short) == 128
    assert len(long) == 150
    assert np.array_equal(short, long[:128])
    assert long["misses"].tolist() == [600] * 149 + [150]
    assert long["miss_ratio"][-1] == 0.25
    two = result.miss_ratio_curve(ways=2)
    assert two["entries"].tolist() == [2 << k for k in range(13)]
    for bad in (0, 17 * 16, "x"):
        with pytest.raises(InvalidValueError, match="the sweep has no"):
            result.miss_ratio_curve(bad)
    with pytest.raises(InvalidValueError, match="fully associative"):
        sweep(vas, sets=[2]).miss_ratio_curve()
    with pytest.raises(InvalidValueError, match="the sweep has no TLB"):
        result.misses(3, 1)
    assert isinstance(pickle.loads(pickle.dumps(full)), Sweep)


@pytest.mark.parametrize(
    ("trace", "options", "error"),
    [
        (5, {}, InvalidTypeError),
        (None, {}, InvalidTypeError),
        ([1.5], {}, InvalidTypeError),
        ("abc", {}, InvalidTypeError),
        (iter([1, 2]), {}, InvalidTypeError),
        (np.zeros(3), {}, InvalidTypeError),
        (np.zeros(3, [("a", "u1")]), {}, InvalidTypeError),
        (np.zeros((2, 2), EVENT_DTYPE), {}, InvalidTypeError),
        ([-1], {}, InvalidValueError),
        ([1], {"kinds": "loads"}, InvalidValueError),
        ([1], {"kinds": ()}, InvalidValueError),
        ([1], {"kinds": 3}, InvalidTypeError),
        ([1], {"kinds": [[]]}, InvalidTypeError),
        ([1], {"sets": 4}, InvalidTypeError),
        ([1], {"sets": [5]}, InvalidValueError),
        ([1], {"ways": 0}, InvalidValueError),
        ([1], {"ways": "x"}, InvalidTypeError),
        ([1], {"page_shift": 60}, InvalidValueError),
    ],
)
def test_bad_sweeps(trace, options, error):
    with pytest.raises(error):
        sweep(trace, **options)
