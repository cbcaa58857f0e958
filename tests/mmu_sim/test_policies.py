"""Every policy, number of sets and hash: victims, hits and counters against the plain model."""

from __future__ import annotations

import random

import numpy as np
import pytest

import pyvirt as pv
from mmu_sim.engine import pair, same_state
from oracle.mmu_caches import Context, Line, SlowCache
from pyvirt.mmu.geometry import Cache, Geometry, TlbArray

POLICIES = ("lru", "fifo", "tree-plru", "bit-plru", "random")
SHAPES = [
    *((entries, ways) for entries, ways in ((1, 1), (2, 2), (4, 4), (8, 8), (16, 4), (64, 4))),
    *((entries, ways) for entries, ways in ((12, 4), (6, 3), (7, 7), (96, 6), (72, 12), (64, 64))),
    *((entries, ways) for entries, ways in ((20, 4), (3, 1), (130, 13), (256, 16), (128, 128))),
]


def fits(policy: str, ways: int) -> bool:
    if policy == "tree-plru":
        return ways <= 64 and not ways & (ways - 1)
    return policy != "bit-plru" or ways <= 64


CASES = [
    (entries, ways, policy, "linear")
    for policy in POLICIES
    for entries, ways in SHAPES
    if fits(policy, ways)
] + [
    (ways << n, ways, policy, f"xor-{n}")
    for policy in POLICIES
    for n, ways in ((1, 2), (2, 4), (4, 4), (7, 2))
    if fits(policy, ways)
]


def nothing():
    return None, {"mode": "tlb-only"}


def stream(pages: int, count: int, seed: int) -> list[int]:
    """Pages used with very different frequency, a few runs, and offsets."""
    generator = random.Random(seed)
    vas = []
    while len(vas) < count:
        page = min(int(generator.paretovariate(0.6)) % (2 * pages), pages)
        length = generator.choice((1, 1, 1, 5))
        vas += [(page + i) << 12 | generator.randrange(4096) for i in range(length)]
    return vas[:count]


@pytest.mark.parametrize(("entries", "ways", "policy", "hash"), CASES)
def test_one_level(entries: int, ways: int, policy: str, hash: str):
    """Small enough to overflow: each code tells hit or miss, so each victim shows."""
    shape = Cache(entries, ways, policy, hash)
    geometry = Geometry("one", (TlbArray("l1", 1, shape),))
    slow, fast = pair(nothing, tlb=geometry, rng=3)
    vas = stream(max(3, 2 * entries), 2500, entries * 31 + ways)
    want, got = slow.translate(vas), fast.translate(np.array(vas, np.uint64))
    assert got.pa.tolist() == vas
    assert got.code.tolist() == want.code.tolist()
    same_state(slow, fast)


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("first", POLICIES)
@pytest.mark.parametrize("second", POLICIES)
def test_three_levels(first: str, second: str, inclusive: bool):
    """Levels that fill each other, with separate arrays for fetches and two for the rest."""
    arrays = (
        TlbArray("i", 1, Cache(4, 2, first), serves=("fetch",)),
        TlbArray("d", 1, Cache(8, 4, first), serves=("load", "store")),
        TlbArray("second", 2, Cache(12, 4, second)),
        TlbArray("bank0", 3, Cache(16, 4, second, "xor-2")),
        TlbArray("bank1", 3, Cache(16, 2, first)),
    )
    geometry = Geometry("three", arrays, inclusive=inclusive)
    slow, fast = pair(nothing, tlb=geometry, rng=9)
    vas = stream(60, 1200, 77)
    for access in "rwxr":
        want, got = slow.translate(vas, access), fast.translate(np.array(vas, np.uint64), access)
        assert got.code.tolist() == want.code.tolist()
        vas = vas[::-1]
    same_state(slow, fast)


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("levels", [5, 7])
def test_many_levels(levels: int, policy: str, inclusive: bool):
    """Each level holds twice what the one before does; in one call after the other and a batch."""
    arrays = [
        TlbArray(f"L{level}", level, Cache(2 << level, 2, policy)) for level in range(1, levels + 1)
    ]
    arrays.insert(0, TlbArray("fetch", 1, Cache(2, 2, policy), serves=("fetch",)))
    arrays.append(TlbArray("bank", levels, Cache(6, 2, policy)))
    geometry = Geometry("deep", tuple(arrays), inclusive=inclusive)
    slow, fast = pair(nothing, tlb=geometry, rng=4)
    vas = stream(300, 2500, levels)
    met: set[int] = set()
    for access in "rwxr":
        want = slow.translate(vas, access)
        got = fast.translate(np.array(vas, np.uint64), access)
        assert got.code.tolist() == want.code.tolist()
        assert got.pa.tolist() == vas
        assert got.describe(len(vas) - 1).startswith(("hit in TLB level", "walk of 0"))
        met |= set(got.hit_level.tolist())
        vas = vas[::-1]
    for va in vas[:300]:
        want, one = slow.translate_one(va, "w", False), fast.translate(va, "w")
        assert (one.code, one.hit_level) == (want.code, want.code >> 4 & 7)
    assert met == set(range(levels + 1))
    assert fast.stats()["tlb_hits"].shape == (7, 3)
    assert fast.stats()["tlb_hits"][levels:].sum() == 0
    same_state(slow, fast)


def test_a_seed_and_its_generator_draw_the_same_victims():
    geometry = Geometry("random", (TlbArray("l1", 1, Cache(8, 4, "random")),))
    vas = np.array(stream(40, 500, 5), np.uint64)
    seeds = (11, np.random.default_rng(11), 12)
    codes = [
        pv.MMU("tlb-only", tlb=geometry, rng=rng).translate(vas).code.tolist() for rng in seeds
    ]
    assert codes[0] == codes[1]
    assert codes[0] != codes[2]


# ------------------------------------------------------- the model's policies, by hand


def victims(policy: str, ways: int, actions: str) -> list[int]:
    """Ways in the order they are given up; actions are page letters of one set."""
    array = SlowCache(Cache(ways, ways, policy))
    context, order = Context(), []
    for letter in actions:
        key = ord(letter)
        place = array.find(key, 0, context)
        if place:
            array.touch(place)
            continue
        full = not array.has_room(key)
        array.insert(Line(key, 0, context, None))
        if full:
            order.append(array.find(key, 0, context)[1])
    return order


@pytest.mark.parametrize(
    ("policy", "actions", "ways"),
    [
        # Fills a b c d into ways 0 to 3, then uses, then misses.
        ("lru", "abcd" + "ab" + "ef", [2, 3]),
        ("lru", "abcd" + "dcba" + "efgh", [3, 2, 1, 0]),
        ("fifo", "abcd" + "abab" + "ef", [0, 1]),
        # Last touches: d (away from the right half), so left; root points left, node 1 at a.
        ("tree-plru", "abcd" + "e", [0]),
        ("tree-plru", "abcd" + "a" + "e", [2]),
        ("tree-plru", "abcd" + "ac" + "ef", [1, 3]),
        # The fill of d sets the last bit and clears the others.
        ("bit-plru", "abcd" + "e", [0]),
        ("bit-plru", "abcd" + "ab" + "e", [2]),
        ("bit-plru", "abcd" + "abc" + "e", [0]),
    ],
)
def test_victims_by_hand(policy: str, actions: str, ways: list[int]):
    assert victims(policy, 4, actions) == ways


def test_xorshift_by_hand():
    """The first outputs of xorshift64* from state 1 (Vigna 2016), upper halves."""
    array = SlowCache(Cache(4, 4, "random"), seed=1)
    x = 1 << 25 ^ 1
    x ^= x >> 27
    assert array.draw() == (x * 0x2545F4914F6CDD1D & (1 << 64) - 1) >> 32
    assert array.state == x


def test_hash_by_hand():
    array = SlowCache(Cache(512, 4, "lru", "xor-7"))
    assert array.index(0b1010101_0000000) == 0b1010101
    assert array.index(0b1111111_1111111) == 0
    assert array.index(1 << 14 | 5) == 5  # only two groups of bits meet in 7 bits
    assert SlowCache(Cache(12, 4)).index(10) == 1
