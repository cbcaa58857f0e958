"""The memory manager beside a slow model of the same rules, page for page."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle.slowhostmem import SlowHost, SlowVM
from pyvirt.hostmem import HostMemory

BITS = {
    "esx2002": [set(), set(), {"balloon"}, {"swap"}, {"swap", "block"}],
    "esx6": [
        set(),
        {"share"},
        {"share", "balloon"},
        {"share", "swap"},
        {"swap", "block"},
    ],
}
INPUTS = (
    "shares", "reservation", "limit", "used", "active", "touch_ns", "tools", "balloon_max",
    "large_pages", "sharing", "compressible", "vcpus", "overhead",
)  # fmt: skip
PLACES = (
    "untouched", "mapped", "zipped", "swapped", "ballooned", "shared", "scanned", "large",
    "zipped_active", "swapped_active", "last_active", "estimate", "target", "balloon_target",
    "swap_target", "starved", "cursor", "period",
)  # fmt: skip


def minimum(total):
    """The minimum of free memory, from the text of the rule."""
    gib = 1 << 18
    if total >= 28 * gib:
        return 899 * 256 + (total - 28 * gib) // 100
    parts = ((0, 4, 6), (4, 12, 4), (12, 28, 2))
    sums = sum(min(max(total - a * gib, 0), (b - a) * gib) * p for a, b, p in parts)
    return min(sums // 100, 899 * 256)


def pair(seed, policy, vms):
    """A host and its slow twin, with the same random VMs."""
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 3000, vms)
    total = int(size.sum() * rng.uniform(0.4, 1.6)) + 200 * vms
    fast = HostMemory(total, policy, classes=("os", "app"), seed=seed)
    columns = {
        "memory": size,
        "shares": rng.integers(1, 50, vms),
        "limit": np.where(rng.random(vms) < 0.8, -1, size // 2),
        "reservation": np.where(rng.random(vms) < 0.7, 0, size // 8),
        "tools": (rng.random(vms) < 0.8).astype(int),
        "balloon_max": np.where(rng.random(vms) < 0.7, -1, size // 3),
        "large_pages": (rng.random(vms) < 0.5).astype(int),
        "sharing": (rng.random(vms) < 0.8).astype(int),
        "salt": rng.integers(-1, 2, vms),
        "compressible": rng.integers(0, 1001, vms),
        "vcpus": rng.integers(1, 5, vms),
        "overhead": rng.integers(0, 50, vms),
        "touch_ns": rng.integers(1, 20 * 10**9, vms),
    }
    fast.add_many(np.zeros(vms, int), **columns)
    if policy == "esx2002":
        base, enter, leave, large = total, (0, 4, 2, 1), (0, 6, 4, 2), 0
        band, cache = Fraction(1), 0.0
    else:
        base, enter, leave, large = minimum(total), (100, 64, 32, 16), (100, 64, 32, 16), 400
        band, cache = Fraction(11, 10), 0.1
    slow = SlowHost(
        total,
        [math.ceil(Fraction(base * x, 100)) for x in enter],
        [math.ceil(Fraction(base * x, 100) * band) for x in leave],
        math.ceil(Fraction(base * large, 100)),
        math.ceil(Fraction(base * max(leave), 100) * band),
        BITS[policy],
        tax=0.75,
        seed=seed,
        cache_part=cache,
    )
    for i in range(vms):
        inputs = {name: int(fast.vms[name][i]) for name in INPUTS}
        salt = int(columns["salt"][i])
        alone = ("alone", i) if policy == "esx6" else 0
        slow.vms.append(SlowVM(i, int(size[i]), 3, group=alone if salt < 0 else salt, **inputs))
    return fast, slow, rng


def compare(fast, slow):
    for name in PLACES:
        assert fast.vms[name].tolist() == [getattr(vm, name) for vm in slow.vms], name
    for name in slow.vms[0].counts:
        assert fast.vms[name].tolist() == [vm.counts[name] for vm in slow.vms], name
    assert fast.hosts.copies[0] == slow.copies
    assert fast.hosts.free[0] == slow.free
    assert fast.hosts.state[0] == slow.state


def change(memory, rng, calm):
    """Let VMs go to new levels of use: some at once, or all by small steps, as balloons can follow.

    Contents change less often, so that some are found and shared.
    """
    size = memory.vms.memory
    if calm:
        drift = (size * rng.normal(0.01, 0.03, len(size))).astype(np.int64)
        memory.vms.used[:] = np.clip(memory.vms.used + drift, 0, size)
        part = 0.3
    else:
        some = rng.random(len(size)) < 0.5
        memory.vms.used[some] = (size * rng.random(len(size))).astype(np.int64)[some]
        part = rng.random(len(size))
    memory.vms.active[:] = (memory.vms.used * part).astype(np.int64)
    for kind in ("zero", "os", "app"):
        some = rng.random(len(size)) < 0.2
        memory.content(kind)[some] = (size * rng.random(len(size)) / 4).astype(np.int64)[some]


def run(seed, policy, vms, steps):
    fast, slow, rng = pair(seed, policy, vms)
    calm = bool(seed % 3)
    for dt in steps:
        change(fast, rng, calm)
        for i, vm in enumerate(slow.vms):
            vm.used, vm.active = int(fast.vms.used[i]), int(fast.vms.active[i])
            vm.content = [int(fast.content(kind)[i]) for kind in ("zero", "os", "app")]
        # now and then the counts of a pass of the scanner, or a balloon's fill, in one step
        dt = dt if seed % 2 else dt * 20
        fast.step(dt)
        slow.step(dt)
        compare(fast, slow)
        fast.check()
    return fast, slow


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from(["esx6", "esx2002"]),
    st.integers(1, 6),
    st.lists(st.integers(1, 10 * 10**9), min_size=1, max_size=40),
)
def test_page_for_page(seed, policy, vms, steps):
    run(seed, policy, vms, steps)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["esx6", "esx2002"])
@pytest.mark.parametrize("seed", range(20))
def test_page_for_page_for_long(seed, policy):
    steps = np.random.default_rng(seed).integers(1, 2 * 10**9, 300).tolist()
    run(seed, policy, 6, steps)


def test_the_runs_above_share_and_reclaim_by_all_means():
    """They are worth something: all that can happen does."""
    totals = {}
    for seed in range(12):
        for policy in ("esx6", "esx2002"):
            steps = np.random.default_rng(seed).integers(1, 10 * 10**9, 60).tolist()
            fast, slow = run(seed, policy, 5, steps)
            for name in slow.vms[0].counts:
                totals[name] = totals.get(name, 0) + int(fast.vms[name].sum())
            totals["copies"] = totals.get("copies", 0) + slow.copies
    assert min(totals.values()) > 0, totals
